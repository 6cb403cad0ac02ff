"""One question and its answer: a turn of a conversation, waited for to its end.

For callers that know models and chats but no conversations (`runtime.api.openai`). A stored profile is a model to them;
the agent, its tools and its limits are those of the stored settings. A run goes on when its caller has gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from runtime.agent.stats import Stats, TokenUsage
from runtime.configuration.profiles import ProfileNotFound, ProfileStore
from runtime.configuration.record import AgentContext
from runtime.configuration.store import SettingsStore
from runtime.conversations.agents import CapacityFull
from runtime.conversations.conversation import Conversation
from runtime.conversations.definition import AgentDefinition, from_settings
from runtime.conversations.library import ConversationNotFound
from runtime.conversations.policies import AlwaysConfirm, NeverConfirm
from runtime.conversations.record import WorkspaceRecord
from runtime.conversations.service import ConversationService
from runtime.conversations.start import GivenMessage, StartRequest
from runtime.conversations.status import Status
from runtime.events.actions import FinishAction
from runtime.events.content import Content, text_of
from runtime.events.log import EventLog
from runtime.events.models import ActionEvent, MessageEvent, parse

_PREFIX = "openhands_"


class UnknownModel(Exception):
    """No stored profile has this model's name."""


class TurnFailed(Exception):
    """The run ended, or never began, without an answer."""

    def __init__(self, conversation_id: UUID, status: Status, reason: str | None = None) -> None:
        super().__init__(reason or f"Agent run ended with status: {status.value}")
        self.conversation_id = conversation_id
        self.status = status


class TurnTooLong(Exception):
    """The agent still works; its conversation has the answer when it is done."""

    def __init__(self, conversation_id: UUID) -> None:
        super().__init__("Agent run goes on: read its conversation later")
        self.conversation_id = conversation_id


@dataclass(frozen=True)
class Question:
    """What is asked: of which model, told what beside it, in which conversation (None: a new one)."""

    model: str
    content: list[Content]
    system: str
    conversation_id: UUID | None = None


@dataclass(frozen=True)
class Answer:
    """The agent's last words, and what this turn alone used."""

    text: str
    usage: TokenUsage


@dataclass(frozen=True)
class Turn:
    """A run that was begun."""

    conversation: Conversation
    first: int  #: the number of the first event that belongs to it
    before: TokenUsage


class Questions:
    """Begins and ends turns."""

    def __init__(
        self, conversations: ConversationService, settings_store: SettingsStore, profiles: ProfileStore
    ) -> None:
        self._conversations = conversations
        self._settings_store = settings_store
        self._profiles = profiles

    def models(self) -> list[str]:
        """The names under which stored profiles can be asked."""
        return sorted(_PREFIX + name for name in self._profiles.all())

    async def begin(self, question: Question) -> Turn:
        """Store the question and start the run.

        Raises UnknownModel, CapacityFull, WorkspaceUnusable, OSError, and then nothing was stored; TurnFailed when a
        hook keeps the question from the agent.
        """
        request = self._request(question)
        service = self._conversations
        conversation, created = await service.population.create(request)
        first, before = (0, TokenUsage()) if created else (len(conversation.events), _used(conversation.record.stats))
        if not created:
            await service.agents.receive(
                conversation.id, GivenMessage(content=question.content), run=True, needs_place=True
            )
        elif conversation.has_message:
            await self._run_new(conversation.id)
        if not conversation.has_message:
            raise TurnFailed(conversation.id, conversation.status, "A hook keeps the message from the agent")
        return Turn(conversation, first, before)

    async def end(self, turn: Turn, *, seconds: float | None) -> Answer:
        """Wait for the run's end. Raises TurnTooLong when `seconds` are over before, TurnFailed."""
        conversation = turn.conversation
        try:
            over = await self._conversations.agents.over(conversation.id, seconds=seconds)
        except ConversationNotFound:
            raise TurnFailed(conversation.id, Status.DELETING) from None
        if not over:
            raise TurnTooLong(conversation.id)
        if conversation.status is not Status.FINISHED:
            raise TurnFailed(conversation.id, conversation.status)
        return Answer(
            text=_last_words(conversation.events, turn.first),
            usage=_difference(_used(conversation.record.stats), turn.before),
        )

    async def _run_new(self, conversation_id: UUID) -> None:
        try:
            await self._conversations.agents.run(conversation_id)
        except CapacityFull:
            await self._conversations.population.delete(conversation_id)
            raise

    def _request(self, question: Question) -> StartRequest:
        stored = self._settings_store.read()
        limits = stored.conversation_settings
        return StartRequest(
            workspace=WorkspaceRecord(working_dir=str(self._conversations.settings.workspace_path.absolute())),
            agent=self._agent(question),
            conversation_id=question.conversation_id,
            initial_message=GivenMessage(content=question.content),
            max_iterations=limits.max_iterations,
            confirmation_policy=(
                AlwaysConfirm(kind="AlwaysConfirm") if limits.confirmation_mode else NeverConfirm(kind="NeverConfirm")
            ),
        )

    def _agent(self, question: Question) -> AgentDefinition:
        name = question.model.removeprefix(_PREFIX)
        try:
            if not question.model.startswith(_PREFIX):
                raise ProfileNotFound(name)
            llm = self._profiles.get(name)
        except ProfileNotFound:
            raise UnknownModel(question.model) from None
        settings = self._settings_store.read().agent_settings
        agent = from_settings(settings.model_copy(update={"llm": llm}))
        if question.system:
            context = agent.agent_context or AgentContext()
            suffix = "\n\n".join(text for text in (context.system_message_suffix, question.system) if text)
            agent.agent_context = context.model_copy(update={"system_message_suffix": suffix})
        return agent


def _last_words(events: EventLog, first: int) -> str:
    """What the agent said last from that event on; empty when it said nothing."""
    for line in reversed(events.lines(first, len(events))):
        event = parse(line)
        if isinstance(event, MessageEvent) and event.source == "agent":
            return text_of(event.llm_message.content)
        if isinstance(event, ActionEvent) and isinstance(event.action, FinishAction):
            return event.action.message
    return ""


_COUNTS = ("prompt_tokens", "completion_tokens", "cache_read_tokens", "reasoning_tokens")


def _used(stats: Stats) -> TokenUsage:
    totals = [metrics.accumulated_token_usage or TokenUsage() for metrics in stats.usage_to_metrics.values()]
    return TokenUsage(**{name: sum(getattr(total, name) for total in totals) for name in _COUNTS})


def _difference(now: TokenUsage, before: TokenUsage) -> TokenUsage:
    return TokenUsage(**{name: getattr(now, name) - getattr(before, name) for name in _COUNTS})
