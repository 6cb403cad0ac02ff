"""`/users/me`: the settings of who asks, flat, as V1 shows them (contract outer-api.md 2.2).

A client that holds the session key of a running sandbox of its own is given what it needs to work there: the keys of
MCP servers, and with `expose_secrets` the model's. Everybody else sees marks.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Request

from orchestrator.api import audited
from orchestrator.api.auth import Owner, OwnerOf, ServicesOf
from orchestrator.domain.errors import Forbidden
from orchestrator.domain.secrets import deep_redact
from orchestrator.domain.tenancy import Scope
from orchestrator.facades.answers import V1Route
from orchestrator.facades.flat import Show, flat_settings
from orchestrator.facades.sandboxes.secrets import presented
from orchestrator.nested.wire import reveal
from orchestrator.services.sandbox_access import SandboxAccess

router = APIRouter(prefix="/api/v1/users", tags=["V1 sandboxes"], route_class=V1Route)
_BEARER = "bearer "
_SSE = frozenset({"sse"})


@router.get("/me")
async def me(request: Request, owner: OwnerOf, services: ServicesOf, expose_secrets: bool = False) -> dict[str, Any]:
    """Whoever acts for a user sees that user's settings over the tenant's. A session key that is sent has to be that of
    a running sandbox (401), and of the caller's own (403); with `expose_secrets` one has to be sent. Values are told
    to a key with the scope `secrets:reveal` alone: with `expose_secrets` it is needed (403), else marks are told."""
    in_sandbox = expose_secrets or bool(request.headers.get("x-session-api-key", "").strip())
    if in_sandbox:
        audited.asked()
        await _sandboxs_own(services.sandbox_access, presented(request), owner)
        if expose_secrets:
            owner.require(Scope.REVEAL)
        in_sandbox = Scope.REVEAL in owner.caller.scopes
    show = reveal if expose_secrets else deep_redact
    if in_sandbox:
        await audited.first(services)
    document, _origin = await services.effective.explain(owner.tenant, owner.user)
    return {
        "id": owner.user or owner.tenant,
        **flat_settings(document, show),
        "llm_profiles": _profiles(document, show),
        "mcp_config": mcp_config_of(document, reveal if in_sandbox else deep_redact),
    }


async def _sandboxs_own(access: SandboxAccess, session_key: str, owner: Owner) -> None:
    record = await access.of_key(session_key)
    if record.tenant != owner.tenant or owner.user not in (None, record.user):
        raise Forbidden("this is the session key of somebody else's sandbox")


def _profiles(document: Mapping[str, Any], show: Show) -> dict[str, Any] | None:
    """The models that the agent's settings hold by name, each with what its client is made of."""
    found = document.get("agent_settings", {}).get("meta_profile_llms")
    return {"profiles": show(found)} if isinstance(found, Mapping) else None


def mcp_config_of(document: Mapping[str, Any], show: Show) -> dict[str, Any] | None:
    """In three lists, by how a server is reached: as the older settings hold it, or made of the newer map by name. None
    where there is none."""
    older = document.get("older", {}).get("mcp_config")
    if isinstance(older, Mapping):
        shown: dict[str, Any] = show(older)
        return shown
    newer = document.get("agent_settings", {}).get("mcp_config")
    if not isinstance(newer, Mapping):
        return None
    servers = newer.get("mcpServers", newer)
    lists: dict[str, Any] = {"sse_servers": [], "shttp_servers": [], "stdio_servers": []}
    for name, server in servers.items() if isinstance(servers, Mapping) else ():
        if isinstance(server, Mapping):
            for kind, entry in _entry(str(name), server, show):
                lists[kind].append(entry)
    return lists


def _entry(name: str, server: Mapping[str, Any], show: Show) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(server.get("url"), str):
        kind = "sse_servers" if server.get("transport", server.get("type")) in _SSE else "shttp_servers"
        key = _key(server, show)
        yield kind, {"url": server["url"], "api_key": key, "timeout": server.get("timeout")}
    elif isinstance(server.get("command"), str):
        stdio = {"name": name, "command": server["command"], "args": list(server.get("args") or [])}
        yield "stdio_servers", {**stdio, "env": show(server.get("env"))}


def _key(server: Mapping[str, Any], show: Show) -> Any:
    """What it sends as a bearer, or as its API key."""
    for name, value in (server.get("headers") or {}).items():
        if str(name).lower() == "authorization":
            told = show(value)
            plain = isinstance(told, str) and told.lower().startswith(_BEARER)
            return told[len(_BEARER) :] if plain else told
    return show(server.get("api_key"))
