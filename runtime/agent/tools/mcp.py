"""Tools of MCP servers, through the `mcp` package: started with a conversation's first run, ended with it.

A server that cannot be reached costs its tools and nothing else: the agent goes on without them and the log says why. A
call that fails is an observation that the agent can react to; a server that died is connected again with the next run.
The package is imported only when a conversation names a server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any, TextIO

import structlog

from runtime.configuration.record import McpServer
from runtime.events.actions import MCPToolAction, MCPToolObservation, Observation
from runtime.events.content import Content, ImageContent, TextContent
from runtime.events.models import MCPToolDescription, ToolAnnotations, ToolDescription
from runtime.machine import account

log = structlog.get_logger()

CONNECT_SECONDS = 30.0
CALL_SECONDS = 300.0
_CLOSE_SECONDS = 5.0
_CLOSED = -32000  #: the package's code for a connection that ended
_MOST_TOOLS = 200
_MOST_CHARACTERS = 50_000


class McpTool:
    """One tool of one server. Implements Tool and Foreign."""

    def __init__(self, connection: Connection, name: str, definition: Mapping[str, Any]) -> None:
        self._connection = connection
        self._own_name: str = definition["name"]
        self._definition = dict(definition)
        schema = definition.get("inputSchema") or {}
        self.name = name
        self.description: str = definition.get("description") or definition["name"]
        self.properties: Mapping[str, Any] = schema.get("properties") or {}
        self.required: Sequence[str] = schema.get("required") or []
        self.kind = "MCPTool"
        self.action_class = MCPToolAction
        hints = definition.get("annotations") or {}
        known = {key: hints[key] for key in ToolAnnotations.model_fields if hints.get(key) is not None}
        self.annotations = ToolAnnotations(**known)

    def action(self, arguments: Mapping[str, Any]) -> MCPToolAction:
        return MCPToolAction(data=dict(arguments))

    def describe(self) -> ToolDescription:
        return MCPToolDescription(
            description=self.description,
            action_type="MCPToolAction",
            observation_type="MCPToolObservation",
            annotations=self.annotations,
            kind="MCPToolDefinition",
            title=self.name,
            mcp_tool=self._definition,
        )

    async def run(self, action: MCPToolAction) -> Observation:
        try:
            content, failed = await self._connection.call(self._own_name, action.data)
        except CallFailed as error:
            content, failed = [TextContent(text=f"The tool could not be called: {error}")], True
        return MCPToolObservation(content=content, is_error=failed, tool_name=self.name)

    async def close(self) -> None:
        """Its server is closed by the toolbox's owner."""


class CallFailed(Exception):
    """The server did not answer, or is gone."""


class Connection:
    """One server. A task of its own holds it open, since the package wants to be left where it was entered."""

    def __init__(self, name: str, server: McpServer, environment: Mapping[str, str]) -> None:
        self.name = name
        self._server = server
        self._environment = environment
        self._client: Any = None
        self._task: asyncio.Task[None] | None = None
        self._leave = asyncio.Event()
        self.definitions: list[dict[str, Any]] = []

    @property
    def alive(self) -> bool:
        return self._task is not None and not self._task.done() and not self._leave.is_set()

    async def open(self) -> None:
        """Connect and ask for its tools. Raises CallFailed; then nothing is left of it."""
        await self.close()
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._leave.clear()
        self._task = asyncio.create_task(self._hold(ready), name=f"mcp {self.name}")
        try:
            async with asyncio.timeout(self._server.timeout or CONNECT_SECONDS):
                await asyncio.shield(ready)
        except TimeoutError:
            await self.close()
            raise CallFailed("it did not answer in time") from None
        except CallFailed:
            await self.close()
            raise

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> tuple[list[Content], bool]:
        """The result as content, and whether the tool calls it an error. Raises CallFailed."""
        if not self.alive:
            raise CallFailed("its server is gone; it is started again with the next run")
        seconds = self._server.timeout or CALL_SECONDS
        try:
            async with asyncio.timeout(seconds):
                result = await self._client.call_tool(tool, dict(arguments))
        except TimeoutError:
            raise CallFailed(f"it did not answer within {seconds:g} seconds") from None
        except Exception as error:  # noqa: BLE001 - whatever a server of somebody else's does, the agent is told
            if not isinstance(error, import_module("mcp").MCPError) or error.error.code == _CLOSED:
                self._leave.set()
            raise CallFailed(_said(error)) from None
        return _content(result), bool(result.is_error)

    async def close(self) -> None:
        """End it and its process. Idempotent."""
        self._leave.set()
        task, self._task = self._task, None
        if task is None:
            return
        done, _ = await asyncio.wait({task}, timeout=_CLOSE_SECONDS)
        if not done:
            task.cancel()
            await asyncio.wait({task}, timeout=_CLOSE_SECONDS)

    async def _hold(self, ready: asyncio.Future[None]) -> None:
        try:
            async with self._connected() as client:
                self._client = client
                listed = await client.list_tools()
                dumped = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in listed.tools]
                self.definitions = dumped[:_MOST_TOOLS]
                ready.set_result(None)
                await self._leave.wait()
        except Exception as error:  # noqa: BLE001 - told to who waits for it, or in the log
            if ready.done():
                log.warning("mcp.server_lost", server=self.name, problem=_said(error))
            else:
                ready.set_exception(CallFailed(_said(error)))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        mcp = await asyncio.to_thread(import_module, "mcp")
        server = self._server
        headers = _headers(server)
        async with contextlib.AsyncExitStack() as stack:
            target: Any
            if server.command is not None:
                own = {name: value.get_secret_value() for name, value in (server.env or {}).items()}
                program, *arguments = account.command([server.command, *(server.args or [])])
                command = mcp.StdioServerParameters(
                    command=program,
                    args=arguments,
                    env={**self._environment, **own},
                    cwd=server.cwd,
                )
                # Its log is its own: what it prints there may hold what it was told.
                silent = stack.enter_context(_nowhere())
                target = mcp.stdio_client(command, errlog=silent)
            elif server.transport == "sse":
                target = import_module("mcp.client.sse").sse_client(server.url, headers=headers)
            else:
                make = import_module("mcp.shared._httpx_utils").create_mcp_http_client
                http = await stack.enter_async_context(make(headers=headers))
                target = import_module("mcp.client.streamable_http").streamable_http_client(
                    server.url, http_client=http
                )
            yield await stack.enter_async_context(mcp.Client(target))


