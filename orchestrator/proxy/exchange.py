"""One proxied request and its answer: from the head that the front read to the last byte of the answer.

The front's protocol makes one for each request that is for a runtime and feeds it; the upstream connection calls it
back. The usual case, a cached route and an open connection, runs through without a task. Whatever has to wait (a route,
a waking runtime, a new connection) happens in one task that dies with the client's connection.
"""

import asyncio

import structlog

from orchestrator.domain.errors import NestorError, RuntimeUnreachable, TransientError
from orchestrator.proxy import answers
from orchestrator.proxy.access import WITH_KEY, Access
from orchestrator.proxy.admission import Refused, admit, reach
from orchestrator.proxy.cross_origin import is_preflight, lines_for, preflight
from orchestrator.proxy.familiar import FamiliarAnswer
from orchestrator.proxy.front import Front
from orchestrator.proxy.head import Head
from orchestrator.proxy.headers import Answer, confine, localise, request_head, unreferred
from orchestrator.proxy.links import PORT_PAGE, reach_by_link
from orchestrator.proxy.outbox import POSTED_BYTES
from orchestrator.proxy.pool import Busy
from orchestrator.proxy.route import Route
from orchestrator.proxy.target import Destination, leads_to_init
from orchestrator.proxy.upstream import Data, UpstreamConnection

log = structlog.get_logger(__name__)

_HELD_BYTES = 512
_MISMATCH = b"generation mismatch"


