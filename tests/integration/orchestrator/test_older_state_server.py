"""The state server comes back with older data: a copy that was restored, a failover that lost its last moments."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
import structlog
from redis import Redis
from redis.exceptions import RedisError
from support.orchestrators import Nestor, nestor_at

from orchestrator.domain.errors import StateLost, StoreUnavailable
from orchestrator.domain.ids import ConversationId, TenantId, new_uuid
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.state.embedded import find_server
from orchestrator.state.redis_store import RedisStore

from .test_empty_state_server import alive, delivered, ready, rebuilt

pytestmark = pytest.mark.anyio


class Server:
    """One that can be set back to what it held at a moment before."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._copy = folder / "data", folder / "copy"
        self._folder.mkdir()
        self.url = f"unix://{folder}/s.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        command = [str(find_server()), "--port", "0", "--unixsocket", self.url.removeprefix("unix://")]
        command += ["--dir", str(self._folder), "--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        self._process = subprocess.Popen([*command, "--logfile", str(self._folder / "log")], stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not self._answers():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with Redis.from_url(self.url) as client:
                return bool(client.ping())
        except (RedisError, OSError):
            return False

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def copy(self) -> None:
        shutil.copytree(self._folder, self._copy)

    def set_back(self) -> None:
        """Killed, and started over the copy."""
        self.kill()
        shutil.rmtree(self._folder)
        shutil.copytree(self._copy, self._folder)
        self.start()


@contextmanager
def a_server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="nst-", dir="/tmp") as folder:
        server = Server(Path(folder))
        try:
            yield server
        finally:
            server.kill()


@pytest.fixture
def server() -> Iterator[Server]:
    with a_server() as server:
        yield server


async def fence_of(nestor: Nestor, tenant: str, id: str) -> int:
    found = await nestor.house.store.conversations.get(TenantId(tenant), ConversationId(id))
    assert found is not None
    return found.fence


async def test_what_it_lacks_is_written_anew_and_nothing_is_done_twice(
    server: Server, data_dir: Path, engine: FakeEngine
) -> None:
    """Over two replicas, one of which mends it: a conversation, a message, a tenant and a deletion it does not know."""
    shared = {"redis_url": server.url, "journal_url": f"file://{data_dir}/shared-journal"}
    with structlog.testing.capture_logs() as logs:
        async with nestor_at(data_dir, engine, **shared) as first, nestor_at(data_dir, engine, **shared) as second:
            key, untouched = await first.ready_tenant(), await first.ready_tenant("other")
            old, dropped = await ready(first, key, initial_message="one"), await ready(first, key)
            theirs = await ready(second, untouched)
            await delivered(first, key, old["id"], 1)
            await settled(first)
            server.copy()
            new = await ready(second, key, title="made in the moments that were lost")
            body = {"content": "two", "client_id": "m-2"}
            await first.call("POST", f"/api/v2/conversations/{old['id']}/messages", key, json=body, status=202)
            await delivered(first, key, old["id"], 2)
            await first.call("DELETE", f"/api/v2/conversations/{dropped['id']}?purge=true", key)
            late = await second.ready_tenant("late")
            await settled(first)
            seen = max(volume.memory.fence for volume in engine.volumes.values())
            before = await alive(engine)

            server.set_back()
            for nestor in (first, second):
                await rebuilt(nestor)
            for nestor in (first, second):
                for owner, one in ((key, old), (key, new), (untouched, theirs)):
                    found = await nestor.call("GET", f"/api/v2/conversations/{one['id']}", owner, status=200)
                    assert (found["phase"], found["runtime"]) == ("ready", one["runtime"])
                response = await nestor.http.get(f"/api/v2/conversations/{dropped['id']}", headers=nestor.as_(key))
                assert response.status_code == 404
            await ready(second, late)
            repeat = await first.call("POST", f"/api/v2/conversations/{old['id']}/messages", key, json=body, status=202)
            assert repeat["sequence"] == 1, "its client id is known"
            more = {"content": "three"}
            for owner, one in ((key, old), (untouched, theirs)):
                await first.call("POST", f"/api/v2/conversations/{one['id']}/messages", owner, json=more, status=202)
            await delivered(first, key, old["id"], 3)
            await delivered(first, untouched, theirs["id"], 1)
            for nestor in (first, second):
                await nestor.house.reconciler.tick()
                await nestor.house.reconciler.tick()
            now = await alive(engine)
            assert {name: port for name, port in now.items() if name in before} == before
            assert not engine.doubles
            fences = [volume.memory.fence for volume in engine.volumes.values()]
            assert sum(fence > seen for fence in fences) >= 2, "above all that was given in the lost moments"
    told = [entry["event"] for entry in logs]
    assert told.count("recovery.done") == 1


async def settled(nestor: Nestor) -> None:
    """All that was accepted is in the journal's archive, and nobody acts."""
    with anyio.fail_after(10):
        while await nestor.house.shipper.tick():
            pass


async def test_a_lease_of_the_lost_moments_is_below_every_later_one(server: Server, data_dir: Path) -> None:
    """Nothing of its tenant is lost, so no record is written anew; the lease is in no journal."""
    settings = {"redis_url": server.url, "journal_url": f"file://{data_dir}/journal"}
    engine = FakeEngine()
    async with nestor_at(data_dir, engine, **settings) as nestor:
        tenant, key = await nestor.tenant()
        await nestor.call("PATCH", "/api/v2/settings", key, json={"agent_settings": {"llm": {"model": "m"}}})
        made = await ready(nestor, key)
        await nestor.call("POST", f"/api/v2/conversations/{made['id']}/stop", key, status=202)
        await nestor.until(key, made["id"], "stopped")
        await settled(nestor)
        server.copy()
        late = RedisStore(server.url)
        taken = await late.conversations.claim(
            TenantId(tenant), ConversationId(made["id"]), new_uuid(), lease_ms=60_000
        )
        assert taken is not None
        server.set_back()
        await rebuilt(nestor)
        await nestor.call("POST", f"/api/v2/conversations/{made['id']}/start", key, status=202)
        found = await nestor.until(key, made["id"], "ready")
        assert found["runtime"]["generation"] > taken[0].fence
        await late.close()
    await engine.shut_down()


async def test_nothing_is_asked_of_another_run_before_it_was_compared(server: Server) -> None:
    """Also not by a call that comes between the restart and the first look."""
    store, losses = RedisStore(server.url), []
    await store.conversations.next_due_ms()
    with Redis.from_url(server.url) as client:
        client.set("x:epoch", "e")
        run = str(client.info("server")["run_id"])[:16]
    store.guard("e", run, lambda: losses.append(1))
    await store.conversations.next_due_ms()
    server.kill()
    server.start()
    told: list[type] = []
    with anyio.fail_after(30):
        while StateLost not in told:  # connections that broke are told first
            try:
                await store.conversations.next_due_ms()
            except StoreUnavailable as exc:
                told.append(type(exc))
            else:
                told.append(type(None))
    assert type(None) not in told
    assert losses
    await store.close()
