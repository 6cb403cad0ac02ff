"""What holds a conversation now, and what the clock will do to it: for showing.

The agent is asked at most every two seconds for a conversation, and for one second: whoever polls a record does not
load its runtime, and a runtime that is slow on purpose does not hold the answer up. Nor is it asked in the first two
seconds of a runtime, whose agent rested when it was made: whoever waits for a start does not wait for that question.
"""

import asyncio
import enum
from dataclasses import dataclass

import anyio

from orchestrator.domain.admission import Verdict
from orchestrator.domain.clock import Clock
from orchestrator.domain.conversation import Conversation, Desired, Phase
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.domain.retention import Planned, plan
from orchestrator.services.admission import Admission
from orchestrator.services.idleness import Idleness, Rest
from orchestrator.state.base import Inbox

_ASKED_EVERY = 2.0
_ASKED_FOR = 1.0
_REMEMBERED = 1_000
_STARTING = frozenset({Phase.PENDING, Phase.PROVISIONING, Phase.CONFIGURING, Phase.RESUMING})


class Hold(enum.StrEnum):
    """Why a runtime is kept, or will be."""

    STARTING = "starting"  #: it is on its way
    QUEUED = "queued"  #: it waits for a place
    IN_USE = "in_use"  #: a request or a socket is open, or was in the last seconds, on the replica that answers
    AGENT_RUNNING = "agent_running"
    MESSAGES_WAITING = "messages_waiting"


@dataclass(frozen=True)
class Outlook:
    """`holds` now; `schedule` if nothing changes, the next first."""

    holds: tuple[Hold, ...]
    schedule: tuple[Planned, ...]


class Holding:
    def __init__(self, inbox: Inbox, idleness: Idleness, admission: Admission, clock: Clock) -> None:
        self._inbox = inbox
        self._idleness = idleness
        self._admission = admission
        self._clock = clock
        self._asked: dict[tuple[TenantId, ConversationId], tuple[float, bool]] = {}

    async def outlook(self, conversation: Conversation) -> tuple[Outlook, Rest | None]:
        """Of one conversation; with how long it has not been used, which it is made of."""
        times, rest, holds = await asyncio.gather(
            self._idleness.times(conversation), self._idleness.rest(conversation), self._holds(conversation)
        )
        schedule = plan(conversation, times, unused_since=rest.since if rest is not None else None)
        return Outlook(tuple(holds), schedule), rest

    async def _holds(self, conversation: Conversation) -> list[Hold]:
        holds: list[Hold] = []
        if conversation.desired is not Desired.RUNNING or conversation.archived_at is not None:
            return holds
        stands = await self._admission.standing(conversation)
        if stands.verdict is Verdict.QUEUED:
            holds.append(Hold.QUEUED)
        elif conversation.phase in _STARTING:
            holds.append(Hold.STARTING)
        if await self._inbox.waiting(conversation.tenant, conversation.id, limit=1):
            holds.append(Hold.MESSAGES_WAITING)
        if conversation.phase is Phase.READY:
            if self._idleness.is_used(conversation):
                holds.append(Hold.IN_USE)
            if await self._agent_runs(conversation):
                holds.append(Hold.AGENT_RUNNING)
        return holds

    async def _agent_runs(self, conversation: Conversation) -> bool:
        place, now = (conversation.tenant, conversation.id), self._clock.monotonic()
        started = conversation.runtime.started_at if conversation.runtime is not None else None
        if started is not None and (self._clock.now() - started).total_seconds() < _ASKED_EVERY:
            return False
        asked_at, answer = self._asked.get(place, (now - _ASKED_EVERY, False))
        if now - asked_at < _ASKED_EVERY:
            return answer
        with anyio.move_on_after(_ASKED_FOR):
            answer = await self._idleness.is_at_work(conversation)
        self._asked.pop(place, None)  # so that it becomes the youngest
        self._asked[place] = (now, answer)
        if len(self._asked) > _REMEMBERED:
            del self._asked[next(iter(self._asked))]
        return answer
