"""The public SDK client: workspaces of several kinds, long and many conversations, failures, a killed server."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.runtimes import KEY, MODEL_KEY, RuntimeProcess, eventually, message, terminal
from tests.support.sdk import RunClient, repository

pytestmark = [pytest.mark.sdk, pytest.mark.timeout(300)]


def test_workspaces_of_every_kind_that_needs_no_engine(
    tmp_path: Path, process: RuntimeProcess, model_url: str, run_client: RunClient
) -> None:
    work, scratch = repository(tmp_path / "work"), tmp_path / "scratch"
    scratch.mkdir()
    process.start()
    report = run_client("workspaces.py", process.url, KEY, model_url, MODEL_KEY, str(work), str(scratch))
    assert report["background"] == [None, "begun\n", -15]
    assert report["files"] == {
        "sizes": [256 * 4096] * 2,
        "same": True,
        "absent": [False, True],
        "changes": [["ADDED", "new folder/é.bin"], ["UPDATED", "a"]],
        "diff": ["one", "one\ntwo"],
    }
    assert report["scoped"] == {
        "pwd": f"{work}\n",
        "key": True,
        "upload": True,
        "changed": True,
        "background": [None, "begun\n", -15],
        "after release": "here\n",
    }
    assert report["asynchronous"] == [5, "out\n", True, True]
    assert report["provided"] == {
        "conversation": [True, 4],
        "asked": ["GET /sessions/session", "POST /start", "POST /stop"],
    }
    assert report["local_mode"] == [True, 4]
    assert report["settings"] == {
        "active": ["openai/slow", "profile:slow", True],
        "named": ["openai/quick", 0.5, 0, True],
        "mcp": ["true", ["x"], {"API_TOKEN": "of-the-mcp-server"}],
        "secrets": {"TWO": ["/api/settings/secrets/TWO", True]},
        "info": [True, True],
    }


def test_long_and_many_conversations_branches_and_failures(
    tmp_path: Path, process: RuntimeProcess, model_url: str, run_client: RunClient
) -> None:
    process.start()
    report = run_client("conversations.py", process.url, KEY, model_url, MODEL_KEY, str(tmp_path / "work"))
    print(report.pop("seconds"))  # noqa: T201 - shown when something fails
    assert report == {
        "a_thousand_events": {
            "status": "finished",
            "enough": True,
            "all": True,
            "in order": True,
            "called back once": True,
            "gone": True,
        },
        "a_crowd": {"own answers": True, "left": 0},
        "branches": {
            "whole": True,
            "middle": True,
            "part": True,
            "info": [{"kind": "branch"}, True],
            "costs": True,
            "fresh costs": 0.0,
            "statuses": ["finished", "finished"],
            "log kept": True,
            "title": "The trunk",
        },
        "failures": {
            "refused": [True, "LLMAuthenticationError", False],
            "refused status": "error",
            "stuck": [True, None, True],
            "stuck status": "stuck",
            "after": "finished",
            "limit": "MaxIterationsReached",
            "deleted": True,
        },
        "coming_back": {"own id": True, "kept": True, "again": "finished", "same": True, "gone": True},
        "hidden": {"a token": True, "lengths": True, "in the open": [False] * 3, "status": "finished"},
        "hooks": {"stops": [["Stop", True], ["Stop", False]], "finishes": 2, "status": "finished", "config": True},
        "streamed": {"text": "Word by word."},
    }


def test_a_server_that_is_killed_and_comes_back(
    tmp_path: Path, process: RuntimeProcess, model_url: str, run_client: RunClient
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    process.start()
    arguments = (process.url, KEY, model_url, MODEL_KEY, str(tmp_path / "work"), str(marks))
    with (
        httpx.Client(base_url=f"{process.url}/api", headers={"X-Session-API-Key": KEY}, trust_env=False) as http,
        ThreadPoolExecutor(1) as background,
    ):
        client = background.submit(run_client, "reconnecting.py", *arguments)

        def reached(mark: str) -> None:
            eventually(lambda: client.done() or (marks / mark).exists(), 120)
            if client.done():
                client.result()

        def killed() -> str:
            process.kill()
            process.start(same_port=True)
            return str(http.get("/conversations/search").json()["items"][0]["id"])

        reached("kill")
        killed()
        reached("second")
        id = killed()
        body = {**message([terminal("echo unheard"), {"text": "Nobody listens."}]), "run": True}
        assert http.post(f"/conversations/{id}/events", json=body).status_code == 200
        eventually(lambda: http.get(f"/conversations/{id}").json()["execution_status"] == "finished", 60)
        (marks / "said").touch()
        reached("third")
        (marks / "half").write_text("\n".join(event["id"] for event in every(http, id)))
        (marks / "half").rename(marks / "counted")
        report = client.result(120)
    broken_off = report.pop("failed")
    assert report == {
        "broken_off": ["error", False, 1],
        "status": "finished",
        "known": True,
        "missing": 0,
        "twice": 0,
        "cached": True,
    }
    assert "RuntimeRestarted" in broken_off[0]


def every(http: httpx.Client, id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    page: str | None = None
    while True:
        query = {"page_id": page} if page else {}
        answer = http.get(f"/conversations/{id}/events/search", params=query).json()
        found += answer["items"]
        page = answer["next_page_id"]
        if page is None:
            return found


def test_the_public_openai_client_talks_to_the_agent(
    tmp_path: Path, process: RuntimeProcess, model_url: str, run_client: RunClient
) -> None:
    process.start()
    with httpx.Client(base_url=process.url, headers={"X-Session-API-Key": KEY}, trust_env=False) as http:
        llm = {"model": "openai/scripted", "api_key": MODEL_KEY, "base_url": model_url, "num_retries": 0}
        assert http.post("/api/profiles/house", json={"llm": llm}).status_code == 201
        report = run_client("gateway.py", process.url, KEY, "openhands_house")
        events = every_below(http, report.pop("conversation"))
    assert report == {
        "models": ["openhands_house"],
        "first": "I looked.",
        "second": "Still here.",
        "streamed": "Streamed.",
        "usage": True,
        "failed": "Agent run ended with status: error",
        "unknown": True,
        "response": "A response.",
    }
    said = [event["llm_message"]["content"][0]["text"] for event in events if event["kind"] == "MessageEvent"]
    assert [text for text in said if not text.startswith("SCRIPT")] == ["I looked.", "Still here.", "Streamed."]


def every_below(http: httpx.Client, id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = http.get(f"/api/conversations/{id}/events/search").json()["items"]
    return found


def test_a_dormant_server_is_woken_by_its_own_secret_key_and_serves(tmp_path: Path, model_url: str) -> None:
    """Without session keys, on loopback, with variables for the agent: the deferred start of the public examples."""
    process = RuntimeProcess(
        tmp_path, OH_SESSION_API_KEYS_0="", OH_DEFERRED_INIT="true", OH_SECRET_KEY="key-of-the-warm-pool"
    )
    try:
        process.launch()
        with httpx.Client(base_url=process.url, trust_env=False, timeout=30) as http:
            eventually(lambda: alive(http))
            assert http.get("/api/init").json()["state"] == "dormant"
            assert http.get("/api/conversations/search").status_code == 503
            body = {"env": {"HOUSE_TOKEN": "token-of-the-house"}}
            assert http.post("/api/init", json=body, headers={"X-Init-API-Key": "wrong"}).status_code == 401
            woken = http.post("/api/init", json=body, headers={"X-Init-API-Key": "key-of-the-warm-pool"})
            assert (woken.status_code, woken.json()) == (200, {"state": "ready", "error": None})
            assert http.get("/api/init").json()["state"] == "ready"
            script = [terminal('echo "${#HOUSE_TOKEN} $HOUSE_TOKEN"'), {"text": "42"}]
            llm = {"model": "openai/scripted", "api_key": MODEL_KEY, "base_url": model_url, "num_retries": 0}
            start = {
                "agent": {"llm": llm, "tools": [{"name": "terminal"}]},
                "workspace": {"working_dir": str(tmp_path / "work")},
                "initial_message": {**message(script), "run": True},
            }
            id = http.post("/api/conversations", json=start).json()["id"]
            eventually(lambda: http.get(f"/api/conversations/{id}").json()["execution_status"] == "finished", 60)
            assert http.get(f"/api/conversations/{id}/agent_final_response").json() == {"response": "42"}
            log = json.dumps(every_below(http, id))
            assert "18 <secret-hidden>" in log
            assert "token-of-the-house" not in log
    finally:
        process.ensure_gone()


def alive(http: httpx.Client) -> bool:
    try:
        return http.get("/alive").status_code == 200
    except httpx.TransportError:
        return False
