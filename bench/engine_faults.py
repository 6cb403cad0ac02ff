"""What becomes of a conversation when its container, its disk or its engine is struck, and how soon that is noticed.

    .venv/bin/python bench/engine_faults.py

A table, one line an act, against a Docker engine of its own (root and dockerd; the machine's engine gives the image
and is left alone). About five minutes. The orchestrator and its rounds are as by default.
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support import containers
from support.docker_nestor import Client, container_of, nestor_in
from support.private_engine import PrivateEngine, private_engine

IMAGE = "nestor-runtime:latest"
NOTICED_SECONDS = 120
QUIET_SECONDS = 25  #: two rounds and a half: what is not noticed by then is not


@dataclass
class Ground:
    nestor: Client
    engine: PrivateEngine
    key: str


async def blocking(work: Callable[[], Any]) -> None:
    await anyio.to_thread.run_sync(work)


async def seen(ground: Ground, id: str, *, until: Callable[[dict[str, Any]], bool], seconds: float) -> str:
    """`phase, reason, message` after the act, with the time; the phase at the end where nothing came."""
    began = time.monotonic()
    found: dict[str, Any] = {}
    while time.monotonic() - began < seconds:
        found = await ground.nestor.call("GET", f"/api/v2/conversations/{id}", ground.key, status=200)
        if until(found):
            reason = f", {found['reason']}: {found['message']}" if found.get("reason") else ""
            return f"{found['phase']}{reason} | {time.monotonic() - began:.1f} s"
        await anyio.sleep(0.1)
    return f"{found['phase']} | nothing to notice in {seconds:.0f} s"


def failed(found: dict[str, Any]) -> bool:
    return bool(found["phase"] == "failed")


def never(found: dict[str, Any]) -> bool:
    return False


async def by_command(ground: Ground, id: str, *words: str) -> str:
    name = container_of(id)
    await blocking(lambda: containers.docker(*(word.format(name=name) for word in words)))
    return await seen(ground, id, until=failed, seconds=NOTICED_SECONDS)


async def paused(ground: Ground, id: str) -> str:
    name, began = container_of(id), time.monotonic()
    await blocking(lambda: containers.docker("pause", name))
    for _ in range(5 * NOTICED_SECONDS):
        if not containers.inspect("container", name)["State"]["Paused"]:
            return f"ready, let go on | {time.monotonic() - began:.1f} s"
        await anyio.sleep(0.2)
    return "paused | never"


async def renamed(ground: Ground, id: str) -> str:
    name = container_of(id)
    await blocking(lambda: containers.docker("rename", name, f"{name}-renamed"))
    try:
        return await seen(ground, id, until=failed, seconds=NOTICED_SECONDS)
    finally:
        left = containers.docker("ps", "-a", "--format", "{{.Names}}", "--filter", f"name={name}-renamed")
        print(f"  (afterwards there is: {left.strip() or 'no such container'})", file=sys.stderr)


async def out_of_memory(ground: Ground, id: str) -> str:
    """Many who are small, so that the kernel takes the largest: the server. A larger one it takes alone, and
    the runtime goes on."""
    name = container_of(id)
    await blocking(lambda: containers.docker("update", "--memory", "150m", "--memory-swap", "150m", name))
    eat = "for n in $(seq 80); do (x=$(head -c 4000000 /dev/zero | tr '\\0' x); sleep 60) & done; wait"
    await blocking(lambda: swallow("exec", "--detach", name, "sh", "-c", eat))
    return await seen(ground, id, until=failed, seconds=NOTICED_SECONDS)


def swallow(*words: str) -> None:
    try:
        containers.docker(*words)
    except AssertionError as exc:
        print(f"  ({exc})", file=sys.stderr)


async def full_volume(ground: Ground, id: str) -> str:
    """The agent fills it, its runtime's own log lies there too; then somebody makes space."""
    said = await played(ground, id, "cat /dev/zero > /workspace/zeros", seconds=20)
    told = "the agent is told of no space" if "No space left" in said else "the agent is told nothing"
    noticed = await seen(ground, id, until=failed, seconds=QUIET_SECONDS)
    await blocking(lambda: containers.docker("exec", container_of(id), "rm", "/workspace/zeros"))
    again = "goes on" if "back again" in await played(ground, id, "echo back again", seconds=60) else "does not go on"
    return f"{told}, with space it {again}; {noticed}"


async def played(ground: Ground, id: str, command: str, *, seconds: float) -> str:
    """What the agent saw, also where its run comes to no end."""
    try:
        step = {"tool": "terminal", "args": {"command": command, "summary": "s"}}
        events = await ground.nestor.run(ground.key, id, step, seconds=seconds)
    except TimeoutError:
        events = await ground.nestor.events(ground.key, id)
    return " ".join(str(event.get("observation")) for event in events)


