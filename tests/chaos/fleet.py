"""Several orchestrators on one Redis and one fake engine, each a process of its own that can be killed or stopped.

The engine is neutral: it outlives every orchestrator and counts what ran. Redis syncs every write.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from redis import Redis
from redis.exceptions import RedisError
from support.processes import OPERATOR_KEY, OrchestratorProcess, wait_for

from orchestrator.drivers import fake_wire
from orchestrator.state.embedded import find_server

MODEL = {"agent_settings": {"llm": {"model": "openai/scripted", "api_key": "sk-model-key-of-the-tests"}}}
_GONE = (httpx.TransportError, OSError)


class Violation(AssertionError):
    """A promise that was broken."""


class Replica(OrchestratorProcess):
    """One orchestrator of the fleet. `up` says whether requests may be sent to it."""

    up = False
    owner = ""  #: the name that stands in its leases

    def begin(self) -> None:
        self.start()
        wait_for(self._named, 20)
        self.up = True

    def _named(self) -> bool:
        self.owner = self.told("workers.begin").get("replica", "")
        return bool(self.owner)

    def crash(self) -> None:
        """SIGKILL."""
        self.up = False
        self.kill()

    def freeze(self) -> None:
        """SIGSTOP: its leases run out while it believes that it holds them."""
        self.up = False
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)
        self.up = True


@dataclass
class Fleet:
    """What a scenario acts on."""

    replicas: list[Replica]
    engine: Path
    redis: Path
    http: httpx.AsyncClient
    random: random.Random
    faults: dict[str, int] = field(default_factory=dict)
    spares: int = 0  #: how many runtimes may wait for somebody, when nothing else is left

    async def ask(
        self, method: str, path: str, key: str = OPERATOR_KEY, *, tries: int = 200, **more: Any
    ) -> httpx.Response:
        """The answer of any replica. One that is gone, or says that it cannot now, is left for another: so a request
        may have been served although its answer was lost. Give an `Idempotency-Key` where that matters."""
        headers = {"Authorization": f"Bearer {key}"} | more.pop("headers", {})
        for _ in range(tries):
            up = [replica for replica in self.replicas if replica.up]
            if not up:
                await asyncio.sleep(0.05)
                continue
            try:
                url = self.random.choice(up).url + path
                answer = await self.http.request(method, url, headers=headers, **more)
            except _GONE:
                await asyncio.sleep(0.02)
                continue
            if answer.status_code not in (502, 503, 504) and not _under_way(answer):
                return answer
            await asyncio.sleep(0.05)
        raise Violation(f"no replica answered {method} {path} in {tries} tries")

    async def census(self) -> dict[str, Any]:
        """What the engine saw."""
        found: dict[str, Any] = await fake_wire.call(self.engine, "census")
        return found

    async def engine_call(self, verb: str, **arguments: Any) -> Any:
        """One of the engine's verbs for tests (`orchestrator/drivers/fake_server.py`)."""
        return await fake_wire.call(self.engine, verb, **arguments)

    async def script(self, rule: str, *given: Any) -> None:
        """Plan what goes wrong inside runtimes."""
        await self.engine_call("script", rule=rule, given=given)

    async def tenant(self, name: str) -> str:
        """The key of a new tenant that has a model."""
        tenant = (await self.ask("POST", "/api/v2/tenants", json={"name": name})).json()
        made = await self.ask("POST", f"/api/v2/tenants/{tenant['id']}/api-keys", json={"name": "k"})
        key: str = made.json()["key"]
        await self.ask("PATCH", "/api/v2/settings", key, json=MODEL)
        return key

    async def phase(self, key: str, id: str) -> dict[str, Any] | None:
        """The record, None when there is none."""
        answer = await self.ask("GET", f"/api/v2/conversations/{id}", key)
        if answer.status_code in (404, 410):
            return None
        found: dict[str, Any] = answer.json()
        return found

    async def until(self, key: str, id: str, *phases: str, seconds: float) -> dict[str, Any]:
        """The record, as soon as its phase is one of `phases`; a violation when it never is."""
        found: dict[str, Any] | None = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    found = await self.phase(key, id)
                    if found is not None and found["phase"] in phases:
                        return found
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise Violation(f"conversation {id} is {found and found['phase']} after {seconds} seconds") from None

    @asynccontextmanager
    async def harmed(self, *, every: float, freeze_seconds: float) -> AsyncIterator[None]:
        """Meanwhile, again and again, one replica is killed and started anew, or stopped for longer than its lease. One
        at least is always there."""
        over = asyncio.Event()
        task = asyncio.create_task(self._harm(every, freeze_seconds, over))
        try:
            yield
        finally:
            over.set()
            await task  # not cancelled: a thread that starts a replica would go on without us
            for replica in self.replicas:
                if not replica.up:
                    await asyncio.to_thread(self._mend, replica)

    async def _harm(self, every: float, freeze_seconds: float, over: asyncio.Event) -> None:
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), every * self.random.uniform(0.5, 1.5))
            victims = [replica for replica in self.replicas if replica.up]
            if len(victims) < 2 or over.is_set():
                continue
            victim = self.random.choice(victims)
            fault = self.random.choice(["kill", "freeze"])
            self.faults[fault] = self.faults.get(fault, 0) + 1
            if fault == "kill":
                victim.crash()
                await asyncio.to_thread(victim.begin)
            else:
                victim.freeze()
                await asyncio.sleep(freeze_seconds)
                victim.thaw()

    @staticmethod
    def _mend(replica: Replica) -> None:
        try:
            replica.thaw()
            httpx.get(f"{replica.url}/alive", timeout=5, trust_env=False)
        except (*_GONE, ProcessLookupError):
            with contextlib.suppress(OSError):
                replica.crash()
            replica.begin()


