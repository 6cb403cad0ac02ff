"""What the clients of a scenario asked and what they were answered: every try is one `Invocation`, also one that was
never answered. `checker.py` judges it."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


class Outcome(enum.Enum):
    DONE = "done"  #: 2xx
    REFUSED = "refused"  #: nothing was done, and the API said so
    UNKNOWN = "unknown"  #: no answer, a 5xx, or the first try still runs: it may have been done


@dataclass
class Invocation:
    """`kind` is the verb, such as `create` or `events`; `key` the Idempotency-Key, the same for all tries of one call.
    Times are seconds of one monotonic clock. `answer` is what the body held, in the form that the checker reads."""

    tenant: str
    kind: str
    conversation: str
    began: float
    key: str | None = None
    ended: float | None = None
    status: int | None = None
    outcome: Outcome = Outcome.UNKNOWN
    answer: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Call:
    """All tries of one call."""

    tries: list[Invocation]

    @property
    def outcome(self) -> Outcome:
        """Done when one try was; refused when all were."""
        found = {one.outcome for one in self.tries}
        if Outcome.DONE in found:
            return Outcome.DONE
        return Outcome.REFUSED if found == {Outcome.REFUSED} else Outcome.UNKNOWN

    @property
    def kind(self) -> str:
        return self.tries[0].kind

    @property
    def began(self) -> float:
        return min(one.began for one in self.tries)

    @property
    def done_at(self) -> float:
        """When the first answer came that said so."""
        return min(one.ended for one in self.tries if one.outcome is Outcome.DONE and one.ended is not None)

    @property
    def answers(self) -> list[Mapping[str, Any]]:
        return [one.answer for one in self.tries if one.outcome is Outcome.DONE]


class History:
    """In the order in which the tries began."""

    def __init__(self) -> None:
        self.invocations: list[Invocation] = []

    def begin(self, tenant: str, kind: str, conversation: str, key: str | None = None) -> Invocation:
        made = Invocation(tenant, kind, conversation, time.monotonic(), key)
        self.invocations.append(made)
        return made

    @staticmethod
    def end(invocation: Invocation, status: int, outcome: Outcome, answer: Mapping[str, Any]) -> None:
        invocation.ended, invocation.status = time.monotonic(), status
        invocation.outcome, invocation.answer = outcome, answer

    def of(self, *kinds: str) -> Iterator[Invocation]:
        """Single tries that were done."""
        return (one for one in self.invocations if one.kind in kinds and one.outcome is Outcome.DONE)

    def calls(self, *kinds: str) -> list[Call]:
        """By key, in the order in which they began."""
        found: dict[tuple[str, str, str], Call] = {}
        for one in self.invocations:
            if one.kind in kinds and one.key is not None:
                found.setdefault((one.tenant, one.kind, one.key), Call([])).tries.append(one)
        return list(found.values())
