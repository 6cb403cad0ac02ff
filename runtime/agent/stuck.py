"""Whether an agent repeats itself: the same acts with the same results, again and again (contract 4.4, status stuck).

The loop tells each act and what came of it; a user's message begins anew. Pure, and of constant size.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from runtime.agent.tools.base import Call
from runtime.events.actions import Observation
from runtime.events.content import text_of


class StuckThresholds(BaseModel):
    """How many repetitions are too many; the names are the client's."""

    model_config = ConfigDict(extra="ignore")

    action_observation: int = Field(default=4, ge=1)
    action_error: int = Field(default=3, ge=1)
    monologue: int = Field(default=3, ge=1)
    alternating_pattern: int = Field(default=6, ge=1)


@dataclass(frozen=True)
class Act:
    """One act without what differs each time: ids, times, process numbers."""

    action: str
    result: str
    failed: bool


class Repetition:
    """The last acts of one run."""

    def __init__(self, thresholds: StuckThresholds) -> None:
        self._limits = thresholds
        longest = max(thresholds.action_observation, thresholds.action_error, thresholds.alternating_pattern)
        self._acts: deque[Act] = deque(maxlen=longest)

    def began_anew(self) -> None:
        """Somebody said something: what was tried before may be right now."""
        self._acts.clear()

    def note(self, act: Act) -> None:
        self._acts.append(act)

    @property
    def is_stuck(self) -> bool:
        """Whether the last acts are repetitions up to a limit."""
        return self._same() or self._failing() or self._alternating()

    def _last(self, count: int) -> list[Act]:
        return list(self._acts)[-count:] if len(self._acts) >= count else []

    def _same(self) -> bool:
        last = self._last(self._limits.action_observation)
        return bool(last) and len(set(last)) == 1

    def _failing(self) -> bool:
        last = self._last(self._limits.action_error)
        return bool(last) and all(act.failed for act in last) and len({act.action for act in last}) == 1

    def _alternating(self) -> bool:
        last = self._last(self._limits.alternating_pattern)
        if len(last) < 4:
            return False
        return last[0] != last[1] and all(act == last[place % 2] for place, act in enumerate(last))


def acted(name: str, call: Call, observation: Observation) -> Act:
    """A call that ran."""
    action = f"{name} {call.action.model_dump_json()}"
    return Act(action, text_of(observation.content), failed=False)


def refused(name: str, arguments: str, error: str) -> Act:
    """A call that could not be run as it was written, or failed."""
    return Act(f"{name} {arguments}", error, failed=True)
