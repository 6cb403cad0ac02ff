"""One phase, four older vocabularies: the table of outer-api.md 7, and nothing else. Pure.

Sandboxes (V1), runtimes (runtime-api), conversations (V0) and start tasks (V1) all read from here, so that no two
surfaces ever disagree about where a conversation is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from orchestrator.domain.conversation import Conversation, Desired, Phase, Reason, put_to_rest


@dataclass(frozen=True)
class Statuses:
    """What each older vocabulary calls a phase. None where it has no word for it."""

    sandbox: str | None  #: V1 SandboxStatus
    runtime: str  #: runtime-api `status`
    pod: str  #: runtime-api `pod_status`; `ready` only while it can be reached
    conversation: str  #: V0 ConversationStatus
    runtime_status: str | None  #: V0 `runtime_status`
    start_task: str | None  #: V1 start task; within a phase its stage says more


_STARTING = Statuses("STARTING", "starting", "pending", "STARTING", "STATUS$STARTING_RUNTIME", "WAITING_FOR_SANDBOX")
_PAUSED = Statuses("PAUSED", "paused", "not found", "STOPPED", None, None)
_OVER = Statuses(None, "stopped", "not found", "ARCHIVED", "STATUS$STOPPED", None)

TABLE: Mapping[Phase, Statuses] = {
    Phase.PENDING: replace(_STARTING, start_task="WORKING"),
    Phase.PROVISIONING: _STARTING,
    Phase.CONFIGURING: Statuses(
        "STARTING", "starting", "running", "STARTING", "STATUS$SETTING_UP_WORKSPACE", "PREPARING_REPOSITORY"
    ),
    Phase.READY: Statuses("RUNNING", "running", "ready", "RUNNING", "STATUS$READY", "READY"),
    Phase.PAUSING: _PAUSED,
    Phase.PAUSED: _PAUSED,
    Phase.RESUMING: _STARTING,
    Phase.STOPPING: _OVER,
    Phase.STOPPED: _OVER,
    Phase.DELETING: _OVER,
    Phase.FAILED: Statuses("ERROR", "error", "failed", "ERROR", "STATUS$ERROR", "ERROR"),
}

#: Inner execution status -> V0 agent state. A status that is not known here rests as far as a client can tell.
AGENT_STATES: Mapping[str, str] = {
    "idle": "awaiting_user_input",
    "running": "running",
    "finished": "finished",
    "paused": "paused",
    "waiting_for_confirmation": "awaiting_user_confirmation",
    "error": "error",
    "stuck": "error",
}


def statuses_of(conversation: Conversation) -> Statuses:
    """What the conversation's phase and reason are called. One that is deleted is over at once; one that a driver which
    cannot pause has stopped instead is paused all the same: a resume or a use brings it back."""
    row = TABLE[conversation.phase]
    if conversation.desired is Desired.DELETED:
        return _OVER
    if row is _OVER and (conversation.desired is Desired.PAUSED or put_to_rest(conversation)):
        return _PAUSED
    if conversation.phase is Phase.PENDING and conversation.restart_at is not None:  # it died, and starts again
        return replace(row, conversation="ERROR", runtime_status="STATUS$ERROR_RUNTIME_DISCONNECTED")
    if conversation.phase is Phase.FAILED and conversation.why.reason is Reason.RUNTIME_LOST:
        coming = "ERROR" if conversation.restart_at is not None else "ARCHIVED"
        return replace(row, sandbox="MISSING", conversation=coming)
    return row


def sandbox_of(conversation: Conversation) -> str:
    """The V1 sandbox status where a conversation still refers to the sandbox, so that there is always one."""
    return statuses_of(conversation).sandbox or "MISSING"
