"""Stopping a conversation, for whatever reason: its runtime ends, its workspace and its log stay."""

from dataclasses import replace

import structlog

from orchestrator.domain.conversation import Conversation, Phase, Reason, Why, advance, put_to_rest
from orchestrator.domain.operation import OperationState
from orchestrator.services import saga
from orchestrator.services.admission import Admission
from orchestrator.services.ending import last_pull, remove_runtime, with_last_words
from orchestrator.services.events import EventLog
from orchestrator.services.progress import finish
from orchestrator.services.start import Provisioning, Surroundings, made
from orchestrator.state.base import Lease, Store

log = structlog.get_logger(__name__)
_LAST_PULL_SECONDS = 20.0
EXPIRED = Why(Reason.EXPIRED, "its runtime lived for as long as it may", "start it again", retryable=True)
REQUESTED_STOP = Why(Reason.REQUESTED, "stopped by a caller", "start it to go on")


class Stopping:
    """Answers, as `Lifecycle` does, when the conversation is due again."""

    def __init__(self, house: Surroundings, store: Store, events: EventLog, admission: Admission) -> None:
        self._house = house
        self._store = store
        self._events = events
        self._admission = admission

    async def stop(self, lease: Lease, conversation: Conversation, why: Why = REQUESTED_STOP) -> int | None:
        if conversation.phase is Phase.READY:
            await last_pull(self._events, conversation, seconds=_LAST_PULL_SECONDS)
        start = Provisioning(self._house, lease, conversation, generation=made(conversation.runtime).generation)
        if conversation.phase is Phase.STOPPING:
            why = replace(why, log_tail=conversation.why.log_tail)
        else:  # with its reason: whoever goes on after a crash knows no other
            why = await with_last_words(self._house, conversation, why) if conversation.was_ready else why
            await start.store(advance(conversation, Phase.STOPPING, why=why, now=self._house.clock.now()))
        if put_to_rest(start.conversation) and made(conversation.runtime).public_port:
            await self._store.conversations.add_sleeper(made(conversation.runtime).id)
        if not await remove_runtime(start, self._store.saga):
            return saga.STUCK_RETRY_MS
        await start.store(advance(start.conversation, Phase.STOPPED, why=why, now=self._house.clock.now()))
        await finish(self._store.operations, conversation, OperationState.SUCCEEDED)
        await self._admission.give_back(lease)
        return None
