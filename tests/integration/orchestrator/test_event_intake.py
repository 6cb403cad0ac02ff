"""What runtimes tell by themselves: numbered as in their own log, from nobody else, and made whole."""

import json
import uuid
from typing import Any

import anyio
import httpx
import pytest
from support.orchestrators import Nestor

from orchestrator.api import runtime_facing


class Told:
    """A ready conversation, seen as its runtime sees the orchestrator."""

    def __init__(self, nestor: Nestor, key: str, record: dict[str, Any], inner: str) -> None:
        self.nestor, self.key, self.record, self.inner = nestor, key, record, inner
        assert nestor.house.facing is not None
        self.base = f"{nestor.house.facing.url}/runtimes/{record['runtime']['id']}"

    @property
    def log(self) -> list[dict[str, Any]]:
        """The runtime's own log."""
        return self.nestor.engine.volumes[self.record["runtime"]["id"]].memory.conversations[self.record["id"]]

    async def post(
        self, events: Any, *, first: int | None = None, key: str | None = None, conversation: str | None = None
    ) -> httpx.Response:
        headers = {"X-Session-API-Key": self.inner if key is None else key}
        if first is not None:
            headers |= {"X-Nestor-Sequence-First": str(first), "X-Nestor-Sequence-Last": str(first + len(events) - 1)}
        path = f"/events/{uuid.UUID(conversation or self.record['id']).hex}"
        async with httpx.AsyncClient(trust_env=False) as http:
            return await http.post(self.base + path, content=json.dumps(events), headers=headers)

    async def outer(self) -> list[tuple[int, str]]:
        """What is kept, without the runtime being asked."""
        store = self.nestor.house.store
        place = await store.conversations.route(self.record["runtime"]["id"])
        assert place is not None
        return [(event.sequence, event.id) for event in await store.events.read(*place, after=0, limit=1000)]


@pytest.fixture
async def told(nestor: Nestor) -> Told:
    return await told_of(nestor)


async def told_of(nestor: Nestor) -> Told:
    key = await nestor.ready_tenant()
    body = {"initial_message": "hello"}
    record = await nestor.call("POST", "/api/v2/conversations?wait=ready", key, json=body, status=200)
    place = await nestor.house.store.conversations.route(record["runtime"]["id"])
    stored = await nestor.house.store.conversations.get(*place)
    inner = await nestor.house.services.keys.inner_key(stored)
    return Told(nestor, key, record, inner.open())


def said(count: int) -> list[dict[str, Any]]:
    return [
        {"id": str(uuid.uuid4()), "timestamp": "2026-01-01T00:00:00", "source": "agent", "kind": "MessageEvent"}
        for _ in range(count)
    ]


async def test_a_batch_that_comes_next_is_kept_under_the_runtimes_numbers(told: Told) -> None:
    told.log.extend(said(3))
    have = len(told.log)
    assert (await told.post(told.log, first=1)).status_code == 200
    assert await told.outer() == [(number, event["id"]) for number, event in enumerate(told.log, 1)]
    assert (await told.post(told.log[-2:], first=have - 1)).status_code == 200, "sent again"
    assert len(await told.outer()) == have


async def test_a_gap_is_closed_by_reading_the_runtime(told: Told) -> None:
    told.log.extend(said(250))
    assert (await told.post(told.log[-1:], first=len(told.log))).status_code == 200
    assert [id for _, id in await told.outer()] == [event["id"] for event in told.log]


async def test_the_whole_state_is_told_and_not_stored(told: Told) -> None:
    state = {"id": str(uuid.uuid4()), "kind": "ConversationStateUpdateEvent", "key": "full_state", "value": {}}
    told.log.extend(said(1))
    headers_first = len(told.log)
    await told.post(told.log[:-1], first=1)
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(
            f"{told.base}/events/{told.record['id']}",
            json=[state, told.log[-1]],
            headers={
                "X-Session-API-Key": told.inner,
                "X-Nestor-Sequence-First": str(headers_first),
                "X-Nestor-Sequence-Last": str(headers_first),
            },
        )
    assert answer.status_code == 200
    assert [id for _, id in await told.outer()] == [event["id"] for event in told.log]


async def gap(told: Told, first: int, last: int) -> int:
    headers = {"X-Session-API-Key": told.inner, "X-Nestor-Gap-First": str(first), "X-Nestor-Gap-Last": str(last)}
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"{told.base}/events/{told.record['id']}", json=[], headers=headers)
    return answer.status_code


async def test_what_will_never_come_is_marked_where_readers_see_it(told: Told, nestor: Nestor) -> None:
    have = len(told.log)
    assert await gap(told, have + 1, have + 7) == 200
    assert await gap(told, have + 1, have + 7) == 200, "sent again"
    assert (await told.post(said(1), first=have + 8)).status_code == 200, "numbering goes on behind it"
    path = f"/api/v2/conversations/{told.record['id']}/events?after={have}"
    mark, event = (await nestor.call("GET", path, told.key, status=200))["items"]
    assert (mark["sequence"], mark["event"]["kind"]) == (have + 7, "NestorGapEvent")
    assert (mark["event"]["first"], mark["event"]["last"]) == (have + 1, have + 7)
    assert event["sequence"] == have + 8


