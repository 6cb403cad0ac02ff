"""One connection to the state server that all calls share: sent as they come, answered in order.

`funnel.py` has one for everything that the server answers at once: a call takes a third of the processor time that it
takes on a connection of its own out of the client's pool, and calls that are made at the same time go out in one write.
The client still makes the connection: address, TLS, greeting, user and password. What waits for the disk stays with the
pool, as it would keep others waiting here.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import hiredis
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    InvalidResponse,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

_CODES: Final[dict[str, type[ResponseError]]] = {
    "NOSCRIPT": NoScriptError,
    "READONLY": ReadOnlyError,
    "NOPERM": NoPermissionError,
}
_KEYS: Final = ("NOAUTH", "WRONGPASS")
Command = tuple[str | int | bytes, ...]


class Connection(Protocol):
    """Of the client."""

    async def connect(self) -> None: ...

    async def disconnect(self, nowait: bool = False) -> None: ...

    def pack_command(self, *words: str | int | bytes) -> list[bytes]: ...


class _Batch:
    """Commands whose replies are still to come."""

    __slots__ = ("left", "replies", "told")

    def __init__(self, commands: int, told: "asyncio.Future[list[Any]]") -> None:
        self.left = commands
        self.replies: list[Any] = []
        self.told = told


class _Replies(asyncio.Protocol):
    """Takes over a greeted connection from the client's own protocol."""

    def __init__(self, connection: Connection, transport: asyncio.Transport, *, errors: str) -> None:
        self._transport = transport
        self._connection = connection
        self._before = transport.get_protocol()
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=_refusal,
            encoding="utf-8",
            errors=errors,
            notEnoughData=_NOTHING,
        )
        self._asked: deque[_Batch] = deque()
        self._unsent: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._left = False  #: nothing more is sent on it
        self.answered = self._loop.time()  #: when a call that somebody still waited for last was
        self.lost: RedisError | None = None
        transport.set_protocol(self)

    def send(self, commands: Sequence[Command]) -> "asyncio.Future[list[Any]]":
        """Raises what packing the commands raises: then nothing is sent."""
        packed = [self._packed(command) for command in commands]
        told: asyncio.Future[list[Any]] = self._loop.create_future()
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.extend(packed)
        self._asked.append(_Batch(len(commands), told))
        return told

    @property
    def usable(self) -> bool:
        return self.lost is None and not self._transport.is_closing()

    def leave(self) -> None:
        """End it as soon as nobody waits for an answer on it."""
        self._left = True
        if all(batch.told.done() for batch in self._asked):
            self._transport.abort()

    def given_up(self) -> None:
        """Somebody does not wait any more."""
        if self._left:
            self.leave()

    async def close(self) -> None:
        """At once, with all that is under way."""
        self._end(ConnectionError("the connection was closed"))
        self._transport.abort()
        await self._connection.disconnect(nowait=True)  # that it is gone

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOTHING:
                batch = self._asked[0]
                batch.replies.append(reply)
                batch.left -= 1
                if not batch.left:
                    self._asked.popleft()
                    if not batch.told.done():
                        batch.told.set_result(batch.replies)
                        self.answered = self._loop.time()
            self.given_up()
        except (RedisError, IndexError) as exc:  # no protocol, or more replies than commands
            self._end(ConnectionError(f"the server's answer makes no sense ({type(exc).__name__})"))
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(ConnectionError("the server closed the connection"))
        self._before.connection_lost(exc)

    def _end(self, why: RedisError) -> None:
        if self.lost is None:
            self.lost = why
        while self._asked:
            told = self._asked.popleft().told
            if not told.done():
                told.set_exception(self.lost)
                told.exception()  # its caller may have gone in this very moment

    def _packed(self, command: Command) -> bytes:
        try:
            packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type] # as long as one may like
        except UnicodeEncodeError:  # halves of characters pass, in the client's own manner
            return b"".join(self._connection.pack_command(*command))
        return packed

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self.usable:
            self._transport.write(b"".join(unsent))
        else:
            self._end(ConnectionError("the connection was closed"))


class Line:
    """To one server, for one event loop. `make` gives a new connection of the client, which may take `within` seconds
    to connect; `errors` says how bytes are decoded that are no text."""

    def __init__(self, make: Callable[[], Connection], *, within: float, errors: str) -> None:
        self._make = make
        self._within = within
        self._errors = errors
        self._replies: _Replies | None = None
        self._ending: list[_Replies] = []
        self._connecting: asyncio.Task[_Replies] | None = None

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """The replies, in order; an error of the server is one of them. Raises `RedisError` and what connecting raises;
        then any of the commands may have run or not, as when it is cancelled."""
        if not commands:
            return []
        replies = self._replies
        if replies is None or not replies.usable:
            replies = await self._connected()
        told = replies.send(commands)
        try:
            return await told
        except asyncio.CancelledError:
            told.cancel()
            replies.given_up()
            raise

    def leave(self) -> None:
        """The next call makes a new connection; those under way keep this one, if it has been made."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        self._set_aside()

    def _set_aside(self) -> None:
        if self._replies is not None:
            self._ending.append(self._replies)
            self._replies.leave()
            self._replies = None

    def leave_unless_answered(self, since: float) -> None:
        """The same for a connection on which nobody was answered since then, by the loop's clock. One that is only slow
        is kept: what is sent on a new one waits for the greeting as well."""
        if self._replies is not None and self._replies.answered < since:
            self.leave()

    async def close(self) -> None:
        """End it, with what is under way. May be repeated."""
        connecting = self._connecting
        self.leave()
        if connecting is not None:
            await asyncio.wait([connecting])
        while self._ending:
            await self._ending.pop().close()
        await asyncio.sleep(0)  # the loop may be about to end, and closes sockets in its next turn

    async def _connected(self) -> _Replies:
        """In a task of its own: who cannot wait for it leaves it to the next, as a slow server's greeting and answer
        may take longer than a call."""
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(_seen)
        connecting, caller = self._connecting, asyncio.current_task()
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError as exc:
            if connecting.cancelled() and not (caller and caller.cancelling()):
                raise ConnectionError("the connection was closed") from exc
            raise

    async def _connect(self) -> _Replies:
        self._set_aside()
        for replies in [one for one in self._ending if one.lost is not None]:
            self._ending.remove(replies)
            await replies.close()
        connection = self._make()
        try:
            async with asyncio.timeout(self._within):
                await connection.connect()
            self._replies = _Replies(connection, _transport_of(connection), errors=self._errors)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return self._replies


def _seen(connecting: "asyncio.Task[_Replies]") -> None:
    """Nobody may wait for it any more."""
    if not connecting.cancelled():
        connecting.exception()


def _transport_of(connection: Any) -> asyncio.Transport:
    """What the client reads and writes by; it says it to nobody. Raises where its end has come already: nobody would
    be told of it again."""
    transport: asyncio.Transport = connection._writer.transport
    if transport.is_closing() or connection._reader.at_eof():
        raise ConnectionError("the server closed the connection as it was made")
    return transport


class _Nothing:
    """No reply is there yet."""


_NOTHING: Final = _Nothing()


def _refusal(text: str) -> ResponseError:
    """As the client's own parser has it, with the whole text."""
    code = text.partition(" ")[0]
    if code in _KEYS:
        return AuthenticationError(text)  # type: ignore[return-value] # the client's is no ResponseError
    return _CODES.get(code, ResponseError)(text)
