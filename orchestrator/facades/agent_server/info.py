"""A conversation as the agent server's ConversationInfo (agent-server.md 4.3), from its record and its log alone.

For lists, which are answered whether or not runtimes run. What only the runtime knows (the agent, its statistics) is
there in its empty form; a single read goes to the runtime and has all of it.
"""

from typing import Any

from orchestrator.api.context import Services
from orchestrator.domain.clock import rfc3339
from orchestrator.domain.conversation import Conversation, Phase
from orchestrator.services.resting import may_wake

_MAX_ITERATIONS = 500  # the agent server's default
_STARTING = frozenset({Phase.PENDING, Phase.PROVISIONING, Phase.CONFIGURING, Phase.RESUMING})


async def info_of(services: Services, conversation: Conversation) -> dict[str, Any]:
    """Raises `StoreUnavailable`."""
    available = conversation.phase is Phase.READY or may_wake(conversation)
    runtime = "available" if available else "starting" if conversation.phase in _STARTING else "missing"
    if conversation.phase is Phase.FAILED:
        status, runtime = "error", "error"
    else:
        status = await services.transcript.execution_status(conversation) or "idle"
        if status == "running" and not available:  # nothing of it runs
            status = "paused"
    failed = {"code": conversation.why.reason, "message": conversation.why.message}
    return {
        "id": conversation.id,
        "title": conversation.title,
        "execution_status": status,
        "created_at": rfc3339(conversation.created_at),
        "updated_at": rfc3339(conversation.updated_at),
        "workspace": {"kind": "LocalWorkspace", "working_dir": ""},
        "persistence_dir": "",
        "max_iterations": _MAX_ITERATIONS,
        "stuck_detection": True,
        "confirmation_policy": {"kind": "NeverConfirm"},
        "security_analyzer": None,
        "stats": {"usage_to_metrics": {}},
        "tags": {},
        "agent": None,
        "runtime_info": {
            "runtime_status": runtime,
            "can_resume": conversation.archived_at is None,
            "runtime_error": failed if conversation.phase is Phase.FAILED else None,
        },
    }
