"""kill -9 in the middle of a run: the conversation loads, says what happened, and goes on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.models import scripted_model
from tests.support.runtimes import KEY, MODEL_KEY, RuntimeProcess, eventually, message, terminal


@pytest.fixture
def model_url() -> Iterator[str]:
    with scripted_model(required_key=MODEL_KEY) as url:
        yield url


@pytest.fixture
def process(tmp_path: Path) -> Iterator[RuntimeProcess]:
    made = RuntimeProcess(tmp_path, TMPDIR=str(tmp_path))
    yield made
    made.ensure_gone()


class Client:
    def __init__(self, process: RuntimeProcess) -> None:
        self._process = process

    def call(self, method: str, path: str, **more: Any) -> Any:
        headers = {"X-Session-API-Key": KEY}
        answer = httpx.request(
            method, f"{self._process.url}/api/conversations{path}", headers=headers, timeout=30, trust_env=False, **more
        )
        assert answer.is_success, answer.text
        return answer.json()

    def events(self, id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("GET", f"/{id}/events/search")["items"]
        return found

    def wait(self, id: str, *statuses: str) -> None:
        eventually(lambda: self.call("GET", f"/{id}")["execution_status"] in statuses, 60)


def running(mark: str) -> bool:
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"sleep\0{mark}".encode() in (entry / "cmdline").read_bytes():
                return True
        except OSError:
            continue
    return False


def test_a_killed_runtime_comes_back_with_all_it_acknowledged(
    tmp_path: Path, process: RuntimeProcess, model_url: str
) -> None:
    client = Client(process.start())
    mark = f"86420.{process.pid}"
    script = [
        terminal("echo first"),
        {"tools": [terminal(f"sleep {mark}"), {"tool": "think", "args": {"thought": "later"}}]},
    ]
    llm = {"model": "openai/scripted", "api_key": MODEL_KEY, "base_url": model_url, "num_retries": 0}
    body = {
        "agent": {"llm": llm, "tools": [{"name": "terminal"}]},
        "workspace": {"working_dir": str(tmp_path / "work")},
        "secrets": {"S_KEY": "value-of-s-key"},
        "initial_message": message(script),
    }
    id = client.call("POST", "", json=body)["id"]
    eventually(lambda: running(mark), 60)
    before = client.events(id)
    assert list(tmp_path.glob("nestor-shell-*"))
    process.kill()
    eventually(lambda: not running(mark))
    eventually(lambda: not list(tmp_path.glob("nestor-shell-*")))

    process.start()
    after = client.events(id)
    assert after[: len(before)] == before
    told = [event["kind"] for event in after[len(before) :]]
    assert told == ["AgentErrorEvent", "AgentErrorEvent", "ConversationErrorEvent", "ConversationStateUpdateEvent"]
    assert after[-2]["code"] == "RuntimeRestarted"
    assert after[-2]["parent_id"] == after[-3]["id"]
    info = client.call("GET", f"/{id}")
    assert info["execution_status"] == "error"
    assert info["leaf_event_id"] == after[-2]["id"]
    assert info["last_user_message_id"] == after[1]["id"]

    again = [terminal('echo "$S_KEY" | rev; pwd'), {"text": "went on"}]
    client.call("POST", f"/{id}/events", json={**message(again), "run": True})
    client.wait(id, "finished")
    observation = next(event for event in client.events(id)[::-1] if event["kind"] == "ObservationEvent")
    assert observation["observation"]["content"][0]["text"].startswith("yek-s-fo-eulav")
    assert client.call("GET", f"/{id}/agent_final_response") == {"response": "went on"}

    process.kill()
    process.start()
    assert client.call("GET", f"/{id}")["execution_status"] == "finished"
    assert client.call("GET", "/search")["items"][0]["id"] == id
    assert process.end() == 0
    log = (tmp_path / "runtime.log").read_text()
    stored = list((tmp_path / "conversations").rglob("*"))
    for value in (MODEL_KEY, KEY, "value-of-s-key"):
        assert value not in log
        assert not any(value.encode() in file.read_bytes() for file in stored if file.is_file())


def test_ending_the_runtime_ends_its_shells(tmp_path: Path, process: RuntimeProcess, model_url: str) -> None:
    client = Client(process.start())
    mark = f"86421.{process.pid}"
    llm = {"model": "openai/scripted", "api_key": MODEL_KEY, "base_url": model_url, "num_retries": 0}
    body = {
        "agent": {"llm": llm, "tools": [{"name": "terminal"}]},
        "workspace": {"working_dir": str(tmp_path / "work")},
        "initial_message": message([terminal(f"(setsid nohup sleep {mark} &) ; sleep {mark}")]),
    }
    client.call("POST", "", json=body)
    eventually(lambda: running(mark), 60)
    assert process.end() == 0
    assert not running(mark)
    assert json.loads(next((tmp_path / "conversations").glob("*/conversation.json")).read_text())["id"]
