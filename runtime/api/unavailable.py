"""What the contract calls optional and this runtime does not do: a clear 501 that names what is missing (section 10).

One table, so that nothing of it is a silent 404. What is served elsewhere is not listed here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, WebSocket
from fastapi.responses import JSONResponse

from runtime.api.dependencies import KEY_HEADER, require_session_key, runtime_state
from runtime.api.place import conversation
from runtime.api.socket_auth import refuse
from runtime.state import RuntimeState

_EDITOR = "a VS Code server"
_ACP = "agents of the Agent Client Protocol"
_SKILLS = "installing skills from a marketplace"
_PLUGINS = "plugins"
_EXTENSIONS = "canvas extensions"
_SUBSCRIPTION = "logging in with a model vendor's subscription"
_CONNECTIONS = "connections to model providers"
_OAUTH = "OAuth for MCP servers"
_WORKSPACES = "a list of workspaces"
_META_PROFILES = "meta profiles"

#: methods and path -> what is missing
MISSING: Mapping[str, str] = {
    "POST /api/conversations/{id}/switch_acp_model": _ACP,
    "GET /api/git/repositories/search": "searching a git provider's repositories",
    "GET /api/skills/catalog": _SKILLS,
    "POST /api/skills/sync": _SKILLS,
    "POST /api/skills/install": _SKILLS,
    "GET /api/skills/installed": _SKILLS,
    "GET PATCH DELETE /api/skills/installed/{skill_name}": _SKILLS,
    "POST /api/skills/installed/{skill_name}/refresh": _SKILLS,
    "GET /api/skills/marketplace": _SKILLS,
    "POST /api/sub-agents": "sub-agents",
    "POST /api/plugins": _PLUGINS,
    "POST /api/plugins/fetch": _PLUGINS,
    "POST /api/plugins/install": _PLUGINS,
    "GET /api/plugins/installed": _PLUGINS,
    "GET PATCH DELETE /api/plugins/installed/{plugin_name}": _PLUGINS,
    "POST /api/plugins/installed/{plugin_name}/refresh": _PLUGINS,
    "GET /api/plugins/marketplace": _PLUGINS,
    "POST /api/canvas-extensions/install": _EXTENSIONS,
    "GET /api/canvas-extensions/installed": _EXTENSIONS,
    "GET PATCH DELETE /api/canvas-extensions/installed/{extension_name}": _EXTENSIONS,
    "GET /api/canvas-extensions/installed/{extension_name}/backend": _EXTENSIONS,
    "POST /api/canvas-extensions/installed/{extension_name}/backend/prepare": _EXTENSIONS,
    "POST /api/canvas-extensions/installed/{extension_name}/backend/start": _EXTENSIONS,
    "POST /api/canvas-extensions/installed/{extension_name}/backend/stop": _EXTENSIONS,
    "GET /api/canvas-extensions/installed/{extension_name}/backend/logs": _EXTENSIONS,
    "DELETE /api/canvas-extensions/installed/{extension_name}/backend/data": _EXTENSIONS,
    "GET /api/canvas-extensions/installed/{extension_name}/bundle": _EXTENSIONS,
    "GET /api/canvas-extensions/installed/{extension_name}/icon": _EXTENSIONS,
    "POST DELETE /app-backends/{extension_name}/session": _EXTENSIONS,
    "GET /api/llm/subscription/openai/models": _SUBSCRIPTION,
    "GET /api/llm/subscription/openai/status": _SUBSCRIPTION,
    "POST /api/llm/subscription/openai/device/start": _SUBSCRIPTION,
    "POST /api/llm/subscription/openai/device/poll": _SUBSCRIPTION,
    "POST /api/llm/subscription/openai/logout": _SUBSCRIPTION,
    "POST /api/acp/models": _ACP,
    "GET POST /api/llm/provider-connections": _CONNECTIONS,
    "PATCH DELETE /api/llm/provider-connections/{connection_id}": _CONNECTIONS,
    "POST /api/mcp/oauth/start": _OAUTH,
    "GET /api/mcp/oauth/status/{job_id}": _OAUTH,
    "POST /api/mcp/oauth/callback/{job_id}": _OAUTH,
    "GET POST DELETE /api/workspaces": _WORKSPACES,
    "POST DELETE /api/workspaces/parents": _WORKSPACES,
    "GET /api/meta-profiles": _META_PROFILES,
    "GET POST DELETE /api/meta-profiles/{name}": _META_PROFILES,
    "POST /api/meta-profiles/{name}/activate": _META_PROFILES,
}

_NO_EDITOR = "VSCode is disabled in configuration"

router = APIRouter()
_keyed = [Depends(require_session_key)]
_scoped = [*_keyed, Depends(conversation)]


@router.get("/api/vscode/status", tags=["VSCode"], dependencies=_keyed)
@router.get("/api/conversations/{conversation_id}/vscode/status", tags=["VSCode"], dependencies=_scoped)
async def editor_status() -> JSONResponse:
    return JSONResponse({"running": False, "enabled": False, "message": _NO_EDITOR})


@router.get("/api/vscode/url", tags=["VSCode"], dependencies=_keyed)
@router.get("/api/conversations/{conversation_id}/vscode/url", tags=["VSCode"], dependencies=_scoped)
async def editor_url() -> None:
    raise HTTPException(503, f"{_NO_EDITOR}: this runtime has no {_EDITOR.removeprefix('a ')}")


def _refuse(missing: str) -> Callable[[], Awaitable[JSONResponse]]:
    async def missing_here() -> JSONResponse:
        return _answer(missing)

    return missing_here


def _answer(missing: str) -> JSONResponse:
    return JSONResponse({"detail": f"Not implemented here: {missing}"}, 501)


for _line, _missing in MISSING.items():
    *_methods, _path = _line.split()
    router.add_api_route(_path, _refuse(_missing), methods=_methods, dependencies=_keyed, include_in_schema=False)


@router.websocket("/app-backends/{extension_name}")
@router.websocket("/app-backends/{extension_name}/{path:path}")
async def backend_socket(
    socket: WebSocket, state: Annotated[RuntimeState, Depends(runtime_state)], extension_name: str, path: str = ""
) -> None:
    """Refused in the handshake: 403 without the key, else 501."""
    given = socket.query_params.get("session_api_key") or socket.headers.get(KEY_HEADER)
    if state.session_keys.accepts(given):
        await socket.send_denial_response(_answer(_EXTENSIONS))
    else:
        await refuse(socket)
