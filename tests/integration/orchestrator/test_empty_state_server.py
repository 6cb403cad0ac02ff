"""The state server comes back empty: everything that was accepted is there again, and nobody's runtime ends."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog
from redis.asyncio import Redis
from support.orchestrators import MODEL, OPERATOR_KEY, Nestor, nestor_at

from orchestrator.domain.errors import Sealed
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.state.embedded import find_server

pytestmark = pytest.mark.anyio


async def empty(nestor: Nestor) -> None:
    """What a server that lost its disk looks like."""
    assert nestor.house.state_server is not None
    raw = Redis.from_url(nestor.house.state_server.url)
    await raw.flushall()
    await raw.aclose()


async def rebuilt(nestor: Nestor, seconds: float = 20) -> None:
    """Until the store answers again."""
    with anyio.fail_after(seconds):
        while (await nestor.http.get("/api/v2/tenants", headers=nestor.as_(OPERATOR_KEY))).status_code == 503:
            await anyio.sleep(0.02)


async def ready(nestor: Nestor, key: str, **body: Any) -> dict[str, Any]:
    made = await nestor.call("POST", "/api/v2/conversations", key, json=body, status=202)
    return await nestor.until(key, made["id"], "ready")


async def alive(engine: FakeEngine) -> dict[str, int]:
    """Name and port of every runtime: the same port means the same server, never ended."""
    return {name: runtime.server.port for name, runtime in engine.runtimes.items() if runtime.server is not None}


async def test_everything_is_there_again_and_nobody_was_ended(nestor: Nestor, engine: FakeEngine) -> None:
    tenant, key = await nestor.tenant()
    await nestor.call("PATCH", "/api/v2/settings", key, json=MODEL, status=200)
    user = await nestor.call(
        "POST", f"/api/v2/tenants/{tenant}/users", json={"name": "ann", "external_id": "x"}, status=201
    )
    as_user = {"X-Act-As-User": user["id"]}
    await nestor.call("PUT", "/api/v2/secrets/A", key, json={"value": "canary-a"}, headers=as_user)
    await nestor.call("PUT", "/api/v2/git-providers/github", key, json={"token": "t-1"}, status=200)
    other = await nestor.call("POST", f"/api/v2/tenants/{tenant}/api-keys", json={"name": "gone"}, status=201)
    await nestor.call("DELETE", f"/api/v2/tenants/{tenant}/api-keys/{other['id']}", status=204)
    running = await ready(nestor, key, title="kept", labels={"k": "v"}, initial_message="hello")
    stopped = await ready(nestor, key)
    await nestor.call("POST", f"/api/v2/conversations/{stopped['id']}/stop", key, status=202)
    stopped = await nestor.until(key, stopped["id"], "stopped")
    deleted = await ready(nestor, key)
    await nestor.call("DELETE", f"/api/v2/conversations/{deleted['id']}", key)
    await gone(nestor, key, deleted["id"])
    await ended(engine, deleted)
    before = await alive(engine)
    assert set(before) == {runtime_of(running)}

    await empty(nestor)
    answer = await nestor.http.get("/api/v2/conversations", headers=nestor.as_(key))
    assert answer.status_code == 503, "an empty server must not be taken for an unknown key"
    assert answer.headers["retry-after"]
    await rebuilt(nestor)

    after = await nestor.call("GET", f"/api/v2/conversations/{running['id']}", key, status=200)
    same = ("phase", "runtime", "title", "labels", "created_at")
    assert {name: after[name] for name in same} == {name: running[name] for name in same}
    assert after["version"] > running["version"]
    await gone(nestor, key, deleted["id"])
    found = await nestor.call("GET", f"/api/v2/conversations/{stopped['id']}", key, status=200)
    assert found["phase"] == "stopped"
    page = await nestor.call("GET", "/api/v2/conversations", key, status=200)
    assert {item["id"] for item in page["items"]} >= {running["id"], stopped["id"]}
    names = await nestor.call("GET", "/api/v2/secrets", key, headers=as_user, status=200)
    assert [item["name"] for item in names["items"]] == ["A"]
    assert (await nestor.http.get("/api/v2/settings", headers=nestor.as_(other["key"]))).status_code == 401
    again = await nestor.call(
        "POST", f"/api/v2/tenants/{tenant}/users", json={"name": "b", "external_id": "x"}, status=201
    )
    assert again["id"] == user["id"]
    for _ in range(3):
        await nestor.house.reconciler.tick()
    assert {name: port for name, port in (await alive(engine)).items() if name in before} == before
    sent = await nestor.call(
        "POST", f"/api/v2/conversations/{running['id']}/messages", key, json={"content": "more"}, status=202
    )
    await delivered(nestor, key, running["id"], 2)
    assert sent["sequence"] >= 1
    # and it can be stopped, started and deleted: its fence is above all that its runtime has seen
    await nestor.call("POST", f"/api/v2/conversations/{running['id']}/stop", key, status=202)
    await nestor.until(key, running["id"], "stopped")
    await nestor.call("POST", f"/api/v2/conversations/{running['id']}/start", key, status=202)
    await nestor.until(key, running["id"], "ready")


def runtime_of(conversation: dict[str, Any]) -> str:
    return f"nestor-{conversation['runtime']['id']}-g{conversation['runtime']['generation']}"


async def ended(engine: FakeEngine, conversation: dict[str, Any]) -> None:
    """Its runtime has ended: a while after the API says 410, which it does as soon as a deletion is asked for."""
    with anyio.fail_after(15):
        while runtime_of(conversation) in await alive(engine):
            await anyio.sleep(0.02)


async def test_a_deletion_under_way_goes_on_and_ends_no_other_runtime(nestor: Nestor, engine: FakeEngine) -> None:
    key = await nestor.ready_tenant()
    kept, deleted = await ready(nestor, key), await ready(nestor, key)
    before = await alive(engine)
    assert set(before) == {runtime_of(kept), runtime_of(deleted)}
    await nestor.call("DELETE", f"/api/v2/conversations/{deleted['id']}", key)
    await empty(nestor)
    await rebuilt(nestor)
    await gone(nestor, key, deleted["id"])
    await ended(engine, deleted)
    for _ in range(3):
        await nestor.house.reconciler.tick()
    assert await alive(engine) == {runtime_of(kept): before[runtime_of(kept)]}
    found = await nestor.call("GET", f"/api/v2/conversations/{kept['id']}", key, status=200)
    assert (found["phase"], found["runtime"]) == ("ready", kept["runtime"])
    # and it can still be undone
    await nestor.call("POST", f"/api/v2/conversations/{deleted['id']}/undelete", key)
    await nestor.until(key, deleted["id"], "stopped")


async def gone(nestor: Nestor, key: str, id: str) -> None:
    with anyio.fail_after(15):
        while (await nestor.http.get(f"/api/v2/conversations/{id}", headers=nestor.as_(key))).status_code != 410:
            await anyio.sleep(0.02)


async def delivered(nestor: Nestor, key: str, id: str, messages: int, seconds: float = 15) -> None:
    with anyio.fail_after(seconds):
        while True:
            page = await nestor.call("GET", f"/api/v2/conversations/{id}/events", key, status=200)
            said = [item for item in page["items"] if item["event"]["source"] == "user"]
            if len(said) >= messages:
                assert len(said) == messages, "a message was delivered twice"
                return
            await anyio.sleep(0.02)


async def test_a_message_that_waited_is_delivered_once(nestor: Nestor, engine: FakeEngine) -> None:
    key = await nestor.ready_tenant()
    running = await ready(nestor, key, initial_message="one")
    await nestor.call("POST", f"/api/v2/conversations/{running['id']}/pause", key, status=202)
    await nestor.until(key, running["id"], "paused")
    body = {"content": "two", "client_id": "m-2"}
    await nestor.call("POST", f"/api/v2/conversations/{running['id']}/messages", key, json=body, status=202)
    await empty(nestor)
    await rebuilt(nestor)
    paused = await nestor.call("GET", f"/api/v2/conversations/{running['id']}", key, status=200)
    assert (paused["phase"], paused["runtime"]) == ("paused", running["runtime"])
    repeat = await nestor.call("POST", f"/api/v2/conversations/{running['id']}/messages", key, json=body, status=202)
    assert repeat["sequence"] == 1, "its client id is known"
    await nestor.call("POST", f"/api/v2/conversations/{running['id']}/resume", key, status=202)
    await delivered(nestor, key, running["id"], 2)


async def test_a_start_that_was_under_way_is_begun_anew_and_leaves_one_runtime(
    nestor: Nestor, engine: FakeEngine
) -> None:
    key = await nestor.ready_tenant()
    engine.script.hang("POST", "/api/settings")  # holds it in the middle of its start
    made = await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
    await nestor.until(key, made["id"], "configuring")
    await empty(nestor)
    await rebuilt(nestor)
    assert await nestor.call("GET", f"/api/v2/operations/{made['operation']}", key, status=200), "who waits may go on"
    found = await nestor.until(key, made["id"], "ready", seconds=40)
    assert (await nestor.ended(key, made["operation"]))["state"] == "succeeded"
    with anyio.fail_after(40):
        while len(engine.runtimes) != 1:
            await nestor.house.reconciler.tick()
            await anyio.sleep(0.1)
    assert list(engine.runtimes) == [f"nestor-{found['runtime']['id']}-g{found['runtime']['generation']}"]


async def test_a_runtime_that_nobody_knows_is_left_and_named(nestor: Nestor, engine: FakeEngine) -> None:
    """Its tenant's journal is lost as well: ending it would be a guess."""
    tenant, key = await nestor.tenant()
    await nestor.call("PATCH", "/api/v2/settings", key, json=MODEL, status=200)
    await ready(nestor, key)
    await nestor.house.workers.drained()  # what they still write would be a journal of its own
    with anyio.fail_after(30):
        while await nestor.house.shipper.tick():
            pass
    folder = nestor.house.settings.data_dir / "journal" / tenant
    folder.rename(folder.with_name("lost").with_suffix(".away"))
    before = await alive(engine)
    await empty(nestor)
    await rebuilt(nestor)
    for _ in range(4):
        await nestor.house.reconciler.tick()
    assert await alive(engine) == before
    assert await nestor.house.store.conversations.unclaimed() == frozenset(before)


