"""Admission: which limits a start has to pass, and what becomes of one that does not. Pure rules, no I/O.

A *slot* is the right to have a runtime that runs. A conversation holds one from the moment its start is admitted until
its runtime is paused, stopped or removed; a paused one holds none, and waking it takes one again. What is counted, and
that the counts hold in a burst, is the store's business (`state/slots.py`).
"""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from orchestrator.domain.ids import ConversationId, KeyId, UserId
from orchestrator.domain.spending import MICROS, Budget, Unit, month_of

MINUTE_MS = 60_000
_COME_AGAIN_SECONDS = 5.0  # nobody knows when a runtime ends


class Policy(enum.StrEnum):
    """What becomes of a start that finds its limit reached."""

    REJECT = "reject"  #: 429, at once
    QUEUE = "queue"  #: it waits for its turn
    PAUSE_OLDEST_IDLE = "pause_oldest_idle"  #: the one that was unused for longest is paused for it; none idle: 429


class Scope(enum.StrEnum):
    """Who is counted together."""

    TENANT = "tenant"
    USER = "user"
    KEY = "key"


#: The limits that are no tenant's: of the engine that all runtimes share.
HOST_RUNTIMES = "host.runtimes"
HOST_STARTS = "host.starts"
QUEUE_LENGTH = "tenant.queue"


@dataclass(frozen=True)
class Rule:
    """At most `limit` runtimes at once, or starts within a window (`window_ms` above 0), or less than `limit` of a unit
    spent in a month (`unit` given; dollars in `micros`)."""

    scope: Scope
    limit: int
    window_ms: int = 0
    unit: Unit | None = None
    month: str = ""  #: its name
    ends_ms: int = 0  #: of the month

    @property
    def name(self) -> str:
        if self.unit is not None:
            return f"{self.scope}.monthly_{self.unit}"
        return f"{self.scope}.{'starts' if self.window_ms else 'runtimes'}"

    @property
    def of_runtimes(self) -> bool:
        """Whether runtimes count that run at once: those that wait come first then."""
        return not self.window_ms and self.unit is None


@dataclass(frozen=True)
class Allowance:
    """Limits of a tenant; 0 is none. The operator's, or what is left of them after the tenant's own."""

    max_runtimes: int = 0
    max_runtimes_per_user: int = 0
    max_runtimes_per_key: int = 0
    starts_per_minute: int = 0
    starts_per_minute_per_user: int = 0
    starts_per_minute_per_key: int = 0

    def granted(self, limits: Mapping[str, int]) -> "Allowance":
        """These, but for what the operator gave one tenant: more, less, or 0 for no limit. Names that are not known are
        passed over: they are a newer version's."""
        return replace(self, **{name: limit for name, limit in limits.items() if name in vars(self)})

    def lowered(self, own: Mapping[str, Any]) -> "Allowance":
        """These, or what a tenant chose for itself where that is less: nobody raises the operator's."""
        return Allowance(**{name: _lower(limit, own.get(name)) for name, limit in vars(self).items()})

    def rules(self, *, user: UserId | None, key: KeyId | None) -> tuple[Rule, ...]:
        """Those that a start of this user with this key has to pass, the widest first."""
        found = (
            Rule(Scope.TENANT, self.max_runtimes),
            Rule(Scope.USER, self.max_runtimes_per_user if user is not None else 0),
            Rule(Scope.KEY, self.max_runtimes_per_key if key is not None else 0),
            Rule(Scope.TENANT, self.starts_per_minute, MINUTE_MS),
            Rule(Scope.USER, self.starts_per_minute_per_user if user is not None else 0, MINUTE_MS),
            Rule(Scope.KEY, self.starts_per_minute_per_key if key is not None else 0, MINUTE_MS),
        )
        return tuple(rule for rule in found if rule.limit)


def budget_rules(budget: Budget | None, *, user: UserId | None, now: datetime) -> tuple[Rule, ...]:
    """Those that a start of this user has to pass in the month of `now`."""
    if budget is None:
        return ()
    month = month_of(now)
    ends_ms = int(month.ends.timestamp() * 1000)
    return tuple(
        Rule(scope, limit, unit=unit, month=month.name, ends_ms=ends_ms)
        for scope in (Scope.TENANT, *((Scope.USER,) if user is not None else ()))
        for unit in Unit
        if (limit := budget.limit(unit, of_user=scope is Scope.USER))
    )