class McpServers:
    """Those of one conversation."""

    def __init__(
        self, servers: Mapping[str, McpServer], *, environment: Mapping[str, str], pattern: str | None = None
    ) -> None:
        self._connections = [
            Connection(name, server, environment)
            for name, server in servers.items()
            if server.enabled and (server.command is not None or server.url is not None)
        ]
        self._pattern = pattern

    def __bool__(self) -> bool:
        return bool(self._connections)

    async def tools(self, taken: Sequence[str]) -> list[McpTool]:
        """Every tool of every server that can be reached, dead ones connected again. A name that is taken gets its
        server's name before it."""
        await asyncio.gather(*(self._open(one) for one in self._connections if not one.alive))
        names = set(taken)
        found: list[McpTool] = []
        for connection in self._connections:
            for definition in connection.definitions if connection.alive else ():
                own = definition["name"]
                name = own if own not in names else f"{connection.name}_{own}"
                if name in names or not _NAME.fullmatch(name) or not self._wanted(own):
                    continue
                names.add(name)
                found.append(McpTool(connection, name, definition))
        return found

    async def close(self) -> None:
        """Idempotent."""
        await asyncio.gather(*(one.close() for one in self._connections))

    async def _open(self, connection: Connection) -> None:
        try:
            await connection.open()
        except CallFailed as error:
            log.warning("mcp.not_connected", server=connection.name, problem=str(error))

    def _wanted(self, name: str) -> bool:
        if self._pattern is None:
            return True
        try:
            return re.search(self._pattern, name) is not None
        except re.error:
            return True


_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def _headers(server: McpServer) -> dict[str, str]:
    headers = {name: value.get_secret_value() for name, value in (server.headers or {}).items()}
    auth = server.auth
    if auth is None or auth.value is None:
        return headers
    value = auth.value.get_secret_value()
    if auth.strategy == "bearer":
        headers["Authorization"] = f"Bearer {value}"
    elif auth.strategy in ("api_key", "header") and auth.header_name:
        headers[auth.header_name] = value
    return headers


def _content(result: Any) -> list[Content]:
    found: list[Content] = []
    for block in result.content:
        if block.type == "text":
            found.append(TextContent(text=_cut(block.text)))
        elif block.type == "image":
            found.append(ImageContent(image_urls=[f"data:{block.mime_type};base64,{block.data}"]))
        else:
            found.append(TextContent(text=_cut(block.model_dump_json(by_alias=True, exclude_none=True))))
    return found or [TextContent(text="")]


def _cut(text: str) -> str:
    if len(text) <= _MOST_CHARACTERS:
        return text
    half = _MOST_CHARACTERS // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


def _said(error: BaseException) -> str:
    """The first cause in words, without what it may quote at length."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:300] if str(error) else type(error).__name__