async def test_a_start_over_an_empty_server_is_rebuilt_before_it_serves(data_dir: Path, engine: FakeEngine) -> None:
    async with nestor_at(data_dir, engine) as nestor:
        key = await nestor.ready_tenant()
        running = await ready(nestor, key)
    for file in (data_dir / "state").rglob("*.aof"):
        file.unlink()
    for file in (data_dir / "state").rglob("*.rdb"):
        file.unlink()
    for file in (data_dir / "state").rglob("*.manifest"):
        file.unlink()
    before = await alive(engine)
    async with nestor_at(data_dir, engine) as nestor:
        after = await nestor.call("GET", f"/api/v2/conversations/{running['id']}", key, status=200)
        assert (after["phase"], after["runtime"]) == ("ready", running["runtime"])
        await nestor.house.reconciler.tick()
        await nestor.house.reconciler.tick()
        assert await alive(engine) == before


async def test_another_master_key_is_refused_over_an_empty_server_too(data_dir: Path, engine: FakeEngine) -> None:
    async with nestor_at(data_dir, engine) as nestor:
        await nestor.ready_tenant()
    for file in [*(data_dir / "state").rglob("*.aof"), *(data_dir / "state").rglob("*.manifest")]:
        file.unlink()
    (data_dir / "master.key").unlink()
    with pytest.raises(Sealed):
        async with nestor_at(data_dir, engine):
            pass


