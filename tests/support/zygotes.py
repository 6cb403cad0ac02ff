"""A zygote as a process of its own, and runtimes forked from it, without a driver: for tests of the zygote itself."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from orchestrator.drivers.process_zygote_wire import ask, connect, heard, listen, tell

KEY = "session-key-of-the-zygote-tests-0123456789"
OWN = ("-m", "runtime.zygote")
RECORDING = (str(Path(__file__).with_name("recording_zygote.py")),)


@dataclass
class Forked:
    """A runtime that was forked. `leave` has not been given yet."""

    pid: int
    port: int
    folder: Path
    give_leave: int
    report: int
    answer: Mapping[str, Any]
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers={"X-Session-API-Key": KEY}, trust_env=False, timeout=30
        )

    def let_go(self) -> str:
        """Give leave; what the child said against it, nothing if it serves."""
        os.write(self.give_leave, b"g")
        said = b""
        while piece := os.read(self.report, 4096):
            said += piece
        return said.decode()

    def ready(self, seconds: float = 20) -> None:
        until = time.monotonic() + seconds
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if self.http.get("/ready").status_code == 200:
                    return
            assert time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.002)

    def call(self, method: str, path: str, **more: Any) -> Any:
        answer = self.http.request(method, path, **more)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def shell(self, command: str) -> Mapping[str, Any]:
        """What one command of the bash API printed."""
        return self.call("POST", "/api/bash/execute_bash_command", json={"command": command, "timeout": 30})

    def close(self) -> None:
        self.http.close()
        for descriptor in (self.give_leave, self.report):
            with contextlib.suppress(OSError):
                os.close(descriptor)


class ZygoteProcess:
    """One life of a zygote that listens in `folder`. `prefix` are words of a command that executes the interpreter."""

    def __init__(self, folder: Path, program: Sequence[str] = OWN, *, prefix: Sequence[str] = ()) -> None:
        self.folder = folder
        self.socket = folder / "zygote.sock"
        self._program = program
        self._prefix = prefix
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: socket.socket | None = None
        self.about: Mapping[str, Any] = {}

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, seconds: float = 90, *, words: Sequence[str] = ()) -> "ZygoteProcess":
        self.folder.mkdir(parents=True, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": "/",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "NESTOR_ROOM": "-" * 160,
        }
        with listen(self.socket) as listener, (self.folder / "zygote.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*self._prefix, sys.executable, "-I", *self._program, "--socket-fd", str(listener.fileno()), *words],
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
        self._lifeline = connect(self.socket, seconds=seconds)
        tell(self._lifeline, "hello", {})
        self.about = heard(self._lifeline)
        return self

    def ask(self, verb: str, body: Mapping[str, Any], descriptors: Sequence[int] = ()) -> Mapping[str, Any]:
        return ask(self.socket, verb, body, descriptors, seconds=20)

    def fork(self, folder: Path, *, environment: Mapping[str, str] = {}, **fields: Any) -> Forked:
        """A child that waits for leave, with everything below `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            leave, give_leave = os.pipe()
            report, tell_report = os.pipe()
            log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            for descriptor in (leave, tell_report, log):
                stack.callback(os.close, descriptor)
            body = {
                "name": folder.name,
                "generation": 1,
                "mark": f"NESTOR_CLAIM={folder.name}",
                "directory": str(folder),
                "descriptors": ["listener", "leave", "report", "log"],
                "environment": {
                    "PATH": "/usr/local/bin:/usr/bin:/bin",
                    "HOME": str(folder),
                    "TMPDIR": str(folder),
                    "OH_SESSION_API_KEYS_0": KEY,
                    "OH_SECRET_KEY": "sealing-key-of-the-zygote-tests",
                    "OH_CONVERSATIONS_PATH": str(folder / "conversations"),
                    "OH_PERSISTENCE_DIR": str(folder / "persistence"),
                    "OH_BASH_EVENTS_DIR": str(folder / "bash_events"),
                    "OH_WORKSPACE_PATH": str(folder),
                    "NESTOR_CLAIM": folder.name,
                    **environment,
                },
                **fields,
            }
            port = listener.getsockname()[1]
            answer = self.ask("fork", body, [listener.fileno(), leave, tell_report, log])
        said = os.read(report, 4096).decode() if "forked" in answer else ""
        pid = int(said) if said.strip().isdigit() else 0
        return Forked(pid, port, folder, give_leave, report, {**answer, "said": said})

    def ending(self, pid: int, started: int) -> int | None:
        code: int | None = self.ask("ending", {"pid": pid, "started": started})["code"]
        return code

    def let_go(self) -> None:
        """Close the lifeline."""
        assert self._lifeline is not None
        self._lifeline.close()

    def wait(self, seconds: float) -> int:
        assert self._process is not None
        return self._process.wait(seconds)

    def stop(self) -> None:
        if self._lifeline is not None:
            self._lifeline.close()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)


@contextmanager
def zygote_at(
    folder: Path, program: Sequence[str] = OWN, *, prefix: Sequence[str] = (), words: Sequence[str] = ()
) -> Iterator[ZygoteProcess]:
    zygote = ZygoteProcess(folder, program, prefix=prefix)
    try:
        yield zygote.start(words=words)
    finally:
        zygote.stop()


def turn(runtime: Forked, model_url: str, *, stream: bool = False, script: Sequence[Any] = ({"text": "done"},)) -> None:
    """One conversation with one finished turn."""
    llm = {"model": "openai/scripted", "api_key": "k", "base_url": model_url, "usage_id": "agent", "num_retries": 0}
    body = {
        "agent": {"kind": "Agent", "llm": {**llm, "stream": stream}, "tools": [{"name": "terminal"}]},
        "workspace": {"working_dir": str(runtime.folder / "work")},
        "initial_message": {
            "role": "user",
            "content": [{"type": "text", "text": f"SCRIPT:{json.dumps(list(script))}"}],
        },
    }
    made = runtime.call("POST", "/api/conversations", json=body)
    until = time.monotonic() + 60
    while True:
        status = runtime.call("GET", f"/api/conversations/{made['id']}")["execution_status"]
        if status == "finished":
            return
        assert status in ("idle", "running"), (status, (runtime.folder / "log").read_text())
        assert time.monotonic() < until, "the turn did not end"
        time.sleep(0.01)
