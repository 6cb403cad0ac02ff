"""What operators and probes ask: is it alive, is it ready, what is it."""

import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from orchestrator.api.auth import ServicesOf
from orchestrator.domain.errors import StoreUnavailable

router = APIRouter(tags=["operations"])


@router.get("/alive")
@router.get("/health")
async def alive() -> dict[str, str]:
    """The process listens."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(services: ServicesOf) -> JSONResponse:
    """The process can serve: the state server answers."""
    try:
        await services.store.ping()
    except StoreUnavailable as exc:
        return JSONResponse({"status": "unavailable", "reason": exc.message}, 503, {"retry-after": "1"})
    return JSONResponse({"status": "ready"})


@router.get("/server_info")
async def server_info(request: Request, services: ServicesOf) -> dict[str, Any]:
    """What runs here: version, driver, isolation, state server and what a crash of it may lose."""
    return {"title": "Nestor", "uptime": round(time.monotonic() - request.app.state.started), **services.about}