async def test_the_fence_is_above_what_the_runtime_has_seen(nestor: Nestor, engine: FakeEngine) -> None:
    """More than the journal can know: leases were granted since, and the runtime saw them."""
    key = await nestor.ready_tenant()
    running = await ready(nestor, key)
    (volume,) = engine.volumes.values()
    volume.memory.fence = 777
    await nestor.house.shipper.tick()  # that it is ready
    await empty(nestor)
    await rebuilt(nestor)
    await nestor.call("POST", f"/api/v2/conversations/{running['id']}/messages", key, json={"content": "x"}, status=202)
    await delivered(nestor, key, running["id"], 1)
    assert volume.memory.fence > 777


@pytest.mark.slow
async def test_two_hundred_runtimes_are_taken_over_within_ten_seconds(
    nestor: Nestor, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [await nestor.ready_tenant(f"t{number}") for number in range(10)]
    made = []
    for number in range(200):
        key = keys[number % 10]
        body = await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
        made.append((key, body["id"]))
    for key, id in made:
        await nestor.until(key, id, "ready", seconds=90)
    before = await alive(engine)
    assert len(before) == 200
    began = time.monotonic()
    await empty(nestor)
    await rebuilt(nestor)
    seconds = time.monotonic() - began
    for _ in range(3):
        await nestor.house.reconciler.tick()
    assert await alive(engine) == before
    phases = [(await nestor.call("GET", f"/api/v2/conversations/{id}", key))["phase"] for key, id in made]
    assert phases == ["ready"] * 200
    with capsys.disabled():
        sys.stdout.write(f"\nrebuild: 200 runtimes of 10 tenants in {seconds:.2f} s, 0 ended\n")
    assert seconds < 10


async def test_of_two_replicas_one_rebuilds_and_the_other_waits(data_dir: Path, engine: FakeEngine) -> None:
    with state_server() as url, structlog.testing.capture_logs() as logs:
        shared = {"redis_url": url, "journal_url": f"file://{data_dir}/shared-journal"}
        async with nestor_at(data_dir, engine, **shared) as first, nestor_at(data_dir, engine, **shared) as second:
            key = await first.ready_tenant()
            made = [await ready(nestor, key) for nestor in (first, second)]
            before = await alive(engine)
            for nestor in (first, second):
                await nestor.house.shipper.tick()  # what was seen and not asked for is back only if it was shipped
            raw = Redis.from_url(url)
            await raw.flushall()
            await raw.aclose()
            for nestor in (first, second):
                await rebuilt(nestor)
            for nestor in (first, second):
                for one in made:
                    found = await nestor.call("GET", f"/api/v2/conversations/{one['id']}", key, status=200)
                    assert (found["phase"], found["runtime"]["id"]) == ("ready", one["runtime"]["id"])
                await nestor.house.reconciler.tick()
                await nestor.house.reconciler.tick()
            assert await alive(engine) == before
            more = await second.call("POST", "/api/v2/conversations", key, json={}, status=202)
            await first.until(key, more["id"], "ready")
    assert [entry["event"] for entry in logs].count("recovery.done") == 1


@contextmanager
def state_server() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        path = f"{folder}/s.sock"
        command = [str(find_server()), "--port", "0", "--unixsocket", path, "--dir", folder, "--save", ""]
        process = subprocess.Popen([*command, "--appendonly", "yes"], stdin=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 10
            while not Path(path).exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield f"unix://{path}"
        finally:
            process.kill()
            process.wait(10)
