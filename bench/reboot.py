"""A reboot of everything: compose up, the demo, then the power is cut (or the machine is shut down), and what is back.

    .venv/bin/python bench/reboot.py

Against a machine of its own (root and dockerd; the machine's engine only gives the images, see `scripts/images`).
About four minutes. Nobody does anything after a boot: what the engine brings back by itself is what there is. Ends with
status 1 where a conversation, one of its events or its workspace is not there, or does not work again.
"""

import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio
import httpx

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support import containers
from support.docker_nestor import Client, talking_to
from support.own_machine import OwnMachine, own_machine

from orchestrator.demo.place import PORTS

IMAGES = ("nestor-runtime:latest", "nestor-orchestrator:latest", "nestor-egress:latest", "nestor-front:latest",
          "python:3.13-slim-trixie", "redis:7-bookworm")  # fmt: skip
URL, GATEWAY = "http://127.0.0.1:8080", "10.213.0.1"
KEY = secrets.token_urlsafe(32)
BACK_SECONDS = 180


def say(text: str) -> None:
    print(text, flush=True)


def compose(*arguments: str) -> None:
    words = ["docker", "compose", "--project-name", "nestor", *arguments]
    done = subprocess.run(words, cwd=containers.REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"docker compose {' '.join(arguments)}: {done.stderr[-2000:]}")


def demo() -> list[tuple[str, str]]:
    """Play it; the tenant and the id of each conversation."""
    words = [sys.executable, "-m", "orchestrator", "demo", "--plain", "--keep", "--url", URL, "--operator-key", KEY]
    done = subprocess.run(words, cwd=containers.REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the demo failed: {done.stdout[-3000:]}{done.stderr[-2000:]}")
    kept = [line.split() for line in done.stdout.splitlines() if "Kept: conversation " in line]
    return [(words[words.index("tenant") + 1], words[words.index("conversation") + 1]) for words in kept]


async def key_of(nestor: Client, tenant: str) -> str:
    path = f"/api/v2/tenants/{tenant}/api-keys"
    made = await nestor.call("POST", path, KEY, json={"name": "look"}, status=201)
    return str(made["key"])


async def ready() -> float:
    """How long until the front says so."""
    began = time.monotonic()
    async with httpx.AsyncClient(trust_env=False) as http:
        while time.monotonic() - began < BACK_SECONDS:
            try:
                if (await http.get(f"{URL}/ready", timeout=5)).status_code == 200:
                    return time.monotonic() - began
            except httpx.HTTPError:
                pass
            await anyio.sleep(0.2)
    sys.exit(f"nothing is ready {BACK_SECONDS} s after the boot: {containers.docker('ps', '-a')}")


async def settled(nestor: Client, key: str, id: str) -> list[dict[str, Any]]:
    """The log once nothing is added to it any more."""
    events: list[dict[str, Any]] = []
    while len(now := await nestor.events(key, id)) != len(events):
        events = now
        await anyio.sleep(1)
    return events


async def commit_of(nestor: Client, key: str, id: str) -> str:
    """What the agent says its workspace is at; also that it works."""
    command = "git -C /workspace/app log -1 '--format=at-%h-%s' HEAD"
    events = await nestor.run(key, id, {"tool": "terminal", "args": {"command": command, "summary": "s"}}, seconds=120)
    found = re.search(r"at-([0-9a-f]{7,}-[A-Za-z ]+)", str([event.get("observation") for event in events]))
    return found[1] if found else ""


async def main() -> int:
    os.environ["NESTOR_OPERATOR_KEY"] = KEY
    missing = 0
    with own_machine(Path(tempfile.mkdtemp(prefix="nst-"))) as machine:
        machine.take_images(IMAGES)
        os.environ["DOCKER_HOST"] = machine.host  # for every docker command from here on
        machine.enter()
        began = time.monotonic()
        compose("up", "--detach", "--wait", "--no-build")
        say(f"docker compose up --wait: {time.monotonic() - began:.0f} s")
        kept = demo()
        say(f"nestor demo --url --keep: {len(kept)} conversations")
        keys: dict[str, str] = {}
        before: dict[str, Any] = {}
        async with talking_to(URL, KEY, gateway=GATEWAY, port=PORTS[0]) as nestor:
            for tenant, id in kept:
                keys[tenant] = keys.get(tenant) or await key_of(nestor, tenant)
                before[id] = await settled(nestor, keys[tenant], id)
        for how, end in (("power cut", machine.cut), ("shut down", machine.shut_down)):
            end()
            missing += await after(machine, how, kept, keys, before)
    return 1 if missing or len(kept) != 3 else 0


async def after(
    machine: OwnMachine, how: str, kept: list[tuple[str, str]], keys: dict[str, str], before: dict[str, Any]
) -> int:
    """How many are not as they were."""
    machine.boot()
    machine.enter()
    missing = 0
    say(f"{how}, boot: ready {await ready():.1f} s after the engine")
    async with talking_to(URL, KEY, gateway=GATEWAY, port=PORTS[0]) as nestor:
        for tenant, id in kept:
            key, began = keys[tenant], time.monotonic()
            found = await nestor.until(key, id, "failed", "stopped", past="ready", seconds=120)
            noticed = time.monotonic() - began
            same = await nestor.events(key, id) == before[id]
            await nestor.call("POST", f"/api/v2/conversations/{id}/start", key, status=202)
            began = time.monotonic()
            await nestor.until(key, id, "ready", past=found["phase"], seconds=120)
            started, commit = time.monotonic() - began, await commit_of(nestor, key, id)
            before[id] = await settled(nestor, key, id)
            missing += not (same and commit)
            say(
                f"  {id[:8]}: {found['phase']}, {found['reason']} ({noticed:.1f} s); {len(before[id])} events, "
                f"{'the first ones as before' if same else 'NOT THE SAME'}; started again in {started:.1f} s, "
                f"workspace at {commit or 'NOTHING'}"
            )
    return missing


if __name__ == "__main__":
    sys.exit(anyio.run(main))
