"""The path of a request as the routes see it, for what decides before them."""

from __future__ import annotations

from starlette.convertors import Convertor, register_url_convertor
from starlette.types import Scope

from runtime.state import RuntimeState


class Below(Convertor[str]):
    """`{name:below}`: all that follows, line ends among it, which names of files may hold. The framework's own `path`
    stops at one, and passes over one at the end: that would be another file."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("below", Below())


def route_path(scope: Scope, state: RuntimeState) -> str:
    """Without the root path, which is known only after init and so is not yet in every scope."""
    path: str = scope["path"]
    root: str = state.settings.root_path or scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path