async def over_the_limit(ground: Ground, id: str) -> str:
    write = "head -c 25000000 /dev/zero > /workspace/{}"
    words = "; ".join(write.format(number) for number in range(2))
    await blocking(lambda: containers.docker("exec", container_of(id), "sh", "-c", words))
    return await seen(ground, id, until=failed, seconds=NOTICED_SECONDS)


async def restarted(ground: Ground, id: str, *, live_restore: bool, by: signal.Signals, away: float = 3) -> str:
    url = (await ground.nestor.call("GET", f"/api/v2/conversations/{id}", ground.key))["runtime"]["url"]
    began = time.monotonic()
    await blocking(lambda: ground.engine.end(by))
    alive = await answers(url)
    await anyio.sleep(away)
    await blocking(lambda: ground.engine.start(live_restore=live_restore))
    back = time.monotonic() - began
    said = await seen(ground, id, until=never if live_restore else failed, seconds=QUIET_SECONDS)
    return f"{alive} meanwhile; {said} after it was back ({back:.1f} s away)"


async def frozen(ground: Ground, id: str) -> str:
    url = (await ground.nestor.call("GET", f"/api/v2/conversations/{id}", ground.key))["runtime"]["url"]
    ground.engine.freeze()
    red = await health(ground, 503)
    alive = await answers(url)
    ground.engine.thaw()
    green = await health(ground, 200)
    return f"{alive} meanwhile; ready; /health red | {red}; green {green} after it went on"


async def health(ground: Ground, status: int) -> str:
    """How long until it answers so."""
    began = time.monotonic()
    for _ in range(5 * NOTICED_SECONDS):
        if (await ground.nestor.http.get(ground.nestor.url + "/health")).status_code == status:
            return f"{time.monotonic() - began:.1f} s"
        await anyio.sleep(0.2)
    return f"not in {NOTICED_SECONDS} s"


async def answers(url: str) -> str:
    try:
        answer = await httpx.AsyncClient(trust_env=False).get(f"{url}/alive", timeout=5)
    except httpx.HTTPError as exc:
        return f"its runtime does not answer ({type(exc).__name__})"
    return "its runtime answers" if answer.status_code == 200 else f"its runtime answers {answer.status_code}"


ACTS: dict[str, Callable[[Ground, str], Any]] = {
    "docker kill": lambda ground, id: by_command(ground, id, "kill", "{name}"),
    "docker stop": lambda ground, id: by_command(ground, id, "stop", "--time", "5", "{name}"),
    "docker rm -f": lambda ground, id: by_command(ground, id, "rm", "--force", "{name}"),
    "docker pause": paused,
    "docker rename": renamed,
    "out of memory": out_of_memory,
    "a full volume": full_volume,
    "engine SIGTERM, live-restore": lambda g, id: restarted(g, id, live_restore=True, by=signal.SIGTERM),
    "engine SIGKILL, live-restore": lambda g, id: restarted(g, id, live_restore=True, by=signal.SIGKILL),
    "engine SIGSTOP": frozen,
    "engine SIGKILL, without": lambda g, id: restarted(g, id, live_restore=False, by=signal.SIGKILL),
    "engine SIGTERM, without": lambda g, id: restarted(g, id, live_restore=False, by=signal.SIGTERM),
}


LIMITED: dict[str, Callable[[Ground, str], Any]] = {"over the disk limit": over_the_limit}


async def acted(engine: PrivateEngine, acts: dict[str, Callable[[Ground, str], Any]], **settings: str) -> None:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        async with nestor_in(Path(folder), engine=engine.host, **settings) as nestor:
            ground = Ground(nestor, engine, await nestor.tenant())
            for name, act in acts.items():
                id = (await nestor.conversation(ground.key))["id"]
                print(f"{name} | {await act(ground, id)}", flush=True)
                await nestor.call("DELETE", f"/api/v2/conversations/{id}?purge=true", ground.key)


async def main() -> None:
    chosen = sys.argv[1:] or [*ACTS, *LIMITED]
    with private_engine(Path(tempfile.mkdtemp(prefix="nst-"))) as engine:
        await blocking(lambda: engine.take_image(IMAGE))
        os.environ["DOCKER_HOST"] = engine.host  # for every docker command from here on
        print("act | the conversation | noticed after")
        await acted(engine, {name: act for name, act in ACTS.items() if name in chosen})
        limited = {name: act for name, act in LIMITED.items() if name in chosen}
        if limited:
            await acted(engine, limited, NESTOR_RUNTIME_DISK_MEGABYTES="30")
        del os.environ["DOCKER_HOST"]


if __name__ == "__main__":
    anyio.run(main)
