"""A runtime for tests: the real application on a real uvicorn server in this process, or as a process to kill."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import websockets
from pydantic import SecretStr

from runtime.app import build_app
from runtime.serving import Server, configuration
from runtime.settings import RuntimeSettings

KEY = "session-key-of-the-runtime-tests"
MODEL_KEY = "sk-model-key-of-the-runtime-tests"
SECRET_KEY = "sealing-key-of-the-runtime-tests"
ENDED = ("finished", "error", "paused", "stuck")


class _Server(Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@dataclass
class Runtime:
    """What a test talks to."""

    http: httpx.AsyncClient
    url: str
    folder: Path
    model_url: str

    def llm(self, **more: Any) -> dict[str, Any]:
        return {
            "model": "openai/scripted",
            "api_key": MODEL_KEY,
            "base_url": self.model_url,
            "usage_id": "agent",
            "num_retries": 0,
            **more,
        }

    def body(self, *, tools: Sequence[str] = ("terminal", "file_editor", "task_tracker"), **more: Any) -> Any:
        """A start request of the newer form."""
        llm = self.llm(**more.pop("llm", {}))
        agent = {"kind": "Agent", "llm": llm, "tools": [{"name": name} for name in tools]}
        return {"agent": agent, "workspace": {"working_dir": str(self.folder / "work")}, **more}

    async def start(self, script: Sequence[Any] | None = None, **more: Any) -> str:
        """A new conversation, its first message running when there is a script; its id."""
        if script is not None:
            more["initial_message"] = message(script)
        answer = await self.http.post("/api/conversations", json=self.body(**more))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def say(self, conversation: str, script: Sequence[Any], *, run: bool = True, **more: Any) -> httpx.Response:
        answer = await self.http.post(
            f"/api/conversations/{conversation}/events", json={**message(script), "run": run, **more}
        )
        assert answer.status_code == 200, answer.text
        return answer

    async def status(self, conversation: str) -> str:
        return str((await self.http.get(f"/api/conversations/{conversation}")).json()["execution_status"])

    async def until(self, conversation: str, *wanted: str, seconds: float = 90) -> str:
        with anyio.fail_after(seconds):
            while (now := await self.status(conversation)) not in (wanted or ENDED):
                await anyio.sleep(0.02)
        return now

    async def finish(self, conversation: str) -> None:
        """Wait for the run's end, which must be a good one."""
        status = await self.until(conversation)
        assert status == "finished", (status, await self.events(conversation, "ConversationErrorEvent"))

    async def events(self, conversation: str, kind: str | None = None) -> list[dict[str, Any]]:
        """All stored events, or those of a kind."""
        found: list[dict[str, Any]] = []
        page: str | None = None
        while True:
            query = {"page_id": page} if page else {}
            answer = await self.http.get(f"/api/conversations/{conversation}/events/search", params=query)
            assert answer.status_code == 200, answer.text
            found += answer.json()["items"]
            page = answer.json()["next_page_id"]
            if page is None:
                return [event for event in found if kind is None or event["kind"] == kind]

    async def observations(self, conversation: str) -> list[dict[str, Any]]:
        return [event["observation"] for event in await self.events(conversation, "ObservationEvent")]

    async def outputs(self, conversation: str) -> list[str]:
        """The texts of the observations."""
        return [item["content"][0]["text"] for item in await self.observations(conversation)]

    @asynccontextmanager
    async def socket(
        self, conversation: str, query: str = "", *, key: str | None = KEY, kind: str = "events"
    ) -> AsyncIterator["Frames"]:
        """An authenticated socket by the first frame."""
        address = self.url.replace("http", "ws", 1) + f"/sockets/{kind}/{conversation}{query}"
        async with websockets.connect(address) as connection:
            if key is not None:
                await connection.send(json.dumps({"type": "auth", "session_api_key": key}))
            yield Frames(connection)


