"""A runtime, as the runtime API shows it."""

from typing import Any

from orchestrator.api.auth import Owner
from orchestrator.api.context import Services
from orchestrator.domain.conversation import Conversation, Phase
from orchestrator.facades.runtimes import session_key_of
from orchestrator.facades.statuses import statuses_of


async def runtime_out(services: Services, owner: Owner, record: Conversation) -> dict[str, Any]:
    """`restart_count` is a number and `pod_status` a text at all times: the client compares the one and lowers the
    other without looking (outer-api.md 3)."""
    told, runtime = statuses_of(record), record.runtime
    if runtime is None:
        raise ValueError("the record of a bare runtime names it from the start")
    failed = record.phase is Phase.FAILED
    restarts = [failure for failure in record.failures if failure.restarted]
    lines = record.why.log_tail if failed else ()
    return {
        "runtime_id": runtime.id,
        "session_id": record.name or record.id,
        "url": services.runtime_url(record),
        "session_api_key": await session_key_of(services, owner, record),
        "status": told.runtime,
        "pod_status": told.pod,
        "restart_count": len(restarts),
        "restart_reasons": [str(failure.why.reason) for failure in restarts],
        "work_hosts": {},
        "container_statuses": [],
        "events": [],
        "pod_logs": "\n".join([f"{record.why.reason}: {record.why.message}", *lines]) if failed else "",
    }
