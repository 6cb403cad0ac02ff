"""A runtime that answers as no honest one does: the orchestrator neither waits nor reads for ever, and counts right."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.abc
import pytest
from support.orchestrators import Nestor
from support.records import a_conversation

from orchestrator.domain.clock import SystemClock
from orchestrator.domain.conversation import Conversation
from orchestrator.domain.errors import RuntimeUnreachable
from orchestrator.domain.secrets import SecretText
from orchestrator.nested.client import RuntimeClients
from orchestrator.security.envelope import Envelope
from orchestrator.security.master_keys import MasterKeys
from orchestrator.services.event_archiving import Bounds, EventArchiving
from orchestrator.services.events import EventLog
from orchestrator.services.keys import KeyRing
from orchestrator.state.event_archive.archive import EventArchive
from orchestrator.state.event_archive.files import FilePlace
from orchestrator.state.memory import MemoryStore

pytestmark = pytest.mark.anyio
KEY = SecretText("inner-key-of-the-tests")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
Answer = Callable[[str, anyio.abc.SocketStream], Awaitable[None]]


@asynccontextmanager
async def runtime(answer: Answer) -> AsyncIterator[str]:
    """host:port of a server that hands each request's target to `answer`, one request a connection."""

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            try:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += await stream.receive()
                await answer(head.split(b" ")[1].decode(), stream)
            except (anyio.BrokenResourceError, anyio.EndOfStream, anyio.ClosedResourceError):
                pass  # the orchestrator has had enough

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield f"127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"  # noqa: S610 - no Django
        tasks.cancel_scope.cancel()


async def send(stream: anyio.abc.SocketStream, value: object) -> None:
    body = json.dumps(value).encode()
    await stream.send(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


async def drip(_target: str, stream: anyio.abc.SocketStream) -> None:
    """An answer that is always about to end: a byte every now and then."""
    await stream.send(HEAD + b"Content-Length: 1000000\r\n\r\n")
    while True:
        await stream.send(b" ")
        await anyio.sleep(0.05)


async def flood(_target: str, stream: anyio.abc.SocketStream) -> None:
    """An answer without an end, as fast as it is read."""
    await stream.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    piece = b" " * 65536
    while True:
        await stream.send(b"%x\r\n%b\r\n" % (len(piece), piece))


async def test_an_answer_that_never_ends_is_given_up_after_its_time() -> None:
    async with runtime(drip) as address, RuntimeClients().open(f"http://{address}", KEY) as client:
        with anyio.fail_after(30), pytest.raises(RuntimeUnreachable):
            await client.create_conversation({}, timeout=0.5)


async def test_a_runtime_is_alive_by_its_status_alone() -> None:
    async with runtime(flood) as address, RuntimeClients().open(f"http://{address}", KEY) as client:
        with anyio.fail_after(20):
            assert await client.alive()


async def test_json_that_is_nested_without_end_is_no_event_log() -> None:
    async def nested(_target: str, stream: anyio.abc.SocketStream) -> None:
        body = b"[" * 100_000
        await stream.send(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async with runtime(nested) as address, RuntimeClients().open(f"http://{address}", KEY) as client:
        with pytest.raises(RuntimeUnreachable):
            await client.events("c", page_id=None)


async def test_two_pulls_at_once_keep_each_event_once(tmp_path: Path) -> None:
    """One pull is held before its second page until the other is through."""
    log = [{"id": f"event-{number}", "kind": "MessageEvent", "source": "agent"} for number in range(1, 301)]
    second_pages, through = 0, anyio.Event()

    async def page(target: str, stream: anyio.abc.SocketStream) -> None:
        nonlocal second_pages
        _, _, query = target.partition("page_id=")
        first = int(query.removeprefix("event-") or 1) - 1
        if first == 0 and not second_pages:
            second_pages = 1
            await through.wait()
        following = log[first + 100]["id"] if first + 100 < len(log) else None
        await send(stream, {"items": log[first : first + 100], "next_page_id": following})

    store, clients = MemoryStore(SystemClock()), RuntimeClients()
    keys = KeyRing(Envelope(MasterKeys([b"k" * 32]), store.configuration))
    archiving = EventArchiving(store.events, EventArchive(FilePlace(tmp_path)), Bounds(1000, 1024 * 1024))
    events = EventLog(store.events, archiving, clients, keys, SystemClock())
    async with runtime(page) as address:
        conversation = await reachable(store, keys, address)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(events.pull, conversation)
            with anyio.fail_after(30):
                while not second_pages:
                    await anyio.sleep(0.01)
            await events.pull(conversation)
            through.set()
    kept = [item.id for item in await store.events.read(conversation.tenant, conversation.id, after=0, limit=1000)]
    assert kept == [item["id"] for item in log]


async def reachable(store: MemoryStore, keys: KeyRing, address: str) -> Conversation:
    """A stored conversation whose runtime listens at `address`."""
    conversation = a_conversation()
    record, _ = await keys.renew(conversation, 1)
    return await store.conversations.create(replace(conversation, runtime=replace(record, address=address)))


async def test_what_a_runtime_says_in_its_refusal_breaks_no_list_and_tells_no_token(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    token = "ghp_" + "a1B2" * 9
    nestor.engine.script.fail("POST", "/api/settings", 400, body={"message": f"no \ud800 \x1b[31m {token} here"})
    path = "/api/v2/conversations?wait=ready&timeout=20"
    record = await nestor.call("POST", path, key, json={}, status=200)
    assert "here" in record["message"]
    assert token not in record["message"]
    assert record["message"].isprintable()
    assert len((await nestor.call("GET", "/api/v2/conversations", key, status=200))["items"]) == 1


async def test_events_that_json_cannot_tell_break_no_log(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    path = "/api/v2/conversations?wait=ready&timeout=20"
    record = await nestor.call("POST", path, key, json={}, status=200)
    (volume,) = nestor.engine.volumes.values()
    log = volume.memory.conversations[record["id"]]
    log.append({"id": "one", "kind": "MessageEvent", "source": "agent", "text": "half \ud800"})
    events = f"/api/v2/conversations/{record['id']}/events"
    (item,) = (await nestor.call("GET", events, key, status=200))["items"]
    assert item["event"]["text"] == "half ?"
    for bad in ({"id": "\ud800"}, {"id": 7}, {"id": "x" * 1000}, {"id": "two", "cost": float("inf")}):
        log[1:] = [bad]
        assert len((await nestor.call("GET", events, key, status=200))["items"]) == 1


async def test_a_reader_of_events_does_not_wait_for_a_runtime_that_is_silent(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    path = "/api/v2/conversations?wait=ready&timeout=20"
    record = await nestor.call("POST", path, key, json={}, status=200)
    nestor.engine.script.hang("GET", "/api/conversations/*/events/search", times=None)
    with anyio.fail_after(20):
        await nestor.call("GET", f"/api/v2/conversations/{record['id']}/events", key, status=200)


async def test_a_silent_runtime_does_not_put_its_end_off(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    path = "/api/v2/conversations?wait=ready&timeout=20"
    record = await nestor.call("POST", path, key, json={}, status=200)
    nestor.engine.script.hang("GET", "/api/conversations/*/events/search", times=None)
    await nestor.call("POST", f"/api/v2/conversations/{record['id']}/stop", key, status=202)
    await nestor.until(key, record["id"], "stopped", seconds=28)
