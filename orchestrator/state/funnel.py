"""The one way to the state server: every command of the Redis store goes through a `Funnel`.

It bounds the number of connections and the time of every call, runs the Lua scripts, waits until an accepted write is
on disk, notices that the server lost everything, and turns whatever goes wrong into `StoreUnavailable`. It must not
know what is stored.
"""

import asyncio
import codecs
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, NoScriptError, ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from orchestrator.domain.errors import Misconfigured, StateLost, StoreUnavailable
from orchestrator.state import keys as names
from orchestrator.state.audit import carried_to
from orchestrator.state.keys import Journaled
from orchestrator.state.line import Line
from orchestrator.state.scripts import script
from orchestrator.telemetry import metrics

Argument = str | int
_DAMAGE_SHOWN = "nestor-damage-shown"


def _show_damage(error: UnicodeError) -> tuple[str | bytes, int]:
    """Halves of characters pass, as callers may send them. Bytes that are no text at all (a damaged record) become
    marks, instead of an exception that would keep the whole reply from being read."""
    try:
        return codecs.lookup_error("surrogatepass")(error)
    except UnicodeDecodeError as exc:
        return "\ufffd", exc.end


codecs.register_error(_DAMAGE_SHOWN, _show_damage)
SILENT_SECONDS = 0.5
_RUN = 16  #: characters of a run's id that are kept
_REFUSALS = {
    "READONLY": "is a replica and takes no writes: point NESTOR_REDIS_URL at the primary",
    "OOM": "is out of memory: raise its maxmemory or remove conversations",
    "MISCONF": "cannot write to its disk",
    "LOADING": "is still loading what it has stored",
    "BUSY": "is busy with a long script",
    "MASTERDOWN": "is a replica that lost its primary",
    "NOREPLICAS": "has fewer replicas than it was told to require",
    "CLUSTERDOWN": "is a cluster that does not serve all slots",
}


@dataclass(frozen=True)
class Call:
    """One command, or one script when `keys` is not None."""

    name: str
    arguments: tuple[Argument, ...]
    keys: tuple[str, ...] | None = None
    journal: Journaled | None = None


def command(name: str, *arguments: Argument) -> Call:
    """A plain command."""
    return Call(name, arguments)


def run(name: str, keys: tuple[str, ...], *arguments: Argument, journal: Journaled | None = None) -> Call:
    """A script of `scripts/` by its name. One that notes its change in a `journal` has that as the last of its keys,
    and as its last argument what is to be told in the audit log in the same step (`audit.py`)."""
    if journal is None:
        return Call(name, arguments, keys)
    return Call(name, (*arguments, carried_to(journal.home)), (*keys, journal.stream), journal)


def noted(call: Call, journal: Journaled) -> Call:
    """A plain command that notes something in a journal itself."""
    return replace(call, journal=journal)


class OtherServer(RedisError):
    """The connection leads to another run of a server than the one that was compared with the journal."""


class Archiving(Protocol):
    """What moves journals to their archive (`journal/shipper.py`)."""

    def hint(self) -> None:
        """Something was noted. Never waits."""
        ...

    async def soon(self, journaled: Sequence[Journaled]) -> None:
        """As `settled`, but an archive that is away or slow is not waited for: the server has it on disk."""
        ...

    async def settled(self, journaled: Sequence[Journaled]) -> None:
        """Return when everything that was noted there before this call is in the archive. Raises
        `StoreUnavailable`."""
        ...


def _note(journal: Journaled) -> Call:
    return command("ZADD", journal.index, 0, journal.home)


_EPOCH = command("GET", names.EPOCH)


