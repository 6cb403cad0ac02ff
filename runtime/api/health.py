"""Is the process there, may traffic come, and what is this server: the routes that never need a key."""

import importlib.metadata
import json
import sys

from fastapi import APIRouter
from fastapi.responses import JSONResponse, RedirectResponse, Response

from runtime.api.dependencies import StateDependency
from runtime.api.errors import DORMANT
from runtime.api.static import landing
from runtime.machine.space import is_full
from runtime.state import RuntimeState, Stage

router = APIRouter(tags=["Server"])

#: clients of the contract match both
TITLE = "OpenHands Agent Server"
VERSION = "1.58.0"
HEALTHY = b'{"status":"ok"}'
READY = b'{"status":"ready"}'
#: only what is there; clients switch features on by these names
CAPABILITIES = ("idempotent_conversation_create_v1", "tool_catalog_v1")
#: not under an orchestrator: there the key that it tells of is shown to nobody
SCOPED_ROUTES = "conversation_runtime_routes_v1"
#: For the orchestrator, which refuses a runtime that lacks what it needs (`GET /api/init`, docs/images.md).
NESTOR = {
    "version": importlib.metadata.version("nestor"),
    "capabilities": [
        "bind_by_proof_v1",
        "command_variables_v1",
        "configure_in_three_calls_v1",
        "fence_v1",
        "tell_events_v1",
    ],
}
USABLE_TOOLS = ("file_editor", "task_tracker", "terminal")


@router.get("/alive")
@router.get("/health")
async def health() -> Response:
    return Response(HEALTHY, media_type="application/json")


def ready_body(state: RuntimeState) -> bytes:
    """The contract's two words, and what an operator must know when there is something."""
    warnings = state.warnings()
    return json.dumps({"status": "ready", "warnings": warnings}).encode() if warnings else READY


@router.get("/ready")
async def ready(state: StateDependency) -> Response:
    match state.stage:
        case Stage.READY:
            return Response(ready_body(state), media_type="application/json")
        case Stage.INITIALIZING:
            return JSONResponse({"status": "initializing", "message": "Server is still initializing"}, 503)
        case Stage.DORMANT:
            return JSONResponse({"status": "dormant", "message": DORMANT}, 503)


@router.get("/")
async def root(state: StateDependency) -> Response:
    """What this server is, or the way to the operator's static files where there are any."""
    directory = state.settings.static_files_path
    if directory is not None and directory.is_dir():
        return RedirectResponse(landing(directory, state.settings.root_path), 302)
    return await server_info(state)


@router.get("/server_info")
async def server_info(state: StateDependency) -> JSONResponse:
    return JSONResponse(
        {
            "uptime": float(int(state.uptime_seconds)),
            "idle_time": float(int(state.idle_seconds)),
            "title": TITLE,
            "version": VERSION,
            "sdk_version": VERSION,
            "tools_version": VERSION,
            "workspace_version": VERSION,
            "build_git_sha": "unknown",
            "build_git_ref": "unknown",
            "python_version": sys.version,
            "usable_tools": list(USABLE_TOOLS),
            "runtime_idle_timeout_seconds": None,
            "conversation_runtime": "local",
            "available_conversation_runtimes": [],
            "capabilities": [*CAPABILITIES, *((SCOPED_ROUTES,) if state.settings.generation is None else ())],
            "nestor": {**NESTOR, "full": _full(state)},
            "app_backend_ingress_url": None,
            "max_foreground_terminal_timeout_seconds": None,
            "docs": _under_root(state, "/docs"),
            "redoc": _under_root(state, "/redoc"),
        }
    )


def _full(state: RuntimeState) -> list[str]:
    """Which disks have no space left: where the agent works, and where conversations are kept."""
    folders = {"workspace": state.settings.workspace_path, "state": state.settings.conversations_path}
    return [name for name, folder in folders.items() if is_full(folder)]


def _under_root(state: RuntimeState, path: str) -> str:
    return f"{state.settings.root_path}{path}"
