"""What a run of the agent (`loop.py`) needs of those around it: whose journal it writes, who may hold its acts back,
who keeps its history within bounds. The conversation's side of it is in `runtime.conversations`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from runtime.agent.history import History
from runtime.agent.reply import Reply
from runtime.agent.tools.base import Call
from runtime.events.actions import Observation
from runtime.events.models import ActionEvent, Event, EventBase, Risk
from runtime.secrets.masking import Mask

E = TypeVar("E", bound=EventBase)


class Journal(Protocol):
    """What a run sees of its conversation."""

    mask: Mask
    pause_requested: asyncio.Event

    def emit(self, kind: type[E], **fields: Any) -> E:
        """Store an event and send it."""

    def send_live(self, event: Event) -> None:
        """Send an event that is not stored."""

    def live(self, kind: type[E], **fields: Any) -> E:
        """Make an event that is not stored."""

    async def on_reply(self, reply: Reply) -> None:
        """Count what the answer cost, store it, tell it."""

    def join(self, history: History | None) -> None:
        """From now on messages go to this history as well."""

    async def settle(self) -> None:
        """Wait until what was emitted survives a power cut."""


class Gate(Protocol):
    """Who is asked before the agent acts, and told after."""

    def judged(self, risk: Risk) -> Risk:
        """What an act that the model holds for `risk` is worth in the log."""

    def must_ask(self, risks: Sequence[Risk]) -> bool:
        """Whether acts of these risks wait for somebody's leave."""

    async def before(self, event: ActionEvent, call: Call) -> str | None:
        """Why this act may not be done, None when it may."""

    async def after(self, event: ActionEvent, call: Call, observation: Observation) -> None:
        """It was done."""

    def concluded(self, call: Call) -> None:
        """What came of it is in the log."""

    async def stopping(self) -> str | None:
        """Why the agent may not end its turn yet, None when it may."""

    def over_budget(self) -> bool:
        """Whether the run has cost as much as it may."""


class Memory(Protocol):
    """Who keeps the history within bounds."""

    @property
    def can_condense(self) -> bool:
        """Whether there is a way to."""

    @property
    def too_long(self) -> bool:
        """Whether it has to be condensed before the model is asked."""

    @property
    def most_tokens(self) -> int | None:
        """A call of more tokens has to be condensed first; None: however long it is."""

    async def condense(self, *, hard: bool = False) -> bool:
        """Condense; False when nothing can be forgotten."""

    async def read(self) -> History:
        """The history as it is now."""
