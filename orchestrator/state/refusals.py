"""What the stores say no with, in the same words whichever store it is."""

from datetime import UTC, datetime

from orchestrator.domain.admission import (
    HOST_RUNTIMES,
    HOST_STARTS,
    QUEUE_LENGTH,
    Scope,
    Standing,
    is_budget,
    shown,
)
from orchestrator.domain.clock import rfc3339
from orchestrator.domain.errors import (
    BudgetReached,
    CapacityReached,
    Conflict,
    LeaseLost,
    LimitReached,
    NotFound,
    PreconditionFailed,
)
from orchestrator.state.lease import Lease

#: rule -> what is counted, what to do
_RULES = {
    "tenant.runtimes": ("runtimes of the tenant run", "pause, stop or delete one"),
    "user.runtimes": ("runtimes of this user run", "pause, stop or delete one of the user's"),
    "key.runtimes": ("runtimes that this API key started run", "pause, stop or delete one of them"),
    "tenant.starts": ("starts of the tenant in a minute", "come again later"),
    "user.starts": ("starts of this user in a minute", "come again later"),
    "key.starts": ("starts with this API key in a minute", "come again later"),
    QUEUE_LENGTH: ("conversations of the tenant wait to start", "come again later"),
}


def limit_reached(standing: Standing) -> LimitReached:
    """The refusal of a start by a rule of its tenant."""
    if is_budget(standing.rule):
        return _budget_reached(standing)
    what, hint = _RULES[standing.rule]
    return LimitReached(
        f"{standing.current} {what}, of {standing.limit} allowed",
        hint=f"{hint}, or ask for a higher limit",
        limit=standing.limit,
        current=standing.current,
        rule=standing.rule,
        retry_after=standing.retry_after,
    )


def _budget_reached(standing: Standing) -> BudgetReached:
    limit, current = (shown(standing.rule, number) for number in (standing.limit, standing.current))
    who = "this user has" if standing.rule.startswith(Scope.USER) else "the tenant has"
    of_money = isinstance(limit, float)
    spent, budget = (f"${current:,.2f}", f"${limit:,.2f}") if of_money else (f"{current:,} tokens", f"{limit:,}")
    resets_at = rfc3339(datetime.fromtimestamp(standing.ends_ms / 1000, UTC))
    return BudgetReached(
        f"{who} spent {spent} of this month's budget of {budget}",
        hint=f"it counts from nothing again at {resets_at}; until then only a higher budget lets something start",
        limit=limit,
        current=current,
        rule=standing.rule,
        retry_after=standing.retry_after,
        resets_at=resets_at,
    )


def host_full(standing: Standing) -> CapacityReached:
    """The refusal of a start by the host, in words that tell a tenant nothing of the others."""
    what = {HOST_RUNTIMES: "no place for another runtime", HOST_STARTS: "too many starts at once"}[standing.rule]
    return CapacityReached(
        f"the host has {what}",
        hint="come again later",
        retry_after=standing.retry_after,
        rule=standing.rule,
    )


def lease_lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"the lease on conversation {lease.conversation} with fence {lease.fence} is lost")


def no_conversation() -> NotFound:
    return NotFound("there is no such conversation")


def inbox_full(current: int, limit: int) -> LimitReached:
    return LimitReached(
        f"{current} messages of this conversation wait to be delivered, of {limit} allowed",
        hint="wait until the agent has taken some",
        limit=limit,
        current=current,
    )


def no_operation() -> NotFound:
    return NotFound("there is no such operation or stage", hint="operations are kept for a day after they ended")


def changed_meanwhile() -> PreconditionFailed:
    return PreconditionFailed("the conversation changed since it was read", hint="read it again")


def name_taken(name: str) -> Conflict:
    return Conflict(f"another runtime has the name {name} by now", hint="delete that one first, or let this one be")


def too_many_hooks(current: int, limit: int) -> LimitReached:
    return LimitReached(
        f"the tenant has {current} webhooks, of {limit} allowed",
        hint="delete one",
        limit=limit,
        current=current,
        rule="tenant.webhooks",
    )


def hook_queue_full() -> LimitReached:
    return LimitReached("more waits for this webhook than its queue may hold", hint="wait until it has taken some")
