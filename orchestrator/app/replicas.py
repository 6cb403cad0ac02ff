"""Several orchestrators on one port: `nestor up --workers N`. This process serves nothing itself.

It binds one listening socket for each worker, all on the same port (SO_REUSEPORT: the kernel spreads connections over
them), starts the state server if none is given, and keeps N processes of `nestor up` alive, each a replica as those on
several machines are: same state, same data folder, work shared by leases. The sockets stay open here, so what a client
sends while a worker is being replaced waits for its successor.
"""

import asyncio
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import structlog

from orchestrator.app import data_folder, listening
from orchestrator.app.state_watch import keep_running
from orchestrator.domain.errors import Misconfigured
from orchestrator.domain.secrets import SecretText
from orchestrator.security.redaction import Redactor
from orchestrator.settings import OrchestratorSettings
from orchestrator.state.embedded import EmbeddedServer
from orchestrator.telemetry import logging

log = structlog.get_logger(__name__)
_PR_SET_PDEATHSIG = 1
_SHORTEST_REST, _LONGEST_REST = 0.5, 30.0  #: seconds before a worker that ended is started again
_libc = ctypes.CDLL(None, use_errno=True)
Ready = Callable[[str, SecretText | None, Mapping[str, str]], None]


class WorkerFailed(Exception):
    """A worker ended before it served, and has told why itself."""


@dataclass
class _Worker:
    """One place on the port, and the process that fills it now."""

    number: int
    listener: socket.socket
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    told: dict[str, Any] = field(default_factory=dict)  #: what its process said when it was ready

    async def start(self) -> None:
        """Returns when it serves. Raises `WorkerFailed`."""
        output = self._spawn().stdout
        line = await asyncio.to_thread(output.readline) if output is not None else b""
        if not line:
            raise WorkerFailed
        self.told = json.loads(line)

    def _spawn(self) -> subprocess.Popen[bytes]:
        parent = os.getpid()

        def follow_parent() -> None:
            # Runs in the child before the program: only calls that were loaded before the fork.
            _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

        # From the main thread, since the kernel's signal at a parent's death means the thread that forked.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", "up", "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=self.environment,
            pass_fds=[self.listener.fileno()],
            start_new_session=True,  # a Ctrl-C in the terminal comes once, through this process
            preexec_fn=follow_parent,
        )
        return self.process

    async def ended(self) -> int:
        """The exit status, when it has one."""
        return await asyncio.to_thread(self.process.wait) if self.process is not None else 0

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)


class Replicas:
    """All workers of one port."""

    def __init__(self, settings: OrchestratorSettings, state_url: str, listeners: list[socket.socket]) -> None:
        self._listeners = listeners
        self._stopping = asyncio.Event()
        self._ephemeral = settings.ephemeral
        self._workers = [
            _Worker(number, listener, _environment(settings, state_url, listener, number))
            for number, listener in enumerate(listeners)
        ]

    def stop(self) -> None:
        """Ask all to end; asked again, they end at once."""
        first = not self._stopping.is_set()
        self._stopping.set()
        for listener in self._listeners:
            listener.close()
        for worker in self._workers:
            if not (first and self._is_last(worker)):
                worker.signal(signal.SIGTERM)

    async def run(self, ready: Ready) -> None:
        """Until `stop` was called and all have ended. Raises `WorkerFailed` if one cannot begin."""
        try:
            await self._workers[0].start()  # alone: it makes what is missing, such as keys and networks
            if not self._stopping.is_set():
                await asyncio.gather(*(worker.start() for worker in self._workers[1:]))
                told = self._workers[0].told
                key = told["operator_key"]
                ready(told["url"], SecretText(key) if key else None, told["about"])
        except WorkerFailed:
            if not self._stopping.is_set():
                self.stop()
                await self._all_ended()
                raise
        keepers = [asyncio.create_task(self._keep(worker)) for worker in self._workers]
        await self._stopping.wait()
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        await self._all_ended()

    async def _keep(self, worker: _Worker) -> None:
        """Start it again whenever it ends, sooner the longer it lived."""
        rest = _SHORTEST_REST
        while True:
            began = asyncio.get_running_loop().time()
            status = await worker.ended()
            if self._stopping.is_set():
                return
            lived = asyncio.get_running_loop().time() - began
            rest = _SHORTEST_REST if lived > _LONGEST_REST else min(2 * rest, _LONGEST_REST)
            log.error("worker.ended", worker=worker.number, status=status, again_in_seconds=rest)
            await asyncio.sleep(rest)
            if self._stopping.is_set():
                return
            try:
                await worker.start()
            except WorkerFailed:
                continue
            log.warning("worker.started_again", worker=worker.number)

    async def _all_ended(self) -> None:
        others = [worker for worker in self._workers if not self._is_last(worker)]
        await asyncio.gather(*(worker.ended() for worker in others))
        for worker in self._workers:
            worker.signal(signal.SIGTERM)
        await asyncio.gather(*(worker.ended() for worker in self._workers))

    def _is_last(self, worker: _Worker) -> bool:
        """Of an ephemeral installation one removes the runtimes, when nobody uses them any more."""
        return self._ephemeral and worker.number == 0


