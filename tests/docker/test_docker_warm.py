"""Spares as containers: one is claimed without a call to the engine, and its storage goes with its conversation."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from support import containers
from support.docker_nestor import Client, nestor_in
from support.engine_relay import relay

pytestmark = [pytest.mark.docker, pytest.mark.anyio]
HIT = "hit: a spare of the warm pool"


def made(data: Path) -> list[str]:
    """The names of the spares that were ready once, in this order."""
    log = data / "orchestrator.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [json.loads(line)["name"] for line in lines if '"spare.ready"' in line]


def volumes(spares: list[str]) -> set[str]:
    ids = {name.removeprefix("nestor-spare-") for name in spares}
    return {name for name in containers.docker("volume", "ls", "-q").split() if name[len("nestor-") :][:36] in ids}


async def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    with anyio.fail_after(seconds):
        while not (found := condition()):
            await anyio.sleep(0.1)
        return found


async def stages(client: Client, key: str, record: dict[str, Any]) -> dict[str, Any]:
    operation = await client.call("GET", f"/api/v2/operations/{record['operation']}", key, status=200)
    return {stage["name"]: stage for stage in operation["stages"]}


async def shell(client: Client, record: dict[str, Any], command: str) -> str:
    answer = await client.http.post(
        f"{record['runtime']['url']}/api/bash/execute_bash_command",
        json={"command": command},
        headers={"X-Session-API-Key": record["runtime"]["session_key"]},
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["stdout"])


async def test_a_claimed_container_is_bound_without_the_engine_and_its_storage_goes_with_it(folder: Path) -> None:
    (data := folder / "data").mkdir()
    with relay(folder / "engine") as engine:
        settings = {"NESTOR_WARM_POOL": "1", "NESTOR_DOCKER_HOST": engine.host, "NESTOR_LOG_FORMAT": "json"}
        async with nestor_in(data, **settings) as client:
            key = await client.tenant()
            (spare,) = await until(lambda: made(data))
            record = await client.conversation(key)
            told = await stages(client, key, record)
            assert told["claim"]["message"] == HIT
            began, ended = (
                datetime.fromisoformat(told[name]["started_at"]).timestamp() for name in ("claim", "publish")
            )
            asked = [what for at, what in engine.seen if began <= at <= ended]
            # Whoever looks at all containers now and then may do so meanwhile, and at none of them alone.
            id = containers.inspect("container", spare)["Id"]
            assert [what for what in asked if not what.startswith("GET ") or spare in what or id in what] == []
            await shell(client, record, "echo kept > kept.txt")
            path = f"/api/v2/conversations/{record['id']}"
            await client.call("POST", f"{path}/stop", key, status=202)
            await client.until(key, record["id"], "stopped", past="ready")
            assert spare not in containers.docker("ps", "-a", "--format", "{{.Names}}").split()
            assert len(volumes([spare])) == 2
            await client.call("POST", f"{path}/start", key, status=202)
            again = await client.until(key, record["id"], "ready", past="stopped")
            assert await shell(client, again, "cat kept.txt") == "kept\n"
            assert (await stages(client, key, again))["claim"]["message"].startswith("not asked for")
            await client.call("DELETE", f"{path}?purge=true", key)
            await until(lambda: not volumes([spare]))
    left = containers.docker("ps", "-a", "--format", "{{.Names}}").split()
    assert not set(left) & set(made(data))
    assert volumes(made(data)) == set()
