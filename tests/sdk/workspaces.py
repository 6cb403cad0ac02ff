"""A client program of the public SDK: workspaces of several kinds, and what they read of the server's settings.

Run by the environment of `scripts/install --sdk`, not by pytest. Arguments: server, session key, model URL, model key,
working directory (a git repository), a scratch folder.
"""

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
from client_side import agent_of, model, report, script, terminal, until
from openhands.sdk import Conversation
from openhands.sdk.workspace.remote.async_remote_workspace import AsyncRemoteWorkspace
from openhands.sdk.workspace.remote.base import RemoteWorkspace
from openhands.workspace import APIRemoteWorkspace, OpenHandsCloudWorkspace


def background(workspace: RemoteWorkspace, scratch: Path) -> list[Any]:
    """A command that is left alone, looked at, and stopped; its output comes when it is over."""
    mark = scratch / uuid4().hex
    command = workspace.start_command(f"echo begun; touch {mark}; sleep 100", cwd=scratch)
    until(mark.exists)
    before = workspace.get_command_output(command)
    workspace.stop_command(command)
    until(lambda: workspace.get_command_output(command))
    last = workspace.get_command_output(command) or {}
    workspace.stop_command("0" * 32)  # nobody knows it, and that is no error
    return [before, last["stdout"], last["exit_code"]]


def files(workspace: RemoteWorkspace, directory: str, scratch: Path) -> dict[str, Any]:
    (scratch / "out").write_bytes(bytes(range(256)) * 4096)
    up = workspace.file_upload(scratch / "out", f"{directory}/new folder/é.bin")
    down = workspace.file_download(f"{directory}/new folder/é.bin", scratch / "in")
    absent = workspace.file_download(f"{directory}/absent", scratch / "absent")
    return {
        "sizes": [up.file_size, down.file_size],
        "same": (scratch / "in").read_bytes() == (scratch / "out").read_bytes(),
        "absent": [absent.success, bool(absent.error)],
        "changes": sorted([change.status.value, str(change.path)] for change in workspace.git_changes(directory)),
        "diff": [workspace.git_diff(f"{directory}/a").original, workspace.git_diff(f"{directory}/a").modified],
    }


def settings(workspace: RemoteWorkspace, http: httpx.Client, model_key: str) -> dict[str, Any]:
    for name in ("quick", "slow"):
        llm = {"model": f"openai/{name}", "api_key": model_key, "temperature": 0.5}
        http.post(f"/api/profiles/{name}", json={"llm": llm}).raise_for_status()
    http.post("/api/profiles/slow/activate").raise_for_status()
    server = {"command": "true", "args": ["x"], "env": {"API_TOKEN": "of-the-mcp-server"}}
    diff = {"agent_settings_diff": {"mcp_config": {"local": server}}}
    http.patch("/api/settings", json=diff).raise_for_status()
    for name in ("ONE", "TWO"):
        http.put("/api/settings/secrets", json={"name": name, "value": f"value of {name}"}).raise_for_status()
    active, named, changed = workspace.get_llm(), workspace.get_llm("quick"), workspace.get_llm("quick", temperature=0)
    try:
        workspace.get_llm("absent")
    except FileNotFoundError:
        absent = True
    mcp = workspace.get_mcp_config()["local"]
    secrets = workspace.get_secrets(names=["TWO", "NONE"])
    return {
        "active": [active.model, active.usage_id, active.api_key.get_secret_value() == model_key],
        "named": [named.model, named.temperature, changed.temperature, absent],
        "mcp": [mcp.command, mcp.args, {name: value.get_secret_value() for name, value in mcp.env.items()}],
        "secrets": {
            name: [urlsplit(one.url).path, "X-Session-API-Key" in one.headers] for name, one in secrets.items()
        },
        "info": [workspace.alive, "version" in workspace.get_server_info()],
    }


