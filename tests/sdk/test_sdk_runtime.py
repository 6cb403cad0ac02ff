"""The public SDK client against `python -m runtime`: client programs in the SDK's own environment."""

import json
from pathlib import Path

import httpx
import pytest

from tests.support.runtimes import KEY, MODEL_KEY, RuntimeProcess, eventually, message, terminal
from tests.support.sdk import RunClient, repository

pytestmark = [pytest.mark.sdk, pytest.mark.timeout(300)]


def test_a_settings_driven_conversation(
    tmp_path: Path, process: RuntimeProcess, model_url: str, run_client: RunClient
) -> None:
    process.start()
    directory = str(tmp_path / "work")
    report = run_client("settings_driven_conversation.py", process.url, KEY, model_url, MODEL_KEY, directory)
    assert report["refused"] == 401
    assert report["key_is_set"]
    assert report["key_matches"]
    assert report["model"] == "openai/gpt-4o-mini"
    assert (report["status"], report["again"]) == ("finished", "finished")
    assert "scripted failure" in report["failed"]
    assert report["cost"] > 0
    assert report["prompt_tokens"] > 0
    assert report["secrets"] == {
        "TEST_SECRET": {"url": f"{process.url}/api/settings/secrets/TEST_SECRET", "has_key": True}
    }
    assert report["mcp"] in ({}, {"mcpServers": {}})
    assert report["after_close"] == 404
    for kind in ("SystemPromptEvent", "MessageEvent", "ActionEvent", "ObservationEvent", "AgentErrorEvent"):
        assert kind in report["kinds"]
        assert kind in report["called_back"]
    assert report["kinds"].count("ActionEvent") == 7


def test_a_conversation_with_a_lookup_secret_without_keys(
    tmp_path: Path, model_url: str, run_client: RunClient
) -> None:
    process = RuntimeProcess(tmp_path, OH_SESSION_API_KEYS_IS_NONE="", OH_SESSION_API_KEYS_0="")
    try:
        process.start()
        directory = str(tmp_path / "work")
        report = run_client("lookup_secret_conversation.py", process.url, model_url, MODEL_KEY, directory)
    finally:
        process.ensure_gone()
    assert report == {
        "listed": ["MY_PROJECT_TOKEN"],
        "status": "finished",
        "outputs": ["<secret-hidden>"],
        "response": "YES",
        "cost": 0.0,
        "codes": [200, 200, 404, 422, 422],
    }


def test_every_event_is_the_clients_own(
    tmp_path: Path, process: RuntimeProcess, model_url: str, run_client: RunClient
) -> None:
    process.start()
    http = httpx.Client(base_url=f"{process.url}/api", headers={"X-Session-API-Key": KEY}, timeout=60, trust_env=False)
    file = str(tmp_path / "work" / "a.txt")
    edit = {"tool": "file_editor", "args": {"path": file}}
    script = [
        terminal("echo x; exit 3"),
        terminal("sleep 30", timeout=0.2),
        terminal("C-c", is_input=True),
        terminal("echo", reset=True),
        *(
            {**edit, "args": {"path": file, **more}}
            for more in (
                {"command": "create", "file_text": "one\n"},
                {"command": "str_replace", "old_str": "one", "new_str": "two"},
                {"command": "insert", "insert_line": 1, "new_str": "three"},
                {"command": "undo_edit"},
                {"command": "view", "view_range": [1, -1]},
                {"command": "create", "file_text": "again"},
            )
        ),
        {"tool": "task_tracker", "args": {"command": "plan", "task_list": [{"title": "a", "notes": "n"}]}},
        {"tool": "task_tracker", "args": {"command": "view"}},
        {"tool": "think", "args": {"thought": "hm"}},
        {"tool": "absent", "args": {}},
        {"text": "words", "tool": "finish", "args": {"message": "done"}},
    ]
    llm = {"model": "openai/scripted", "api_key": MODEL_KEY, "base_url": model_url, "num_retries": 0}
    tools = [{"name": name} for name in ("terminal", "file_editor", "task_tracker")]
    body = {
        "agent": {"llm": llm, "tools": tools},
        "workspace": {"working_dir": str(tmp_path / "work")},
        "secrets": {"S": {"value": "v-a-l-u-e"}},
        "initial_message": message(script),
    }
    id = http.post("/conversations", json=body).json()["id"]
    eventually(lambda: http.get(f"/conversations/{id}").json()["execution_status"] == "finished", 60)
    http.post(f"/conversations/{id}/events", json={**message([{"sleep": 1, "text": "x"}]), "run": True})
    http.post(f"/conversations/{id}/pause")
    eventually(lambda: http.get(f"/conversations/{id}").json()["execution_status"] == "paused", 60)
    http.post(f"/conversations/{id}/events", json={**message([{"status": 401, "error": "no"}]), "run": True})
    eventually(lambda: http.get(f"/conversations/{id}").json()["execution_status"] == "error", 60)

    items = http.get(f"/conversations/{id}/events/search").json()["items"]
    assert {event["kind"] for event in items} == {
        "SystemPromptEvent",
        "MessageEvent",
        "ActionEvent",
        "ObservationEvent",
        "AgentErrorEvent",
        "ConversationStateUpdateEvent",
        "ConversationErrorEvent",
        "PauseEvent",
    }
    whole = [http.get(f"/conversations/{id}/events/{event['id']}").json() for event in items]
    http.close()
    lines = "".join(json.dumps(event) + "\n" for event in [*items, *whole])
    report = run_client("parse_events.py", stdin=lines)
    assert report == {"count": 2 * len(items), "problems": []}


def test_the_remote_workspace_and_everything_that_steers_a_conversation(
    tmp_path: Path, process: RuntimeProcess, model_url: str, run_client: RunClient
) -> None:
    work, scratch = repository(tmp_path / "work"), tmp_path / "scratch"
    scratch.mkdir()
    process.start()
    report = run_client("workspace_and_control.py", process.url, KEY, model_url, MODEL_KEY, str(work), str(scratch))
    assert report["workspace"] == {
        "command": [3, "out\n", "err\n"],
        "late": [-1, True],
        "files": [True, True, "from the client"],
        "changes": [["ADDED", "sub/up.txt"], ["UPDATED", "a"]],
        "diff": ["one", "one\ntwo"],
        "skills": ["agents"],
    }
    assert report["client_tool"] == ["finished", True]
    assert report["confirmation"] == ["waiting_for_confirmation", "finished", "finished"]
    assert ((work / "rejected").exists(), (work / "accepted").exists()) == (False, True)
    assert report["interrupt"] == ["paused", False]
    assert report["pause"] == ["paused", False]
    assert report["resumed"] == "finished"
    assert report["answer"]
    assert report["fork"] == [True, "finished"]
    assert {"agent", "ask-agent-llm", "condenser"} <= set(report["usages"])
    assert {"UserRejectObservation", "InterruptEvent", "PauseEvent", "Condensation"} <= set(report["kinds"])