async def test_a_gap_of_what_the_log_still_has_is_none(told: Told) -> None:
    told.log.extend(said(40))
    assert await gap(told, 1, len(told.log)) == 200
    assert await told.outer() == [(number, event["id"]) for number, event in enumerate(told.log, 1)]


@pytest.mark.parametrize(("first", "last"), [(0, 1), (5, 4), (1, 10**15)])
async def test_a_gap_without_sense_is_refused(told: Told, first: int, last: int) -> None:
    before = await told.outer()
    assert await gap(told, first, last) == 422
    assert await told.outer() == before


async def test_a_log_that_is_longer_than_what_came_is_read(told: Told) -> None:
    told.log.extend(said(9))  # which nobody pushes
    headers = {"X-Session-API-Key": told.inner, "X-Nestor-Log-Events": str(len(told.log))}
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.post(f"{told.base}/conversations", json={}, headers=headers)).status_code == 200
        assert [id for _, id in await told.outer()] == [event["id"] for event in told.log]
        headers["X-Nestor-Log-Events"] = "-1"
        assert (await http.post(f"{told.base}/conversations", json={}, headers=headers)).status_code == 422


async def test_only_the_runtime_itself_is_heard(told: Told, nestor: Nestor) -> None:
    await told.post(told.log, first=1)
    before = await told.outer()
    for key in ("", "wrong", told.record["runtime"]["session_key"], told.key):
        refused = await told.post(said(1), first=len(before) + 1, key=key)
        assert refused.status_code == 401
        assert told.inner not in refused.text
    unknown = Told(nestor, told.key, {**told.record, "runtime": {"id": str(uuid.uuid4())}}, told.inner)
    answer = await unknown.post(said(1), first=1)
    assert answer.status_code == 401
    assert answer.json()["detail"] == refused.json()["detail"], "as for one that is there"
    other = await nestor.call("POST", "/api/v2/conversations?wait=ready", told.key, json={}, status=200)
    assert (await told.post(said(1), first=1, conversation=other["id"])).status_code == 404
    assert await told.outer() == before


async def test_an_earlier_generation_is_not_heard_any_more(told: Told, nestor: Nestor) -> None:
    id = told.record["id"]
    stopped = await nestor.call("POST", f"/api/v2/conversations/{id}/stop", told.key, status=202)
    await nestor.ended(told.key, stopped["operation"])
    assert (await told.post(said(1), first=99)).status_code == 401, "nothing runs"
    await nestor.call("POST", f"/api/v2/conversations/{id}/start?wait=ready", told.key, status=200)
    assert (await told.post(said(1), first=99)).status_code == 401, "another generation runs"


@pytest.mark.parametrize(
    ("body", "numbers"),
    [
        ("no json", (1, 1)),
        ("{}", (1, 1)),
        ("[1]", (1, 1)),
        ("[]", (1, 5)),
        ("[{}]", (0, 0)),
        ("[{}]", (2, 1)),
        ("[{}]", ("x", "y")),
        ("[" * 100_000, (1, 1)),
    ],
)
async def test_what_is_no_batch_is_refused_without_an_echo(told: Told, body: str, numbers: tuple[Any, Any]) -> None:
    headers = {
        "X-Session-API-Key": told.inner,
        "X-Nestor-Sequence-First": str(numbers[0]),
        "X-Nestor-Sequence-Last": str(numbers[1]),
    }
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"{told.base}/events/{told.record['id']}", content=body, headers=headers)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_batch_beyond_the_limit_is_refused_before_it_is_read(told: Told) -> None:
    address = httpx.URL(told.base)
    assert address.port is not None
    async with await anyio.connect_tcp(address.host, address.port) as stream:
        head = f"POST {address.path}/events/{told.record['id']} HTTP/1.1\r\nHost: x\r\nContent-Length: 17000000\r\n"
        await stream.send(f"{head}X-Session-API-Key: {told.inner}\r\n\r\n".encode())
        with anyio.fail_after(10):
            assert b" 413 " in (await stream.receive())[:20]


async def test_a_runtime_that_ends_while_it_tells_is_no_failure_of_ours(told: Told, nestor: Nestor) -> None:
    """It raised, so that each wrote a traceback into the log."""
    parts: list[dict[str, Any]] = [
        {"type": "http.request", "body": b'[{"id":', "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return parts.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    path = f"/runtimes/{told.record['runtime']['id']}/events/{uuid.UUID(told.record['id']).hex}"
    head = {"method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": ""}
    headers = [(b"x-session-api-key", told.inner.encode()), (b"host", b"here")]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "server": ("here", 80),
        "headers": headers,
        **head,
    }
    await runtime_facing.build(nestor.house.intake)(scope, receive, send)
    assert sent[0]["status"] == 400


async def test_the_listener_serves_nothing_else(told: Told) -> None:
    async with httpx.AsyncClient(trust_env=False, headers={"X-Session-API-Key": told.inner}) as http:
        for path in ("/", "/api/v2/tenants", "/health", "/docs", "/openapi.json"):
            root = told.base.partition("/runtimes/")[0]
            assert (await http.get(root + path)).status_code == 404
