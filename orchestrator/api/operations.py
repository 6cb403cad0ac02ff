"""What operators and probes ask: is it alive, is it ready, what is it."""

import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from orchestrator.api.auth import ServicesOf
from orchestrator.domain.errors import StoreUnavailable

router = APIRouter(tags=["operations"])


@router.get("/alive")
async def alive() -> dict[str, str]:
    """The process listens."""
    return {"status": "ok"}


@router.get("/health")
async def health(services: ServicesOf) -> JSONResponse:
    """All is well with the process, its state server and its journal; or 503 and what is not."""
    problems = list(services.problems())
    if problems:
        return JSONResponse({"status": "unhealthy", "problems": problems}, 503, {"retry-after": "5"})
    return JSONResponse({"status": "ok"})


@router.get("/ready")
async def ready(services: ServicesOf) -> JSONResponse:
    """The process can serve: the state server answers, and may be trusted to keep what it is given."""
    try:
        await services.store.ping()
        if problem := services.unready():
            raise StoreUnavailable(problem)
    except StoreUnavailable as exc:
        return JSONResponse({"status": "unavailable", "reason": exc.message}, 503, {"retry-after": "1"})
    return JSONResponse({"status": "ready"})


@router.get("/server_info")
async def server_info(request: Request, services: ServicesOf) -> dict[str, Any]:
    """What runs here: version, driver, isolation, state server and what a crash of it may lose."""
    return {"title": "Nestor", "uptime": round(time.monotonic() - request.app.state.started), **services.about}
