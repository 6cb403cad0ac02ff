"""The event socket: who may listen, what comes first, what comes again, how it closes."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import anyio
import pytest
import websockets
from websockets.exceptions import InvalidStatus

from orchestrator.demo.model_server import ScriptedModel
from runtime.events.feed import MAX_SUBSCRIBERS
from tests.support.runtimes import KEY, Frames, Runtime, message, runtime_at

pytestmark = pytest.mark.anyio


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with ScriptedModel() as model, runtime_at(tmp_path, model.base_url) as made:
        yield made


def address(runtime: Runtime, conversation: str, query: str = "") -> str:
    return runtime.url.replace("http", "ws", 1) + f"/sockets/events/{conversation}{query}"


async def test_the_key_may_come_in_header_or_query(runtime: Runtime) -> None:
    id = await runtime.start()
    for query, headers in ((f"?session_api_key={KEY}", {}), ("", {"X-Session-API-Key": KEY})):
        async with websockets.connect(address(runtime, id, query), additional_headers=headers) as connection:
            assert (await Frames(connection).next())["key"] == "full_state"


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("?session_api_key=wrong", {}),
        ("", {"X-Session-API-Key": "wrong"}),
        (f"?resend_mode=some&session_api_key={KEY}", {}),
        (f"?resend_mode=since&session_api_key={KEY}", {}),
        (f"?resend_mode=since&after_timestamp=x&session_api_key={KEY}", {}),
    ],
)
async def test_a_wrong_key_or_parameter_refuses_the_handshake(
    runtime: Runtime, query: str, headers: dict[str, str]
) -> None:
    id = await runtime.start()
    with pytest.raises(InvalidStatus) as refusal:
        await websockets.connect(address(runtime, id, query), additional_headers=headers)
    assert refusal.value.response.status_code == 403


@pytest.mark.parametrize(
    "frame", ["no json", "[]", "{}", '{"type":"auth"}', '{"type":"auth","session_api_key":"wrong"}', '{"type":"x"}']
)
async def test_a_wrong_first_frame_closes_4001(runtime: Runtime, frame: str) -> None:
    id = await runtime.start()
    async with websockets.connect(address(runtime, id)) as connection:
        await connection.send(frame)
        assert await Frames(connection).close_code() == 4001


async def test_an_unknown_conversation_closes_4004(runtime: Runtime) -> None:
    async with runtime.socket(str(uuid4())) as frames:
        assert await frames.close_code() == 4004


async def test_stored_events_are_sent_again_when_asked_for(runtime: Runtime) -> None:
    id = await runtime.start([{"text": "x"}])
    await runtime.finish(id)
    stored = await runtime.events(id)
    since = stored[3]["timestamp"]
    for query, wanted in (
        ("?resend_mode=all", stored),
        ("?resend_all=true", stored),
        (f"?resend_mode=since&after_timestamp={since}", stored[3:]),
    ):
        async with runtime.socket(id, query) as frames:
            assert (await frames.next())["value"]["execution_status"] == "finished"
            assert [await frames.next() for _ in wanted] == wanted


async def test_a_message_frame_is_stored_and_run_and_a_bad_one_is_told(runtime: Runtime) -> None:
    id = await runtime.start()
    async with runtime.socket(id) as frames:
        await frames.next()
        await frames.connection.send(json.dumps({"type": "auth", "session_api_key": KEY}))
        for frame, code in (("no json", "JSONDecodeError"), ('{"foo":1}', "ValidationError")):
            await frames.connection.send(frame)
            answer = await frames.next()
            assert (answer["kind"], answer["code"]) == ("ServerErrorEvent", code)
        await frames.connection.send(json.dumps(message([{"text": "said"}])))
        sent = await frames.until_state()
        assert sent[-1]["value"]["execution_status"] == "finished"
    assert await runtime.events(id, "ServerErrorEvent") == []
    assert len(await runtime.events(id, "MessageEvent")) == 2


async def test_two_hundred_sockets_and_not_one_more(runtime: Runtime) -> None:
    id = await runtime.start()
    opened = []
    try:
        for _ in range(MAX_SUBSCRIBERS):
            connection = await websockets.connect(address(runtime, id, f"?session_api_key={KEY}"), ping_interval=None)
            opened.append(connection)
            assert (await Frames(connection).next())["key"] == "full_state"
        async with runtime.socket(id) as frames:
            assert await frames.close_code() == 1013
        await runtime.say(id, [{"text": "x"}])
        assert (await Frames(opened[-1]).until_state())[-1]["value"]["execution_status"] == "finished"
    finally:
        async with anyio.create_task_group() as tasks:
            for connection in opened:
                tasks.start_soon(connection.close)
    async with runtime.socket(id) as frames:
        assert (await frames.next())["key"] == "full_state"


async def test_stopping_closes_sockets_so_that_clients_come_back(tmp_path: Path) -> None:
    async with ScriptedModel() as model:
        async with runtime_at(tmp_path, model.base_url) as runtime:
            id = await runtime.start([{"text": "x"}])
            await runtime.finish(id)
            stored = await runtime.events(id)
            connection = await websockets.connect(address(runtime, id, f"?session_api_key={KEY}"))
            assert (await Frames(connection).next())["key"] == "full_state"
        assert await Frames(connection).close_code() == 1012
        async with runtime_at(tmp_path, model.base_url) as again:
            assert await again.events(id) == stored
            assert await again.status(id) == "finished"
            await again.say(id, [{"text": "after the restart"}])
            await again.finish(id)
