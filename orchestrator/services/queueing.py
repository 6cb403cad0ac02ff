"""The queue's keeper: gives free slots to conversations that wait, one tenant after the other.

A tenant's own limits are its own business; what tenants compete for is the host. So each round serves the tenant that
was served longest ago, one conversation at a time. Every replica runs a keeper; each step is one atomic script, so that
two keepers give no slot twice. It sleeps until somebody waits or something ended.
"""

import enum
from collections.abc import Callable

import anyio
import structlog
from anyio.abc import TaskGroup

from orchestrator.domain.admission import HOST_RUNTIMES, HOST_STARTS, Policy, Standing, Verdict, is_budget
from orchestrator.domain.errors import NestorError, StoreUnavailable
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.services.admission import Admission, Starter
from orchestrator.services.tending import problem_of
from orchestrator.state.base import Conversations, Slots
from orchestrator.telemetry import metrics

log = structlog.get_logger(__name__)
_TENANTS_A_TICK = 100
_ADMITTED_A_TICK = 200
_WHILE_WAITING = 1.0  # another replica's release, and a window of starts that ends, are told to nobody
_WHILE_EMPTY = 5.0


class Served(enum.Enum):
    """What became of one tenant's turn."""

    ONE = enum.auto()  #: somebody of it got a slot
    NONE = enum.auto()  #: nobody of it can have one now
    HOST_FULL = enum.auto()  #: nobody of any tenant can
    EMPTY = enum.auto()  #: nobody waits


class QueueKeeper:
    """One `tick` gives away what is free."""

    def __init__(
        self, slots: Slots, conversations: Conversations, admission: Admission, wake: Callable[[], None]
    ) -> None:
        self._slots = slots
        self._conversations = conversations
        self._admission = admission
        self._wake = wake
        self._again = anyio.Event()
        self._making_room: set[TenantId] = set()

    def look_again(self) -> None:
        """A slot may be free, or somebody waits."""
        self._again.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                self._again = anyio.Event()
                waiting = True
                try:
                    with metrics.ticking("queue"):
                        waiting = await self.tick(tasks)
                except StoreUnavailable as exc:
                    log.warning("queue.store_unavailable", problem=exc.message)
                with anyio.move_on_after(_WHILE_WAITING if waiting else _WHILE_EMPTY):
                    await self._again.wait()

    async def tick(self, tasks: TaskGroup) -> bool:
        """Serve the queues in turn until nothing is free. True while somebody waits. Who is to make room is found out
        in `tasks`, since that asks runtimes, and a tenant's slow ones must not keep the other tenants waiting."""
        passed: set[TenantId] = set()
        waiting, host_full = False, False
        for _ in range(_ADMITTED_A_TICK):
            line = [tenant for tenant in await self._slots.queues(limit=_TENANTS_A_TICK) if tenant not in passed]
            if not line:
                return waiting
            served = await self._serve_safely(tasks, line[0], host_full=host_full)
            waiting = waiting or served is not Served.EMPTY
            host_full = host_full or served is Served.HOST_FULL
            if served is not Served.ONE:
                passed.add(line[0])
        return True

    async def _serve_safely(self, tasks: TaskGroup, tenant: TenantId, *, host_full: bool) -> Served:
        try:
            return await self._serve(tasks, tenant, host_full=host_full)
        except StoreUnavailable:
            raise
        except NestorError as exc:  # such as settings that cannot be opened: the other tenants go on
            log.warning("queue.not_served", tenant=tenant, problem=problem_of(exc))
            return Served.NONE

    async def _serve(self, tasks: TaskGroup, tenant: TenantId, *, host_full: bool) -> Served:
        """One slot for the first of the tenant's queue that may have one. With `host_full` none is tried: a place that
        comes free meanwhile belongs to the tenant that was refused first."""
        ask, policy = await self._admission.queue_terms(tenant)
        found = await self._slots.next_waiting(tenant, ask)
        if found.waiting == 0:
            await self._slots.leave(tenant)
            return Served.EMPTY
        if found.first is None:
            return Served.NONE
        stands = found.standing
        if stands.verdict is not Verdict.REFUSED:
            full = Standing(Verdict.REFUSED, rule=HOST_RUNTIMES)
            stands = full if host_full else await self._admission.admit_waiting(tenant, found.first, ask)
        if stands.verdict is Verdict.ADMITTED:
            await self._slots.served(tenant)
            self._wake()
            log.info("queue.admitted", tenant=tenant, conversation=found.first, waiting=found.waiting - 1)
            return Served.ONE
        if stands.verdict is Verdict.REFUSED and is_budget(stands.rule):
            await self._slots.served(tenant)  # it may wait for a month, and not at the head of the line
            return Served.NONE
        makes_room = policy is Policy.PAUSE_OLDEST_IDLE and stands.verdict is Verdict.REFUSED
        if makes_room and tenant not in self._making_room:
            self._making_room.add(tenant)
            tasks.start_soon(self._make_room, tenant, found.first, stands.rule, found.waiting)
        return Served.HOST_FULL if stands.rule in (HOST_RUNTIMES, HOST_STARTS) else Served.NONE

    async def _make_room(self, tenant: TenantId, id: ConversationId, rule: str, waiting: int) -> None:
        """The one that was to make room could not be spared after all: ask another, as many as wait."""
        try:
            first = await self._conversations.get(tenant, id)
            if first is not None and len(await self._slots.evictions(tenant)) < waiting:
                await self._admission.make_room(Starter(tenant, id, first.user, first.key), rule)
        except NestorError as exc:  # the next tick tries again
            log.warning("queue.no_room_made", tenant=tenant, problem=problem_of(exc))
        finally:
            self._making_room.discard(tenant)
