"""Between the runtime's proof and its keys somebody cuts, leads elsewhere, repeats, or takes the port. The runtimes are
processes of their own, dormant, with a boot key."""

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from support.binding import NONCE, answering, challenge_in

from orchestrator.domain.errors import RuntimeUnreachable
from orchestrator.domain.secrets import SecretText
from orchestrator.nested import client as client_module
from orchestrator.nested.binding import OneConnection
from orchestrator.nested.client import RuntimeClient, RuntimeClients
from orchestrator.nested.refusals import Impostor, Refused

pytestmark = pytest.mark.anyio
BOOT = "boot-key-of-the-one-connection-tests"
INNER = "inner-key-of-the-one-connection-tests"
CONFIGURED = "sealing-key-of-the-one-connection-tests"
BODY = {"session_api_keys": [INNER], "secret_key": CONFIGURED, "generation": 1}
Carry = Callable[["Between", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextmanager
def dormant(folder: Path, server: socket.socket) -> Iterator[subprocess.Popen[bytes]]:
    """A runtime that listens there, and alone does so."""
    (folder / "boot-key").write_text(f"{BOOT}\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "OH_PERSISTENCE_DIR": str(folder / "persistence"),
        "OH_CONVERSATIONS_PATH": str(folder / "conversations"),
        "OH_WORKSPACE_PATH": str(folder / "project"),
    }
    command = [sys.executable, "-m", "runtime", "--boot-key-file", str(folder / "boot-key")]
    process = subprocess.Popen(
        [*command, "--listen-fd", str(server.fileno())],
        env=environment,
        pass_fds=(server.fileno(),),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    server.close()
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=20)


def listening() -> tuple[socket.socket, int]:
    server = socket.create_server(("127.0.0.1", 0))
    return server, int(server.getsockname()[1])


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a runtime that nobody manages to bind."""
    server, port = listening()
    with dormant(tmp_path_factory.mktemp("waiting"), server):
        yield port


@dataclass
class Between:
    """Somebody at the address that the orchestrator was given, in front of the runtime at `target`."""

    target: int
    carry: Carry
    port: int = 0
    heard: list[bytes] = field(default_factory=list)  #: all that the orchestrator sent, by connection
    carrying: set[asyncio.Event] = field(default_factory=set)  #: set when a connection is over

    async def request(self, reader: asyncio.StreamReader) -> bytes:
        """The next whole request, which is noted; empty at the end."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as exc:
            self.heard[-1] += exc.partial
            return b""
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        whole = head + await reader.readexactly(int(lengths[0].split(b":")[1]) if lengths else 0)
        self.heard[-1] += whole
        return whole

    async def passed_on(self, request: bytes) -> bytes:
        """What the runtime answers to it, on a connection that has carried nothing else."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.target)
        writer.write(request)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            return head + await reader.readexactly(int(length.split(b":")[1]))
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard.append(b"")
        self.carrying.add(over := asyncio.Event())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self.carry(self, reader, writer)
        writer.close()
        over.set()


@asynccontextmanager
async def between(target: int, carry: Carry, *, port: int = 0) -> AsyncIterator[Between]:
    one = Between(target, carry)
    server = await asyncio.start_server(one._serve, "127.0.0.1", port)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        async with asyncio.timeout(20):
            for over in one.carrying:
                await over.wait()


async def transparent(one: Between, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    there_reader, there_writer = await asyncio.open_connection("127.0.0.1", one.target)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, note: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(65536):
                if note:
                    one.heard[-1] += piece
                sink.write(piece)
        sink.close()

    await asyncio.gather(pump(reader, there_writer, note=True), pump(there_reader, writer, note=False))


@pytest.fixture(params=["at once", "met before"])
def meets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the proof is had before anybody binds, as a start does it."""
    monkeypatch.setattr(client_module, "_ALIVE_SECONDS", 60.0)
    return bool(request.param == "met before")


async def bound(port: int, meets: bool, *, connect: Any = OneConnection) -> None:
    async with RuntimeClients(connect=connect).open(f"http://127.0.0.1:{port}", SecretText(INNER), fence=1) as client:
        if meets:
            client._door = None  # who knocks says nothing, and is counted here
            assert await eventually_meets(client)
        await client.init(SecretText(BOOT), BODY)


async def eventually_meets(client: RuntimeClient) -> bool:
    with anyio.move_on_after(60):
        while not await client.meets(SecretText(BOOT)):
            await asyncio.sleep(0.01)
        return True
    return False


async def is_dormant(port: int) -> bool:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"http://127.0.0.1:{port}/api/init")).json()["state"] == "dormant"


