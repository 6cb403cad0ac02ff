"""What conversations use of models: money and tokens, as their runtimes tell it, and what a tenant may spend of both in
a month. Values and rules, no I/O.

A runtime tells sums, never single costs: so what is told twice, late, or in another order changes nothing, and what was
missed is in the next one. Money is counted in millionths of a US dollar (`micros`), since sums of fractions drift.
Months are those of UTC. What is spent belongs to the month in which the orchestrator heard of it.
"""

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

MICROS = 1_000_000  #: in a US dollar
MOST = 10**15  #: of either that is believed: a thousand million dollars. Scripts count exactly far beyond
MONTHS_KEPT = 13  #: of a tenant's and its users' ledgers, the present one included
_ONE_DAY_MS = 24 * 3600 * 1000
LEDGER_TTL_MS = (MONTHS_KEPT * 31 + 1) * _ONE_DAY_MS  #: after its last change


@dataclass(frozen=True)
class Spent:
    """What was used, in all."""

    micros: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def usd(self) -> float:
        return self.micros / MICROS

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def up_to(self, told: "Spent") -> "Spent":
        """The higher of each: sums that are told only grow."""
        return Spent(
            max(self.micros, told.micros),
            max(self.prompt_tokens, told.prompt_tokens),
            max(self.completion_tokens, told.completion_tokens),
        )

    def more_than(self, before: "Spent") -> "Spent":
        return Spent(
            self.micros - before.micros,
            self.prompt_tokens - before.prompt_tokens,
            self.completion_tokens - before.completion_tokens,
        )

    def plus(self, more: "Spent") -> "Spent":
        return Spent(
            self.micros + more.micros,
            self.prompt_tokens + more.prompt_tokens,
            self.completion_tokens + more.completion_tokens,
        )


NOTHING = Spent()


@dataclass(frozen=True, order=True)
class Month:
    year: int
    month: int  #: from 1

    @property
    def name(self) -> str:
        """As `2026-03`."""
        return f"{self.year:04}-{self.month:02}"

    @property
    def begins(self) -> datetime:
        return datetime(self.year, self.month, 1, tzinfo=UTC)

    @property
    def ends(self) -> datetime:
        """The first moment of the next one."""
        return self.later(1).begins

    def later(self, months: int) -> "Month":
        """So many months later, or (below 0) before."""
        year, month = divmod(self.year * 12 + self.month - 1 + months, 12)
        return Month(year, month + 1)


def month_of(at: datetime) -> Month:
    at = at.astimezone(UTC)
    return Month(at.year, at.month)


class Unit(enum.StrEnum):
    """What a budget is of."""

    USD = "usd"
    TOKENS = "tokens"  #: of prompts and answers together


class WhenReached(enum.StrEnum):
    """What a budget does that is reached, beside refusing starts."""

    REFUSE_STARTS = "refuse_starts"  #: nothing: what runs goes on
    PAUSE = "pause"  #: conversations that run are paused, their agents with them


THRESHOLDS = (50, 80, 100)


@dataclass(frozen=True)
class Budget:
    """What a tenant may spend in a calendar month; 0: no limit. Dollars in `micros`."""

    usd: int = 0
    tokens: int = 0
    usd_per_user: int = 0  #: each of its users
    tokens_per_user: int = 0
    thresholds: tuple[int, ...] = THRESHOLDS  #: percents, growing; each that is reached is told
    when_reached: WhenReached = WhenReached.REFUSE_STARTS

    def limit(self, unit: Unit, *, of_user: bool) -> int:
        if unit is Unit.USD:
            return self.usd_per_user if of_user else self.usd
        return self.tokens_per_user if of_user else self.tokens


def used(spent: Spent, unit: Unit) -> int:
    """In the unit's own numbers."""
    return spent.micros if unit is Unit.USD else spent.tokens


def amount(unit: Unit, number: int) -> float:
    """As it is shown: dollars, or tokens."""
    return number / MICROS if unit is Unit.USD else number


def reported(event: Mapping[str, Any]) -> Spent | None:
    """What an event of a runtime says its conversation has used so far; None where it says nothing of it. What is no
    number above 0 counts as 0, and nothing as more than `MOST`."""
    if event.get("kind") != "ConversationStateUpdateEvent":
        return None
    value = event.get("value")
    if event.get("key") == "full_state":
        value = value.get("stats") if isinstance(value, Mapping) else None
    elif event.get("key") != "stats":
        return None
    usages = value.get("usage_to_metrics") if isinstance(value, Mapping) else None
    if not isinstance(usages, Mapping):
        return None
    found = NOTHING
    for metrics in usages.values():
        if isinstance(metrics, Mapping):
            found = found.plus(_of(metrics))
    return Spent(min(found.micros, MOST), min(found.prompt_tokens, MOST), min(found.completion_tokens, MOST))


def _of(metrics: Mapping[str, Any]) -> Spent:
    tokens = metrics.get("accumulated_token_usage")
    tokens = tokens if isinstance(tokens, Mapping) else {}
    return Spent(
        round(_number(metrics.get("accumulated_cost"), MOST / MICROS) * MICROS),
        int(_number(tokens.get("prompt_tokens"), MOST)),
        int(_number(tokens.get("completion_tokens"), MOST)),
    )


def _number(value: Any, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    if isinstance(value, float) and not math.isfinite(value):
        return 0
    return min(max(value, 0), most)
