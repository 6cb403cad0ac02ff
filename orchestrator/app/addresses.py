"""Where a runtime is found: its address for clients, the cache of routes to it, and what it is told of our listener."""

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.app.facing import Facing
from orchestrator.app.routing import Rouse, Routes
from orchestrator.domain.conversation import Conversation
from orchestrator.domain.ids import RuntimeId
from orchestrator.drivers.base import Driver, Faced
from orchestrator.drivers.values import Endpoint
from orchestrator.proxy.cache import RouteCache
from orchestrator.proxy.route import Found
from orchestrator.services.admission import Admission
from orchestrator.settings import OrchestratorSettings


def runtime_url_of(settings: OrchestratorSettings, public_url: str) -> Callable[[Conversation], str | None]:
    """The origin of one runtime for clients: its own host name, else its own port, else a path (DESIGN section 3)."""
    scheme, _, rest = public_url.partition("://")
    host, _, port = rest.rpartition(":") if not rest.endswith("]") and ":" in rest else (rest, "", "")

    def url(conversation: Conversation) -> str | None:
        runtime = conversation.runtime
        if runtime is None:
            return None
        if settings.domain is not None:
            return f"{scheme}://{runtime.id}.{settings.domain}" + (f":{port}" if port else "")
        if runtime.public_port:
            return f"{scheme}://{host}:{runtime.public_port}"
        return f"{public_url}/runtimes/{runtime.id}"

    return url


def webhook_of(
    facing: Facing | None, driver: Driver
) -> Callable[[Conversation, Endpoint | None], Mapping[str, Any] | None]:
    """What a runtime is told of the runtime-facing listener."""

    def webhook(conversation: Conversation, endpoint: Endpoint | None) -> Mapping[str, Any] | None:
        if facing is None:
            return None
        known = driver.facing_host(endpoint) if isinstance(driver, Faced) and endpoint is not None else None
        return facing.webhook(conversation, known)

    return webhook


async def woken(
    cache: RouteCache,
    routes: Routes,
    runtime: RuntimeId,
    seconds: float,
    rouse: Rouse,
    admission: Admission,
) -> Found:
    found = await routes.wake(runtime, rouse, admission.waits_for, seconds=seconds)
    cache.invalidate(runtime)  # what is cached says that it sleeps
    return found


def forgotten(cache: RouteCache, conversation: Conversation) -> None:
    """The route changed: whoever asks next gets it as it is stored now."""
    if conversation.runtime is not None:
        cache.invalidate(conversation.runtime.id)