class Exchange:
    """Lives from the end of the request's head to the end of the answer."""

    # In the class, since most exchanges end without having set them: a small one costs a few microseconds in all.
    _access = Access.REFUSED
    _route: Route | None = None
    _connection: UpstreamConnection | None = None
    _task: asyncio.Task[None] | None = None
    _pending: list[bytes] | None = None  # of the request's body, at most what was read before reading stopped
    _answer: Answer | None = None
    _out: list[Data] | None = None  # of the answer: what one read of the upstream gave goes out in one write
    _chunked_out = False
    _held: list[Data] | None = None
    _retried = False
    _over = False

    def __init__(self, front: Front, head: Head, destination: Destination) -> None:
        self._front = front
        self._context = front.context
        self._head = head
        self._destination = destination
        self._target = destination.target
        self._has_body = has_body = head.has_body
        self._request_done = not has_body
        self.bodiless = head.method == b"HEAD"
        self.keep_alive = head.keep_alive

    # Called by the front

    def begin(self) -> None:
        """Send the request on its way, at once if nothing has to be waited for."""
        head, context, destination = self._head, self._context, self._destination
        runtime, by_link = destination.runtime, destination.link is not None
        if runtime is None or (not by_link and leads_to_init(destination.target)):
            self.refuse(answers.NOT_FOUND)
            return
        if head.origin is not None and not by_link and is_preflight(head):
            self._answer_preflight()
            return
        route = None if by_link else context.known(runtime)
        if route is not None:
            if head.proved == route.session_key_hash:  # by an earlier request; another key means another hash
                self._access = WITH_KEY
            else:
                try:
                    self._access = admit(head, destination.path, route.session_key_hash)
                except Refused as refused:
                    self._refused(refused.refusal)
                    return
            limits = context.limits
            idle = limits.upstream_fresh_seconds if self._has_body else limits.upstream_idle_seconds
            connection = context.upstreams.take(route, idle_at_most=idle)
            if connection is not None:
                self._send(route, connection)
                return
        if self._has_body:
            self._front.hold_request(True)
        self._task = self._front.own(self._prepare(route, fresh=False))

    def on_request_body(self, data: bytes) -> None:
        """A piece of the client's body."""
        if self._over:
            return
        if self._connection is None:
            if self._pending is None:
                self._pending = []
            self._pending.append(data)
        else:
            self._write_body(self._connection, data)

    def on_request_end(self) -> None:
        """The client's request is complete."""
        self._request_done = True
        if self._connection is not None and self._head.chunked and not self._over:
            self._connection.write(b"0\r\n\r\n")

    def hold_answer(self, *, paused: bool) -> None:
        """The client reads slowly, or has caught up."""
        if self._connection is not None:
            if paused:
                self._connection.pause_reading()
            else:
                self._connection.resume_reading()

    def abandon(self) -> None:
        """The client is gone: so is the request, as far as the runtime can be told."""
        self._over = True
        if self._task is not None:
            self._task.cancel()
        self._drop_connection()

    def stale_since(self) -> float | None:
        """When the runtime last sent a byte, None while none can be expected from it."""
        return None if self._connection is None else self._connection.last_bytes

    def shut_down(self) -> None:
        """The server is stopping: finish, then close. An event stream has no end of its own and ends here."""
        self.keep_alive = False
        kind = self._answer.header(b"content-type") if self._answer is not None else None
        if kind is not None and kind.startswith(b"text/event-stream"):
            self._drop_connection()
            self._end_answer()

    def refuse(self, refusal: answers.Refusal) -> None:
        """Answer without the runtime. After the answer has begun it can only be cut off."""
        if self._over:
            return
        self._drop_connection()
        if self._answer is not None and self._held is None:
            self._over = True
            self._front.write_posted()
            self._front.transport.abort()
            return
        keep_alive = self.keep_alive and self._request_done
        more = lines_for(self._head, self._context.limits) if self._destination.link is None else []
        self._write(answers.render(refusal, close=not keep_alive, bodiless=self.bodiless, more=more))
        self._finish(keep_alive=keep_alive)

    def _answer_preflight(self) -> None:
        answer = preflight(self._head, self._context.limits)
        if isinstance(answer, answers.Refusal):
            self.refuse(answer)
            return
        keep_alive = self.keep_alive and self._request_done
        self._write(answer, b"\r\n\r\n" if keep_alive else b"\r\nconnection: close\r\n\r\n")
        self._finish(keep_alive=keep_alive)

    # Getting there

    def _idle_at_most(self) -> float:
        limits = self._context.limits
        return limits.upstream_fresh_seconds if self._has_body else limits.upstream_idle_seconds

    async def _prepare(self, route: Route | None, *, fresh: bool) -> None:
        """Find the route if it is not known, and a connection. The edge of the request: every failure is answered."""
        try:
            if route is None:
                route = await self._reached()
            connection = None if fresh else self._context.upstreams.take(route, idle_at_most=self._idle_at_most())
            self._send(route, connection or await self._context.upstreams.connect(route))
        except Refused as refused:
            self._refused(refused.refusal)
        except Busy as busy:
            self.refuse(busy.refusal)
        except RuntimeUnreachable:
            self._unreachable(route)
        except TimeoutError:
            self.refuse(answers.unavailable("The runtime could not be found in time. Try again."))
        except TransientError as exc:
            self.refuse(answers.unavailable(exc.message, max(1, round(exc.retry_after))))
        except NestorError as exc:
            log.error("proxy.failed", runtime=self._destination.runtime, code=exc.code)
            self.refuse(answers.FAILED)
        except Exception as exc:  # noqa: BLE001 - the edge of a request: the client gets an answer whatever broke
            log.error("proxy.failed", runtime=self._destination.runtime, error=type(exc).__name__)
            self.refuse(answers.FAILED)

    def _refused(self, refusal: answers.Refusal) -> None:
        if refusal is answers.UNAUTHORIZED and not self._context.wrong_key(self._front.address):
            refusal = answers.TOO_MANY_KEYS
        self.refuse(refusal)

    async def _reached(self) -> Route:
        runtime, address = self._destination.runtime, self._front.address
        if self._destination.link is not None:
            method = self._head.method
            route, self._target = await reach_by_link(self._context, self._destination, method, address)
            self._access = WITH_KEY
        else:
            route, self._access = await reach(self._context, self._head, self._destination.path, runtime, address)
        return route

    def _send(self, route: Route, connection: UpstreamConnection) -> None:
        self._task = None
        self._route = route
        self._connection = connection
        connection.route = route  # it may have been opened by another key or link: whose end would not be this one's
        with_key = self._access is WITH_KEY
        if with_key:
            self._context.touch(route)
        connection.ask(self, request_head(self._head, self._target, route, with_key=with_key))
        if self._has_body:
            pending, self._pending = self._pending, None
            for data in pending or ():
                self._write_body(connection, data)
            if self._request_done and self._head.chunked:
                connection.write(b"0\r\n\r\n")
            self._front.hold_request(False)

    def _write_body(self, connection: UpstreamConnection, data: bytes) -> None:
        if self._head.chunked:
            connection.write(b"%x\r\n" % len(data), data, b"\r\n")
        else:
            connection.write(data)

    # Called by the upstream connection

    def on_interim(self, status: int) -> None:
        if status == 100 and self._head.expects:
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_switch(self, answer: Answer, early: bytes) -> None:
        """Nobody asked for another protocol here."""
        self.on_lost(garbled=True)

    def on_answer(self, answer: Answer, *, until_close: bool) -> None:
        if answer.status == 401 and self._access is WITH_KEY and self._destination.link is None:
            self._stale()  # it refused the inner key: it is not the runtime that the route means
            return
        self._answer = answer
        if answer.status == 409 and answer.length is not None and answer.length <= _HELD_BYTES and not self.bodiless:
            self._held = []  # two meanings, told apart by the body: another generation, or the runtime's own conflict
            return
        self._write_head(answer, until_close=until_close)

    def on_whole_answer(self, answer: FamiliarAnswer, body: bytes) -> bool:
        """The usual answer, with all of its body: out with it, and the connection is free again. Answers whether it was
        dealt with so."""
        front, connection, destination = self._front, self._connection, self._destination
        if connection is None or self._out or not (self._request_done and self.keep_alive):
            return False
        if destination.link is not None or self._head.origin is not None:
            return False
        self._connection = None
        self._over = True
        connection.done()
        front.post((answer.confined if destination.prefix else answer.plain) + body)
        front.exchange_over(keep_alive=True)
        return True

    def on_answer_body(self, data: Data) -> None:
        if self._held is not None:
            self._held.append(data)
        elif self._chunked_out:
            self._write(b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._write(data)

    def on_long_body(self, data: memoryview) -> bool:
        self._flush()
        self._front.write_posted()
        transport = self._front.transport
        if transport.is_closing():
            return True
        if transport.get_write_buffer_size():  # the client is slow: what it keeps waiting is kept in its own size
            transport.write(bytes(data))
            return True
        transport.write(data)
        return transport.get_write_buffer_size() == 0

    def on_answer_end(self) -> None:
        if self._held is not None and self._answer is not None:
            body = b"".join(self._held)
            if _MISMATCH in body:
                self._answer = None
                self._held = None
                self._stale()
                return
            self._held = None
            self._write_head(self._answer, until_close=False)
            self._write(body)
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._request_done:
                connection.release()
            else:
                connection.discard()
        self._end_answer()

    def on_pause_in_answer(self) -> None:
        self._flush()

    def on_lost(self, *, garbled: bool) -> None:
        connection, self._connection = self._connection, None
        if self._over:
            return
        if self._answer is not None:
            self.refuse(answers.unreachable())
        elif connection is not None and connection.used and self._may_repeat() and not garbled:
            self._retried = True
            self._task = self._front.own(self._prepare(self._route, fresh=True))
        else:
            self._unreachable(self._route)

    def on_drain(self, *, paused: bool) -> None:
        self._front.hold_request(paused)

    def revoke(self) -> None:
        """The route is gone while the exchange runs."""
        self.refuse(answers.CHANGED)

    # The answer

    def _may_repeat(self) -> bool:
        return not self._retried and not self._has_body

    def _stale(self) -> None:
        """The runtime says that it is another one than the route means. Nothing was done, so one more try is safe."""
        self._drop_connection()
        route = self._route
        if route is not None:
            log.warning("proxy.stale_route", runtime=route.runtime, generation=route.generation)
            self._context.invalidate(route.runtime)
        if self._may_repeat():
            self._retried = True
            self._task = self._front.own(self._prepare(None, fresh=False))
        else:
            self.refuse(answers.CHANGED)

    def _unreachable(self, route: Route | None) -> None:
        if route is not None:
            log.warning("proxy.unreachable", runtime=route.runtime, generation=route.generation)
            self._context.invalidate(route.runtime)
        self.refuse(answers.unreachable())

    def _write_head(self, answer: Answer, *, until_close: bool) -> None:
        plain = self._destination.link is None and self._head.origin is None
        if answer.rendered is not None and plain and self.keep_alive and self._request_done:
            self._write(answer.rendered[1 if self._destination.prefix else 0])
            return
        lines = localise(answer.lines, self._head.host) if answer.redirects else [*answer.lines]
        if self._destination.link is not None:
            lines = unreferred([*lines, *answer.cross_origin])
        elif self._head.origin is not None:
            lines = [*lines, *lines_for(self._head, self._context.limits)]
        if self._destination.prefix:
            is_port = self._destination.link is not None and self._target.startswith(b"/api/ports/")
            lines = confine(lines, self._destination.prefix, *([PORT_PAGE] if is_port else []))
        has_body = not self.bodiless and answer.status not in (204, 304)
        if answer.length is not None and answer.status != 204:
            lines.append(b"content-length: %d" % answer.length)
        elif has_body and self._head.version == "1.1":
            lines.append(b"transfer-encoding: chunked")
            self._chunked_out = True
        elif has_body:
            self.keep_alive = False  # HTTP/1.0 knows the end of this answer by the end of the connection
        if not self._request_done:
            self.keep_alive = False  # answered before the request was complete: the rest is not read
        if not self.keep_alive:
            lines.append(b"connection: close")
        self._write(answer.status_line, b"\r\n", b"\r\n".join(lines), b"\r\n\r\n" if lines else b"\r\n")

    def _end_answer(self) -> None:
        if self._chunked_out:
            self._write(b"0\r\n\r\n")
        self._finish(keep_alive=self.keep_alive and self._request_done)

    def _finish(self, *, keep_alive: bool) -> None:
        if self._over:
            return
        self._over = True
        self._flush()
        self._front.exchange_over(keep_alive=keep_alive)

    def _write(self, *parts: Data) -> None:
        if self._out is None:
            self._out = [*parts]
        else:
            self._out += parts

    def _flush(self) -> None:
        """Write what is collected. The loop makes a system call of every write, so head and body go together."""
        # A closed transport of the loop raises on write, and another connection's callback may be the writer.
        out, self._out = self._out, None
        if out and not self._front.transport.is_closing():
            if sum(map(len, out)) <= POSTED_BYTES:
                self._front.post(b"".join(out))
            else:
                self._front.write_posted()
                self._front.transport.writelines(out)

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.discard()
