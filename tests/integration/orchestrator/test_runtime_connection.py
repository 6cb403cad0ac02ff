"""Requests to a runtime on a connection of our own, beside a server that says exactly the bytes that it is given."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from orchestrator.domain.errors import RuntimeUnreachable
from orchestrator.nested.connection import Connection, Garbled, Lost, NotConnected, TooLarge
from orchestrator.nested.exchange import Exchange

pytestmark = pytest.mark.anyio
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """Answers each request with the next of `answers`, and ends a connection after `ends`."""

    def __init__(self, *answers: bytes, ends: bool = False) -> None:
        self.answers = list(answers)
        self.ends = ends
        self.heard: list[bytes] = []
        self.connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = b""
                if b"chunked" in head:
                    while not body.endswith(b"0\r\n\r\n") and (piece := await reader.read(65536)):
                        body += piece
                        if self.ends:
                            break
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        body = await reader.readexactly(int(line.split(b":")[1]))
                self.heard.append(head + body)
                writer.write(self.answers.pop(0) if self.answers else WHOLE)
                if self.ends:
                    break
        except (asyncio.IncompleteReadError, OSError):
            pass
        writer.close()


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Connection]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    connection = await Connection.to("127.0.0.1", server.port)
    try:
        yield connection
    finally:
        connection.close()
        listener.close()
        await anyio.sleep(0.02)


async def ask(connection: Connection, method: str = "POST", *, longest: int = 1000, reads: bool = True) -> object:
    with anyio.fail_after(10):
        return await connection.ask(method, "/a?b=c", {"X-One": "1"}, b"body", longest=longest, reads=reads)


async def test_requests_go_out_whole_and_on_the_same_connection() -> None:
    server = Server()
    async with serving(server) as connection:
        assert await ask(connection) == (200, b"{}")
        assert await connection.ask("GET", "/", {}, longest=10) == (200, b"{}")
    host = f"127.0.0.1:{server.port}".encode()
    sent = b"POST /a?b=c HTTP/1.1\r\nHost: " + host + b"\r\nX-One: 1\r\nContent-Length: 4\r\n\r\nbody"
    assert server.heard == [sent, b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"]
    assert server.connections == 1


@pytest.mark.parametrize("text", ["a\r\nX-Two: 2", "a\nb", "a\0"])
async def test_what_would_be_a_line_of_its_own_is_not_sent(text: str) -> None:
    server = Server()
    async with serving(server) as connection:
        with pytest.raises(ValueError, match="one line"):
            await connection.ask("GET", "/", {"X-One": text}, longest=10)
        with pytest.raises(ValueError, match="one line"):
            await connection.ask("GET", f"/{text}", {}, longest=10)
        assert await ask(connection) == (200, b"{}")
    assert len(server.heard) == 1


@pytest.mark.parametrize(
    ("answer", "expected", "again"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b""), True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\nLink: a\r\n\r\n" + WHOLE, (200, b"{}"), True),
        (b"HTTP/1.1 404 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", (404, b"abc"), True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", (200, b"x"), False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", (200, b"x"), False),
    ],
)
async def test_answers_are_read_in_all_their_forms(answer: bytes, expected: object, again: bool) -> None:
    async with serving(Server(answer)) as connection:
        assert await ask(connection) == expected
        assert connection.is_usable is again


async def test_a_body_without_a_length_ends_with_the_connection() -> None:
    async with serving(Server(b"HTTP/1.1 200 OK\r\n\r\nall of it", ends=True)) as connection:
        assert await ask(connection) == (200, b"all of it")
        assert not connection.is_usable


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", Lost),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", Lost),
        (b"HTTP/1.1 200 OK\r\nContent-Len", Lost),
        (b"", Lost),
        (b"SSH-2.0-OpenSSH\r\n", Garbled),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", Garbled),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", Garbled),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001, TooLarge),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000, Garbled),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 5_000, Garbled),
        (CHUNKED + b"0\r\nX: " + b"y" * 1_000_000, Garbled),  # a trailer
        (CHUNKED + b"0\r\n" + b"x: y\r\n" * 100_000, Garbled),
        (CHUNKED + b"2;" + b"y" * 1_000_000, Garbled),  # an extension
    ],
)
async def test_what_is_no_whole_answer_is_told_apart_and_ends_the_connection(
    answer: bytes, error: type[Exception]
) -> None:
    async with serving(Server(answer, ends=True)) as connection:
        with pytest.raises(error):
            await ask(connection)
        assert not connection.is_usable
        with pytest.raises(Lost):
            await ask(connection)


async def test_a_byte_that_nobody_asked_for_ends_the_connection() -> None:
    async with serving(Server(WHOLE + WHOLE)) as connection:
        assert await ask(connection) == (200, b"{}")
        await anyio.sleep(0.05)
        assert not connection.is_usable


async def test_a_long_body_that_is_not_wanted_is_left_with_the_connection() -> None:
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000
    async with serving(Server(WHOLE, long)) as connection:
        assert await ask(connection, reads=False) == (200, b"{}")
        assert connection.is_usable
        assert await ask(connection, reads=False) == (200, b"")
        assert not connection.is_usable


async def test_a_cancelled_request_ends_the_connection() -> None:
    async with serving(Server(b"HTTP/1.1 200 OK\r\n")) as connection:
        with anyio.move_on_after(0.1) as scope:
            await ask(connection)
        assert scope.cancelled_caught
        assert not connection.is_usable


async def test_pieces_are_sent_as_chunks_until_an_early_answer() -> None:
    async def pieces(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 10_000
            yield b""
            await anyio.lowlevel.checkpoint()

    server = Server(WHOLE)
    async with serving(server) as connection:
        assert await connection.ask("PUT", "/", {}, pieces(3), longest=10) == (200, b"{}")
        assert connection.is_usable
    assert server.heard[0].count(b"2710\r\n") == 3
    refusal = b"HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n"
    async with serving(Server(refusal, ends=True)) as connection:
        with anyio.fail_after(20):
            assert await connection.ask("PUT", "/", {}, pieces(1_000_000), longest=10) == (413, b"")
        assert not connection.is_usable


async def test_a_runtime_that_answers_and_reads_no_more_keeps_nobody_waiting_and_no_socket() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100_000

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await anyio.sleep(0.2)
        writer.write(b"HTTP/1.1 507 X\r\nContent-Length: 0\r\n\r\n")
        await over.wait()
        writer.close()

    over = anyio.Event()
    for content in (pieces(), b"x" * 20_000_000):
        listener = await asyncio.start_server(answer, "127.0.0.1", 0)
        connection = await Connection.to("127.0.0.1", listener.sockets[0].getsockname()[1])
        with anyio.fail_after(5):
            assert await connection.ask("PUT", "/", {}, content, longest=10) == (507, b"")
        assert not connection.is_usable
        transport = connection._transport
        connection.close()
        with anyio.fail_after(5):
            while transport is not None and transport.get_extra_info("socket").fileno() != -1:
                await anyio.sleep(0.01)
        listener.close()
    over.set()
    await anyio.sleep(0.05)


async def test_what_the_pieces_raise_is_raised_and_ends_the_connection() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        raise ValueError("no more")

    async with serving(Server()) as connection:
        with pytest.raises(ValueError, match="no more"):
            await connection.ask("PUT", "/", {}, pieces(), longest=10)
        assert not connection.is_usable


async def test_nobody_there_is_not_connected() -> None:
    async with serving(server := Server()):
        pass
    with pytest.raises(NotConnected):
        await Connection.to("127.0.0.1", server.port)


async def test_an_exchange_keeps_two_connections_and_makes_a_new_one_for_each_that_ended() -> None:
    server = Server()
    async with serving(server), Exchange(f"http://127.0.0.1:{server.port}") as exchange:
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(lambda: exchange.ask("POST", "/", {}, b"{}", seconds=10))
        assert (len(server.heard), server.connections) == (20, 3)  # one is the fixture's
        server.answers = [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"] * 2
        for _ in range(4):
            await exchange.ask("POST", "/", {}, b"{}", seconds=10)
        assert (len(server.heard), server.connections) == (24, 4)


async def test_an_exchange_lets_go_of_a_connection_on_which_the_request_was_answered_unread() -> None:
    size, taken, ended = 20_000_000, 0, anyio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        taken = len(await reader.read(1000))
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"HTTP/1.1 507 X\r\nContent-Length: 0\r\n\r\n")
        await anyio.sleep(0.3)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        try:
            while piece := await reader.read(1 << 20):
                taken += len(piece)
        except OSError:
            pass
        writer.close()
        ended.set()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with Exchange(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}") as exchange:
        assert await exchange.ask("POST", "/", {}, b"x" * size, seconds=10) == (507, b"")
        with anyio.fail_after(10):
            await ended.wait()
    assert taken < size
    listener.close()


async def test_an_exchange_tells_a_silent_runtime_and_one_that_talks_too_much() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\n")
    async with serving(server), Exchange(f"http://127.0.0.1:{server.port}") as exchange:
        with pytest.raises(RuntimeUnreachable, match="POST /x: the runtime did not answer"):
            await exchange.ask("POST", "/x?secret=1", {}, b"{}", seconds=0.2)
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 17000000\r\n\r\n" + b"x" * 17_000_000
    server = Server(large)
    async with serving(server), Exchange(f"http://127.0.0.1:{server.port}") as exchange:
        with pytest.raises(RuntimeUnreachable, match="larger than 16 MiB"):
            await exchange.ask("GET", "/", {}, seconds=20)