@dataclass
class Frames:
    connection: Any

    async def next(self, seconds: float = 20) -> dict[str, Any]:
        with anyio.fail_after(seconds):
            frame: dict[str, Any] = json.loads(await self.connection.recv())
        return frame

    async def until_state(self, seconds: float = 30) -> list[dict[str, Any]]:
        """Frames up to and with the next whole state."""
        found: list[dict[str, Any]] = []
        while not found or found[-1].get("key") != "full_state":
            found.append(await self.next(seconds))
        return found

    async def close_code(self, seconds: float = 20) -> int:
        with anyio.fail_after(seconds):
            try:
                while True:
                    await self.connection.recv()
            except websockets.ConnectionClosed as closed:
                assert closed.rcvd is not None
                return closed.rcvd.code


def message(script: Sequence[Any] | str) -> dict[str, Any]:
    """A user message with the model's script, or with a text."""
    text = script if isinstance(script, str) else f"SCRIPT:{json.dumps(script)}"
    return {"role": "user", "content": [{"type": "text", "text": text}]}


def terminal(command: str, **more: Any) -> dict[str, Any]:
    return {"tool": "terminal", "args": {"command": command, **more}}


@asynccontextmanager
async def runtime_at(folder: Path, model_url: str = "http://127.0.0.1:1/v1", **settings: Any) -> AsyncIterator[Runtime]:
    """One life of a runtime over a folder."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        chosen = RuntimeSettings(
            **{
                "session_api_keys": (KEY,),
                "secret_key": SecretStr(SECRET_KEY),
                "persistence_dir": folder / "persistence",
                "conversations_path": folder / "conversations",
                "workspace_path": folder / "project",
                "bash_events_dir": folder / "bash_events",
                "internal_server_url": f"http://127.0.0.1:{port}",
                "listen_port": port,
                **settings,
            }
        )
        server = _Server(configuration(build_app(chosen), grace=1))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            with anyio.fail_after(20):
                while not server.started:
                    assert not task.done(), task.exception()
                    await anyio.sleep(0.01)
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", headers={"X-Session-API-Key": KEY}, timeout=30, trust_env=False
            ) as http:
                yield Runtime(http, f"http://127.0.0.1:{port}", folder, model_url)
        finally:
            server.should_exit = True
            await task


class RuntimeProcess:
    """`python -m runtime` over a folder, in a wrapper where one is given; start it again after `kill`."""

    def __init__(self, folder: Path, *, wrapper: Sequence[str] = (), **variables: str) -> None:
        self.folder = folder
        self._wrapper = wrapper
        self._variables = variables
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.port = 0

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, seconds: float = 60, *, same_port: bool = False) -> "RuntimeProcess":
        """Running and ready when this returns."""
        self.launch(same_port=same_port)
        eventually(self._ready, seconds)
        return self

    def launch(self, *, same_port: bool = False) -> None:
        with socket.create_server(("127.0.0.1", self.port if same_port else 0)) as listener:
            self.port = port = listener.getsockname()[1]
            environment = {
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "OH_PERSISTENCE_DIR": str(self.folder / "persistence"),
                "OH_CONVERSATIONS_PATH": str(self.folder / "conversations"),
                "OH_WORKSPACE_PATH": str(self.folder / "project"),
                "OH_SESSION_API_KEYS_0": KEY,
                "OH_SECRET_KEY": SECRET_KEY,
                **self._variables,
            }
            with (self.folder / "runtime.log").open("ab") as log:
                self._process = subprocess.Popen(
                    [*self._wrapper, sys.executable, "-m", "runtime", "--listen-fd", str(listener.fileno())],
                    env=environment,
                    stdout=log,
                    stderr=log,
                    pass_fds=(listener.fileno(),),
                )
        self.url = f"http://127.0.0.1:{port}"

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "runtime.log").read_text()[-3000:]
        try:
            return httpx.get(f"{self.url}/ready", timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def end(self) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(30)

    def ensure_gone(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition did not come true in time"
        time.sleep(0.02)
