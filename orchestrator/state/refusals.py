"""What the stores say no with, in the same words whichever store it is."""

from orchestrator.domain.errors import LeaseLost, LimitReached, NotFound, PreconditionFailed
from orchestrator.state.base import Lease


def limit_reached(current: int, limit: int) -> LimitReached:
    return LimitReached(
        f"the tenant has {current} conversations that are not stopped, of {limit} allowed",
        hint="stop or delete one, or ask the operator for a higher limit",
        limit=limit,
        current=current,
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
