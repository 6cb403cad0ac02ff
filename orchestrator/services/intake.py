"""What runtimes tell by themselves: batches of their event log, and that something about a conversation changed.

A runtime is hostile: it is believed about its own conversation and nothing else, and only the generation that is there
now is heard. Its events keep the numbers of its own log; where a batch does not join what is kept, the log is read from
the runtime instead. Answering without an error means that the batch is durable: the runtime may forget it.
"""

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import anyio

from orchestrator.domain.clock import Clock
from orchestrator.domain.conversation import LIVE_PHASES, Conversation
from orchestrator.domain.errors import InvalidRequest, RuntimeUnreachable, TransientError, Unauthenticated
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.domain.secrets import SecretText
from orchestrator.domain.spending import NOTHING, Spent, reported
from orchestrator.nested.refusals import Refused
from orchestrator.services.events import EventLog
from orchestrator.services.keys import KeyRing
from orchestrator.state.base import Conversations, Spending
from orchestrator.telemetry import metrics

AT_ONCE = 2  #: posts of one runtime that are served at a time
_ON_THEIR_WAY_SECONDS = 0.5  # nothing orders the two kinds of posts of a runtime
_NOBODY = SecretText("no runtime has this key, it is compared for the time that comparing takes")


class TooMany(TransientError):
    """This runtime posts faster than its posts are taken; the same batch later."""

    code = "runtime_too_fast"


@dataclass(frozen=True)
class Numbers:
    """The first and last sequence of the stored events of a batch, or of a gap, as the runtime has them."""

    first: int
    last: int


class Intake:
    """`used` is told of every post: an agent at work is use."""

    def __init__(
        self,
        conversations: Conversations,
        events: EventLog,
        spending: Spending,
        keys: KeyRing,
        clock: Clock,
        used: Callable[[TenantId, ConversationId], None],
    ) -> None:
        self._conversations = conversations
        self._events = events
        self._spending = spending
        self._clock = clock
        self._keys = keys
        self._used = used
        self._busy: dict[RuntimeId, int] = {}

    async def authenticate(self, runtime: RuntimeId, presented: str) -> Conversation:
        """The conversation whose runtime this is, by the inner key of its present generation. Raises `Unauthenticated`,
        in the same words for one that never was."""
        place = await self._conversations.route(runtime)
        found = await self._conversations.get(*place) if place is not None else None
        known = found is not None and found.runtime is not None and found.runtime.id == runtime
        key = await self._keys.inner_key(found) if found is not None and known else None
        right = hmac.compare_digest(presented.encode("utf-8", "replace"), (key or _NOBODY).open().encode())
        if found is None or key is None or not right or found.phase not in LIVE_PHASES:
            raise Unauthenticated("this is not the key of that runtime")
        return found

    async def events(
        self,
        conversation: Conversation,
        batch: Sequence[Mapping[str, Any]],
        numbers: Numbers | None,
        gap: Numbers | None = None,
    ) -> None:
        """Take a batch over, or word of a `gap`: of events that will never be sent. Raises `TooMany`, `InvalidRequest`,
        `StoreUnavailable`, `RuntimeUnreachable`; then nothing of it is acknowledged, and the runtime sends it again."""
        with self._slot(conversation):
            self._used(conversation.tenant, conversation.id)
            stored = [event for event in batch if not _is_live(event)]
            if gap is not None and not batch:
                await self._events.lost(conversation, gap.first, gap.last)
                return
            # What is in the log is counted with it. A server that does not number tells its use beside its log.
            await self._count(conversation, batch if numbers is None else [event for event in batch if _is_live(event)])
            if numbers is None:
                if stored:  # of a server that does not number: its log is read
                    await self._pull(conversation)
                return
            if numbers.last - numbers.first + 1 != len(stored):
                raise InvalidRequest("the batch does not hold the events that its numbers name")
            metrics.EVENTS_TOLD.inc(len(stored))
            if not await self._events.take(conversation, numbers.first, stored):
                await self._pull(conversation)

    async def changed(self, conversation: Conversation, log_events: int | None) -> None:
        """Something about the conversation changed, whose log has so many events: what is missing is on its way, or is
        read. Raises as `events`."""
        with self._slot(conversation):
            self._used(conversation.tenant, conversation.id)
            if log_events is None or await self._events.length(conversation) >= log_events:
                return
            await anyio.sleep(_ON_THEIR_WAY_SECONDS)
            if await self._events.length(conversation) < log_events:
                await self._pull(conversation)

    async def _count(self, conversation: Conversation, told: Sequence[Mapping[str, Any]]) -> None:
        """The use that these events say the conversation has had so far."""
        found = [spent for event in told if (spent := reported(event)) is not None]
        highest = reduce(Spent.up_to, found, NOTHING)
        if highest != NOTHING:
            await self._spending.report(conversation.tenant, conversation.id, highest, at=self._clock.now())

    async def _pull(self, conversation: Conversation) -> None:
        try:
            await self._events.pull(conversation)
        except Refused as exc:
            raise RuntimeUnreachable("the runtime's log could not be read") from exc

    def _slot(self, conversation: Conversation) -> "_Slot":
        runtime = conversation.runtime
        if runtime is None:
            raise Unauthenticated("this is not the key of that runtime")
        return _Slot(self._busy, runtime.id)


class _Slot:
    """One of the places of a runtime. Raises `TooMany` when all are taken."""

    def __init__(self, busy: dict[RuntimeId, int], runtime: RuntimeId) -> None:
        self._busy = busy
        self._runtime = runtime

    def __enter__(self) -> None:
        taken = self._busy.get(self._runtime, 0)
        if taken >= AT_ONCE:
            raise TooMany("posts of this runtime are still being taken", retry_after=1.0)
        self._busy[self._runtime] = taken + 1

    def __exit__(self, *_: object) -> None:
        left = self._busy[self._runtime] - 1
        if left:
            self._busy[self._runtime] = left
        else:
            del self._busy[self._runtime]


def _is_live(event: Mapping[str, Any]) -> bool:
    """Whether it is told and not stored: the whole state."""
    return event.get("kind") == "ConversationStateUpdateEvent" and event.get("key") == "full_state"
