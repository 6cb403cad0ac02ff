"""A listener of its own for one runtime."""

import asyncio
import errno
import json
from dataclasses import replace

import httpx
import pytest
import websockets
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from support.records import a_conversation

from orchestrator.app.ports import PublicPorts
from orchestrator.domain.conversation import Phase, Reason, Why
from orchestrator.proxy.ports import listen_for_runtime

pytestmark = pytest.mark.anyio


async def test_every_path_of_the_port_is_the_runtimes(rig, recorder):
    route = rig.publish(recorder["port"])
    port = listen_for_runtime(rig.server, rig.context, route.runtime, "127.0.0.1")
    async with httpx.AsyncClient(trust_env=False) as client:
        origin = f"http://127.0.0.1:{port.port}"
        assert (await client.get(f"{origin}/health")).text == "ok"
        for path in ("/", "/api/v2/hello", "/runtimes/x/y"):
            assert (await client.get(origin + path)).status_code == 401
            answer = await client.get(origin + path, headers={"X-Session-API-Key": rig.session_key})
            assert answer.status_code == 200
            assert "content-security-policy" not in answer.headers
            assert recorder["requests"][-1].startswith(
                f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port.port}\r\n".encode()
            )
        assert (await client.get(f"{rig.origin}/api/v2/hello")).json()["app"] == "nestor"
    port.close()
    port.close()


async def test_a_taken_port_is_told_and_a_closed_one_is_free(rig, recorder):
    route = rig.publish(recorder["port"])
    first = listen_for_runtime(rig.server, rig.context, route.runtime, "127.0.0.1")
    with pytest.raises(OSError, match="in use"):
        listen_for_runtime(rig.server, rig.context, route.runtime, "127.0.0.1", first.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", first.port)
    await rig.eventually(lambda: len(rig.server.server_state.connections) == 1)
    first.close()
    assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()
    with pytest.raises(OSError, match="onnect"):
        await asyncio.open_connection("127.0.0.1", first.port)
    again = listen_for_runtime(rig.server, rig.context, route.runtime, "127.0.0.1", first.port)
    assert again.port == first.port
    again.close()


async def test_sockets_work_and_the_servers_end_covers_them(rig):
    async def talk(websocket):
        await websocket.accept()
        await websocket.send_text(websocket.headers["x-session-api-key"])
        await websocket.receive_text()

    _, upstream = await rig.serve(Starlette(routes=[WebSocketRoute("/sockets/events/{id}", talk)]))
    route = rig.publish(upstream)
    port = listen_for_runtime(rig.server, rig.context, route.runtime, "127.0.0.1")
    socket = await websockets.connect(f"ws://127.0.0.1:{port.port}/sockets/events/1", proxy=None)
    await socket.send(json.dumps({"type": "auth", "session_api_key": rig.session_key}))
    assert await socket.recv() == rig.inner_key
    rig.server.should_exit = True
    with pytest.raises(websockets.ConnectionClosed) as closed:
        await asyncio.wait_for(socket.recv(), 20)
    assert closed.value.rcvd.code == 1012
    with pytest.raises(OSError, match="onnect"):
        await asyncio.open_connection("127.0.0.1", port.port)
    port.close()


def sleeper(**more):
    conversation = a_conversation()
    return replace(conversation, phase=Phase.STOPPED, why=Why(Reason.IDLE, "nobody used it"), **more)


async def test_ports_of_who_sleeps_are_kept_and_make_room_for_those_who_are_up(rig):
    ports, room = PublicPorts(most_sleeping=2), [3]

    def listen(runtime, port):
        if len(ports._open) >= room[0]:
            raise OSError(errno.EMFILE, "too many open files")
        return listen_for_runtime(rig.server, rig.context, runtime, "127.0.0.1", port)

    ports.listen_with(listen)
    first, second, third, up = sleeper(), sleeper(), sleeper(), a_conversation()
    numbers = [ports.expose(one) for one in (first, second)]
    for one in (first, second):
        ports.withdraw(one)
    assert [ports.expose(one) for one in (first, second)] == numbers  # kept, and up again
    ports.withdraw(second)
    ports.withdraw(first)
    ports.expose(third)
    ports.withdraw(third)  # the third that sleeps: the one that has slept for longest is given up
    assert list(ports._open) == [first.runtime.id, third.runtime.id]

    room[0] = 2
    assert ports.expose(up)  # there is no room but that of one that sleeps
    assert list(ports._open) == [third.runtime.id, up.runtime.id]
    more = [a_conversation() for _ in range(2)]
    assert [bool(ports.expose(one)) for one in more] == [True, False]
    assert "no port is left for 1 runtimes" in ports.problem
    ports.withdraw(up)
    assert ports.expose(more[1])
    assert ports.problem is None
    ports.close()


async def test_a_port_that_another_program_took_meanwhile_is_not_replaced_for_one_that_sleeps(rig):
    ports, taken = PublicPorts(), sleeper()
    ports.listen_with(lambda runtime, port: listen_for_runtime(rig.server, rig.context, runtime, "127.0.0.1", port))
    number = ports.expose(a_conversation())
    asleep = replace(taken, runtime=replace(taken.runtime, public_port=number))
    assert not ports.reopen(asleep)
    ports.close()
    assert ports.reopen(asleep)
    ports.withdraw(replace(asleep, why=Why(Reason.REQUESTED, "stopped by a caller")))
    assert not ports._open
