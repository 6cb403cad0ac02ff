"""All connections to all runtimes, and whatever else is open towards one.

Keyed by runtime, generation and address, so that a new generation, or another container at a freed address, never gets
a connection of the old one. Tunnels are counted here too: a runtime has a limit, and a withdrawn route ends everything
that was opened by it.
"""

import asyncio
from typing import Protocol

from orchestrator.domain.errors import RuntimeUnreachable
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.proxy import answers
from orchestrator.proxy.familiar import FamiliarAnswers
from orchestrator.proxy.limits import FrontLimits
from orchestrator.proxy.long_body import Memory
from orchestrator.proxy.outbox import Outbox
from orchestrator.proxy.route import Route
from orchestrator.proxy.upstream import UpstreamConnection

_Place = tuple[RuntimeId, int, str, int]


class Busy(RuntimeUnreachable):
    """This runtime has as many connections as one may have, or those of its tenant together; `refusal` says which."""

    code = "runtime_busy"

    def __init__(self, refusal: answers.Refusal) -> None:
        self.refusal = refusal
        super().__init__(str(refusal.body["detail"]))


class RouteUser(Protocol):
    """Something open towards a runtime that has to end when its route does."""

    route: Route

    def revoke(self) -> None:
        """The route is gone: end, telling the client as far as the protocol allows."""
        ...


class Upstreams:
    """All connections to all runtimes."""

    def __init__(self, limits: FrontLimits) -> None:
        self.limits = limits
        self.answers = FamiliarAnswers()
        self.memory = Memory()
        self.outbox = Outbox()
        self._idle: dict[_Place, list[UpstreamConnection]] = {}
        self._open: dict[RuntimeId, set[RouteUser]] = {}
        self._of_tenant: dict[TenantId, set[RouteUser]] = {}
        self._sweep: asyncio.TimerHandle | None = None

    def take(self, route: Route, *, idle_at_most: float) -> UpstreamConnection | None:
        """The open connection that was used last, if that was in the last `idle_at_most` seconds; else None."""
        idle = self._idle.get(route.place)
        if not idle:
            return None
        oldest = idle[-1].now() - idle_at_most
        while idle and idle[-1].idle_since >= oldest:
            connection = idle.pop()
            connection.idle = False
            if not connection.transport.is_closing():
                return connection
        return None

    async def connect(self, route: Route) -> UpstreamConnection:
        """A new connection. Raises `Busy` or `RuntimeUnreachable`."""
        if len(self._open.get(route.runtime, ())) >= self.limits.connections_per_runtime:
            raise Busy(answers.BUSY)
        self._make_room(route.tenant)
        connection = UpstreamConnection(self, route)
        self.add(connection)  # before it is open, so that many at once are counted
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.limits.connect_seconds):
                await loop.create_connection(lambda: connection, route.host, route.port)
        except (OSError, TimeoutError) as exc:
            connection.discard()
            raise RuntimeUnreachable("the runtime did not accept a connection") from exc
        except BaseException:
            connection.discard()  # it may have been opened in the moment in which the client went away
            raise
        return connection

    def put(self, connection: UpstreamConnection) -> None:
        """Keep an open connection for the next request."""
        connection.idle = True
        connection.idle_since = connection.now()
        idle = self._idle.get(connection.route.place)
        if idle is None:
            self._idle[connection.route.place] = [connection]
        else:
            idle.append(connection)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self.limits.upstream_idle_seconds / 2, self._close_old)

    def add(self, user: RouteUser) -> None:
        """Count `user` among what is open for its runtime."""
        self._open.setdefault(user.route.runtime, set()).add(user)
        self._of_tenant.setdefault(user.route.tenant, set()).add(user)

    def forget(self, user: RouteUser) -> None:
        """`user` is closed or closing. May be called twice."""
        users = self._open.get(user.route.runtime)
        if users is not None:
            users.discard(user)
            if not users:
                del self._open[user.route.runtime]
        of_tenant = self._of_tenant.get(user.route.tenant)
        if of_tenant is not None:
            of_tenant.discard(user)
            if not of_tenant:
                del self._of_tenant[user.route.tenant]
        if isinstance(user, UpstreamConnection) and user.idle:
            user.idle = False
            key = user.route.place
            idle = self._idle[key]
            idle.remove(user)
            if not idle:
                del self._idle[key]

    def open_for(self, runtime: RuntimeId) -> tuple[RouteUser, ...]:
        """What is open towards `runtime` now."""
        return tuple(self._open.get(runtime, ()))

    def all_open(self) -> list[RouteUser]:
        """What is open towards any runtime now."""
        return [user for users in self._open.values() for user in users]

    def in_use(self) -> set[tuple[TenantId, ConversationId]]:
        """The conversations towards which a request or a socket is open now."""
        users = (user for users in self._open.values() for user in users)
        return {
            (user.route.tenant, user.route.conversation)
            for user in users
            if not (isinstance(user, UpstreamConnection) and user.idle)
        }

    def close_idle(self, runtime: RuntimeId) -> None:
        """Close the connections to `runtime` that carry nothing."""
        for user in self.open_for(runtime):
            if isinstance(user, UpstreamConnection) and user.idle:
                user.discard()

    def close(self) -> None:
        """Close every connection, whatever it carries."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for users in list(self._open.values()):
            for user in list(users):
                user.revoke()

    def _make_room(self, tenant: TenantId) -> None:
        """For one more connection to a runtime of `tenant`, by one that carries nothing if need be. Raises `Busy`."""
        most = self.limits.connections_per_tenant
        if not most or len(of_tenant := self._of_tenant.get(tenant, ())) < most:
            return
        for user in of_tenant:
            if isinstance(user, UpstreamConnection) and user.idle:
                user.discard()
                return
        raise Busy(answers.TENANT_BUSY)

    def _close_old(self) -> None:
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self.limits.upstream_idle_seconds
        for connection in [c for idle in self._idle.values() for c in idle if c.idle_since <= oldest]:
            connection.discard()
        self._sweep = None
        if self._idle:
            self._sweep = loop.call_later(self.limits.upstream_idle_seconds / 2, self._close_old)
