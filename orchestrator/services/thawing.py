"""Letting a conversation's runtime that somebody paused run for as long as one act takes, and freezing it again.

For snapshots. It happens under the conversation's lease, and its record stays as it is: to everybody else it is paused
meanwhile, so no request and no message reaches it. Where this breaks off, or cannot freeze it, whoever has the lease
next finds it running and freezes it (`suspension.py`). It takes no place among what may run: an act is short, and few
are under way at once.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import anyio
import structlog

from orchestrator.domain.conversation import Conversation, Desired, Phase
from orchestrator.domain.errors import Conflict, LeaseLost, NestorError, NotFound, StoreUnavailable, TransientError
from orchestrator.drivers.base import Pausable
from orchestrator.services.lease_keeper import Held, LeaseKeeper
from orchestrator.services.resting import no_runtime
from orchestrator.services.saga import within
from orchestrator.services.start import Surroundings, made, runtime_name
from orchestrator.state.base import Lease

log = structlog.get_logger(__name__)
T = TypeVar("T")
_PATIENCE = 20.0  #: for the worker that is pausing it
_POLL_SECONDS = 0.1
_ALIVE_SECONDS = 20.0
_SETTLE_SECONDS = 5.0
_PAUSED = frozenset({Phase.READY, Phase.PAUSING, Phase.PAUSED})


def held_back(conversation: Conversation) -> bool:
    """Whether somebody wants it paused, and it is or is about to be."""
    return conversation.desired is Desired.PAUSED and conversation.phase in _PAUSED


class Thawing:
    """Of one replica, whose `keeper` runs."""

    def __init__(
        self,
        house: Surroundings,
        keeper: LeaseKeeper,
        *,
        owner: str,
        lease_seconds: float,
        wake: Callable[[], None],
    ) -> None:
        self._house = house
        self._keeper = keeper
        self._owner = owner
        self._lease_ms = int(lease_seconds * 1000)
        self._wake = wake

    async def meanwhile(self, source: Conversation, act: Callable[[Conversation], Awaitable[T]]) -> T:
        """What `act` answers, which is given the conversation as it can be reached now. Raises what that raises,
        `NotFound`, `Conflict` where somebody wants something else of it before `act` is over, `TransientError`."""
        held, present = await self._claimed(source)
        try:
            return await self._watched(held, present, act)
        finally:
            with anyio.CancelScope(shield=True):
                await self._frozen(held.lease, present)
                self._keeper.release(held)
                with anyio.move_on_after(_SETTLE_SECONDS), suppress(StoreUnavailable):
                    await self._house.conversations.settle(held.lease, due_in_ms=0)
            self._wake()

    async def _claimed(self, source: Conversation) -> tuple[Held, Conversation]:
        """With its lease, when it is paused."""
        conversations = self._house.conversations
        with anyio.move_on_after(_PATIENCE):
            while True:
                stored = await conversations.get(source.tenant, source.id)
                if stored is None:
                    raise NotFound(f"there is no such {source.kind}")
                if not held_back(stored):
                    raise no_runtime(stored, "", hint="look at it again, and start it if it is stopped")
                if stored.phase is Phase.PAUSED:
                    asked = self._keeper.now()
                    claim = await conversations.claim(source.tenant, source.id, self._owner, lease_ms=self._lease_ms)
                    if claim is not None and claim[1].phase is Phase.PAUSED and held_back(claim[1]):
                        return self._keeper.hold(claim[0], asked), claim[1]
                    if claim is not None:
                        await conversations.settle(claim[0], due_in_ms=0)
                        self._wake()
                await anyio.sleep(_POLL_SECONDS)
        raise TransientError("the conversation is being looked after", retry_after=5)

    async def _watched(self, held: Held, present: Conversation, act: Callable[[Conversation], Awaitable[T]]) -> T:
        done: list[T] = []
        failed: NestorError | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, held, tasks.cancel_scope)
            try:
                done.append(await act(await self._thawed(held.lease, present)))
            except NestorError as exc:
                failed = exc
            tasks.cancel_scope.cancel()
        if failed is not None:
            raise failed
        if not done:
            raise Conflict(f"somebody wants something else of the {present.kind} by now", hint="look at it again")
        return done[0]

    async def _watch(self, held: Held, acting: anyio.CancelScope) -> None:
        """End the act when its lease is lost, or when a caller wants something else by now."""
        lease, wanted = held.lease, True
        while wanted:
            try:
                with anyio.move_on_after(self._lease_ms / 3000):
                    await held.lost()
                stored = await self._house.conversations.get(lease.tenant, lease.conversation)
                wanted = stored is not None and stored.desired is Desired.PAUSED
            except LeaseLost:
                wanted = False
            except StoreUnavailable:
                continue
        acting.cancel()

    async def _thawed(self, lease: Lease, present: Conversation) -> Conversation:
        """With the address at which it answers."""
        runtime, driver = made(present.runtime), self._house.driver
        handle = await driver.find(runtime_name(present, runtime.generation))
        key = await self._house.keys.inner_key(present)
        if handle is None or key is None or not isinstance(driver, Pausable):
            raise TransientError("the runtime is not there any more", retry_after=5)
        endpoint = await within("thaw", self._house.step_seconds["thaw"], driver.unpause(handle, fence=lease.fence))
        here = replace(runtime, address=f"{endpoint.host}:{endpoint.port}")
        async with self._house.clients.open(f"http://{here.address}", key) as client:
            with anyio.move_on_after(_ALIVE_SECONDS):
                await client.wait_alive()
                return replace(present, runtime=here)
        raise TransientError("the runtime does not answer", retry_after=5)

    async def _frozen(self, lease: Lease, present: Conversation) -> None:
        driver = self._house.driver
        try:
            handle = await driver.find(runtime_name(present, made(present.runtime).generation))
            if handle is not None and isinstance(driver, Pausable):
                await within("freeze", self._house.step_seconds["freeze"], driver.pause(handle, fence=lease.fence))
        except NestorError as exc:  # the next holder of the lease does it
            log.warning("runtime.not_frozen", conversation=present.id, problem=exc.message)