class Funnel:
    """Calls to one server. Safe to share between tasks; a cancelled call gives its connection up."""

    def __init__(
        self, url: str, *, timeout: float, connections: int, durable_within: float, name: str | None = None
    ) -> None:
        """`url` is redis://, rediss:// or unix://; `timeout` in seconds for each batch, `durable_within` on top of it
        where a write has to be on disk; `name` is what the server calls its connections (`CLIENT LIST`). Connects at
        the first call. Raises `Misconfigured` for another kind of URL."""
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=connections,
                timeout=timeout,
                socket_timeout=timeout + durable_within + SILENT_SECONDS,  # the deadline of a batch comes first
                socket_connect_timeout=timeout,
                # A command whose reply was lost may have run, so it is not repeated here: callers know what may be.
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                decode_responses=True,
                encoding_errors=_DAMAGE_SHOWN,
                redis_connect_func=self._connected,
            )
        except ValueError as exc:
            raise Misconfigured(
                "NESTOR_REDIS_URL is not an address of a Redis server",
                hint="use redis://host:6379/0, rediss://host:6379/0 or unix:///path/to/server.sock",
            ) from exc
        self._name = name
        self._client = Redis(connection_pool=pool)
        self._callbacks = self._client.response_callbacks
        self._line = Line(pool.make_connection, within=timeout, errors=_DAMAGE_SHOWN)
        self._timeout = timeout
        #: A call ran into its deadline and none was answered since it was made: others are not to wait as long for the
        #: same answer.
        self._silent = False
        self._answered = 0.0  #: when the last call was, by the loop's clock
        self._durable_within = durable_within
        #: Whether `durable` batches wait for the disk; None until somebody looked (`durability.py`).
        self.waits_for_disk: bool | None = None
        #: Whether they wait for the archive instead, because the server cannot tell when it has them on disk.
        self.waits_for_archive = False
        self.archiving: Archiving | None = None
        #: What `keys.EPOCH` has to hold; None while nobody looks. Another value means that the server lost its data.
        self.epoch: str | None = None
        #: The run that every connection has to lead to; None while nobody looks. A server that was started again, or
        #: another one in its place, may know less than was accepted: nothing is asked of it before that is known.
        self.server: str | None = None
        self.on_loss: Callable[[], None] = lambda: None

    async def one(self, call: Call, *, durable: bool = False) -> Any:
        """The reply to one call."""
        return (await self.batch(call, durable=durable))[0]

    @property
    def silent(self) -> bool:
        """Whether a call ran into its deadline and none was answered since it was made."""
        return self._silent

    async def probe(self) -> None:
        """Ask a server that was silent for an answer, for as long as any call waits; all others go on by it."""
        await self.batch(command("PING"), patient=True)

    async def batch(self, *calls: Call, durable: bool = False, patient: bool = False, apart: bool = False) -> list[Any]:
        """The replies to `calls`, sent together and run in this order; other clients' commands may come in between.

        `durable`: answer only when the server has them on disk, where it can tell. All calls but one have to be
        safe to repeat. A server that is known to be silent is given `SILENT_SECONDS` only, unless `patient`.
        `apart`: what the server refuses of single calls is answered in their places, unless it refused all. Raises
        `StoreUnavailable`; then any of them may have run or not.
        """
        waits = durable and bool(self.waits_for_disk)
        journals = tuple({call.journal: None for call in calls if call.journal is not None})
        epoch = self.epoch
        head = 0 if epoch is None else 1
        wanted = slice(head, head + len(calls))
        calls = (*((_EPOCH,) if head else ()), *calls, *map(_note, journals))
        asked = asyncio.get_running_loop().time()
        try:
            async with _deadline(self._seconds(waits=waits, patient=patient)):
                replies = await self._send(calls, waits)
                self._silent, self._answered = False, asyncio.get_running_loop().time()
                if head and replies[0] != epoch and not isinstance(replies[0], Exception):
                    self.on_loss()
                    raise StateLost("the state server has lost what it kept; it is written anew from the journal")
                first = next((place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)), None)
                if first is not None:
                    replies[first:] = await self._send_with_scripts(calls[first:], waits)
        except OtherServer as exc:
            self.on_loss()
            raise StateLost("the state server was started again: it is compared with the journal") from exc
        except TimeoutError as exc:
            self._silent = self._answered < asked
            self._line.leave_unless_answered(min(asked, asyncio.get_running_loop().time() - self._timeout))
            metrics.STATE_ERRORS.labels("timeout").inc()
            raise StoreUnavailable("the state server did not answer in time") from exc
        except (RedisError, OSError) as exc:
            raise _translate(exc) from exc
        except RuntimeError as exc:
            if not _is_closed(exc):
                raise
            raise StoreUnavailable("the state server cannot be reached") from exc
        refused = [reply for reply in replies if isinstance(reply, Exception)]
        if refused and not (apart and any(not isinstance(reply, Exception) for reply in replies[wanted])):
            await self._refused(refused[0])
        if waits and replies.pop()[0] < 1:
            raise StoreUnavailable("the state server did not confirm in time that the write is on its disk")
        if self.archiving is not None:
            if durable and journals and self.waits_for_archive:
                await self._archived(self.archiving, journals)
            elif durable and journals:
                await self.archiving.soon(journals)
            elif journals:
                self.archiving.hint()
        return replies[wanted]

    def _seconds(self, *, waits: bool, patient: bool) -> float:
        if self._silent and not patient:
            return min(self._timeout, SILENT_SECONDS)
        return self._timeout + (self._durable_within if waits else 0)

    async def _archived(self, archiving: Archiving, journals: Sequence[Journaled]) -> None:
        try:
            async with asyncio.timeout(self._durable_within):
                await archiving.settled(journals)
        except TimeoutError as exc:
            raise StoreUnavailable("the journal did not take the change in time") from exc

    async def _refused(self, reply: Exception) -> None:
        """Raise ours for an error of the server. A server that became a replica is left: a new connection may lead to
        the new primary."""
        if isinstance(reply, ReadOnlyError):
            if self.server is not None:  # what it holds by then may be another primary's
                self.server = ""
                self.on_loss()
            await self.leave()
        raise _translate(reply) from reply

    async def leave(self) -> None:
        """Close what is idle: a new connection may lead elsewhere."""
        self._line.leave()
        await self._client.connection_pool.disconnect(inuse_connections=False)

    async def subscribed(self, channel: str) -> AsyncIterator[str]:
        """What is published there from now on, on a connection of its own. Raises `StoreUnavailable` when that ends."""
        try:
            async with self._client.pubsub(ignore_subscribe_messages=True) as pubsub:
                await pubsub.subscribe(channel)
                while True:
                    message = await pubsub.get_message(timeout=None)
                    if message is not None:
                        yield str(message["data"])
        except (RedisError, OSError) as exc:
            raise _translate(exc) from exc
        except RuntimeError as exc:
            if not _is_closed(exc):
                raise
            raise StoreUnavailable("the state server cannot be reached") from exc

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        await self._line.close()
        await self._client.aclose()
        await self._client.connection_pool.disconnect()

    async def _connected(self, connection: Any) -> None:
        """The client's own greeting, and then our name and which run of which server that is. Together, and instead of
        what the client would say about itself: a server that is slow must not make every new connection wait more than
        once."""
        connection.driver_info = connection.client_name = None
        await connection.on_connect()
        if self._name is not None:
            await connection.send_command("CLIENT", "SETNAME", self._name)
        if self.server is not None:
            await connection.send_command("INFO", "server")
        if self._name is not None:
            await connection.read_response()
        if self.server is None:
            return
        about = str(await connection.read_response())
        if run_of(line.partition(":")[::2] for line in about.splitlines()) != self.server:
            raise OtherServer

    async def _send(self, calls: tuple[Call, ...], waits: bool) -> list[Any]:
        if not waits:
            replies = await self._line.send([_words(call) for call in calls])
            return [self._parsed(call, reply) for call, reply in zip(calls, replies, strict=True)]
        async with self._client.pipeline(transaction=False) as pipeline:
            for call in calls:
                pipeline.execute_command(*_words(call))
            pipeline.execute_command("WAITAOF", 1, 0, int(self._durable_within * 1000))
            return list(await pipeline.execute(raise_on_error=False))

    def _parsed(self, call: Call, reply: Any) -> Any:
        """As the client's own commands answer it."""
        if call.keys is not None or isinstance(reply, Exception) or call.name not in self._callbacks:
            return reply
        return self._callbacks[call.name](reply)

    async def _send_with_scripts(self, calls: tuple[Call, ...], waits: bool) -> list[Any]:
        """Together with the scripts that they run: of a slow server that is one answer more, not two."""
        wanted = {call.name for call in calls if call.keys is not None}
        loads = tuple(command("SCRIPT LOAD", script(name).text) for name in wanted)
        replies = await self._send((*loads, *calls), waits)
        for reply in replies[: len(loads)]:
            if isinstance(reply, Exception):
                raise reply
        return replies[len(loads) :]


