"""Reads that are polled while the state server is away: told again, or held, and never to anybody else."""

import json
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from orchestrator.facades.last_known import LARGEST_BYTES, LastKnown

pytestmark = pytest.mark.anyio
AWAY = (503, {"code": "store_unavailable"})
PATH = "/api/v1/sandboxes?id=1"


class Server:
    """Answers as it is told; counts what reached it."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await send({"type": "http.response.start", "status": status, "headers": [(b"x-own", b"1")]})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})


@pytest.fixture
def server() -> Server:
    return Server()


def client(server: Server, key: str = "k", seconds: float = 0.0, around: LastKnown | None = None) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(around or LastKnown(server, seconds))
    return httpx.AsyncClient(transport=transport, base_url="http://n", headers={"Authorization": f"Bearer {key}"})


async def test_what_was_told_last_is_told_again_with_its_age(server: Server) -> None:
    server.answers = [(200, {"status": "STARTING"}), (200, {"status": "RUNNING"}), AWAY]
    http = client(server)
    for _ in range(2):
        fresh = await http.get(PATH)
        assert "age" not in fresh.headers
    again = await http.get(PATH)
    assert (again.status_code, again.json(), again.headers["x-own"]) == (200, {"status": "RUNNING"}, "1")
    assert int(again.headers["age"]) >= 0
    assert (await http.get(PATH + "2")).status_code == 503


async def test_another_caller_is_not_told_what_the_first_one_was(server: Server) -> None:
    server.answers = [(200, ["of the first"]), AWAY]
    around = LastKnown(server, 0.0)
    assert (await client(server, "first", around=around).get(PATH)).status_code == 200
    assert (await client(server, "other", around=around).get(PATH)).status_code == 503
    assert (await client(server, "first", around=around).get(PATH, headers={"x-act-as-user": "u"})).status_code == 503
    assert (await client(server, "first", around=around).get(PATH)).json() == ["of the first"]


async def test_who_was_told_nothing_yet_waits_until_the_server_is_back(server: Server) -> None:
    server.answers = [AWAY, AWAY, (200, {"status": "RUNNING"})]
    answer = await client(server, seconds=30.0).get(PATH)
    assert (answer.status_code, server.asked) == (200, 3)


@pytest.mark.parametrize("status", [401, 404])
async def test_what_is_not_there_any_more_is_forgotten(server: Server, status: int) -> None:
    server.answers = [(200, {}), (status, {"detail": "no"}), AWAY]
    http = client(server)
    assert [(await http.get(PATH)).status_code for _ in range(3)] == [200, status, 503]


async def test_a_deletion_by_the_same_caller_empties_its_memory(server: Server) -> None:
    server.answers = [(200, {}), (200, {}), AWAY]
    http = client(server)
    await http.get(PATH)
    await http.delete("/api/v1/sandboxes/1")
    assert (await http.get(PATH)).status_code == 503


@pytest.mark.parametrize(
    ("method", "path"), [("POST", PATH), ("GET", "/api/v2/conversations"), ("GET", "/api/secrets")]
)
async def test_only_reads_that_are_polled_are_remembered(server: Server, method: str, path: str) -> None:
    server.answers = [(200, {}), AWAY]
    http = client(server)
    assert [(await http.request(method, path)).status_code for _ in range(2)] == [200, 503]


async def test_other_failures_are_told_as_they_are(server: Server) -> None:
    server.answers = [(200, {}), (503, {"code": "capacity"}), (500, "text")]
    http = client(server)
    assert [(await http.get(PATH)).status_code for _ in range(3)] == [200, 503, 500]


async def test_a_large_answer_goes_through_and_is_not_kept(server: Server) -> None:
    server.answers = [(200, "x" * LARGEST_BYTES), AWAY]
    http = client(server)
    assert len((await http.get(PATH)).json()) == LARGEST_BYTES
    assert (await http.get(PATH)).status_code == 503
