"""The path of a request as the routes see it, for what decides before them."""

from __future__ import annotations

from starlette.types import Scope

from runtime.state import RuntimeState


def route_path(scope: Scope, state: RuntimeState) -> str:
    """Without the root path, which is known only after init and so is not yet in every scope."""
    path: str = scope["path"]
    root: str = state.settings.root_path or scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path
