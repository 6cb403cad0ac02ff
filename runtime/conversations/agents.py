"""What the agent of a conversation is asked for: to run, take a message, pursue a goal, answer beside its work.

`service` has one of these for all conversations. As many run at once as the runtime allows. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

from runtime.agent.llm import warm_up
from runtime.conversations.goal import Goal, opening, reopening
from runtime.conversations.library import Library, Opened
from runtime.conversations.runs import MESSAGE_INSTEAD, AlreadyRunning
from runtime.conversations.start import GivenMessage
from runtime.conversations.status import Status
from runtime.events.content import Message


class NoGoal(Exception):
    """There is no goal that was interrupted, so none can be taken up again."""


class CapacityFull(Exception):
    """As many agents run as this runtime allows; try again when one has ended."""


class Agents:
    """The agents of a library's conversations. Single event loop."""

    def __init__(self, library: Library, *, at_once: int, asks_models: bool) -> None:
        """At most `at_once` run at the same time."""
        self._library = library
        self._at_once = at_once
        self._asks_models = asks_models
        self._warming: asyncio.Task[None] | None = None
        self._kept_places = 0  #: of runs that will start as soon as their message is on disk

    async def stop(self) -> None:
        """Import no model library any more. Idempotent."""
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)

    async def end_runs(self) -> None:
        """Break off whatever runs. Idempotent."""
        for opened in self._library.all_opened():
            await opened.runner.cancel()

    async def run(self, conversation_id: UUID) -> None:
        """Start the agent; it is `running` when this returns.

        Raises ConversationNotFound, AlreadyRunning, CapacityFull.
        """
        opened = await self._library.open(conversation_id)
        if opened.conversation.status is Status.RUNNING:
            raise AlreadyRunning
        self.check_capacity()
        self.warm_up()
        opened.runner.start()

    async def receive(
        self,
        conversation_id: UUID,
        given: GivenMessage,
        *,
        run: bool,
        event_id: UUID | None = None,
        needs_place: bool = False,
    ) -> None:
        """Add a message, on disk when this returns, and start the agent when asked. A known `event_id` does nothing.

        Raises ConversationNotFound; CapacityFull, with the message stored unless it `needs_place`. A running agent
        takes the message up.
        """
        self.warm_up()
        async with self._library.using(conversation_id) as opened:
            if needs_place and opened.conversation.status is not Status.RUNNING:
                self.check_capacity()
                self._kept_places += 1
            else:
                needs_place = False
            try:
                to_answer = await self._submit(opened, given, run=run, event_id=event_id)
            finally:
                self._kept_places -= needs_place
            # Nothing waits from here to the start of the run, so that nobody else takes the place.
            if to_answer and run and opened.conversation.status is not Status.RUNNING:
                await self.run(conversation_id)

    async def _submit(self, opened: Opened, given: GivenMessage, *, run: bool, event_id: UUID | None) -> bool:
        opened.runner.abandon_goal()  # whoever speaks has something else in mind
        if run and opened.conversation.status is Status.WAITING_FOR_CONFIRMATION:
            await opened.runner.reject(MESSAGE_INSTEAD)  # words are not leave
        return await opened.runner.submit(given.message, event_id=event_id)

    async def start_goal(self, conversation_id: UUID, objective: str, *, max_iterations: int) -> None:
        """Let the agent pursue an objective, turn after turn; `running` when this returns, and on disk.

        Raises ConversationNotFound, AlreadyRunning (also when acts wait for leave), CapacityFull.
        """
        goal = Goal(objective=objective, max_iterations=max_iterations)
        async with self._library.using(conversation_id) as opened:
            await self._pursue(opened, goal, opening(goal))

    async def resume_goal(self, conversation_id: UUID) -> None:
        """Take up the last goal, when it was interrupted. Raises NoGoal, and what `start_goal` raises."""
        async with self._library.using(conversation_id) as opened:
            goal = opened.conversation.record.goal
            if goal is None or goal.status in ("complete", "capped"):
                raise NoGoal
            await self._pursue(opened, goal.resumed(), reopening(goal))

    async def stop_goal(self, conversation_id: UUID) -> None:
        """Pursue it no longer; the turn under way ends as it would. None is under way: nothing happens.

        Raises ConversationNotFound.
        """
        async with self._library.using(conversation_id) as opened:
            opened.runner.abandon_goal()
            await opened.conversation.settle()
            await opened.conversation.save()

    async def _pursue(self, opened: Opened, goal: Goal, message: Message) -> None:
        if opened.conversation.status is Status.RUNNING:
            raise AlreadyRunning
        self.check_capacity()
        self.warm_up()
        opened.runner.pursue(goal, message)
        await opened.conversation.settle()

    async def over(self, conversation_id: UUID, *, seconds: float | None) -> bool:
        """Whether the run that goes on is over, at the latest after `seconds`. Raises ConversationNotFound."""
        async with self._library.using(conversation_id) as opened:
            return await opened.runner.over(seconds=seconds)

    async def pause(self, conversation_id: UUID) -> None:
        """Let the running agent end its step and stop; without effect in any other status. ConversationNotFound."""
        async with self._library.using(conversation_id) as opened:
            opened.conversation.request_pause()
            await opened.conversation.settle()
            opened.conversation.announce()

    async def interrupt(self, conversation_id: UUID) -> None:
        """Break off what the agent does now; without effect when it does nothing. Raises ConversationNotFound."""
        async with self._library.using(conversation_id) as opened:
            await opened.runner.interrupt()
            opened.conversation.announce()

    async def ask(self, conversation_id: UUID, question: str) -> str:
        """The agent's answer to a question beside its work. Raises ConversationNotFound, ModelError, NoAnswer."""
        async with self._library.using(conversation_id) as opened:
            return await opened.runner.memory.answer(question)

    async def condense(self, conversation_id: UUID) -> None:
        """Condense now, or before the next step of a running agent.

        Raises ConversationNotFound, NoCondenser, ModelError.
        """
        async with self._library.using(conversation_id) as opened:
            opened.runner.memory.request()
            if opened.conversation.status is not Status.RUNNING:
                await opened.runner.memory.condense()

    async def respond(self, conversation_id: UUID, *, accept: bool, reason: str) -> None:
        """Give or refuse leave for the acts that wait for it; nothing waits: nothing happens.

        Raises ConversationNotFound, CapacityFull (then they still wait).
        """
        async with self._library.using(conversation_id) as opened:
            if opened.conversation.status is not Status.WAITING_FOR_CONFIRMATION:
                return
            if accept:
                await self.run(conversation_id)
            else:
                await opened.runner.reject(reason)

    def check_capacity(self) -> None:
        """Raises CapacityFull where no further run may start now."""
        running = sum(opened.conversation.status is Status.RUNNING for opened in self._library.all_opened())
        if running + self._kept_places >= self._at_once:
            raise CapacityFull

    def warm_up(self) -> None:
        """Somebody has said something: a model will be asked. Not before, as the library takes two thirds of what the
        server holds then, and seconds of a processor, also in a conversation in which nothing is ever said."""
        if self._warming is None and self._asks_models:
            self._warming = asyncio.create_task(warm_up(), name="import of the model library")
