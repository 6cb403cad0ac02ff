"""The state server that Nestor starts itself: its life, its death, and what it says when it cannot start."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from orchestrator.domain.errors import Misconfigured
from orchestrator.domain.ids import TenantId, new_uuid
from orchestrator.state.embedded import EmbeddedServer, find_server
from orchestrator.state.redis_store import RedisStore

from .conftest import VALKEY

pytestmark = pytest.mark.anyio
TENANT = TenantId(new_uuid())


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def inodes(pid: int, table: str) -> list[str]:
    return [line.split()[9] for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]]


def run_orchestrator(folder: Path) -> "subprocess.Popen[bytes]":
    """A process of its own that starts the embedded server, prints its pid and waits."""
    program = (
        "import asyncio, sys, pathlib\n"
        "from orchestrator.state.embedded import EmbeddedServer\n"
        "async def main():\n"
        "    async with EmbeddedServer(pathlib.Path(sys.argv[1])) as server:\n"
        "        print(server.pid, flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).parents[3]
    return subprocess.Popen([sys.executable, "-c", program, str(folder)], cwd=root, stdout=subprocess.PIPE)


@pytest.mark.parametrize("binary", [find_server(), VALKEY], ids=["found", "carried"])
async def test_what_was_stored_is_there_after_a_restart(folder: Path, binary: Path) -> None:
    async with EmbeddedServer(folder, binary=binary) as server:
        store = RedisStore(server.url)
        report = await store.check()
        await store.configuration.put_settings(TENANT, None, "kept", expected_version=0)
        await store.close()
        assert server.socket.stat().st_mode & 0o777 == 0o700
        assert (folder / "state").stat().st_mode & 0o777 == 0o700
    assert "on disk before it is answered" in report["durability"]
    assert not server.socket.exists()
    async with EmbeddedServer(folder, binary=binary) as server:
        store = RedisStore(server.url)
        assert await store.configuration.settings(TENANT, None) == ("kept", 1)
        await store.close()


async def test_what_was_answered_survives_a_killed_server(folder: Path) -> None:
    async with EmbeddedServer(folder) as server:
        store = RedisStore(server.url)
        await store.check()
        await store.configuration.put_settings(TENANT, None, "kept", expected_version=0)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        await store.close()
    async with EmbeddedServer(folder) as server:
        store = RedisStore(server.url)
        assert await store.configuration.settings(TENANT, None) == ("kept", 1)
        await store.close()


async def test_the_server_listens_on_no_port_and_has_its_own_session(folder: Path) -> None:
    async with EmbeddedServer(folder) as server:
        assert server.pid is not None
        assert os.getsid(server.pid) == server.pid
        sockets = {
            os.readlink(f"/proc/{server.pid}/fd/{fd}")[8:-1]
            for fd in os.listdir(f"/proc/{server.pid}/fd")
            if os.readlink(f"/proc/{server.pid}/fd/{fd}").startswith("socket:[")
        }
        for table in ("tcp", "tcp6"):
            assert sockets.isdisjoint(inodes(server.pid, table))


async def test_a_killed_orchestrator_leaves_no_server_behind_and_the_next_one_starts(folder: Path) -> None:
    with run_orchestrator(folder) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    # At once: the former server may still be ending.
    async with EmbeddedServer(folder) as server:
        assert server.pid != pid
        deadline = time.monotonic() + 5
        while alive(pid):
            assert time.monotonic() < deadline
            await anyio.sleep(0.01)


async def test_a_path_that_is_too_long_names_the_flag(folder: Path) -> None:
    with pytest.raises(Misconfigured) as caught:
        await EmbeddedServer(folder / ("x" * 90)).start()
    assert "--data-dir" in (caught.value.hint or "")


async def test_a_server_that_still_runs_is_named(folder: Path) -> None:
    async with EmbeddedServer(folder) as first:
        with pytest.raises(Misconfigured) as caught:
            await EmbeddedServer(folder).start()
        assert f"pid {first.pid}" in caught.value.message
        assert first.socket.exists()


async def test_a_stale_socket_is_no_obstacle(folder: Path) -> None:
    server = EmbeddedServer(folder)
    server.socket.parent.mkdir()
    server.socket.touch()
    async with server:
        assert server.pid is not None


async def test_state_that_does_not_load_is_told_with_the_servers_own_words(folder: Path) -> None:
    async with EmbeddedServer(folder):
        pass
    [base] = (folder / "state").glob("appendonlydir/*.base.rdb")
    base.write_bytes(b"REDIS9999" + base.read_bytes()[9:])
    server = EmbeddedServer(folder)
    with pytest.raises(Misconfigured) as caught:
        await server.start()
    assert "9999" in caught.value.message
    assert "another" in (caught.value.hint or "")
    assert server.pid is None


async def test_a_torn_tail_of_the_log_is_cut_off(folder: Path) -> None:
    async with EmbeddedServer(folder) as server:
        store = RedisStore(server.url)
        await store.configuration.put_settings(TENANT, None, "kept", expected_version=0)
        await store.close()
    [log] = (folder / "state").glob("appendonlydir/*.incr.aof")
    with log.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$1\r\n")
    async with EmbeddedServer(folder) as server:
        store = RedisStore(server.url)
        assert await store.configuration.settings(TENANT, None) == ("kept", 1)
        await store.close()


async def test_a_program_that_is_no_server_is_told(folder: Path) -> None:
    with pytest.raises(Misconfigured) as caught:
        await EmbeddedServer(folder, binary=Path("/bin/false")).start()
    assert "ended at once" in caught.value.message


async def test_stopping_twice_is_fine(folder: Path) -> None:
    server = EmbeddedServer(folder)
    await server.start()
    pid = server.pid
    await server.stop()
    await server.stop()
    assert pid is not None
    assert not alive(pid)
