"""What a crash left: a loaded conversation is made consistent with its log, and says that a run was broken off.

Called once for each conversation when it is loaded. The log is the truth: the record beside it may be some events old.
A tool call without an answer gets one, because its effects are unknown and a model needs every call answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import structlog
from pydantic import ValidationError

from runtime.conversations.conversation import Conversation, cut_title
from runtime.conversations.goal import Goal
from runtime.conversations.status import Status
from runtime.events.actions import FinishAction
from runtime.events.content import text_of
from runtime.events.log import EventLog
from runtime.events.models import (
    ActionEvent,
    AgentErrorEvent,
    ConversationErrorEvent,
    ConversationStateUpdateEvent,
    ErrorClassification,
    MessageEvent,
    ObservationEvent,
    StoredEvent,
    UserRejectObservation,
    parse,
)

log = structlog.get_logger()

_BLOCK = 200
_BROKEN_OFF = ErrorClassification(kind="transient", retryable=True, user_action="retry")


async def recover(conversation: Conversation) -> None:
    """Bring the record up to the log and end a run that a crash broke off. Raises OSError. Idempotent."""
    if _catch_up(conversation):
        conversation.save_soon()
    broken_off = conversation.status is Status.RUNNING
    if broken_off:
        _end_run(conversation)
    goal = conversation.record.goal
    # One whose acts wait for leave still waits: it goes on when leave is given.
    given_up = goal is not None and goal.active and conversation.status is not Status.WAITING_FOR_CONFIRMATION
    if goal is not None and given_up:
        conversation.tell_goal(goal.interrupted())
    if broken_off or given_up:
        await conversation.settle()
        await conversation.save()
        conversation.announce(flush=True)


def _end_run(conversation: Conversation) -> None:
    log.warning("run.broken_off", conversation=str(conversation.id))
    for action in unanswered(conversation.events):
        conversation.emit(
            AgentErrorEvent,
            tool_name=action.tool_name,
            tool_call_id=action.tool_call_id,
            error="The runtime stopped while this tool ran. What it did until then is unknown: check before repeating.",
            classification=_BROKEN_OFF,
        )
    conversation.emit(
        ConversationErrorEvent,
        code="RuntimeRestarted",
        detail="The runtime stopped in the middle of a run. Nothing stored was lost; run the conversation to go on.",
        classification=_BROKEN_OFF,
    )
    conversation.move(Status.ERROR)


def _catch_up(conversation: Conversation) -> bool:
    """Let the record know what the log has beyond it; False when that was nothing."""
    record, events = conversation.record, conversation.events
    known = record.log_events if record.log_events <= len(events) else 0
    for start in range(known, len(events), _BLOCK):
        for line in events.lines(start, start + _BLOCK):
            event = parse(line)
            _learn(conversation, event)
            # Of a log that was taken in whole the record knows nothing yet: what that one used is not this one's.
            if known and isinstance(event, ConversationStateUpdateEvent) and event.key == "stats":
                record.stats.learn(event.value)
    behind = known < len(events)
    record.log_events, record.log_bytes = len(events), events.index.end
    return behind


def _learn(conversation: Conversation, event: StoredEvent) -> None:
    record = conversation.record
    record.updated_at = datetime.fromisoformat(event.timestamp)
    if isinstance(event, ConversationStateUpdateEvent):
        if event.key == "execution_status":
            record.execution_status = Status(event.value)
        elif event.key == "goal":
            record.goal = _goal(event)
        return
    record.leaf_event_id = event.id
    if isinstance(event, MessageEvent) and event.source == "user":
        record.last_user_message_id = event.id
        if record.title is None and record.autotitle:
            record.title = cut_title(conversation.mask.text(text_of(event.llm_message.content))) or None
    elif isinstance(event, MessageEvent):
        record.final_response = text_of(event.llm_message.content)
    elif isinstance(event, ActionEvent) and isinstance(event.action, FinishAction):
        record.final_response = event.action.message


def _goal(event: ConversationStateUpdateEvent) -> Goal | None:
    try:
        return Goal.model_validate(event.value)
    except ValidationError:  # of another server that wrote this log
        return None


def unanswered(events: EventLog) -> list[ActionEvent]:
    """Tool calls at the end of the log that nothing answered, oldest first."""
    answered: set[str] = set()
    found: list[ActionEvent] = []
    for event in _backwards(events):
        if isinstance(event, ObservationEvent | AgentErrorEvent | UserRejectObservation):
            answered.add(event.tool_call_id)
        elif isinstance(event, ActionEvent) and event.tool_call_id not in answered:
            found.append(event)
        elif isinstance(event, ActionEvent) or (isinstance(event, MessageEvent) and event.source == "agent"):
            break  # calls are answered before the model is asked again
    return found[::-1]


def _backwards(events: EventLog) -> Iterator[StoredEvent]:
    for last in range(len(events), 0, -_BLOCK):
        yield from map(parse, reversed(events.lines(max(0, last - _BLOCK), last)))