async def serve(settings: OrchestratorSettings, ready: Ready) -> None:
    """Run until a signal. `ready` is called once, when all workers serve. Raises `Misconfigured`, and SystemExit for a
    worker that does not begin."""
    logging.configure(Redactor(), json_lines=settings.log_format == "json")
    _check(settings)
    listeners = listening.bind_together(settings)
    try:
        async with AsyncExitStack() as stack:
            given = settings.redis_url
            stack.enter_context(data_folder.hold(settings.data_dir, shared=given is not None, then_share=True))
            url = given.get_secret_value() if given is not None else ""
            if given is None:
                own = await stack.enter_async_context(EmbeddedServer(settings.data_dir))
                url = own.url
                keeper = asyncio.create_task(keep_running(own))
                stack.callback(keeper.cancel)
            replicas = Replicas(settings, url, listeners)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, replicas.stop)
            await replicas.run(ready)
    except WorkerFailed:
        raise SystemExit(1) from None
    finally:
        for listener in listeners:
            listener.close()


def run(settings: OrchestratorSettings, ready: Ready) -> None:
    """`serve`, from the main thread."""
    asyncio.run(serve(settings, ready))


def _check(settings: OrchestratorSettings) -> None:
    """Raises `Misconfigured` for what only one process can have."""
    if settings.runtime_ports and "runtime_ports" in settings.model_fields_set:
        raise Misconfigured(
            "NESTOR_RUNTIME_PORTS: a runtime's own port is one process's, and there are several workers",
            hint="leave it out, and reach runtimes by path or by NESTOR_DOMAIN",
        )
    if settings.driver == "fake" and settings.fake_engine is None:
        raise Misconfigured(
            "the fake driver keeps its runtimes in one process, and there are several workers",
            hint="give NESTOR_FAKE_ENGINE, or leave NESTOR_WORKERS out",
        )


def _environment(
    settings: OrchestratorSettings, state_url: str, listener: socket.socket, number: int
) -> dict[str, str]:
    """The one of this process, with what the flags said and what makes the worker a replica."""
    host, port = listener.getsockname()[:2]
    own = {
        "NESTOR_HOST": str(host),
        "NESTOR_PORT": str(port),
        "NESTOR_DATA_DIR": str(settings.data_dir),
        "NESTOR_DRIVER": settings.driver,
        "NESTOR_REDIS_URL": state_url,
        "NESTOR_RUNTIME_PORTS": "0",
        "NESTOR_EPHEMERAL": "1" if settings.ephemeral and number == 0 else "0",
        "NESTOR_WORKERS": "1",
        "NESTOR_WORKER_SOCKET": str(listener.fileno()),
    }
    return {**os.environ, **own}
