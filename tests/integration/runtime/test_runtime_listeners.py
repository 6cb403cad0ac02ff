"""Many listeners, slow ones, large events, and the moment between what is sent again and what is live."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import websockets

from orchestrator.demo.model_server import ScriptedModel
from runtime.api import socket_auth
from runtime.events.feed import BACKLOG_BYTES
from tests.support.runtimes import KEY, Frames, Runtime, message, runtime_at

pytestmark = pytest.mark.anyio


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with ScriptedModel() as model, runtime_at(tmp_path, model.base_url) as made:
        yield made


def address(runtime: Runtime, conversation: str, query: str = "", kind: str = "events") -> str:
    key = f"{'&' if query else '?'}session_api_key={KEY}"
    return runtime.url.replace("http", "ws", 1) + f"/sockets/{kind}/{conversation}{query}{key}"


async def post(runtime: Runtime, conversation: str, text: str) -> None:
    answer = await runtime.http.post(f"/api/conversations/{conversation}/events", json=message(text))
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("kind", ["events", "session"])
async def test_whoever_joins_in_the_middle_misses_nothing_and_gets_nothing_twice(runtime: Runtime, kind: str) -> None:
    id = await runtime.start()
    for number in range(130):  # more than one block that is sent again
        await post(runtime, id, f"before {number}")
    query = "?resend_mode=all" if kind == "events" else "?after_seq=-1"
    got: list[list[dict[str, Any]]] = []

    async def listen(wanted: int) -> None:
        async with websockets.connect(address(runtime, id, query, kind)) as connection:
            frames = Frames(connection)
            mine: list[dict[str, Any]] = []
            while len(mine) < wanted:
                frame = await frames.next()
                if frame.get("key") == "full_state" or frame.get("type") in {"sync", "transient"}:
                    continue
                mine.append(frame if kind == "events" else frame["event"])
            got.append(mine)

    total = 1 + 2 * 160  # the system prompt; a message and its state update each
    async with anyio.create_task_group() as tasks:
        for number in range(30):
            if number % 6 == 0:
                tasks.start_soon(listen, total)
            await post(runtime, id, f"meanwhile {number}")
    stored = await runtime.events(id)
    assert len(stored) == total
    assert got == [stored] * 5


async def test_a_listener_that_does_not_read_is_dropped_and_holds_up_nobody(runtime: Runtime) -> None:
    id = await runtime.start()
    large = "x" * 900_000
    amount = 2 * BACKLOG_BYTES // len(large) + 12  # more than the kernel keeps for both ends
    async with (
        websockets.connect(address(runtime, id), max_queue=1, max_size=None, ping_interval=None) as slow,
        websockets.connect(address(runtime, id), max_size=None) as good,
    ):
        frames = Frames(good)
        assert (await frames.next())["key"] == "full_state"
        seen = 0
        for _ in range(amount):
            await post(runtime, id, large)
            while (await frames.next()).get("key") != "last_user_message_id":
                pass
            seen += 1
        assert seen == amount
        assert await Frames(slow).close_code() == 1013
        await post(runtime, id, "still here")
        while (frame := await frames.next())["kind"] != "MessageEvent":
            pass
        assert frame["llm_message"]["content"][0]["text"] == "still here"


async def test_an_event_too_large_for_a_frame_is_told_of_and_read_over_rest(runtime: Runtime) -> None:
    id = await runtime.start()
    async with runtime.socket(id) as frames:  # with the client's own limit of 1 MiB
        assert (await frames.next())["key"] == "full_state"
        await post(runtime, id, "x" * 1_500_000)
        assert (await frames.next())["kind"] == "SystemPromptEvent"
        told = await frames.next()
        assert (await frames.next())["key"] == "last_user_message_id"
    event = (await runtime.events(id, "MessageEvent"))[0]
    assert len(event["llm_message"]["content"][0]["text"]) == 1_500_000
    assert (told["kind"], told["code"]) == ("ServerErrorEvent", "EventTooLarge")
    assert event["id"] in told["detail"]
    async with runtime.socket(id, "?resend_mode=all") as frames:
        kinds = [(await frames.next())["kind"] for _ in range(4)]
    assert kinds[1:] == ["SystemPromptEvent", "ServerErrorEvent", "ConversationStateUpdateEvent"]
    async with websockets.connect(address(runtime, id, "?after_seq=-1", "session"), max_size=4 << 20) as connection:
        got = [await Frames(connection).next() for _ in range(5)]
    assert got[3] == {"type": "durable", "seq": 1, "event": event}


async def test_who_never_shows_a_key_is_closed_4001(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_auth, "AUTH_SECONDS", 0.05)
    id = await runtime.start()
    for kind in ("events", "session"):
        async with runtime.socket(id, key=None, kind=kind) as frames:
            assert await frames.close_code() == 4001


@pytest.mark.parametrize("query", ["?after_seq=x", "?after_seq=1.5"])
async def test_a_wrong_cursor_refuses_the_handshake(runtime: Runtime, query: str) -> None:
    id = await runtime.start()
    with pytest.raises(websockets.InvalidStatus) as refusal:
        await websockets.connect(address(runtime, id, query, "session"))
    assert refusal.value.response.status_code == 403


async def test_pings_are_answered_while_events_come(runtime: Runtime) -> None:
    id = await runtime.start()
    async with websockets.connect(address(runtime, id)) as connection:
        for number in range(5):
            pong = await connection.ping()
            await post(runtime, id, str(number))
            with anyio.fail_after(20):
                await pong


async def test_a_removed_conversation_ends_both_kinds_of_socket(runtime: Runtime) -> None:
    id = await runtime.start()
    async with runtime.socket(id) as events, runtime.socket(id, kind="session") as session:
        await events.next()
        await session.next()
        assert (await runtime.http.delete(f"/api/conversations/{id}")).status_code == 200
        assert [await events.close_code(), await session.close_code()] == [4004, 4004]


async def test_what_is_asked_all_the_time_is_answered_as_the_usual_way_does(runtime: Runtime) -> None:
    """An Origin header makes a request take the usual way; the bodies are the same, before and after changes."""
    id = await runtime.start([{"text": "x"}])
    await runtime.finish(id)
    paths = ("/health", "/alive", "/ready", "/api/settings", f"/api/conversations/{id}")

    async def bodies(**headers: str) -> list[Any]:
        return [(await runtime.http.get(path, headers=headers)).json() for path in paths]

    first = await bodies()
    assert first == await bodies(Origin="http://localhost")
    changed = {"agent_settings_diff": {"llm": {"model": "openai/another"}}}
    assert (await runtime.http.patch("/api/settings", json=changed)).status_code == 200
    await runtime.say(id, [{"text": "y"}], run=False)
    second = await bodies()
    assert second == await bodies(Origin="http://localhost")
    assert [one == other for one, other in zip(first, second, strict=True)] == [True, True, True, False, False]
    assert second[3]["agent_settings"]["llm"]["model"] == "openai/another"
    listed = (await runtime.http.get("/api/conversations/search")).json()["items"][0]
    assert {key: second[4][key] for key in listed} == listed


async def test_the_short_way_lets_nobody_in(runtime: Runtime) -> None:
    id = await runtime.start()
    for path in ("/api/settings", f"/api/conversations/{id}", f"/api/conversations/{id.replace('-', '')}"):
        assert (await runtime.http.get(path)).status_code == 200
        for key in ("", "wrong", KEY + "\u00e9", KEY[:-1]):
            refused = await runtime.http.get(path, headers={"X-Session-API-Key": key.encode("latin-1")})
            assert (refused.status_code, refused.json()) == (401, {"detail": "Unauthorized"})
    assert (await runtime.http.get("/api/conversations/" + "z" * 32)).status_code == 422
    exposed = await runtime.http.get("/api/settings", headers={"X-Expose-Secrets": "nonsense"})
    assert exposed.status_code == 400


async def test_two_hundred_listeners_get_every_event(runtime: Runtime) -> None:
    id = await runtime.start()
    opened = await asyncio.gather(*(websockets.connect(address(runtime, id), ping_interval=None) for _ in range(200)))
    try:
        for connection in opened:
            assert (await Frames(connection).next())["key"] == "full_state"
        for number in range(3):
            await post(runtime, id, str(number))
        stored = await runtime.events(id)
        for connection in opened:
            assert [json.loads(await connection.recv()) for _ in stored] == stored
    finally:
        async with anyio.create_task_group() as tasks:
            for connection in opened:
                tasks.start_soon(connection.close)
