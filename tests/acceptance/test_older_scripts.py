"""What public scripts of V0 and V1 do, by raw HTTP, against real runtimes: nothing but the addresses and shapes that
they know. Two tenants, each with its own key."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.models import scripted_model
from support.processes import OrchestratorProcess, orchestrator_at, wait_for

LOOK = "SCRIPT:" + json.dumps(
    [{"tool": "terminal", "args": {"command": "echo it is $TICKET; echo hello > note.txt"}}, {"text": "looked"}]
)
SECONDS = 180  # on a machine that does much else
DONE = {"awaiting_user_input", "finished", "error", "stopped"}


@dataclass
class Place:
    nestor: OrchestratorProcess
    model: str

    def script(self, name: str, header: str = "Authorization") -> httpx.Client:
        """A client as a script makes one, with the key of a new tenant; nothing is stored for it yet."""
        tenant = self.nestor.call("POST", "/api/v2/tenants", json={"name": name}, status=201)
        path = f"/api/v2/tenants/{tenant['id']}/api-keys"
        key = self.nestor.call("POST", path, json={"name": "k"}, status=201)["key"]
        sent = f"Bearer {key}" if header == "Authorization" else key
        return httpx.Client(base_url=self.nestor.url, headers={header: sent}, timeout=30, trust_env=False)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with (
        tempfile.TemporaryDirectory(prefix="nst-") as folder,
        scripted_model(required_key="sk-key-of-the-script") as model,
        orchestrator_at(Path(folder) / "data") as nestor,
    ):
        yield Place(nestor, model)


def settings(model: str) -> dict[str, Any]:
    return {
        "language": "en",
        "agent": "CodeActAgent",
        "max_iterations": 50,
        "security_analyzer": "default",
        "confirmation_mode": False,
        "llm_model": "openai/scripted",
        "llm_api_key": "sk-key-of-the-script",
        "llm_base_url": model,
        "enable_default_condenser": True,
        "made_up_field": "passed over",
    }


def good(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()


def agent_rests(script: httpx.Client, id: str) -> list[dict[str, Any]] | None:
    """The events, once the last one says that the agent waits or is done."""
    page = good(script.get(f"/api/conversations/{id}/events", params={"start_id": 0, "limit": 100}))
    events: list[dict[str, Any]] = page["events"]
    last = events[-1].get("extras", {}).get("agent_state") if events else None
    return events if last in DONE else None


def test_a_v0_script_from_settings_to_deletion(place: Place) -> None:
    with place.script("acme") as script, place.script("globex", "X-Access-Token") as other:
        assert "error" in good(script.get("/api/settings"), 404)
        refused = good(script.post("/api/conversations", json={"initial_user_msg": "hi"}), 400)
        assert (refused["status"], refused["msg_id"]) == ("error", "CONFIGURATION$SETTINGS_NOT_FOUND")

        good(script.post("/api/settings", json=settings(place.model)))
        stored = good(script.get("/api/settings"))
        assert (stored["llm_model"], stored["llm_api_key"], stored["llm_api_key_set"]) == (
            "openai/scripted",
            None,
            True,
        )
        tokens = {"github": {"token": "ghp_of_the_script", "host": None}}
        good(script.post("/api/add-git-providers", json={"provider_tokens": tokens}))
        assert good(script.get("/api/settings"))["provider_tokens_set"] == {"github": None}
        good(script.post("/api/secrets", json={"name": "TICKET", "value": "T-1000", "description": "ours"}), 201)
        again = good(script.post("/api/secrets", json={"name": "TICKET", "value": "T-1000"}), 400)
        assert "already exists" in again["message"]

        started = good(script.post("/api/conversations", json={"initial_user_msg": LOOK}))
        id = started["conversation_id"]
        assert (started["status"], started["conversation_status"], len(id)) == ("ok", "STARTING", 32)
        assert good(script.get(f"/api/conversations/{id}"))["status"] in ("STARTING", "RUNNING")
        wait_for(lambda: good(script.get(f"/api/conversations/{id}"))["status"] == "RUNNING", SECONDS)
        events = wait_for(lambda: agent_rests(script, id), SECONDS)
        assert [event["id"] for event in events] == list(range(len(events)))
        ran = next(event for event in events if event.get("observation") == "run")
        assert ran["extras"]["metadata"]["exit_code"] == 0
        assert "it is" in ran["content"]
        assert events[ran["cause"]]["action"] == "run"
        assert any(event["source"] == "agent" and event.get("action") in ("message", "finish") for event in events)
        assert good(script.get(f"/api/conversations/{id}/trajectory"))["trajectory"] == events

        assert "note.txt" in good(script.get(f"/api/conversations/{id}/list-files"))
        assert good(script.get(f"/api/conversations/{id}/select-file?file=note.txt")) == {"code": "hello\n"}
        for file, status in (("nowhere.txt", 404), ("../note.txt", 422), ("", 422)):
            assert script.get(f"/api/conversations/{id}/select-file", params={"file": file}).status_code == status
        assert script.get(f"/api/conversations/{id}/zip-directory").content[:2] == b"PK"

        record = good(script.get(f"/api/conversations/{id}"))
        origin, key = record["url"].partition("/api/conversations")[0], {"X-Session-API-Key": record["session_api_key"]}
        assert httpx.get(f"{origin}/health", trust_env=False).status_code == 200
        inner = good(httpx.get(record["url"], headers=key, trust_env=False))
        assert inner["id"].replace("-", "") == id

        good(script.post(f"/api/conversations/{id}/message", json={"message": "and now?"}))
        after = good(script.get(f"/api/conversations/{id}/events", params={"start_id": len(events)}))["events"]
        assert any(event.get("args", {}).get("content") == "and now?" for event in after)
        longer = wait_for(lambda: agent_rests(script, id), SECONDS)
        assert len(longer) > len(events)

        for call in (
            ("GET", ""),
            ("GET", "/events"),
            ("GET", "/list-files"),
            ("GET", "/trajectory"),
            ("POST", "/stop"),
        ):
            assert other.request(call[0], f"/api/conversations/{id}{call[1]}").status_code == 404
        assert good(other.delete(f"/api/conversations/{id}")) is False
        assert good(other.get("/api/conversations")) == {"results": [], "next_page_id": None}

        stopped = good(script.post(f"/api/conversations/{id}/stop"))
        assert (stopped["status"], stopped["conversation_status"]) == ("ok", "RUNNING")
        wait_for(lambda: good(script.get(f"/api/conversations/{id}"))["status"] == "STOPPED", SECONDS)
        assert "not running" in good(script.post(f"/api/conversations/{id}/stop"))["message"]
        assert agent_rests(script, id) == longer
        assert good(script.post(f"/api/conversations/{id}/start", json={"providers_set": ["github"]}))["status"] == "ok"
        back = wait_for(
            lambda: (r := good(script.get(f"/api/conversations/{id}")))["status"] == "RUNNING" and r, SECONDS
        )
        assert (back["url"], back["session_api_key"]) == (record["url"], record["session_api_key"])

        assert good(script.delete(f"/api/conversations/{id}")) is True
        assert good(script.delete(f"/api/conversations/{id}")) is False
        assert script.get(f"/api/conversations/{id}").status_code == 404


def test_a_v1_script_from_its_start_task_to_deletion(place: Place) -> None:
    with place.script("initech", "X-Session-API-Key") as script, place.script("hooli") as other:
        good(script.post("/api/settings", json=settings(place.model)))
        body = {
            "initial_message": {"role": "user", "content": [{"text": LOOK}], "run": True},
            "title": "a ticket",
            "secrets": {"TICKET": "T-2000"},
            "trigger": "manual",
            "pr_number": [7],
        }
        task = good(script.post("/api/v1/app-conversations", json=body))
        assert task["status"] == "WORKING"
        assert "T-2000" not in json.dumps(task)

        def ended() -> dict[str, Any] | None:
            (found,) = good(script.get("/api/v1/app-conversations/start-tasks", params={"ids": task["id"]}))
            assert found["status"] != "ERROR", found
            return found if found["status"] == "READY" else None  # type: ignore[no-any-return]

        ready = wait_for(ended, SECONDS)
        id = ready["app_conversation_id"]
        assert good(httpx.get(f"{ready['agent_server_url']}/health", trust_env=False))

        def rests() -> dict[str, Any] | None:
            (one,) = good(script.get("/api/v1/app-conversations", params={"ids": id}))
            return one if one["execution_status"] in ("finished", "idle") else None  # type: ignore[no-any-return]

        def seen(kind: str) -> list[dict[str, Any]]:
            page = good(script.get(f"/api/v1/conversation/{id}/events/search", params={"kind__eq": kind}))
            items: list[dict[str, Any]] = page["items"]
            return items

        wait_for(lambda: seen("ObservationEvent"), SECONDS)
        one = wait_for(rests, SECONDS)
        assert (one["title"], one["sandbox_status"], one["pr_number"]) == ("a ticket", "RUNNING", [7])
        origin = one["conversation_url"].partition("/api/conversations")[0]
        assert origin == ready["agent_server_url"]
        key = {"X-Session-API-Key": one["session_api_key"]}
        assert good(httpx.get(one["conversation_url"], headers=key, trust_env=False))["execution_status"] == "finished"

        assert script.get(f"/api/v1/app-conversations/{id}/file?file_path=note.txt").text == "hello\n"
        assert script.get(f"/api/v1/app-conversations/{id}/download").content[:2] == b"PK"
        assert other.get(f"/api/v1/app-conversations/{id}/download").status_code == 404

        sent = {"role": "user", "content": [{"type": "text", "text": "go on"}], "run": True}
        answer = good(script.post(f"/api/v1/app-conversations/{id}/send-message", json=sent))
        assert (answer["success"], answer["sandbox_status"]) == (True, "RUNNING")
        wait_for(lambda: len([e for e in seen("MessageEvent") if e["source"] == "agent"]) >= 2, SECONDS)
        total = good(script.get(f"/api/v1/conversation/{id}/events/count"))
        newest = good(script.get(f"/api/v1/conversation/{id}/events/search", params={"sort_order": "TIMESTAMP_DESC"}))
        assert len(newest["items"]) <= total

        again = good(script.post("/api/v1/app-conversations", json={"conversation_id": id}))
        assert (again["status"], again["sandbox_id"]) == ("READY", ready["sandbox_id"])

        assert good(other.get("/api/v1/app-conversations", params={"ids": id})) == [None]
        assert good(other.get("/api/v1/app-conversations/start-tasks", params={"ids": [task["id"], id]})) == [None] * 2
        assert other.get(f"/api/v1/conversation/{id}/events/search").status_code == 404
        assert other.post(f"/api/v1/app-conversations/{id}/send-message", json=sent).status_code == 404
        assert other.delete(f"/api/v1/app-conversations/{id}").status_code == 404

        assert good(script.delete(f"/api/v1/app-conversations/{id}")) == {"success": True}
        assert good(script.get("/api/v1/app-conversations", params={"ids": id})) == [None]
        assert script.delete(f"/api/v1/app-conversations/{id}").status_code == 404
