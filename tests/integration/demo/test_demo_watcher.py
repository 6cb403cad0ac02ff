"""The demo's event watcher against a real socket that follows the contract's first-frame rule."""

import json

import anyio
import pytest
from websockets.asyncio.server import serve

from orchestrator.demo.native import Runtime
from orchestrator.demo.options import DemoFailed
from orchestrator.demo.watcher import Watcher
from orchestrator.domain.secrets import SecretText

pytestmark = pytest.mark.anyio
ID = "0d5b3a52-1111-4222-8333-944455556666"
STATE = {"id": "e0", "kind": "ConversationStateUpdateEvent", "key": "full_state", "value": {}}


class Socket:
    """Accepts the key `good`, sends the state and the given events, then closes or waits."""

    def __init__(self, *events, close=None):
        self.events = events
        self.close = close
        self.paths = []

    async def __call__(self, connection):
        self.paths.append(connection.request.path)
        first = json.loads(await connection.recv())
        if first != {"type": "auth", "session_api_key": "good"}:
            await connection.close(4001, "Authentication failed")
            return
        for event in (STATE, *self.events):
            await connection.send(json.dumps(event))
        if self.close:
            await connection.close(*self.close)
        await connection.wait_closed()


async def follow(socket, *, key="good", until=2):
    shown = []

    async def show(event):
        shown.append(event["id"])
        if len(shown) == until:
            tasks.cancel_scope.cancel()

    async with serve(socket, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        runtime = Runtime(id="r", url=f"http://127.0.0.1:{port}", session_key=key)
        watcher = Watcher(runtime, ID, guarded={"the token": SecretText("t0ken-value")}, on_event=show)
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: watcher.follow(through_proxy=False))
        return watcher, shown


async def test_events_are_shown_in_order_and_remembered():
    socket = Socket({"id": "e1", "kind": "PauseEvent"}, {"id": "e2", "kind": "PauseEvent"})
    watcher, shown = await follow(socket, until=3)
    assert socket.paths == [f"/sockets/events/{ID}"]
    assert shown == ["e0", "e1", "e2"]
    assert watcher.connected.is_set()
    assert await watcher.saw(["e1", "e2"], within=1)
    assert not await watcher.saw(["e1", "e9"], within=0.1)
    assert watcher.leaks == set()


async def test_a_secret_in_a_frame_is_noticed_by_name():
    watcher, _ = await follow(Socket({"id": "e1", "kind": "X", "text": "see t0ken-value here"}))
    assert watcher.leaks == {"the token"}


@pytest.mark.parametrize(
    ("socket", "key", "word"),
    [
        (Socket(), "bad", "4001"),
        (Socket(close=(1000, "bye")), "good", "closed"),
        (Socket(close=(1013, "later")), "good", "1013"),
    ],
)
async def test_a_socket_that_refuses_or_ends_is_told(socket, key, word):
    with pytest.raises(ExceptionGroup) as told:
        await follow(socket, key=key, until=99)
    assert isinstance(told.value.exceptions[0], DemoFailed)
    assert word in str(told.value.exceptions[0])
