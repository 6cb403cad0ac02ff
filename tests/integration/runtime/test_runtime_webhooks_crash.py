"""Webhooks of a runtime as a process of its own: killed in the middle, ended, at rest, and without any."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.receivers import Answer, WebhookReceiver, webhook_receiver
from tests.support.runtimes import KEY, RuntimeProcess, eventually, message

HIDDEN = "bearer-of-the-receiver"


class Client:
    def __init__(self, process: RuntimeProcess) -> None:
        self._process = process
        self._http = httpx.Client(headers={"X-Session-API-Key": KEY}, timeout=30, trust_env=False)
        self.acknowledged = 0

    def close(self) -> None:
        self._http.close()

    def _call(self, method: str, path: str = "", **more: Any) -> httpx.Response:
        return self._http.request(method, f"{self._process.url}/api/conversations{path}", **more)

    def create(self, folder: Path) -> str:
        body = {"agent": {"llm": {"model": "openai/scripted"}}, "workspace": {"working_dir": str(folder / "work")}}
        answer = self._call("POST", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def say(self, id: str, text: str) -> bool:
        try:
            answer = self._call("POST", f"/{id}/events", json={**message(text), "run": False})
        except httpx.HTTPError:
            return False  # killed in between
        self.acknowledged += answer.status_code == 200
        return answer.status_code == 200

    def say_until_it_fails(self, id: str, text: str) -> None:
        while self.say(id, text):
            pass

    def delete(self, id: str) -> None:
        assert self._call("DELETE", f"/{id}").status_code == 200

    def ids(self, id: str) -> list[str]:
        found: list[str] = []
        query: dict[str, str] = {}
        while True:
            answer = self._call("GET", f"/{id}/events/search", params=query).json()
            found += [event["id"] for event in answer["items"]]
            if answer["next_page_id"] is None:
                return found
            query = {"page_id": answer["next_page_id"]}


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with webhook_receiver() as made:
        yield made


@pytest.fixture
def client(process: RuntimeProcess) -> Iterator[Client]:
    made = Client(process)
    yield made
    made.close()


@pytest.fixture
def process(tmp_path: Path, receiver: WebhookReceiver) -> Iterator[RuntimeProcess]:
    made = RuntimeProcess(
        tmp_path,
        OH_WEBHOOKS_0_BASE_URL=receiver.url,
        OH_WEBHOOKS_0_HEADERS=json.dumps({"Authorization": f"Bearer {HIDDEN}"}),
        OH_WEBHOOKS_0_FLUSH_DELAY="0.2",
        OH_WEBHOOKS_0_RETRY_DELAY="0.1",
    )
    yield made
    made.ensure_gone()


def test_kills_in_the_middle_lose_nothing_and_repeat_whole_batches_only(
    tmp_path: Path, process: RuntimeProcess, client: Client, receiver: WebhookReceiver
) -> None:
    chance = random.Random(5)

    def decide(path: str, number: int) -> Answer:
        return Answer(503 if number % 11 == 3 else 200, seconds=0.01)

    receiver.decide = decide
    process.start()
    ids = [client.create(tmp_path) for _ in range(2)]
    for kill in range(6):
        with ThreadPoolExecutor(2) as writers:
            enough = client.acknowledged + chance.randrange(3, 20)
            for id in ids:
                writers.submit(client.say_until_it_fails, id, f"before kill {kill}")
            eventually(lambda enough=enough: client.acknowledged >= enough, 60)  # type: ignore[misc]
            process.kill()
        process.start()
    for id in ids:
        client.say(id, "the last")
    stored = {id: client.ids(id) for id in ids}
    receiver.wait(lambda made: all(len(made.events(id)) >= len(stored[id]) for id in ids), 60)
    for id in ids:
        assert [event["id"] for event in receiver.events(id)] == stored[id]
    assert 2 * client.acknowledged <= sum(map(len, stored.values()))
    assert process.end() == 0
    assert HIDDEN not in (tmp_path / "runtime.log").read_text()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(HIDDEN.encode() in path.read_bytes() or KEY.encode() in path.read_bytes() for path in written)


def test_what_a_killed_runtime_owed_is_sent_by_its_next_life(
    tmp_path: Path, process: RuntimeProcess, client: Client, receiver: WebhookReceiver
) -> None:
    receiver.stop()
    process.start()
    kept, deleted = client.create(tmp_path), client.create(tmp_path)
    for number in range(20):
        assert client.say(kept, str(number))
        assert client.say(deleted, str(number))
    stored = {id: client.ids(id) for id in (kept, deleted)}
    client.delete(deleted)
    process.kill()
    receiver.started()
    process.start()
    receiver.wait(lambda made: all(len(made.events(id)) == 41 for id in (kept, deleted)))
    receiver.wait(lambda made: made.statuses(deleted) == ["deleting"] and made.statuses(kept) == ["idle"])
    for id in (kept, deleted):
        assert [event["id"] for event in receiver.events(id)] == stored[id]
    # And nothing of it once more in the life after that.
    count = len(receiver.posts)
    eventually(lambda: not list((tmp_path / "conversations/.webhooks").iterdir()))
    process.kill()
    process.start()
    assert client.say(kept, "something new")
    receiver.wait(lambda made: len(made.events(kept)) == 43)
    assert {post.path for post in receiver.posts[count:]} <= {receiver.batches(kept)[0].path, "/hook/conversations"}
    assert [post.first for post in receiver.batches(kept)[-1:]] == [42]


def test_a_runtime_at_rest_does_not_wake_up_for_its_webhooks(
    tmp_path: Path, process: RuntimeProcess, client: Client, receiver: WebhookReceiver
) -> None:
    process.start()
    id = client.create(tmp_path)
    client.say(id, "one")
    receiver.wait(lambda made: len(made.events(id)) == 3 and made.states(id))
    status = Path(f"/proc/{process.pid}/status")

    def wakes() -> int:
        lines = status.read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("voluntary_ctxt_switches")))

    def quiet_second() -> bool:
        before = wakes()
        time.sleep(1)  # what is measured, not what is waited for
        return wakes() - before <= 1

    eventually(quiet_second)


def test_a_runtime_without_webhooks_does_not_import_what_sends_them(tmp_path: Path) -> None:
    program = (
        "import sys; from runtime.app import build_app; from runtime.settings import load; from pathlib import Path\n"
        "build_app(load({'OH_SESSION_API_KEYS_0': 'k'}, directory=Path('/nonexistent')))\n"
        "wanted = {'httpcore', 'runtime.webhooks.service', 'runtime.webhooks.sender'}\n"
        "print(sorted(wanted & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OH_WEBHOOKS_0_BASE_URL", "ftp://hidden.example.org"),
        ("OH_WEBHOOKS_0_METHOD", "DELETE"),
        ("OH_WEBHOOKS_0_EVENT_BUFFER_SIZE", "hidden"),
        ("OH_WEBHOOKS_0_HEADERS", "hidden"),
        ("OH_WEBHOOKS_0_FLUSH_DELAY", "hidden"),
    ],
)
def test_a_wrong_receiver_is_a_start_error_that_names_it(tmp_path: Path, variable: str, value: str) -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "OH_WEBHOOKS_0_BASE_URL": "http://127.0.0.1:1/",
        variable: value,
    }
    command = [sys.executable, "-m", "runtime", "--port", "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "webhook" in done.stderr.lower()
    assert variable.removeprefix("OH_WEBHOOKS_0_").lower() in done.stderr.lower()
    assert "hidden" not in done.stderr
    assert "Traceback" not in done.stderr
