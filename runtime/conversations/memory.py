"""What the model is shown of a conversation: read from the log, condensed when it grows too long, asked about.

Used by the run and by the routes for questions and condensation. Implements the loop's Memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from runtime.agent.condenser import CondenserSpec, as_text, cut, request_for, spec_of, view
from runtime.agent.history import History
from runtime.agent.llm import Model
from runtime.agent.reply import Reply
from runtime.agent.size import CHARACTERS_A_TOKEN
from runtime.configuration.record import LlmSettings
from runtime.conversations.branch import branch
from runtime.conversations.conversation import Conversation
from runtime.conversations.goal import JUDGE_USAGE, Goal, Judgement, judgement_of, question
from runtime.events.models import Condensation, CondensationRequest, StoredEvent, parse

log = structlog.get_logger()

ASKING_USAGE = "ask-agent-llm"
CONDENSER_USAGE = "condenser"
_FOR_THE_RECORD = 0.7  #: of what a judge may be shown; the rest is for the question around it
_ANSWER = "Answer the question from what is above, in plain words. You cannot act now: nothing that you write is run."


class NoCondenser(Exception):
    """The agent's definition has none."""


class NoAnswer(Exception):
    """The model gave no text."""


class ConversationMemory:
    """Of one conversation. `llm` answers the settings of the agent's model as they are now."""

    def __init__(self, conversation: Conversation, *, llm: Callable[[], LlmSettings]) -> None:
        self._conversation = conversation
        self._llm = llm
        self._requested = False

    async def read(self) -> History:
        """The history as the model sees it; what came while it was read is in it."""
        conversation = self._conversation
        count = len(conversation.events)
        shown = await asyncio.to_thread(self._view, count)
        blocked = conversation.record.blocked_messages
        history = await asyncio.to_thread(
            lambda: History(shown, most_characters=self._llm().max_message_chars, blocked=blocked)
        )
        for line in conversation.events.lines(count, len(conversation.events)):
            history.add(parse(line))
        return history

    @property
    def can_condense(self) -> bool:
        return self._spec is not None

    @property
    def too_long(self) -> bool:
        """Whether it has to be condensed before the model is asked again; cheap."""
        spec = self._spec
        return spec is not None and (self._requested or self._conversation.shown_events > spec.max_size)

    @property
    def most_tokens(self) -> int | None:
        """A call of more tokens has to be condensed first; None: however long it is."""
        return None if self._spec is None else self._spec.max_tokens

    def request(self) -> None:
        """Condense before the next step. Raises NoCondenser."""
        if self._spec is None:
            raise NoCondenser
        self._conversation.emit(CondensationRequest)
        self._requested = True

    async def condense(self, *, hard: bool = False) -> bool:
        """Put a summary in the place of the middle; `hard` keeps less. False when there is nothing to forget.

        Raises NoCondenser, ModelError.
        """
        spec = self._spec
        if spec is None:
            raise NoCondenser
        self._requested = False
        conversation = self._conversation
        shown = await asyncio.to_thread(self._view, len(conversation.events))
        # On demand, or when the model can take no more, half of what is there is too much as well.
        size = min(spec.max_size, len(shown))
        found = cut(shown, spec, down_to=size // 4 if hard else size // 2)
        if found is None:
            return False
        # A conversation that follows the stored settings does so here too: its keys may have changed since.
        follows = conversation.record.origin is not None and not conversation.record.own_llm
        reply = await self._ask(
            None if follows else spec.llm, CONDENSER_USAGE, await asyncio.to_thread(request_for, found.forgotten)
        )
        conversation.log_completion(reply)
        conversation.emit(
            Condensation,
            forgotten_event_ids=[event.id for event in found.forgotten],
            summary=conversation.mask.text(reply.text),
            summary_offset=found.offset,
            llm_response_id=reply.response_id,
        )
        conversation.tell_state("stats", conversation.record.stats.compact())
        conversation.shown_events = len(shown) - len(found.forgotten) + 1
        await conversation.settle()
        log.info("conversation.condensed", conversation=str(conversation.id), forgotten=len(found.forgotten))
        return True

    async def answer(self, question: str) -> str:
        """The agent's answer to a question; the conversation is not changed. Raises ModelError, NoAnswer."""
        history = await self.read()
        chat = [
            {"role": "user", "content": as_text(history.messages())},
            {"role": "user", "content": f"{_ANSWER}\n\nQuestion: {question}"},
        ]
        reply = await self._ask(None, ASKING_USAGE, chat)
        if not reply.text.strip():
            raise NoAnswer
        self._conversation.secrets.refresh_mask()
        return self._conversation.mask.text(reply.text)

    async def judge(self, goal: Goal, history: History) -> Judgement:
        """Whether the conversation so far shows the objective to be reached. Raises ModelError."""
        most = self._llm().max_input_tokens
        characters = None if most is None else int(most * CHARACTERS_A_TOKEN * _FOR_THE_RECORD)
        reply = await self._ask(None, JUDGE_USAGE, question(goal, as_text(history.messages()), most=characters))
        self._conversation.secrets.refresh_mask()
        self._conversation.log_completion(reply)
        self._conversation.tell_state("stats", self._conversation.record.stats.compact())
        return judgement_of(reply.text)

    async def _ask(self, own: LlmSettings | None, usage_id: str, chat: list[dict[str, Any]]) -> Reply:
        llm = (own or self._llm()).model_copy(update={"stream": False, "usage_id": usage_id})
        reply = await Model(llm).ask(chat, [], on_delta=_nobody, abandon=asyncio.Event())
        conversation = self._conversation
        conversation.record.stats.add(usage_id, reply.usage, cost=reply.cost, latency=reply.latency)
        conversation.record.touch()
        await conversation.save()
        return reply

    @property
    def _spec(self) -> CondenserSpec | None:
        return spec_of(self._conversation.record.agent.condenser)

    def _view(self, count: int) -> list[StoredEvent]:
        record = self._conversation.record
        events = [parse(line) for line in self._conversation.events.lines(0, count)]
        if record.branched:
            events = branch(events, record.leaf_event_id)
        shown = view(events)
        self._conversation.shown_events = len(shown)
        return shown


def _nobody(_content: str | None, _reasoning: str | None) -> None:
    """Nobody listens to it being written."""
