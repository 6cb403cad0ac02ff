"""What a ready conversation needs from time to time: is its runtime still there, do messages wait, is the log taken.

Called by the worker that holds the conversation's lease, whenever the conversation is due.
"""

import json
from dataclasses import replace

import anyio
import structlog

from orchestrator.domain.conversation import Conversation, Why
from orchestrator.domain.errors import NestorError, RuntimeNotFound
from orchestrator.domain.ids import message_event_id
from orchestrator.drivers.base import Pausable
from orchestrator.drivers.values import Condition, Handle
from orchestrator.nested import wire
from orchestrator.services.deaths import GONE, Deaths, how_it_died
from orchestrator.services.drift import Looks
from orchestrator.services.events import NOT_PULLED, EventLog
from orchestrator.services.full_disks import FullDisks
from orchestrator.services.start import Surroundings, made, runtime_name, save
from orchestrator.services.upkeep import Upkeep
from orchestrator.state.base import Inbox, Lease
from orchestrator.telemetry import metrics

log = structlog.get_logger(__name__)
_MESSAGES_A_ROUND = 50
_ROUND_SECONDS = 60.0  # a runtime that is slow on purpose must not keep a worker from the others


class Tending:
    """One round for one conversation."""

    def __init__(
        self,
        house: Surroundings,
        inbox: Inbox,
        events: EventLog,
        deaths: Deaths,
        *,
        drift_seconds: float = 60.0,
        round_ms: int = 10_000,
    ) -> None:
        self._deaths = deaths
        self._upkeep = Upkeep(house, Looks(house.clock, seconds=drift_seconds))
        self._disks = FullDisks(house)
        self._house = house
        self._inbox = inbox
        self._events = events
        self._round_ms = round_ms

    async def tend(self, lease: Lease, conversation: Conversation) -> int | None:
        """Milliseconds until the next round, or the next start of one whose runtime died; None when there is none."""
        handle = await self._house.driver.find(runtime_name(conversation, made(conversation.runtime).generation))
        lost = await self._lost(handle, lease)
        if lost is not None:
            return await self._deaths.give_up(lease, conversation, lost)
        conversation = await self._expose(lease, conversation)
        conversation = await self._disks.look(lease, conversation)
        # Before messages: what is sent after a change is worked on with it.
        conversation = await self._upkeep.keep(lease, conversation, made(handle))
        try:
            with anyio.fail_after(_ROUND_SECONDS):
                delivered_all = await self._deliver(lease, conversation)
                await self._events.refresh(conversation)
        except (*NOT_PULLED, TimeoutError) as exc:
            log.warning("tending.runtime_silent", conversation=conversation.id, problem=problem_of(exc))
            return 1_000
        return self._round_ms if delivered_all else 0

    async def _expose(self, lease: Lease, conversation: Conversation) -> Conversation:
        """Open the runtime's own listener; another port than the recorded one is recorded, so that clients find it."""
        runtime, port = made(conversation.runtime), self._house.expose(conversation)
        if port == runtime.public_port:
            return conversation
        moved = replace(conversation, runtime=replace(runtime, public_port=port))
        return await save(self._house.conversations, lease, moved)

    async def _lost(self, handle: Handle | None, lease: Lease) -> Why | None:
        """Why there is no runtime any more, or None. One that somebody froze behind our back is let go on."""
        if handle is not None:
            try:
                observed = await self._house.driver.inspect(handle)
            except RuntimeNotFound:
                return GONE
            if observed.condition is Condition.PAUSED and isinstance(self._house.driver, Pausable):
                await self._house.driver.unpause(handle, fence=lease.fence)
                log.warning("runtime.unpaused", name=handle.name)
            if observed.condition is not Condition.EXITED:
                return None
        return await how_it_died(self._house.driver, handle)

    async def _deliver(self, lease: Lease, conversation: Conversation) -> bool:
        """Waiting messages, in order, each under an id that the runtime knows again. True when none is left."""
        waiting = await self._inbox.waiting(conversation.tenant, conversation.id, limit=_MESSAGES_A_ROUND)
        if not waiting:
            return True
        runtime = made(conversation.runtime)
        key = made(await self._house.keys.inner_key(conversation))
        origin = f"http://{runtime.address}"
        async with self._house.clients.open(origin, key, fence=lease.fence, generation=runtime.generation) as client:
            for message in waiting:
                body = wire.message_body(
                    json.loads(message.content), message_event_id(conversation.id, message.client_id)
                )
                await client.post_message(conversation.id, body)
                await self._inbox.delivered(lease, message.sequence, client_id=message.client_id)
                metrics.DELIVERIES.labels("message", "delivered").inc()
        return len(waiting) < _MESSAGES_A_ROUND


def problem_of(failure: BaseException) -> str:
    """A failure in words that may be logged."""
    return failure.message if isinstance(failure, NestorError) else type(failure).__name__
