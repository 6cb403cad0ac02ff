"""What people do to containers behind the orchestrator's back, and what the conversation says about it."""

import time
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest
from support import containers
from support.docker_nestor import Client, container_of

pytestmark = [pytest.mark.docker, pytest.mark.anyio, pytest.mark.slow]

#: a round of tending is ten seconds; an act may be under way
NOTICED_SECONDS = 25
#: and a round that asks a frozen runtime something waits half a minute for its answer
FROZEN_SECONDS = 60


async def failed(nestor: Client, key: str, id: str) -> tuple[dict[str, Any], float]:
    """The record once it says that the runtime is lost, and how long that took."""
    began = time.monotonic()
    with anyio.fail_after(NOTICED_SECONDS):
        while True:
            found = await nestor.call("GET", f"/api/v2/conversations/{id}", key, status=200)
            if found["phase"] == "failed":
                return found, time.monotonic() - began
            await anyio.sleep(0.1)


@pytest.mark.parametrize(
    ("act", "told"),
    [
        pytest.param(lambda name: containers.docker("kill", name), ("exit status 137",), id="killed"),
        pytest.param(lambda name: containers.docker("stop", "--time", "5", name), ("exit status 0",), id="stopped"),
        # The engine kills it first: which of the two is seen depends on when the look comes.
        pytest.param(lambda name: containers.docker("rm", "--force", name), ("gone", "exit status 137"), id="removed"),
        pytest.param(lambda name: containers.docker("rename", name, f"{name}-x"), ("gone",), id="renamed"),
    ],
)
async def test_a_container_that_somebody_ends_is_a_lost_runtime_that_can_be_started_again(
    nestor: Client, act: Callable[[str], Any], told: tuple[str, ...], record_property
):
    key = await nestor.tenant()
    conversation = await nestor.conversation(key)
    id = conversation["id"]
    await nestor.run(key, id, {"tool": "terminal", "args": {"command": "echo kept > /workspace/kept", "summary": "s"}})
    before = await nestor.events(key, id)
    used = await nestor.call("GET", f"/api/v2/conversations/{id}/usage", key, status=200)
    assert 0 < used["memory_bytes"] < used["memory_limit_bytes"] == 2 * 1024**3
    assert used["cpu_seconds"] > 0
    assert used["processes"] > 1
    assert used["disk_bytes"] > 0
    assert (conversation["size"], used["size"], used["cpu_limit"], used["processes_limit"]) == (1, 1, 2.0, 512)
    assert (used["open_files_limit"], used["log_limit_bytes"], used["disk_limit_bytes"]) == (
        4096,
        20_000_000,
        20_000_000_000,
    )
    said = await nestor.call("GET", f"/api/v2/conversations/{id}/logs?lines=50", key, status=200)
    assert any("runtime.ready" in line for line in said["lines"])
    await anyio.to_thread.run_sync(act, container_of(id))
    lost, seconds = await failed(nestor, key, id)
    record_property("seconds_to_notice", round(seconds, 1))
    await nestor.call("GET", f"/api/v2/conversations/{id}/usage", key, status=409)
    assert lost["reason"] == "runtime_lost", lost
    assert any(words in lost["message"] for words in told), lost
    assert lost["retryable"] is True
    assert await nestor.events(key, id) == before
    await nestor.call("POST", f"/api/v2/conversations/{id}/start", key, status=202)
    await nestor.until(key, id, "ready", past="failed")
    assert containers.docker("exec", container_of(id), "cat", "/workspace/kept") == "kept\n"


async def test_a_container_that_runs_out_of_memory_failed_for_that_reason_and_can_be_started_again(
    nestor: Client, record_property
):
    key = await nestor.tenant()
    id = (await nestor.conversation(key))["id"]
    before, name = await nestor.events(key, id), container_of(id)
    containers.docker("exec", name, "sh", "-c", "echo kept > /workspace/kept")
    containers.docker("update", "--memory", "150m", "--memory-swap", "150m", name)
    # Many who are small, so that the kernel takes the largest: the server.
    eat = "for n in $(seq 80); do (x=$(head -c 4000000 /dev/zero | tr '\\0' x); sleep 60) & done; wait"
    containers.docker("exec", "--detach", name, "sh", "-c", eat)
    lost, seconds = await failed(nestor, key, id)
    record_property("seconds_to_notice", round(seconds, 1))
    assert (lost["reason"], lost["retryable"]) == ("oom", True), lost
    assert lost["hint"]
    assert lost["log_tail"]
    assert await nestor.events(key, id) == before
    await nestor.call("POST", f"/api/v2/conversations/{id}/start", key, status=202)
    await nestor.until(key, id, "ready", past="failed")
    assert containers.inspect("container", container_of(id))["HostConfig"]["Memory"] == 2 * 1024**3
    assert containers.docker("exec", container_of(id), "cat", "/workspace/kept") == "kept\n"


async def test_a_container_that_somebody_froze_goes_on(nestor: Client, record_property):
    key = await nestor.tenant()
    conversation = await nestor.conversation(key)
    name = container_of(conversation["id"])
    began = time.monotonic()
    await anyio.to_thread.run_sync(lambda: containers.docker("pause", name))
    with anyio.fail_after(FROZEN_SECONDS):
        while containers.inspect("container", name)["State"]["Paused"]:
            await anyio.sleep(0.2)
    record_property("seconds_to_notice", round(time.monotonic() - began, 1))
    found = await nestor.call("GET", f"/api/v2/conversations/{conversation['id']}", key, status=200)
    assert found["phase"] == "ready"
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(found["runtime"]["url"] + "/alive", timeout=5)).status_code == 200


async def test_an_image_that_is_not_on_the_list_is_refused(nestor: Client):
    key = await nestor.tenant()
    answer = await nestor.call("POST", "/api/v2/conversations", key, json={"image": "redis:7-bookworm"}, status=422)
    assert answer["code"] == "image_refused"
    allowed = await nestor.conversation(key, image="nestor-runtime:latest")
    assert allowed["phase"] == "ready"
