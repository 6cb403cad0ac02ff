"""MCP tools with real servers of the `mcp` package: over standard input and over HTTP, missing, failing and dying."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from orchestrator.demo.model_server import ScriptedModel
from tests.support.runtimes import KEY, MODEL_KEY, SECRET_KEY, Runtime

pytestmark = pytest.mark.anyio

SERVER = Path(__file__).parents[2] / "support" / "mcp_server.py"
STDIO: dict[str, Any] = {
    "command": sys.executable,
    "args": [str(SERVER)],
    "env": {"TOKEN": "a-token-of-the-mcp-server"},
}


@pytest.fixture
def served() -> Iterator[str]:
    """The URL of a server over HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(SERVER), "--port", str(port)], stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


async def with_servers(runtime: Runtime, script: list[Any], **servers: Any) -> str:
    body = runtime.body()
    body["agent"]["mcp_config"] = servers
    answer = await runtime.http.post("/api/conversations", json=body)
    assert answer.status_code == 201, answer.text
    id = str(answer.json()["id"])
    await runtime.say(id, script)
    await runtime.until(id, seconds=60)
    return id


async def test_tools_over_standard_input(runtime: Runtime, model: ScriptedModel) -> None:
    script = [
        {"tool": "add", "args": {"a": 2, "b": 40}},
        {"tool": "tools_terminal", "args": {"text": "x"}},
        {"tool": "fail", "args": {}},
        {"tool": "environment", "args": {}},
        {"text": "done"},
    ]
    id = await with_servers(runtime, script, tools=STDIO)
    assert await runtime.status(id) == "finished"
    assert {"add", "tools_terminal", "terminal"} <= set(model.requests[-1].tools)
    action = (await runtime.events(id, "ActionEvent"))[0]
    assert action["action"] == {"data": {"a": 2, "b": 40}, "kind": "MCPToolAction"}
    added, named, failed, environment = await runtime.observations(id)
    assert (added["kind"], added["tool_name"], added["content"][0]["text"]) == ("MCPToolObservation", "add", "42")
    assert "not a terminal: x" in named["content"][0]["text"]
    assert (failed["is_error"], bool(failed["content"][0]["text"])) == (True, True)
    printed = environment["content"][0]["text"]
    assert "TOKEN=<secret-hidden>" in printed
    assert [value for value in (KEY, SECRET_KEY, MODEL_KEY, "LITELLM_", "PYTEST_") if value in printed] == []


async def test_tools_over_http(runtime: Runtime, served: str) -> None:
    script = [{"tool": "add", "args": {"a": 1, "b": 1}}, {"text": "done"}]
    with anyio.fail_after(60):
        while True:  # the server needs a moment to listen
            id = await with_servers(runtime, script, web={"url": served})
            if await runtime.observations(id):
                break
    assert (await runtime.outputs(id)) == ["2"]


async def test_a_server_that_is_not_there_costs_its_tools_only(runtime: Runtime, model: ScriptedModel) -> None:
    servers = {"gone": {"url": "http://127.0.0.1:9/mcp"}, "none": {"command": "/no/such/program"}, "tools": STDIO}
    id = await with_servers(runtime, [{"tool": "add", "args": {"a": 1, "b": 2}}, {"text": "done"}], **servers)
    assert (await runtime.outputs(id), await runtime.status(id)) == (["3"], "finished")


async def test_a_server_that_dies_is_told_and_connected_again(runtime: Runtime) -> None:
    script = [{"tool": "die", "args": {}}, {"tool": "add", "args": {"a": 1, "b": 2}}, {"text": "done"}]
    id = await with_servers(runtime, script, tools=STDIO)
    assert await runtime.status(id) == "finished"
    died, after = await runtime.observations(id)
    assert (died["is_error"], after["is_error"]) == (True, True)
    await runtime.say(id, [{"tool": "add", "args": {"a": 1, "b": 2}}, {"text": "done"}])
    await runtime.finish(id)
    assert (await runtime.outputs(id))[-1] == "3"


async def test_a_pattern_chooses_and_nothing_is_left_behind(runtime: Runtime, model: ScriptedModel) -> None:
    body = runtime.body()
    body["agent"] |= {"mcp_config": {"tools": STDIO}, "filter_tools_regex": "^ad"}
    id = (await runtime.http.post("/api/conversations", json=body)).json()["id"]
    await runtime.say(id, [{"text": "done"}])
    await runtime.finish(id)
    assert "add" in model.requests[-1].tools
    assert "fail" not in model.requests[-1].tools
    assert servers_running()
    assert (await runtime.http.delete(f"/api/conversations/{id}")).status_code == 200
    with anyio.fail_after(20):
        while servers_running():
            await anyio.sleep(0.05)


def servers_running() -> bool:
    wanted = str(SERVER).encode()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and wanted in (entry / "cmdline").read_bytes():
                return True
        except OSError:
            continue
    return False


async def test_a_server_is_tried_before_it_is_stored(runtime: Runtime) -> None:
    async def tried(**body: Any) -> Any:
        answer = await runtime.http.post("/api/mcp/test", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    good = {"type": "stdio", **STDIO}
    found = await tried(server=good, timeout=60, tool_call={"name": "add", "arguments": {"a": 1, "b": 2}})
    assert (found["ok"], "add" in found["tools"]) == (True, True)
    assert found["tool_result"] == {"is_error": False, "text": "3"}
    bad = await tried(server={"type": "http", "url": "http://127.0.0.1:9/mcp"})
    assert (bad["ok"], bad["error_kind"]) == (False, "connection")
    slow = await tried(server={"type": "stdio", "command": "sleep", "args": ["60"]}, timeout=1)
    assert (slow["ok"], slow["error_kind"]) == (False, "timeout")
    assert (await tried(server={"type": "stdio"}))["ok"] is False
    assert (await runtime.http.post("/api/mcp/test", json={"server": {"type": "other"}})).status_code == 422
