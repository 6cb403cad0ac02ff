"""A sandbox's secrets, for whoever holds its session key and nothing else (contract outer-api.md 2.1)."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse

from orchestrator.api import audited
from orchestrator.api.auth import ServicesOf
from orchestrator.domain.errors import InvalidRequest, Unauthenticated
from orchestrator.domain.ids import parse_uuid
from orchestrator.facades.answers import V1Route

router = APIRouter(prefix="/api/v1/sandboxes/{sandbox}/settings", tags=["V1 sandboxes"], route_class=V1Route)


@router.get("/secrets")
async def names(sandbox: str, request: Request, services: ServicesOf) -> dict[str, Any]:
    """Names and descriptions, no values; the tokens of git providers under `github_token` and so on."""
    record = await services.sandbox_access.of_runtime(presented(request), _id(sandbox))
    told = await services.sandbox_access.secrets(record)
    return {"secrets": [{"name": name, "description": described} for name, described in sorted(told.items())]}


@router.get("/secrets/{name}")
async def value(sandbox: str, name: str, request: Request, services: ServicesOf) -> PlainTextResponse:
    """The value and nothing else. Each read is in the tenant's audit log before it is answered, without the value."""
    record = await services.sandbox_access.of_runtime(presented(request), _id(sandbox))
    audited.by_runtime(record)
    found = await services.sandbox_access.secret(record, name)
    await audited.first(services)
    return PlainTextResponse(found.open(), headers={"cache-control": "no-store"})


def presented(request: Request) -> str:
    """The session key as it was sent. Raises `Unauthenticated` when there is none."""
    key = request.headers.get("x-session-api-key", "").strip()
    if not key:
        raise Unauthenticated("no session key was sent", hint="send the sandbox's own as X-Session-API-Key")
    return key


def _id(text: str) -> str:
    try:
        return parse_uuid(text, "sandbox")
    except InvalidRequest:
        return text
