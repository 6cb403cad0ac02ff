"""`kill -9` of the orchestrator during a start: afterwards every conversation is ready, or failed with a reason, and no
runtime is without an owner."""

import json
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.models import scripted_model
from support.processes import OrchestratorProcess, orchestrator_at, wait_for
from support.receivers import webhook_receiver

RECONCILED_WITHIN = 40.0


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        yield Path(folder) / "data"


def owned(nestor: OrchestratorProcess, key: str, *ids: str) -> set[str]:
    """The runtimes that the records want."""
    names = set()
    for id in ids:
        record = nestor.conversation(key, id)
        if record["phase"] == "ready":
            names.add(f"nestor-{record['runtime']['id']}-g{record['runtime']['generation']}")
    return names


@pytest.mark.parametrize("stage", ["start", "alive", "settings"])
def test_killed_during_a_start_the_conversation_becomes_ready(data_dir: Path, stage: str) -> None:
    with scripted_model() as model, orchestrator_at(data_dir) as nestor:
        key = nestor.tenant("acme", model)
        accepted = nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
        wait_for_stage_begun(nestor, key, accepted["operation"], stage)
        nestor.kill()
        nestor.start()
        record = nestor.until(key, accepted["id"], "ready", "failed")
        assert record["phase"] == "ready", record
        wait_for(lambda: nestor.claims() == owned(nestor, key, accepted["id"]), RECONCILED_WITHIN)


def wait_for_stage_begun(nestor: OrchestratorProcess, key: str, operation: str, stage: str) -> None:
    def begun() -> bool:
        stages = nestor.call("GET", f"/api/v2/operations/{operation}", key, status=200)["stages"]
        return {item["name"]: item["state"] for item in stages}[stage] != "waiting"

    wait_for(begun, 30, pause=0.002)


def test_killed_while_the_repository_is_cloned_it_fails_with_a_reason(data_dir: Path) -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # accepts and never answers, so that the clone takes for ever
    with silent, scripted_model() as model, orchestrator_at(data_dir) as nestor:
        key = nestor.tenant("acme", model)
        host = f"http://127.0.0.1:{silent.getsockname()[1]}"
        nestor.call("PUT", "/api/v2/git-providers/github", key, json={"token": "t-1", "host": host}, status=200)
        body = {"repository": "acme/app", "initial_message": "never said"}
        accepted = nestor.call("POST", "/api/v2/conversations", key, json=body, status=202)
        nestor.until_stage(key, accepted["operation"], "converse")
        nestor.kill()
        silent.close()  # now it is refused
        nestor.start()
        record = nestor.until(key, accepted["id"], "ready", "failed")
        assert (record["phase"], record["step"], record["reason"]) == ("failed", "converse", "repository_unavailable")
        assert record["hint"]
        wait_for(lambda: nestor.claims() == set(), RECONCILED_WITHIN)


def test_a_ready_conversation_notices_nothing_of_a_killed_orchestrator(data_dir: Path) -> None:
    with scripted_model() as model, orchestrator_at(data_dir) as nestor:
        key = nestor.tenant("acme", model)
        body = {"initial_message": 'SCRIPT:[{"text": "first"}, {"text": "second"}]'}
        before = nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=60", key, json=body, status=200)
        claims = nestor.claims()
        nestor.kill()
        nestor.start()
        after = nestor.conversation(key, before["id"])
        assert after["phase"] == "ready"
        assert after["runtime"] == before["runtime"], "address and key survive"
        assert nestor.claims() == claims
        nestor.call("POST", f"/api/v2/conversations/{before['id']}/messages", key, json={"content": "more"}, status=202)
        wait_for(lambda: said(nestor, key, before["id"]).count("user") == 2, 60)


def said(nestor: OrchestratorProcess, key: str, id: str) -> list[str]:
    page = nestor.call("GET", f"/api/v2/conversations/{id}/events", key, status=200)
    return [item["event"]["source"] for item in page["items"] if item["event"]["kind"] == "MessageEvent"]


def used(nestor: OrchestratorProcess, key: str, id: str) -> list[dict[str, Any]]:
    """What the conversation's log says that it has used, the latest last."""
    found, after = [], 0
    while True:
        page = nestor.call("GET", f"/api/v2/conversations/{id}/events?after={after}&limit=100", key, status=200)
        found += [item["event"]["value"] for item in page["items"] if item["event"].get("key") == "stats"]
        if not page["items"]:
            return [next(iter(value["usage_to_metrics"].values())) for value in found]
        after = page["items"][-1]["sequence"]


def test_killed_again_and_again_while_an_agent_spends_each_answer_is_paid_once(data_dir: Path) -> None:
    allowed = {"NESTOR_ALLOW_HOOK_HOSTS": "127.0.0.1", "NESTOR_HOOK_BACKOFF_SECONDS": "0.05"}
    with (
        webhook_receiver() as receiver,
        scripted_model() as model,
        orchestrator_at(data_dir, **allowed) as nestor,
    ):
        key = nestor.tenant("acme", model)
        prices = {"agent_settings": {"llm": {"input_cost_per_token": 0.001, "output_cost_per_token": 0.03}}}
        nestor.call("PATCH", "/api/v2/settings", key, json=prices, status=200)
        (tenant,) = nestor.call("GET", "/api/v2/tenants", status=200)["items"]
        percents = list(range(10, 101, 10))
        budget = {"monthly_usd": 10, "thresholds": percents}
        nestor.call("PATCH", f"/api/v2/tenants/{tenant['id']}", json={"budget": budget}, status=200)
        hook = {"url": receiver.url, "events": ["budget.threshold_reached"]}
        nestor.call("POST", "/api/v2/webhooks", key, json=hook, status=201)
        steps = [{"tool": "terminal", "args": {"command": f"sleep 0.1; echo {n}"}} for n in range(40)]
        body = {"initial_message": "SCRIPT:" + json.dumps([*steps, {"text": "done"}])}
        id = nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=60", key, json=body, status=200)["id"]
        for kill in range(4):
            wait_for(lambda kill=kill: len(used(nestor, key, id)) > 4 * kill, 60)
            time.sleep(0.05 * kill)  # anywhere within a batch
            nestor.kill()
            nestor.start()
        wait_for(lambda: len(used(nestor, key, id)) == 41, 90)
        last = used(nestor, key, id)[-1]
        tokens = last["accumulated_token_usage"]
        own = {"usd": round(last["accumulated_cost"], 6)}
        own |= {name: tokens[name] for name in ("prompt_tokens", "completion_tokens")}
        assert nestor.conversation(key, id)["cost"] == own
        spent = nestor.call("GET", "/api/v2/usage", key, status=200)["spent"]
        assert {name: spent[name] for name in own} == own
        reached = [percent for percent in percents if own["usd"] >= 10 * percent / 100]
        assert reached
        wait_for(lambda: len({post.body["id"] for post in receiver.posts}) >= len(reached), 30)
        told = {post.body["id"]: post.body["data"]["threshold_percent"] for post in receiver.posts}
        assert sorted(told.values()) == reached
