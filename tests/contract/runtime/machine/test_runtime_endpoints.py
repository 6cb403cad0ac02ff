"""Every endpoint of the contract's list is served, or is an optional one that says what is missing."""

import re
from pathlib import Path
from uuid import UUID

import pytest
from starlette.routing import BaseRoute, Match

from runtime.api.unavailable import MISSING
from runtime.app import build_app
from runtime.settings import RuntimeSettings
from tests.support.runtimes import runtime_at

pytestmark = pytest.mark.anyio

ENDPOINTS = [line.split(" ", 2) for line in (Path(__file__).parent / "endpoints.txt").read_text().splitlines()]
SOME_ID = str(UUID(int=7))
REFUSED = [(method, line.split()[-1]) for line in MISSING for method in line.split()[:-1]]


def concrete(path: str) -> str:
    """The path with something in each of its places."""
    return re.sub(r"\{[a-z_]+\}", SOME_ID, path.replace("[/{path}]", "/x").replace("*", "x"))


def is_served(routes: list[BaseRoute], method: str, path: str) -> bool:
    kind = {"type": "websocket"} if method == "WS" else {"type": "http", "method": method}
    scope = {**kind, "path": concrete(path), "root_path": "", "headers": []}
    return any(route.matches(scope)[0] is Match.FULL for route in routes)


def test_every_endpoint_of_the_list_is_answered() -> None:
    routes = list(build_app(RuntimeSettings()).router.routes)
    missing = {f"{label} {method} {path}" for label, method, path in ENDPOINTS if not is_served(routes, method, path)}
    assert len(ENDPOINTS) == 187
    assert sorted(missing) == []
    assert not is_served(routes, "GET", "/api/no/such/route")


async def test_what_is_refused_is_optional_and_names_what_is_missing(tmp_path: Path) -> None:
    optional = {(method, concrete(path)) for label, method, path in ENDPOINTS if label == "OPTIONAL"}
    async with runtime_at(tmp_path) as runtime:
        for method, path in REFUSED:
            assert (method, concrete(path)) in optional
            answer = await runtime.http.request(method, concrete(path))
            assert answer.status_code == 501, (method, path)
            assert re.fullmatch(r"Not implemented here: .{3,}", answer.json()["detail"]), (method, path)
            closed = await runtime.http.request(method, concrete(path), headers={"X-Session-API-Key": "wrong"})
            assert closed.status_code == 401, (method, path)