#: Of rules by their names: those of money are counted in `MICROS`.
_OF_MONEY = f".monthly_{Unit.USD}"


def is_budget(rule: str) -> bool:
    """Whether a rule of this name is one of a budget: no runtime that ends makes room under it."""
    return ".monthly_" in rule


def shown(rule: str, number: int) -> float:
    """A rule's limit, or how much of it is used, as people see it: dollars where it is of money."""
    return number / MICROS if rule.endswith(_OF_MONEY) else number


@dataclass(frozen=True)
class OperatorLimits:
    """What the operator allows; 0 is no limit."""

    allowance: Allowance = Allowance()
    host_runtimes: int = 0
    host_starts_per_minute: int = 0
    when_full: Policy = Policy.REJECT
    queue_length: int = 100
    queue_seconds: float = 600.0

    @property
    def of_host(self) -> bool:
        return bool(self.host_runtimes or self.host_starts_per_minute)


#: Names of the settings below `limits` that belong to the tenant's own layer: no user or request may change them.
TENANT_ONLY = frozenset(Allowance.__dataclass_fields__) | {"when_full"}


def _lower(limit: int, own: Any) -> int:
    if not isinstance(own, int) or own <= 0:
        return limit
    return min(limit, own) if limit else own


def policy_of(own: Mapping[str, Any], default: Policy) -> Policy:
    """What a tenant chose (`limits.when_full`), else the operator's choice."""
    chosen = own.get("when_full")
    return Policy(chosen) if chosen in tuple(Policy) else default


@dataclass(frozen=True)
class Ask:
    """What a start asks of its tenant's slots. The store answers it in the same step in which it writes the record."""

    user: UserId | None = None
    key: KeyId | None = None
    rules: tuple[Rule, ...] = ()
    queue: int = 0  #: how many may wait before this one is refused as well; 0: this one does not wait
    wait_ms: int = 0  #: how long it may
    behind: bool = False  #: it waits in any case: a place is being made, or the host is full
    #: the tenant's budget, for each user: those whom it keeps do not count as waiting for a place. Empty: all count
    budgets: tuple[Rule, ...] = ()


class Verdict(enum.StrEnum):
    HELD = "held"  #: it has a slot already; nothing was counted again
    ADMITTED = "admitted"
    QUEUED = "queued"
    REFUSED = "refused"
    NONE = "none"  #: it neither has a slot nor waits for one


@dataclass(frozen=True)
class Standing:
    """How a conversation stands with its tenant's slots."""

    verdict: Verdict
    place: int = 0  #: in the queue, from 1
    until_ms: int = 0  #: when it stops waiting, by the store's clock
    left_ms: int = 0  #: until then
    rule: str = ""  #: what refused it, or would have
    limit: int = 0
    current: int = 0
    retry_after_ms: int = 0  #: when a place may come free, as far as that is known
    ends_ms: int = 0  #: when the month of a budget ends

    @property
    def retry_after(self) -> float:
        """Seconds after which whoever was refused is told to come again."""
        return self.retry_after_ms / 1000 or _COME_AGAIN_SECONDS


@dataclass(frozen=True)
class Meter:
    """One rule as it stands."""

    rule: Rule
    current: int
    reset_ms: int = 0  #: until the oldest start in the window is forgotten, or the month ends

    @property
    def full(self) -> bool:
        return self.current >= self.rule.limit


def first_full(meters: Iterable[Meter]) -> Meter | None:
    """The rule that refuses, or None."""
    return next((meter for meter in meters if meter.full), None)


class Decision(enum.StrEnum):
    """What would become of a start that is asked for now."""

    START = "start"
    JOIN = "join"
    QUEUE = "queue"
    PAUSE = "pause"
    REJECT = "reject"


@dataclass(frozen=True)
class Report:
    """The answer to a dry run."""

    decision: Decision
    policy: Policy
    standing: Standing
    would_pause: tuple[ConversationId, ...] = ()
    meters: tuple[Meter, ...] = field(default=())
    waiting: int = 0


@dataclass(frozen=True)
class Use:
    """What a tenant, or one of its users, has now."""

    runtimes: int  #: that run or are about to
    waiting: int  #: starts in the tenant's queue
    policy: Policy
    meters: tuple[Meter, ...]
