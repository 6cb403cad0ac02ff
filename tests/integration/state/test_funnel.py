"""What the Redis store does when its server is away, slow, full, a replica, or forgot the scripts."""

import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest

from orchestrator.domain.errors import Misconfigured, StoreUnavailable
from orchestrator.domain.ids import TenantId, new_uuid
from orchestrator.state.redis_store import RedisStore

from .conftest import VALKEY, Run

pytestmark = pytest.mark.anyio
TENANT = TenantId(new_uuid())


Connect = Callable[..., RedisStore]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Make a `RedisStore`; all are closed in the end."""
    stores: list[RedisStore] = []

    def make(url: str, **settings: float) -> RedisStore:
        stores.append(RedisStore(url, **settings))  # type: ignore[arg-type]
        return stores[-1]

    yield make
    for store in stores:
        await store.close()


async def put(store: RedisStore, version: int, sealed: str = "x") -> bool:
    return await store.configuration.put_settings(TENANT, None, sealed, expected_version=version)


async def test_a_server_that_is_away_is_unavailable(folder: Path, connect: Connect) -> None:
    store = connect(f"unix://{folder}/none.sock")
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await store.ping()
    with pytest.raises(StoreUnavailable):
        await put(store, 0)


async def test_an_address_that_is_none_is_misconfigured() -> None:
    with pytest.raises(Misconfigured, match="NESTOR_REDIS_URL"):
        RedisStore("http://example.invalid")


async def test_a_server_that_hangs_is_unavailable_and_works_again_after(run_server: Run, connect: Connect) -> None:
    server = run_server()
    store = connect(server.url, timeout=0.3)
    assert await put(store, 0)
    os.kill(server.process.pid, signal.SIGSTOP)
    begun = time.monotonic()
    try:
        with pytest.raises(StoreUnavailable, match="in time"):
            await put(store, 1)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    assert time.monotonic() - begun < 20
    # The reply of the call that was given up must not be taken for that of the next one.
    sealed, _ = await store.configuration.settings(TENANT, None)
    assert sealed == "x"
    assert await store.installation() == await store.installation()


async def test_a_cancelled_call_does_not_spoil_its_connection(run_server: Run, connect: Connect) -> None:
    server = run_server()
    store = connect(server.url, connections=1)
    await put(store, 0, "the settings")
    for _ in range(20):
        os.kill(server.process.pid, signal.SIGSTOP)
        with anyio.move_on_after(0.02) as scope:
            await store.configuration.settings(TENANT, None)
        os.kill(server.process.pid, signal.SIGCONT)
        assert scope.cancelled_caught
        assert await store.configuration.data_key(TENANT, 1) is None
    assert await store.configuration.settings(TENANT, None) == ("the settings", 1)


async def test_scripts_that_the_server_forgot_are_loaded_again(run_server: Run, connect: Connect) -> None:
    server = run_server()
    store = connect(server.url)
    assert await put(store, 0)
    with server.client() as client:
        client.script_flush()
    assert await put(store, 1)
    assert await store.configuration.settings(TENANT, None) == ("x", 2)


async def test_a_full_server_says_so_and_takes_nothing(run_server: Run, connect: Connect) -> None:
    server = run_server("--maxmemory", "3mb")
    store = connect(server.url)

    async def fill() -> None:
        for _ in range(1_000):
            await store.configuration.put_settings(TenantId(new_uuid()), None, "x" * 20_000, expected_version=0)

    with pytest.raises(StoreUnavailable, match="OOM"):
        await fill()
    await store.ping()


async def test_a_replica_is_refused_at_the_start_and_told_apart_later(run_server: Run, connect: Connect) -> None:
    replica = run_server()
    store = connect(replica.url)
    await store.check()
    with replica.client() as client:
        client.replicaof("127.0.0.1", "1")
        with pytest.raises(StoreUnavailable, match="READONLY"):
            await put(store, 0)
        with pytest.raises(Misconfigured, match="replica"):
            await store.check()


async def test_a_busy_server_is_told_apart(run_server: Run, connect: Connect) -> None:
    server = run_server("--lua-time-limit", "20")
    store = connect(server.url)

    def occupy() -> None:
        with server.client() as client:
            client.register_script("local t = redis.call('TIME')[1] while redis.call('TIME')[1] - t < 2 do end")()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, occupy)
        with anyio.fail_after(10):
            while True:
                try:
                    await store.ping()
                except StoreUnavailable as exc:
                    assert "BUSY" in exc.message
                    break
                await anyio.sleep(0.01)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_evicts_is_refused(run_server: Run, connect: Connect, policy: str) -> None:
    store = connect(run_server("--maxmemory-policy", policy).url)
    with pytest.raises(Misconfigured, match=policy):
        await store.check()


async def test_a_wrong_password_is_misconfigured_and_not_repeated(run_server: Run, connect: Connect) -> None:
    server = run_server()
    with server.client() as client:
        client.config_set("requirepass", "right-password")
    store = connect(server.url + "?password=wrong-password")
    with pytest.raises(Misconfigured) as caught:
        await store.check()
    assert "wrong-password" not in repr(caught.value) + str(caught.value.details)
    right = connect(server.url + "?password=right-password")
    assert (await right.check())["server"] in ("redis", "valkey")


@pytest.mark.parametrize(
    ("flags", "durability"),
    [
        (("--appendonly", "yes", "--appendfsync", "always"), "before it is answered"),
        (("--appendonly", "yes", "--appendfsync", "everysec"), "has confirmed it"),
        (("--appendonly", "no"), "everything is lost"),
    ],
)
async def test_the_report_says_what_a_crash_may_lose(
    run_server: Run, connect: Connect, flags: tuple[str, ...], durability: str
) -> None:
    store = connect(run_server(*flags, binary=VALKEY).url)
    report = await store.check()
    assert durability in report["durability"]
    assert report["server"] == "valkey"


async def test_a_server_without_waitaof_is_said_to_lose_a_second(run_server: Run, connect: Connect) -> None:
    server = run_server(
        "--appendonly", "yes", "--appendfsync", "everysec", "--rename-command", "WAITAOF", "", binary=VALKEY
    )
    store = connect(server.url)
    assert "one second" in (await store.check())["durability"]
    assert await put(store, 0)


async def test_a_write_that_reaches_the_disk_in_time_is_accepted(run_server: Run, connect: Connect) -> None:
    server = run_server("--appendonly", "yes", "--appendfsync", "everysec", binary=VALKEY)
    store = connect(server.url)
    await store.check()
    assert await put(store, 0)


async def test_a_write_that_does_not_reach_the_disk_in_time_is_not_accepted(run_server: Run, connect: Connect) -> None:
    server = run_server("--appendonly", "yes", "--appendfsync", "no", binary=VALKEY)
    store = connect(server.url, durable_within=0.2)
    await store.check()
    with pytest.raises(StoreUnavailable, match="disk"):
        await put(store, 0)


async def test_more_calls_than_connections_wait_for_their_turn(run_server: Run, connect: Connect) -> None:
    store = connect(run_server().url, connections=2)
    answers: list[str] = []

    async def ask() -> None:
        answers.append(await store.installation())

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(ask)
    assert len(set(answers)) == 1
    assert len(answers) == 100
