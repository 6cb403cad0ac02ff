"""What the orchestrator pushes to a live runtime of ours, into the real one: replaced, taken out, repeatable."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from orchestrator.domain.drift import Part, Seen
from orchestrator.domain.git import GitProvider
from orchestrator.domain.secrets import SecretText
from orchestrator.nested import stock, wire
from orchestrator.nested.client import RuntimeClients
from orchestrator.nested.exchange import Exchange
from orchestrator.nested.wire import Bundle
from orchestrator.services.drift import seen_by
from orchestrator.services.held import held_by
from orchestrator.services.start import made
from orchestrator.services.upkeep import push_own, push_parts
from tests.support.runtimes import KEY, runtime_at

pytestmark = pytest.mark.anyio


def bundle(model: str, *, base_url: str | None, providers: bool, **secrets: str) -> Bundle:
    llm: dict[str, Any] = {"model": model, "api_key": SecretText("sk-1"), "temperature": 0.5}
    return Bundle(
        settings={"agent_settings": {"llm": llm | ({"base_url": base_url} if base_url else {})}},
        providers=[GitProvider("github", SecretText("ghp_x"), None, None)] if providers else [],
        secrets={name: SecretText(value) for name, value in secrets.items()},
    )


async def test_a_runtime_holds_what_was_pushed_last(tmp_path: Path) -> None:
    first = bundle("a/one", base_url="http://127.0.0.1:9/v1", providers=True, KEPT="old", GONE="value")
    second = bundle("a/two", base_url=None, providers=False, KEPT="new", ADDED="value")
    key = SecretText(KEY)
    async with runtime_at(tmp_path) as runtime:
        async with RuntimeClients().open(runtime.url, key) as client:
            await push_own(client, first, None)
            await runtime.http.put("/api/settings/secrets", json={"name": "CLIENTS", "value": "its own"})
            held = held_by(first, key, "1.0", at=datetime.now(UTC))
            for _ in range(2):  # a push whose reply was lost is pushed again
                await push_own(client, second, held)
        settings = (await runtime.http.get("/api/settings")).json()
        assert settings["agent_settings"]["llm"]["model"] == "a/two"
        assert settings["agent_settings"]["llm"]["base_url"] is None
        assert settings["agent_settings"]["llm"]["temperature"] == 0.5
        assert settings["llm_api_key_is_set"] is True
        assert settings["provider_tokens_set"] == {}
        listed = (await runtime.http.get("/api/settings/secrets")).json()["secrets"]
        assert sorted(item["name"] for item in listed) == ["ADDED", "CLIENTS", "KEPT"]
        assert (await runtime.http.get("/api/settings/secrets/KEPT")).text == "new"


@pytest.mark.parametrize("older", [False, True])
async def test_what_the_flat_record_cannot_say_arrives_in_one_call_or_in_two(tmp_path: Path, older: bool) -> None:
    """An older runtime of ours does not know the diffs beside the flat record, passes them over, and says nothing."""
    calls: list[str] = []

    class Older(Exchange):
        async def ask(self, method: str, target: str, headers: Any, content: Any = None, **named: Any) -> Any:
            calls.append(method)
            if older and method == "POST":
                known = {name: value for name, value in json.loads(content).items() if not name.endswith("_diff")}
                content = json.dumps(known).encode()
            return await super().ask(method, target, headers, content, **named)

    pushed = bundle("a/one", base_url=None, providers=False)
    async with runtime_at(tmp_path) as runtime:
        async with RuntimeClients(exchange=Older).open(runtime.url, SecretText(KEY)) as client:
            await client.store_settings(wire.settings_body(pushed.settings), wire.settings_rest(pushed.settings))
        shown = (await runtime.http.get("/api/settings")).json()["agent_settings"]["llm"]
    assert (shown["model"], shown["temperature"]) == ("a/one", 0.5)
    assert calls == (["POST", "PATCH"] if older else ["POST"])


def test_the_digest_follows_every_value_and_the_key() -> None:
    at, key = datetime.now(UTC), SecretText("inner")
    one = held_by(bundle("a/one", base_url=None, providers=True, A="1"), key, "1.0", at=at)
    assert one.secrets == ("A",)
    assert one.providers == ("github",)
    again = held_by(bundle("a/one", base_url=None, providers=True, A="1"), key, "2.0", at=at)
    assert again.digest == one.digest
    others = [
        held_by(bundle("a/two", base_url=None, providers=True, A="1"), key, "1.0", at=at),
        held_by(bundle("a/one", base_url=None, providers=False, A="1"), key, "1.0", at=at),
        held_by(bundle("a/one", base_url=None, providers=True, A="2"), key, "1.0", at=at),
        held_by(bundle("a/one", base_url=None, providers=True, A="1"), SecretText("other"), "1.0", at=at),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 5


async def test_digests_follow_what_was_pushed_and_nothing_that_others_add(tmp_path: Path) -> None:
    pushed = bundle("a/one", base_url=None, providers=True, KEPT="low-entropy")
    held = held_by(pushed, SecretText(KEY), "1.0", at=datetime.now(UTC))
    async with runtime_at(tmp_path) as runtime, RuntimeClients().open(runtime.url, SecretText(KEY), fence=7) as client:

        async def look() -> Seen:
            return made(await seen_by(client, held, SecretText(KEY), is_stock=False))

        await push_own(client, pushed, None)
        before = await look()
        added = {"agent_settings_diff": {"llm": {"top_p": 0.3}, "mcp_config": {"own": {"command": "true"}}}}
        assert (await runtime.http.patch("/api/settings", json=added)).status_code == 200
        await runtime.http.put("/api/settings/secrets", json={"name": "CLIENTS", "value": "its own"})
        gitlab = {"provider_tokens": {"gitlab": {"token": "glpat_own"}}, "keep_others": True}
        assert (await runtime.http.post("/api/add-git-providers", json=gitlab)).status_code == 200
        assert before.differs(await look()) == ()
        breaks: list[tuple[Part, str, str, Any]] = [
            (Part.SETTINGS, "PATCH", "/api/settings", {"agent_settings_diff": {"llm": {"api_key": "sk-other"}}}),
            (Part.PROVIDERS, "POST", "/api/add-git-providers", gitlab | {"keep_others": False}),
            (Part.SECRETS, "DELETE", "/api/settings/secrets/KEPT", None),
            (Part.SECRETS, "PUT", "/api/settings/secrets", {"name": "KEPT", "value": "another"}),
        ]
        for part, method, path, body in breaks:
            assert (await runtime.http.request(method, path, json=body)).status_code == 200
            assert before.differs(await look()) == (part,)
            await push_parts(client, pushed, [part])
            assert before.differs(await look()) == ()
        settings = (await runtime.http.get("/api/settings")).json()
        assert settings["agent_settings"]["llm"]["top_p"] == 0.3
        assert list(settings["agent_settings"]["mcp_config"]) == ["own"]
        assert settings["provider_tokens_set"] == {"gitlab": None, "github": None}
        assert (await runtime.http.get("/api/settings/secrets/CLIENTS")).text == "its own"


async def test_digests_are_for_the_holder_of_a_fence_and_give_nothing_away(tmp_path: Path) -> None:
    pushed = bundle("a/one", base_url=None, providers=True, KEPT="low-entropy")
    held = held_by(pushed, SecretText(KEY), "1.0", at=datetime.now(UTC))
    names = {"settings": held.settings, "git_providers": held.providers, "secrets": held.secrets}
    path, told = "/api/settings/digests", []
    for folder, key in (("one", KEY), ("two", "another-session-key")):
        async with runtime_at(tmp_path / folder, session_api_keys=[SecretStr(key)]) as runtime:
            async with RuntimeClients().open(runtime.url, SecretText(key), fence=7) as client:
                await push_own(client, pushed, None)
            async with httpx.AsyncClient(base_url=runtime.url, trust_env=False) as http:
                http.headers["X-Session-API-Key"] = key
                assert (await http.post(path, json=names)).status_code == 403
                assert (await http.post(path, json=names, headers={"X-Fence": "6"})).status_code == 409
                answer = await http.post(path, json=names, headers={"X-Fence": "7"})
                again = await http.post(path, json=names, headers={"X-Fence": "8"})
                assert answer.json() == again.json()
                told.append(answer)
                http.headers["X-Session-API-Key"] = "wrong"
                assert (await http.post(path, json=names, headers={"X-Fence": "9"})).status_code == 401
    one, two = (answer.json() for answer in told)
    assert set(one) == {"settings", "git_providers", "secrets"}
    assert not set(one.values()) & set(two.values()), "the same values under another key"
    assert len({*one.values(), *two.values()}) == 6
    for value in ("low-entropy", "a/one", "sk-1", "ghp_x"):
        assert all(value not in answer.text for answer in told)
        assert hashlib.sha256(value.encode()).hexdigest()[:32] not in told[0].text


async def test_of_a_stock_server_what_it_shows_is_compared(tmp_path: Path) -> None:
    """Ours speaks the same contract; the orchestrator asks nothing else of it here."""
    pushed, key = bundle("a/one", base_url=None, providers=True, KEPT="value"), SecretText(KEY)
    held = held_by(pushed, key, "1.0", at=datetime.now(UTC))
    async with runtime_at(tmp_path) as runtime, RuntimeClients().open(runtime.url, key, fence=7) as client:

        async def look() -> Seen:
            return made(await seen_by(client, held, key, is_stock=True))

        await client.patch_settings(stock.settings_body(pushed.settings))
        for name, value in {**stock.provider_secrets(pushed), **pushed.secrets}.items():
            await client.put_secret(name, value)
        before = await look()
        assert not before.values
        await runtime.http.put("/api/settings/secrets", json={"name": "CLIENTS", "value": "its own"})
        assert before.differs(await look()) == ()
        model = {"agent_settings_diff": {"llm": {"model": "b/two"}}}
        assert (await runtime.http.patch("/api/settings", json=model)).status_code == 200
        assert before.differs(await look()) == (Part.SETTINGS,)
        await client.delete_secret("github_token")
        assert before.differs(await look()) == (Part.SETTINGS, Part.PROVIDERS)
        await client.delete_secret("KEPT")
        assert before.differs(await look()) == tuple(Part)
