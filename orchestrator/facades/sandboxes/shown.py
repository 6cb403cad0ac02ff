"""A sandbox and its specs, as V1 shows them."""

from datetime import UTC, datetime
from typing import Any

from orchestrator.api.auth import Owner
from orchestrator.api.context import Services
from orchestrator.domain.conversation import Conversation
from orchestrator.facades.runtimes import session_key_of
from orchestrator.facades.statuses import statuses_of

DEFAULT_SPEC = "default"
_AGENT_PORT = 60000  # by this number clients know which address is the agent server's
_SINCE = datetime.now(UTC)
_RUNNING = "RUNNING"


async def sandbox_out(services: Services, owner: Owner, record: Conversation) -> dict[str, Any] | None:
    """None for one that is stopped: such a sandbox is not told of. RUNNING comes only with the address, which answers
    by then; address and key are told while it runs (outer-api.md 0.4, 0.5)."""
    status = statuses_of(record).sandbox
    if status is None or record.runtime is None:
        return None
    url = services.runtime_url(record) if status == _RUNNING else None
    return {
        "id": record.runtime.id,
        "created_by_user_id": record.user,
        "sandbox_spec_id": record.image.name if record.image is not None else record.request.image or DEFAULT_SPEC,
        "status": status,
        "session_api_key": await session_key_of(services, owner, record) if status == _RUNNING else None,
        "exposed_urls": [{"name": "AGENT_SERVER", "url": url, "port": _AGENT_PORT}] if url is not None else None,
        "created_at": _time(record.created_at),
    }


def specs_out(services: Services) -> list[dict[str, Any]]:
    """Each image that the operator offers; one without a name where runtimes have none."""
    names = services.images.catalogue.names if services.images is not None else (DEFAULT_SPEC,)
    return [
        {
            "id": name,
            "command": None,
            "created_at": _time(_SINCE),
            "initial_env": {},
            "working_dir": "/workspace/project",
        }
        for name in names
    ]


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
