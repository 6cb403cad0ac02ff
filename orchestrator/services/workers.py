"""Workers: claim what is due, and hold its lease for as long as somebody acts on it.

One act a conversation at a time, on any replica. The loop sleeps until something is due or `wake` is called; waking
only makes it earlier. Leases are renewed by `lease_keeper.py`; one that is lost ends the act: whoever holds it next
finds the log.
"""

from contextlib import suppress

import anyio
import structlog
from anyio.abc import TaskGroup

from orchestrator.domain.conversation import Conversation, Desired
from orchestrator.domain.errors import LeaseLost, StoreUnavailable
from orchestrator.domain.tracing import of_operation, tracing
from orchestrator.services.lease_keeper import Held, LeaseKeeper
from orchestrator.services.lifecycle import Lifecycle
from orchestrator.services.tending import problem_of
from orchestrator.state.base import Conversations, Lease
from orchestrator.telemetry import metrics

log = structlog.get_logger(__name__)
_LONGEST_SLEEP = 2.0
_AFTER_FAILURE_MS = 2_000


class Workers:
    """The pool of one replica."""

    def __init__(
        self,
        store: Conversations,
        lifecycle: Lifecycle,
        keeper: LeaseKeeper,
        *,
        owner: str,
        lease_seconds: float,
        at_once: int = 16,
    ) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._keeper = keeper
        self._owner = owner
        self._lease_ms = int(lease_seconds * 1000)
        self._slots = anyio.CapacityLimiter(at_once)
        self._wake = anyio.Event()
        self._draining = False
        self._idle = anyio.Event()

    def drain(self) -> None:
        """Claim nothing any more: this replica is about to end, and what is due is another's."""
        self._draining = True
        self._wake.set()

    async def drained(self) -> None:
        """Return when no act is under way."""
        while self._slots.borrowed_tokens:
            self._idle = anyio.Event()
            await self._idle.wait()

    def wake(self) -> None:
        """Something became due: look now."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled. Acts under way are cancelled with it, unwind, and give their leases back."""
        log.info("workers.begin", replica=self._owner)  # the name that stands in the leases of this replica
        async with self._keeper.running(), anyio.create_task_group() as tasks:
            while True:
                self._wake = anyio.Event()
                try:
                    with metrics.ticking("workers"):
                        await self.tick(tasks)
                    pause = await self._pause()
                except StoreUnavailable as exc:
                    log.warning("workers.store_unavailable", problem=exc.message)
                    pause = _LONGEST_SLEEP
                with anyio.move_on_after(pause):
                    await self._wake.wait()
                if self._draining:
                    await anyio.sleep_forever()

    async def tick(self, tasks: TaskGroup) -> int:
        """Claim what is due, as far as there are free slots; answers how many."""
        free = int(self._slots.available_tokens)
        if free <= 0 or self._draining:
            return 0
        asked = self._keeper.now()
        claimed = await self._store.claim_due(self._owner, lease_ms=self._lease_ms, limit=free)
        for lease, conversation in claimed:
            tasks.start_soon(self._work, self._keeper.hold(lease, asked), conversation, name=f"work-{conversation.id}")
        return len(claimed)

    async def _pause(self) -> float:
        if self._slots.available_tokens <= 0:
            return _LONGEST_SLEEP
        due_ms = await self._store.next_due_ms()
        return _LONGEST_SLEEP if due_ms is None else min(_LONGEST_SLEEP, max(0.02, due_ms / 1000))

    async def _work(self, held: Held, conversation: Conversation) -> None:
        lease = held.lease
        due_in_ms: int | None = _AFTER_FAILURE_MS
        async with self._slots:
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._watch, held, conversation.desired, tasks)
                    try:
                        with tracing(of_operation(conversation)):
                            due_in_ms = await self._lifecycle.act(lease, conversation)
                    except anyio.get_cancelled_exc_class():
                        due_in_ms = 0  # this replica ends, or a caller wants something else: now, whoever does it
                        raise
                    tasks.cancel_scope.cancel()
            except* LeaseLost as group:
                metrics.LEASES_LOST.inc()
                problem = problem_of(_leaves(group)[0])
                log.warning("lease.lost", conversation=conversation.id, fence=lease.fence, problem=problem)
            except* Exception as group:  # the edge of a loop tick: one conversation must not end the pool
                metrics.WORK_FAILED.inc()
                for exc in _leaves(group):
                    log.error("work.failed", conversation=conversation.id, problem=problem_of(exc), exc_info=exc)
            finally:
                self._keeper.release(held)
                with anyio.move_on_after(5, shield=True):
                    await self._settle(lease, due_in_ms)
        if not self._slots.borrowed_tokens:
            self._idle.set()
        self.wake()

    async def _settle(self, lease: Lease, due_in_ms: int | None) -> None:
        try:
            await self._store.settle(lease, due_in_ms=due_in_ms)
        except StoreUnavailable as exc:  # the lease ends by itself, later
            log.warning("lease.not_given_back", conversation=lease.conversation, problem=exc.message)

    async def _watch(self, held: Held, desired: Desired, tasks: TaskGroup) -> None:
        """End the act when its lease is lost, or when a caller wants something else by now."""
        while True:
            with anyio.move_on_after(self._lease_ms / 3000):
                await held.lost()
            with suppress(StoreUnavailable):
                stored = await self._store.get(held.lease.tenant, held.lease.conversation)
                if stored is not None and stored.desired is not desired:
                    tasks.cancel_scope.cancel()
                    return


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for item in group.exceptions:
        found.extend(_leaves(item) if isinstance(item, BaseExceptionGroup) else [item])
    return found
