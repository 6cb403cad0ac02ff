"""One conversation in memory: its record, its log, its sockets, its agent, and the run that may be going on.

The service makes, finds and removes conversations; routes call the methods here. Everything that happens in a
conversation becomes an event by `emit`: stored first, sent second. All of it lives in one event loop, so what is
written between two awaits is one step for everybody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import structlog

from runtime.agent.history import History
from runtime.agent.prompt import dynamic_context, system_prompt
from runtime.agent.reply import Reply
from runtime.agent.tools.base import Toolbox
from runtime.conversations.bounds import bounded
from runtime.conversations.broadcast import Broadcast, event_payload, transient_payload
from runtime.conversations.folder import Folders
from runtime.conversations.goal import Goal
from runtime.conversations.live_secrets import LiveSecrets
from runtime.conversations.outward import Nobody, Outward
from runtime.conversations.record import ConversationRecord, full_state, shown
from runtime.conversations.saving import Saving
from runtime.conversations.status import ENDED, Status, advance
from runtime.events import frames
from runtime.events.actions import FinishAction
from runtime.events.clock import utc_now
from runtime.events.content import Message, TextContent, text_of
from runtime.events.feed import GONE, MOVED, Audience, Closing, Feed, Subscription
from runtime.events.log import EventLog
from runtime.events.models import (
    ActionEvent,
    ConversationStateUpdateEvent,
    Event,
    EventBase,
    LLMCompletionLogEvent,
    MessageEvent,
    PauseEvent,
    StoredEvent,
    StreamingDeltaEvent,
    SystemPromptEvent,
    compact,
)
from runtime.secrets.sources import LookupSecret, StaticSecret
from runtime.skills.loader import Skill
from runtime.skills.telling import always, triggered

log = structlog.get_logger()
E = TypeVar("E", bound=EventBase)

_TITLE_CHARACTERS = 60
_NOBODY = Nobody()


class Conversation:
    """Implements the run's Journal. Made by the service; `close` ends it."""

    def __init__(
        self,
        record: ConversationRecord,
        *,
        folders: Folders,
        events: EventLog,
        secrets: LiveSecrets,
        toolbox: Toolbox,
        on_activity: Callable[[], None],
        may_write: Callable[[], None] = lambda: None,
        skills: Callable[[], Sequence[Skill]] = tuple,
        memory: Callable[[], str | None] = lambda: None,
        outward: Outward = _NOBODY,
    ) -> None:
        self._find_skills = skills
        self._find_memory = memory
        self._skills: Sequence[Skill] | None = None
        self.record = record
        self.events = events
        self.secrets = secrets
        self.mask = secrets.mask
        self.toolbox = toolbox
        self.feed = Feed()
        self.broadcast = Broadcast(self.feed)
        self.pause_requested = asyncio.Event()
        self.folder = folders.path(record.id)
        self._on_activity = on_activity
        self._outward = outward
        self._may_write = may_write
        self._saving = Saving(lambda: self.record, folders=folders, events=events, may_write=may_write)
        self._history: History | None = None
        self.shown_events = 0  #: how many events the model is shown, as far as somebody counted

    @property
    def id(self) -> UUID:
        return self.record.id

    @property
    def status(self) -> Status:
        return self.record.execution_status

    @property
    def has_message(self) -> bool:
        """Whether the last message is one that the agent may answer."""
        last = self.record.last_user_message_id
        return last is not None and last not in self.record.blocked_messages

    @property
    def skills(self) -> Sequence[Skill]:
        """Those of the agent and its workspace, read when they are first needed."""
        if self._skills is None:
            self._skills = self._find_skills()
        return self._skills

    # -- showing

    def shown(self, *, include_skills: bool = False) -> dict[str, Any]:
        """ConversationInfo of the wire."""
        return shown(self.record, self.folder, include_skills=include_skills)

    def subscribe(self) -> Subscription:
        """A socket's view: the whole state first, then everything that is sent. Raises TooManySubscribers."""
        subscription = self.feed.subscribe()
        state = self._state_event()
        subscription.put(event_payload(compact(state), state.id))
        return subscription

    def subscribe_session(self, after_seq: int | None) -> Subscription:
        """The same for the session protocol: what will be sent again, the whole state. Raises TooManySubscribers."""
        subscription = self.feed.subscribe(Audience.SESSION)
        last = len(self.events) - 1 if len(self.events) else None
        subscription.put(frames.sync(from_seq=after_seq, through_seq=last))
        subscription.put(transient_payload(compact(self._state_event())))
        return subscription

    def publish_full_state(self) -> None:
        """Tell every listener the whole state; at the end of a run, never in the middle of one."""
        if len(self.feed) or self._outward.hears:
            self.send_live(self._state_event())

    def _state_event(self) -> ConversationStateUpdateEvent:
        value = bounded(full_state(self.record, self.folder))
        return self.live(ConversationStateUpdateEvent, key="full_state", value=value)

    # -- events

    def emit(self, kind: type[E], *, event_id: UUID | None = None, **fields: Any) -> E:
        """Store an event and send it. Raises OSError when the disk is full or another server owns the conversation;
        then nothing happened.

        State updates hang on the tree but are no part of it: the next event has the same parent.
        """
        event = kind(
            id=str(event_id or self._written(kind, fields) or uuid4()),
            timestamp=self.events.next_timestamp(),
            parent_id=self.record.leaf_event_id,
            **fields,
        )
        assert isinstance(event, StoredEvent)  # noqa: S101 - live kinds go through send_live
        self._may_write()
        line = self.events.append(event)
        if not isinstance(event, ConversationStateUpdateEvent):
            self.record.leaf_event_id = event.id
        self.record.updated_at = utc_now()
        self._notice(event)
        self.shown_events += 1
        self._on_activity()
        self.broadcast.stored(len(self.events) - 1, event.id, line)
        self._outward.stored(self.id, events=len(self.events), size=len(line))
        return event

    def _written(self, kind: type[EventBase], fields: Mapping[str, Any]) -> str | None:
        """The id under which the text of this answer was sent while it was written."""
        answer = kind is ActionEvent or (kind is MessageEvent and fields.get("source") == "agent")
        return self.broadcast.item if answer else None

    def live(self, kind: type[E], **fields: Any) -> E:
        """Make an event that is not stored."""
        return kind(id=str(uuid4()), timestamp=utc_now().isoformat(timespec="microseconds"), **fields)

    def send_live(self, event: Event) -> None:
        """Send an event that is not stored."""
        self.broadcast.live(event, events=len(self.events))
        if self._outward.hears and not isinstance(event, StreamingDeltaEvent):
            self._outward.live(self.id, event, events=len(self.events), mask=self.mask)

    def announce(self, *, flush: bool = False) -> None:
        """Let those beyond the sockets know how the conversation is now; with `flush` also what they lack of it."""
        self._outward.changed(self.id, events=len(self.events), flush=flush)

    def tell_state(self, key: str, value: Any) -> None:
        """Store and send a state update."""
        self.emit(ConversationStateUpdateEvent, key=key, value=value)

    def tell_goal(self, goal: Goal) -> None:
        """Where the pursuit of the objective is now."""
        self.record.goal = goal
        self.tell_state("goal", self.mask.tree(goal.model_dump()))

    def move(self, to: Status) -> None:
        """Go to another status and say so. Raises IllegalMove."""
        self.record.execution_status = advance(self.status, to)
        if to is not Status.RUNNING:
            self.broadcast.abort(to.value)
        self.tell_state("execution_status", to.value)

    async def settle(self) -> None:
        """Wait until everything emitted so far survives a power cut."""
        await asyncio.to_thread(self.events.sync)

    async def save(self) -> None:
        """Write the record as it is now. Raises OSError."""
        await self._saving.now()

    def save_soon(self) -> None:
        """Write the record within a second: enough for what the log has already."""
        self._saving.soon()

    def _notice(self, event: StoredEvent) -> None:
        """Keep what is asked for often and would have to be searched for."""
        if isinstance(event, MessageEvent) and event.source == "agent":
            self.record.final_response = text_of(event.llm_message.content)
        elif isinstance(event, ActionEvent) and isinstance(event.action, FinishAction):
            self.record.final_response = event.action.message

    # -- messages

    async def receive(
        self,
        message: Message,
        *,
        event_id: UUID | None = None,
        sender: str | None = None,
        extended: Sequence[TextContent] = (),
    ) -> bool:
        """Add a user's message; False when `event_id` is known already, so that a repeat has no effect.

        On disk when this returns. A running agent reads it in its next step.
        """
        known = event_id is not None and self.events.contains(event_id)
        if not known:
            self._add_message(message, event_id, sender, extended)
            self.save_soon()
        await self.settle()
        return not known

    def _add_message(
        self, message: Message, event_id: UUID | None, sender: str | None, extended: Sequence[TextContent]
    ) -> None:
        self.ensure_system_prompt()
        context = self.record.agent.agent_context
        suffix = context.user_message_suffix if context is not None else None
        called = triggered(self.skills, text_of(message.content), known=self.record.activated_skills)
        told = [TextContent(text=f"This may help ({skill.name}):\n\n{skill.content}") for skill in called]
        if called:
            self.record.activated_skills = [*self.record.activated_skills, *(skill.name for skill in called)]
        event = self.emit(
            MessageEvent,
            event_id=event_id,
            source="user",
            llm_message=message,
            activated_skills=[skill.name for skill in called],
            extended_content=[*([TextContent(text=suffix)] if suffix else []), *told, *extended],
            sender=sender,
        )
        self.record.last_user_message_id = event.id
        self.tell_state("last_user_message_id", event.id)
        if self.record.title is None and self.record.autotitle:
            self.record.title = cut_title(self.mask.text(text_of(message.content))) or None
        if self.status in ENDED:
            self.move(Status.IDLE)
        if self._history is not None:
            self._history.add(event)

    def ensure_system_prompt(self) -> None:
        """Every branch begins with the system prompt; it is made when the first message or run comes."""
        if self.record.leaf_event_id is not None:
            return
        self.secrets.refresh_mask()
        agent = self.record.agent
        self.record.stats.begin(agent.llm.usage_id, agent.llm.model)
        given = agent.agent_context
        context = dynamic_context(
            directory=Path(self.record.workspace.working_dir),
            secrets=self.secrets.descriptions(),
            repository=self.record.origin.repository if self.record.origin else None,
            suffix=given.system_message_suffix if given is not None else None,
            time=given.current_datetime if given is not None else None,
            skills=always(self.skills),
            memory=self._find_memory(),
        )
        self.emit(
            SystemPromptEvent,
            system_prompt=TextContent(text=system_prompt(agent.system_prompt, agent.persona)),
            tools=self.toolbox.descriptions(),
            dynamic_context=TextContent(text=self.mask.text(context)),
        )

    # -- the run's view

    def join(self, history: History | None) -> None:
        """From now on messages go to this run's history as well; None when the run is over."""
        self._history = history

    async def on_reply(self, reply: Reply) -> None:
        """Count an answer of the model, tell it, keep it. Learns new secrets before anything of it is shown."""
        self.secrets.refresh_mask()
        usage_id = self.record.agent.llm.usage_id
        self.record.stats.add(usage_id, reply.usage, cost=reply.cost, latency=reply.latency)
        self.log_completion(reply)
        self.tell_state("stats", self.record.stats.compact())
        await self.save()

    def log_completion(self, reply: Reply) -> None:
        """Put the whole call into the log, where the model's settings ask for it."""
        if (made := reply.log) is not None:
            self.emit(
                LLMCompletionLogEvent,
                filename=made.filename,
                log_data=self.mask.text(made.text),
                model_name=made.model,
                usage_id=made.usage_id,
            )

    def request_pause(self) -> None:
        """Stop the run after its step. Without effect when none is going on, or when it was asked for before."""
        if self.status is not Status.RUNNING or self.pause_requested.is_set():
            return
        self.pause_requested.set()
        self.emit(PauseEvent)

    async def update_secrets(self, sources: Mapping[str, StaticSecret | LookupSecret]) -> None:
        """Add or replace secrets of this conversation; on disk when this returns."""
        self.record.secrets = {**self.record.secrets, **sources}
        self.secrets.refresh_mask()
        await self.save()

    # -- end

    async def close(self, closing: Closing) -> None:
        """End sockets, shell and log. The run must be over. Idempotent."""
        self.feed.close(closing)
        await self.toolbox.close()
        await self._saving.close(write=closing not in (GONE, MOVED))
        await asyncio.to_thread(self.events.close)


def cut_title(text: str) -> str:
    """The first line of a text, cut at a word. Mask before: what is left of a value that was cut cannot be masked."""
    text = text.strip()
    line = text.splitlines()[0].strip() if text else ""
    if len(line) <= _TITLE_CHARACTERS:
        return line
    cut = line.rfind(" ", 0, _TITLE_CHARACTERS)
    return f"{line[: cut if cut > 0 else _TITLE_CHARACTERS]}..."