def _under_way(answer: httpx.Response) -> bool:
    """The first request with this idempotency key has not ended, or never will: its replica is dead."""
    return answer.status_code == 409 and "Retry-After" in answer.headers


@contextmanager
def redis_server(folder: Path) -> Iterator[Path]:
    """A state server that syncs every write; its socket."""
    path = folder / "s.sock"
    command = [str(find_server()), "--port", "0", "--unixsocket", str(path), "--dir", str(folder), "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "always", "--logfile", str(folder / "redis.log")]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        with Redis.from_url(f"unix://{path}") as client:
            wait_for(lambda: _answers(client), 20)
        yield path
    finally:
        process.terminate()
        process.wait(20)


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except (RedisError, OSError):
        return False


@contextmanager
def engine_process(folder: Path) -> Iterator[Path]:
    """A fake engine; its socket."""
    path = folder / "engine"
    with listening_process(path, "orchestrator.drivers.fake_server", str(path)):
        yield path


@contextmanager
def listening_process(socket_path: Path, module: str, *arguments: str) -> Iterator[None]:
    """`python -m module`, from when it listens on its socket; ended by SIGTERM."""
    tests = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], env=environment)
    try:
        wait_for(lambda: _listens(socket_path), 30)
        yield
    finally:
        process.terminate()
        process.wait(20)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0


@asynccontextmanager
async def fleet(*, seed: int, replicas: int = 3, lease_seconds: float = 2.0, **variables: str) -> AsyncIterator[Fleet]:
    """The whole of it, ended in order whatever happened."""
    folder = Path(tempfile.mkdtemp(prefix="nst-", dir="/tmp"))  # a socket's path must be short
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        redis = stack.enter_context(redis_server(folder))
        engine = stack.enter_context(engine_process(folder))
        shared = variables_of(folder, f"unix://{redis}", engine, lease_seconds) | variables
        members = [Replica(folder / f"replica-{number}", driver="fake", **shared) for number in range(replicas)]
        await asyncio.to_thread(begin, stack, members)
        async with client() as http:
            spares = int(variables.get("NESTOR_WARM_POOL", "0"))
            yield Fleet(members, engine, redis, http, random.Random(seed), spares=spares)


def variables_of(folder: Path, redis_url: str, engine: Path, lease_seconds: float) -> dict[str, str]:
    """The environment of every replica of a fleet."""
    return {
        "NESTOR_REDIS_URL": redis_url,
        "NESTOR_FAKE_ENGINE": str(engine),
        "NESTOR_MASTER_KEY": base64.urlsafe_b64encode(bytes(range(32))).decode(),
        "NESTOR_JOURNAL_URL": f"file://{folder}/journal",
        "NESTOR_RUNTIME_PORTS": "0",
        "NESTOR_CALLS_PER_SECOND_PER_KEY": "0",  # judges read all there is as fast as they can
        "NESTOR_TENANT_CALLS_PER_SECOND": "0",
        "NESTOR_LEASE_SECONDS": str(lease_seconds),
    }


def begin(stack: ExitStack, members: Iterable[Replica]) -> None:
    """Start them; the stack ends them."""
    for member in members:
        stack.callback(_end, member)
        member.begin()


def client() -> httpx.AsyncClient:
    """For requests to replicas that come and go: no connection is used twice."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(timeout=httpx.Timeout(10), limits=limits, trust_env=False)


def _end(replica: Replica) -> None:
    if replica._process is not None and replica._process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(replica.pid, signal.SIGCONT)
        replica.end()
