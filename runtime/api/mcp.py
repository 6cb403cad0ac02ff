"""Try an MCP server before it is stored: connect, list its tools, perhaps call one (contract, `/api/mcp/test`).

Who may call this may run commands here in any case (`/api/bash`), so a server's command is no new right.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import Field, SecretStr

from runtime.agent.tools.mcp import CallFailed, Connection
from runtime.api.bodies import Body
from runtime.api.dependencies import StateDependency
from runtime.configuration.record import McpServer
from runtime.events.content import text_of

router = APIRouter(tags=["MCP"])


class Spec(Body):
    """A server to try; which fields count depends on `type`."""

    type: Literal["stdio", "http", "shttp", "streamable-http", "sse"]
    command: str | None = Field(default=None, min_length=1)
    args: list[str] = Field(default_factory=list)
    env: dict[str, SecretStr] = Field(default_factory=dict)
    cwd: str | None = None
    url: str | None = Field(default=None, min_length=1)
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    api_key: SecretStr | None = None


class Call(Body):
    name: Annotated[str, Field(min_length=1)]
    arguments: dict[str, Any] = Field(default_factory=dict)


class Wanted(Body):
    name: Annotated[str, Field(min_length=1, max_length=128)] = "test-server"
    server: Spec
    timeout: Annotated[float, Field(gt=0, le=120, allow_inf_nan=False)] = 15.0
    tool_call: Call | None = None


@router.post("/mcp/test")
async def test_server(state: StateDependency, body: Wanted) -> JSONResponse:
    """200 in either case: `ok` says whether it could be reached."""
    spec = body.server
    headers = dict(spec.headers)
    if spec.api_key is not None:
        headers.setdefault("Authorization", SecretStr(f"Bearer {spec.api_key.get_secret_value()}"))
    local = spec.type == "stdio"
    if (spec.command if local else spec.url) is None:
        return _failed("command is missing" if local else "url is missing", "unknown")
    server = McpServer(
        command=spec.command if local else None,
        args=spec.args if local else None,
        env=spec.env if local else None,
        cwd=spec.cwd if local else None,
        url=None if local else spec.url,
        transport="sse" if spec.type == "sse" else None,
        headers=None if local else headers,
        timeout=body.timeout,
    )
    connection = Connection(body.name, server, state.conversations.agent_environment())
    try:
        await connection.open()
        called = None
        if body.tool_call is not None:
            content, failed = await connection.call(body.tool_call.name, body.tool_call.arguments)
            called = {"is_error": failed, "text": text_of(content)}
    except CallFailed as error:
        return _failed(str(error), "timeout" if "in time" in str(error) or "within" in str(error) else "connection")
    finally:
        await connection.close()
    names = [definition["name"] for definition in connection.definitions]
    return JSONResponse({"ok": True, "tools": names, "tool_result": called, "oauth_state": None})


def _failed(error: str, kind: str) -> JSONResponse:
    return JSONResponse({"ok": False, "error": error, "error_kind": kind})