@asynccontextmanager
async def _deadline(seconds: float) -> AsyncIterator[None]:
    """As `asyncio.timeout`, but what came while the loop stalled is looked at first: that is nobody's silence."""
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    async with asyncio.timeout(None) as scope:

        def over() -> None:
            now = loop.time()
            scope.reschedule(now + min(now - due, SILENT_SECONDS))

        handle = loop.call_at(due, over)
        try:
            yield
        finally:
            handle.cancel()


def _words(call: Call) -> tuple[Argument, ...]:
    if call.keys is None:
        return (*call.name.split(" "), *call.arguments)
    return ("EVALSHA", script(call.name).sha, len(call.keys), *call.keys, *call.arguments)


def run_of(about: Iterable[tuple[str, Any]]) -> str:
    """Which run of which server it is, of its INFO; empty where it does not say."""
    return str(dict(about).get("run_id", ""))[:_RUN]


def _is_closed(exc: RuntimeError) -> bool:
    """Whether that is uvloop's word for a write to a connection that the other side has just ended. The client takes it
    for a mistake of its caller and passes it on."""
    return "handler is closed" in str(exc)


def _translate(exc: BaseException) -> StoreUnavailable | Misconfigured:
    """Our error for one of the client's, counted. Its text stays out: it may quote what was being stored."""
    kind, error = _told(exc)
    metrics.STATE_ERRORS.labels(kind).inc()
    return error


