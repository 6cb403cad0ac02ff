"""An orchestrator as a process of its own, started as a person starts it, and killed as a machine kills it."""

import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from support.late import PAUSE_SECONDS, TRIES, is_late
from support.ports import lasting_port

OPERATOR_KEY = "operator-key-of-the-tests-0123456789"


class OrchestratorProcess:
    """One life of `nestor up` over a data folder; `start` it again after `kill`."""

    def __init__(
        self, data_dir: Path, *, driver: str = "process", descriptors: int | None = None, **variables: str
    ) -> None:
        """`descriptors` is the most that it may have open at once."""
        self.data_dir = data_dir
        self.log = data_dir.parent / f"{data_dir.name}.log"
        self._driver = driver
        self._descriptors = descriptors
        self._variables = variables
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.port = lasting_port()
        self.killed = False  #: in one of its lives
        self._logged = 0  #: characters of the log that earlier lives wrote

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> "OrchestratorProcess":
        """Begin, and wait until it is ready."""
        stdout = self.spawn().stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], 90)
        line = stdout.readline() if ready else b""
        assert line, f"the orchestrator did not start:\n{self.log.read_text()[-3000:]}"
        self.url = json.loads(line)["url"]
        self.port = int(self.url.rsplit(":", 1)[1])
        return self

    def spawn(self) -> "subprocess.Popen[bytes]":
        """Begin; `end` is for one that was not waited for as well."""
        command = [sys.executable, "-m", "orchestrator", "up", "--json", "--port", str(self.port)]
        command += ["--data-dir", str(self.data_dir), "--driver", self._driver]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "NESTOR_OPERATOR_KEY": OPERATOR_KEY,
            "NESTOR_VERIFY_GIT_TOKENS": "0",
            "NESTOR_LEASE_SECONDS": "2",
            "NESTOR_LOG_FORMAT": "json",
            "NESTOR_DATA_PLANE": os.environ.get("DATA_PLANE", "embedded"),  # what is tried is the same behind either
            "NESTOR_ZYGOTE": "off",  # a zygote takes seconds of a processor; tests that are about it ask for it
            **self._variables,
        }
        self._logged = len(self.log.read_text()) if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, env=environment, preexec_fn=self._limit_descriptors
            )
        return self._process

    def _limit_descriptors(self) -> None:
        if self._descriptors is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self._descriptors, self._descriptors))

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        assert self._process is not None
        self.killed = True
        self._process.kill()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def end(self) -> int:
        """SIGTERM; answers the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(40)
        finally:
            assert self._process.stdout is not None
            self._process.stdout.close()

    def call(self, method: str, path: str, key: str = OPERATOR_KEY, *, status: int | None = None, **more: Any) -> Any:
        headers = {"Authorization": f"Bearer {key}"}
        for _ in range(TRIES):
            response = httpx.request(method, self.url + path, headers=headers, timeout=30, trust_env=False, **more)
            if status in (None, 503) or not is_late(response):
                break
            time.sleep(PAUSE_SECONDS)
        if status is not None:
            assert response.status_code == status, response.text
        return response.json() if response.content else None

    def tenant(self, name: str, model_url: str, model_key: str = "sk-model-key-of-the-tests") -> str:
        """The key of a new tenant whose conversations use the scripted model."""
        tenant = self.call("POST", "/api/v2/tenants", json={"name": name}, status=201)
        path = f"/api/v2/tenants/{tenant['id']}/api-keys"
        key: str = self.call("POST", path, json={"name": "k"}, status=201)["key"]
        llm = {"model": "openai/scripted", "api_key": model_key, "base_url": model_url, "num_retries": 0}
        self.call("PATCH", "/api/v2/settings", key, json={"agent_settings": {"llm": llm}}, status=200)
        return key

    def conversation(self, key: str, id: str) -> dict[str, Any]:
        record: dict[str, Any] = self.call("GET", f"/api/v2/conversations/{id}", key, status=200)
        return record

    def until(self, key: str, id: str, *phases: str, seconds: float = 60) -> dict[str, Any]:
        """The record, as soon as its phase is one of `phases`."""
        return wait_for(lambda: (r := self.conversation(key, id))["phase"] in phases and r, seconds)

    def until_stage(self, key: str, operation: str, stage: str, seconds: float = 30) -> None:
        """Until that stage of the operation runs."""

        def running() -> bool:
            stages = self.call("GET", f"/api/v2/operations/{operation}", key, status=200)["stages"]
            return {item["name"]: item["state"] for item in stages}[stage] == "running"

        wait_for(running, seconds, pause=0.005)

    def told(self, event: str) -> dict[str, Any]:
        """The last line of this life's log with that event, empty while there is none."""
        written, _, _ = self.log.read_text()[self._logged :].rpartition("\n")  # the last line may be half of one yet
        lines = written.splitlines()
        found = [line for line in lines if f'"{event}"' in line]
        told: dict[str, Any] = json.loads(found[-1]) if found else {}
        return told

    def zygote_ready(self, seconds: float = 90) -> int:
        """Wait for this life's zygote, or for the adopted one; its process."""

        def ready() -> int:
            return int(self.told("zygote.ready").get("pid", 0))

        pid: int = wait_for(ready, seconds)
        return pid

    def claims(self) -> set[str]:
        """The names of the runtimes that the driver's folder knows."""
        folder = self.data_dir / "runtimes"
        return {item.name for item in folder.iterdir() if item.is_dir()} if folder.exists() else set()

    def processes(self) -> list[int]:
        """Processes of ours that name the data folder, or carry one of its runtimes, besides the orchestrator."""
        needle = str(self.data_dir).encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) in (os.getpid(), self._process.pid if self._process else 0):
                continue
            try:
                if needle in (entry / "cmdline").read_bytes() or needle in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found


def wait_for(condition: Callable[[], Any], seconds: float = 30, *, pause: float = 0.02) -> Any:
    """What `condition` answers, as soon as that is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} seconds: last was {value!r}"
        time.sleep(pause)


@contextmanager
def orchestrator_at(
    data_dir: Path, *, driver: str = "process", descriptors: int | None = None, **variables: str
) -> Iterator[OrchestratorProcess]:
    """An orchestrator that leaves nothing behind, whatever the test did to it."""
    process = OrchestratorProcess(data_dir, driver=driver, descriptors=descriptors, **variables)
    try:
        yield process.start()
    finally:
        if process._process is not None and process._process.poll() is None:
            process.end()
        if process.killed:  # what a killed one left running is taken over and removed by an ephemeral one
            process._variables["NESTOR_EPHEMERAL"] = "1"
            process.port = 0
            process.start()
            status = process.end()
            assert status == 0
        else:  # what goes on after a good end was meant to
            for pid in process.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not process.processes())
        assert process.processes() == []