def scoped(server: str, key: str, directory: str, scratch: Path, conversation: str) -> dict[str, Any]:
    """The same through a conversation of the server: what an orchestrator with a runtime each has outside."""
    workspace = RemoteWorkspace(host=server, working_dir=directory, api_key=key, runtime_conversation_id=conversation)
    done = workspace.execute_command("pwd", cwd=directory)
    (scratch / "scoped").write_text("scoped")
    found = {
        "pwd": done.stdout,
        "key": workspace.get_runtime_session_key() == key,
        "upload": workspace.file_upload(scratch / "scoped", f"{directory}/scoped.txt").success,
        "changed": "scoped.txt" in [str(change.path) for change in workspace.git_changes(directory)],
        "background": background(workspace, scratch),
    }
    workspace.release_runtime()
    return {**found, "after release": workspace.execute_command("echo here").stdout}


def conversation_in(workspace: RemoteWorkspace, model_url: str, model_key: str) -> list[Any]:
    """A whole conversation in a workspace of another kind."""
    conversation = Conversation(agent=agent_of(model(model_url, model_key)), workspace=workspace, visualizer=None)
    conversation.send_message(script(terminal("echo in a workspace"), {"text": "Done."}))
    conversation.run()
    seen = [type(event).__name__ for event in conversation.state.events]
    conversation.close()
    return ["ObservationEvent" in seen, workspace.execute_command("echo out; exit 4").exit_code]


class Provider(BaseHTTPRequestHandler):
    """The interface behind which APIRemoteWorkspace asks for runtimes; it has one, which runs already."""

    url = key = ""
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        started = "POST /start" in self.asked
        self.answer(200 if started else 404, {"status": "running", "pod_status": "ready"} if started else {})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.answer(200, {"runtime_id": "one", "url": self.url, "session_api_key": self.key})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        self.asked.append(f"{self.command} {self.path}")
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def provided(server: str, key: str, directory: str, model_url: str, model_key: str) -> dict[str, Any]:
    Provider.url, Provider.key = server, key
    with HTTPServer(("127.0.0.1", 0), Provider) as provider:
        threading.Thread(target=provider.serve_forever, daemon=True).start()
        with APIRemoteWorkspace(
            runtime_api_url=f"http://127.0.0.1:{provider.server_port}",
            runtime_api_key="key-of-the-provider",
            server_image="nestor-runtime",
            session_id="session",
            working_dir=directory,
        ) as workspace:
            found = conversation_in(workspace, model_url, model_key)
        provider.shutdown()
    return {"conversation": found, "asked": Provider.asked[:2] + Provider.asked[-1:]}


def local_mode(server: str, key: str, directory: str, model_url: str, model_key: str) -> list[Any]:
    """The cloud's workspace as it is used by a program that runs beside the server, inside of the sandbox."""
    os.environ |= {"SESSION_API_KEY": key, "SANDBOX_ID": "one"}
    with OpenHandsCloudWorkspace(
        local_agent_server_mode=True,
        cloud_api_url="http://127.0.0.1:1",
        cloud_api_key="key-of-the-cloud",
        agent_server_port=urlsplit(server).port,
        working_dir=directory,
    ) as workspace:
        return conversation_in(workspace, model_url, model_key)


async def asynchronous(server: str, key: str, directory: str, scratch: Path) -> list[Any]:
    workspace = AsyncRemoteWorkspace(host=server, working_dir=directory, api_key=key)
    done = await workspace.execute_command("echo out; exit 5", cwd=directory)
    down = await workspace.file_download(f"{directory}/a", scratch / "async")
    changes = await workspace.git_changes(directory)
    return [done.exit_code, done.stdout, down.success, "a" in [str(change.path) for change in changes]]


def main() -> None:
    import asyncio

    server, key, model_url, model_key, directory, scratch_name = sys.argv[1:]
    scratch = Path(scratch_name)
    http = httpx.Client(base_url=server, timeout=60, headers={"X-Session-API-Key": key}, trust_env=False)
    workspace = RemoteWorkspace(host=server, working_dir=directory, api_key=key)
    agent = agent_of(model(model_url, model_key))
    conversation = Conversation(agent=agent, workspace=workspace, visualizer=None)
    report(
        background=background(workspace, scratch),
        files=files(workspace, directory, scratch),
        scoped=scoped(server, key, directory, scratch, str(conversation.id)),
        asynchronous=asyncio.run(asynchronous(server, key, directory, scratch)),
        provided=provided(server, key, directory, model_url, model_key),
        local_mode=local_mode(server, key, directory, model_url, model_key),
        settings=settings(workspace, http, model_key),
    )
    conversation.close()


if __name__ == "__main__":
    main()