def _told(exc: BaseException) -> tuple[str, StoreUnavailable | Misconfigured]:
    # What goes wrong while connecting comes wrapped.
    if any(isinstance(one, AuthenticationError | NoPermissionError) for one in (exc, exc.__cause__, exc.__context__)):
        return "credentials", Misconfigured(
            "the state server refuses the user or password of NESTOR_REDIS_URL, or that user may not run a command",
            hint="the user needs all commands on keys that begin with t: and x:, and the channel x:changed (&x:*)",
        )
    if isinstance(exc, RedisTimeout):
        return "timeout", StoreUnavailable("the state server did not answer in time")
    # The client drops the code of errors that it has a class for, so both the class and the text are looked at.
    words = f"{_code(exc)} {exc}"
    for code, meaning in _REFUSALS.items():
        if re.search(rf"\b{code}\b", words):
            return code.lower(), StoreUnavailable(f"the state server {meaning} ({code})")
    if isinstance(exc, ConnectionError | OSError) or type(exc).__name__ in ("ConnectionError", "MaxConnectionsError"):
        return "unreachable", StoreUnavailable("the state server cannot be reached")
    return "other", StoreUnavailable(f"the state server refused a command ({type(exc).__name__})")


def _code(exc: BaseException) -> str:
    return {
        "ReadOnlyError": "READONLY",
        "OutOfMemoryError": "OOM",
        "BusyLoadingError": "LOADING",
        "MasterDownError": "MASTERDOWN",
        "ClusterDownError": "CLUSTERDOWN",
    }.get(type(exc).__name__, "")
