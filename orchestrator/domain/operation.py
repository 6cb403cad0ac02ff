"""An operation: one long piece of work on a conversation, told as named stages that clients can watch."""

import enum
from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain.conversation import Kind, Why
from orchestrator.domain.ids import ConversationId, OperationId, TenantId


class StageState(enum.StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class OperationState(enum.StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True)
class Stage:
    """One named stage. `seconds` is how long it took, or None while it has not ended."""

    name: str
    state: StageState = StageState.WAITING
    started_at: datetime | None = None
    seconds: float | None = None
    message: str | None = None


@dataclass(frozen=True)
class Operation:
    """Kept 24 hours after it ended."""

    id: OperationId
    tenant: TenantId
    conversation: ConversationId
    kind: str  #: start, restart, resume, pause, stop, delete, undelete
    state: OperationState
    stages: tuple[Stage, ...]
    created_at: datetime
    updated_at: datetime
    failure: Why | None = None  #: why it failed; None also for one that another took the place of
    subject: Kind = Kind.CONVERSATION  #: what `conversation` is the id of