def secrets_in(heard: list[bytes]) -> list[str]:
    return [secret for secret in (BOOT, INNER, CONFIGURED) if any(secret.encode() in one for one in heard)]


async def test_a_connection_that_is_cut_after_the_proof_carries_nothing_and_all_begins_again(
    tmp_path: Path, meets: bool
) -> None:
    async def cut_once(one: Between, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(one.heard) > 1:
            await transparent(one, reader, writer)
            return
        writer.write(await one.passed_on(await one.request(reader)))
        writer.write_eof()
        await one.request(reader)  # whatever else would come

    server, port = listening()
    with dormant(tmp_path, server):
        async with between(port, cut_once) as relay:
            await bound(relay.port, meets)
            first, second = relay.heard
            assert secrets_in([first]) == []
            assert first.count(b"HTTP/1.1\r\n") == 1
            nonces = [line for line in (first + second).split(b"\r\n") if line.lower().startswith(b"x-init-nonce")]
            assert len(set(nonces)) == 2
            assert BOOT.encode() not in second, "the boot key itself never travels"
        async with httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/api/settings", headers={"X-Session-API-Key": INNER})).status_code == 200


async def test_one_that_is_always_cut_is_given_up_with_a_reason(waiting: int, meets: bool) -> None:
    async def cut(one: Between, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await one.passed_on(await one.request(reader)))
        writer.write_eof()
        await one.request(reader)

    async with between(waiting, cut) as relay:
        with pytest.raises(RuntimeUnreachable, match="lost 3 times before it was bound"):
            await bound(relay.port, meets)
        assert len(relay.heard) == 3
        assert secrets_in(relay.heard) == []
    assert await is_dormant(waiting)


async def test_a_relay_that_answers_over_another_connection_is_refused_by_the_runtime(
    waiting: int, meets: bool
) -> None:
    async def elsewhere(one: Between, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await one.request(reader):
            writer.write(await one.passed_on(request))

    async with between(waiting, elsewhere) as relay:
        with pytest.raises(Refused) as refused:
            await bound(relay.port, meets)
        assert refused.value.status == 409
        assert "on the same connection" in refused.value.said
        assert BOOT.encode() not in b"".join(relay.heard)
        post = relay.heard[0][relay.heard[0].index(b"POST") :]
    # What it has heard by now opens nothing: not as it is, and not as the answer to a challenge of its own.
    head, _, content = post.partition(b"\r\n\r\n")
    proof = next(line.split(b": ")[1].decode() for line in head.split(b"\r\n") if line.startswith(b"X-Init-Proof"))
    async with httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{waiting}") as client:
        headers = {"X-Init-Proof": proof, "Content-Type": "application/json"}
        assert (await client.post("/api/init", headers=headers, content=content)).status_code == 409
        assert (await client.get("/api/init", headers={"X-Init-Nonce": NONCE})).status_code == 200
        assert (await client.post("/api/init", headers=headers, content=content)).status_code == 401
    assert await is_dormant(waiting)


async def test_a_process_that_takes_the_port_after_the_proof_gets_nothing(tmp_path: Path, meets: bool) -> None:
    server, port = listening()
    overheard = b""

    async def replay(one: Between, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await one.request(reader):
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(overheard)
            writer.write(head + overheard)

    async with contextlib.AsyncExitStack() as stack:
        process = stack.enter_context(dormant(tmp_path, server))
        hostile: list[Between] = []

        class Interrupted(OneConnection):
            """The runtime is killed when it has proved itself, and its port taken."""

            async def ask(self, method: str, headers: Any, content: bytes = b"") -> tuple[int, bytes]:
                nonlocal overheard
                answer = await super().ask(method, headers, content)
                if not hostile:
                    overheard = answer[1]
                    process.kill()
                    process.wait(timeout=20)
                    hostile.append(await stack.enter_async_context(between(0, replay, port=port)))
                return answer

        with pytest.raises(Impostor):
            await bound(port, meets, connect=Interrupted)
        assert b'"proof"' in overheard
        assert hostile[0].heard, "it was asked for a proof of its own"
        assert secrets_in(hostile[0].heard) == []
        assert b"POST" not in b"".join(hostile[0].heard)


async def test_the_same_port_again_is_another_connection(waiting: int) -> None:
    def asked(own_port: int, request: bytes) -> tuple[bytes, int]:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Reset at the end, so that the same port can be used again at once.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.bind(("127.0.0.1", own_port))
            client.connect(("127.0.0.1", waiting))
            client.settimeout(20)
            client.sendall(request)
            answer = client.recv(65536)
            while not answer.endswith(b"}") and (piece := client.recv(65536)):
                answer += piece
            return answer, client.getsockname()[1]

    get = f"GET /api/init HTTP/1.1\r\nHost: runtime\r\nX-Init-Nonce: {NONCE}\r\n\r\n"
    answer, own_port = await asyncio.to_thread(asked, 0, get.encode())
    challenge = challenge_in(httpx.Response(200, content=answer.partition(b"\r\n\r\n")[2]), BOOT)
    post = answering(BOOT, challenge, BODY)
    fields = {**post.headers, "Host": "runtime", "Content-Length": str(len(post.content))}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    request = f"POST /api/init HTTP/1.1\r\n{head}\r\n".encode() + post.content
    refused, again = await asyncio.to_thread(asked, own_port, request)
    assert again == own_port
    assert refused.startswith(b"HTTP/1.1 409 ")
    assert await is_dormant(waiting)


async def test_connections_of_a_unix_socket_are_told_apart_too(tmp_path: Path) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    server.listen()

    def client() -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "socket"))
        return httpx.AsyncClient(transport=transport, base_url="http://runtime", timeout=60)

    with dormant(tmp_path, server):
        async with client() as one, client() as other:
            asked = await one.get("/api/init", headers={"X-Init-Nonce": NONCE})
            post = answering(BOOT, challenge_in(asked, BOOT), BODY)
            elsewhere = await other.post("/api/init", headers=post.headers, content=post.content)
            assert elsewhere.status_code == 409
            here = await one.post("/api/init", headers=post.headers, content=post.content)
            assert here.status_code == 200, here.text
            again = await one.post("/api/init", headers=post.headers, content=post.content)
            assert again.status_code == 400, "it is bound once"


async def test_who_meets_an_impostor_is_told_so_by_what_binds(waiting: int) -> None:
    """That somebody answers is all that the question says; a proof that is none is refused where keys would be told."""

    async def liar(one: Between, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await one.request(reader):
            content = b'{"state":"dormant","challenge":"c","proof":"p"}'
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)

    async with between(waiting, liar) as relay:
        with pytest.raises(Impostor):
            await bound(relay.port, True)
        assert secrets_in(relay.heard) == []
        assert b"POST" not in b"".join(relay.heard)


async def test_one_that_is_not_ready_yet_is_not_met(waiting: int) -> None:
    async def starting(one: Between, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await one.request(reader):
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")

    async with between(waiting, starting) as relay:
        origin = f"http://127.0.0.1:{relay.port}"
        async with RuntimeClients().open(origin, SecretText(INNER), fence=1) as client:
            while not relay.heard:  # until somebody is seen to listen
                assert not await client.meets(SecretText(BOOT))
            assert not await client.meets(SecretText(BOOT))


async def test_one_that_was_met_and_is_not_bound_is_left(waiting: int) -> None:
    async with between(waiting, transparent) as relay:
        origin = f"http://127.0.0.1:{relay.port}"
        async with RuntimeClients().open(origin, SecretText(INNER), fence=1) as client:
            assert await eventually_meets(client)
            assert await eventually_meets(client)
            assert client._met is not None
            last = client._met.connection
        assert last.is_lost
    assert await is_dormant(waiting)
