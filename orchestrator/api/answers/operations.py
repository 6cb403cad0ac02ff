"""Reasons, operations and dry runs."""

from typing import Annotated, NotRequired

from pydantic import Field

from orchestrator.api.answers.base import Answer, Moment
from orchestrator.domain.admission import Decision, Policy
from orchestrator.domain.conversation import Reason
from orchestrator.domain.operation import OperationState, StageState


class Why(Answer):
    """A reason with all that a person needs to act on it."""

    reason: Reason
    message: str
    hint: str
    retryable: bool
    step: Annotated[str | None, Field(description="The step of provisioning that failed")]
    log_tail: Annotated[list[str], Field(description="The last lines that the runtime printed")]


class Stage(Answer):
    """One named stage of an operation."""

    name: str
    state: StageState
    started_at: Moment | None
    seconds: Annotated[float | None, Field(description="How long it took; null while it has not ended")]
    message: NotRequired[str]


class Operation(Answer):
    """One long piece of work; kept 24 hours after it ended."""

    id: str
    kind: Annotated[str, Field(description="start, restart, resume, pause, stop, delete, undelete and others")]
    state: OperationState
    conversation: NotRequired[Annotated[str, Field(description="What it is on; or `runtime`")]]
    runtime: NotRequired[Annotated[str, Field(description="The bare runtime that it is on")]]
    failure: Annotated[Why | None, Field(description="Null also where another operation took its place")]
    stages: list[Stage]
    created_at: Moment
    updated_at: Moment


class LimitStanding(Answer):
    """One limit as it stands."""

    rule: Annotated[str, Field(description="Such as tenant.runtimes")]
    limit: Annotated[float, Field(description="Dollars where the rule is of dollars, else a whole number")]
    current: float
    month: NotRequired[Annotated[str, Field(description="Of budgets: within this one, such as 2026-03")]]
    window_seconds: NotRequired[Annotated[int, Field(description="Of starts: within so many seconds")]]


class DryRun(Answer):
    """What would become of a start that is asked for now."""

    decision: Decision
    when_full: Policy
    rule: Annotated[str | None, Field(description="The limit that refuses it, or would")]
    limit: float | None
    current: float | None
    retry_after: Annotated[float | None, Field(description="Seconds until there may be room, if known")]
    place: Annotated[int | None, Field(description="In the queue, from 1")]
    would_pause: Annotated[list[str], Field(description="Conversations that would be paused for it")]
    waiting: Annotated[int, Field(description="How many wait already")]
    limits: list[LimitStanding]


class Count(Answer):
    """How many a list has."""

    count: int
    next_page_id: Annotated[
        str | None,
        Field(
            description="Null: these are all; else there are more, which the same call counts from this `page_id` on"
        ),
    ]


class Cost(Answer):
    """What was used of models, as the runtimes told it."""

    usd: Annotated[float, Field(description="US dollars, in steps of a millionth")]
    prompt_tokens: int
    completion_tokens: int


class Spent(Cost):
    """What was used of models in a calendar month, by all conversations, also those that are gone."""

    month: Annotated[str, Field(description="Such as 2026-03")]
    ends_at: Annotated[Moment, Field(description="The first moment of the next month, in UTC")]


class TenantUsage(Answer):
    """What a tenant, or the user that is asked for, has now."""

    spent: Spent
    runtimes: Annotated[int, Field(description="Conversations and bare runtimes that run or are about to; none paused")]
    waiting: Annotated[int, Field(description="Starts in the tenant's queue")]
    when_full: Policy
    limits: Annotated[list[LimitStanding], Field(description="Those that hold for the next start with this key")]
