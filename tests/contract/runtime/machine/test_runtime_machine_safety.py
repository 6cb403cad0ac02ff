"""Repositories that would run programs, what belongs to the server, and much data through little memory."""

import base64
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import websockets

from runtime.machine.commands import KEPT_OF_ONE
from tests.support.runtimes import KEY, Frames, Runtime, RuntimeProcess, eventually, runtime_at

pytestmark = pytest.mark.anyio

LARGE_BYTES = 96 << 20
ALLOWED_GROWTH_BYTES = 20 << 20


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with runtime_at(tmp_path) as made:
        yield made


@pytest.fixture
def process(tmp_path: Path) -> Iterator[RuntimeProcess]:
    made = RuntimeProcess(tmp_path, OH_BASH_EVENTS_DIR=str(tmp_path / "bash_events"))
    try:
        yield made.start()
    finally:
        made.ensure_gone()


def git(folder: Path, *arguments: str, given: bytes = b"") -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.invalid")
    words = ["git", *identity, *arguments]
    return subprocess.run(words, cwd=folder, check=True, capture_output=True, input=given).stdout.decode().strip()


def repository(folder: Path) -> Path:
    """One commit, one changed and one new file."""
    folder.mkdir(exist_ok=True)
    git(folder, "init", "--quiet")
    (folder / "a").write_text("one\n")
    git(folder, "add", "a")
    git(folder, "commit", "--quiet", "-m", "one")
    (folder / "a").write_text("two\n")
    (folder / "new").write_text("x\n")
    return folder


async def test_a_filter_of_the_repository_is_not_run(runtime: Runtime, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    folder = repository(tmp_path / "repo")
    for name in ("evil", "a.b", "Se ction"):
        git(folder, "config", f"filter.{name}.clean", f"touch {proof}; cat")
        git(folder, "config", f"filter.{name}.process", f"touch {proof}")
        git(folder, "config", f"filter.{name}.required", "true")
    (folder / ".gitattributes").write_text("a filter=evil\nnew filter=a.b\n")
    subprocess.run(["git", "diff"], cwd=folder, capture_output=True, check=False)
    assert proof.exists(), "git itself runs it"
    proof.unlink()
    changes = await runtime.http.get("/api/git/changes", params={"path": str(folder)})
    assert [one["path"] for one in changes.json()] == [".gitattributes", "a", "new"]
    patch = await runtime.http.get("/api/file/archive", params={"path": str(folder)})
    assert "+two" in patch.text
    assert "+x" in patch.text
    assert not proof.exists()


async def test_a_signature_is_not_checked_with_the_repositorys_program(runtime: Runtime, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    folder = repository(tmp_path / "repo")
    program = tmp_path / "gpg"
    program.write_text(f"#!/bin/sh\ntouch {proof}\n")
    program.chmod(0o755)
    plain = git(folder, "cat-file", "commit", "HEAD").split("\n\n")
    signed = f"{plain[0]}\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n\n{plain[1]}\n"
    commit = git(folder, "hash-object", "-t", "commit", "-w", "--stdin", given=signed.encode())
    git(folder, "reset", "--quiet", "--soft", commit)
    git(folder, "config", "gpg.program", str(program))
    git(folder, "config", "log.showSignature", "true")
    git(folder, "log")
    assert proof.exists(), "git itself runs it"
    proof.unlink()
    found = await runtime.http.get("/api/git/commits", params={"path": str(folder)})
    assert [one["sha"] for one in found.json()["commits"]] == [commit]
    assert not proof.exists()


async def test_a_patch_holds_nothing_of_the_servers(runtime: Runtime, tmp_path: Path) -> None:
    await runtime.http.put("/api/settings/secrets", json={"name": "S", "value": "v"})
    around = repository(tmp_path)
    patch = await runtime.http.get("/api/file/archive", params={"path": str(around)})
    assert "+two" in patch.text
    assert "persistence/" not in patch.text
    pointed = repository(tmp_path / "work")
    git(pointed, "config", "core.worktree", str(tmp_path / "persistence"))
    refused = await runtime.http.get("/api/file/archive", params={"path": str(pointed)})
    assert refused.status_code == 400


async def test_records_of_conversations_are_not_written_as_files(runtime: Runtime, tmp_path: Path) -> None:
    id = (await runtime.start()).replace("-", "")
    (record,) = (tmp_path / "conversations").rglob("conversation.json")
    before = record.read_bytes()
    answer = await runtime.http.post("/api/file/upload", params={"path": str(record)}, files={"file": b"x"})
    assert (answer.status_code, answer.json()["detail"]) == (400, "Path belongs to the runtime itself")
    assert record.read_bytes() == before
    assert id in str(record)


async def test_much_output_of_a_loud_command_is_bounded(runtime: Runtime) -> None:
    wanted = {"command": "head -c 40000000 /dev/zero | tr '\\0' y"}
    last = (await runtime.http.post("/api/bash/execute_bash_command", json=wanted, timeout=120)).json()
    assert last["exit_code"] == 0
    query = {"command_id__eq": last["command_id"], "kind__eq": "BashOutput"}
    items = (await runtime.http.get("/api/bash/bash_events/search", params=query)).json()["items"]
    orders = [one["order"] for one in items]
    assert orders == list(range(orders[0], last["order"] + 1)), "what came last is kept, without a gap"
    assert orders[0] > 0
    assert sum(len(one["stdout"] or "") for one in items) <= KEPT_OF_ONE
    kept = sum(file.stat().st_size for file in (runtime.folder / "bash_events").iterdir())
    assert KEPT_OF_ONE // 2 < kept < KEPT_OF_ONE + (1 << 20)


async def test_a_value_torn_over_two_outputs_is_hidden(runtime: Runtime) -> None:
    value = "torn-over-two-outputs-9c3"
    await runtime.http.put("/api/settings/secrets", json={"name": "S", "value": value})
    # The first output ends with what fills it; the value is printed in the middle of many, so one is cut somewhere.
    encoded = base64.b64encode(value.encode()).decode()
    for spelt in (value, encoded):
        script = (
            f"i=0; while [ $i -lt 60 ]; do head -c 65530 /dev/zero | tr '\\0' .; printf %s {spelt}; i=$((i+1)); done"
        )
        answer = await runtime.http.post("/api/bash/execute_bash_command", json={"command": script}, timeout=120)
        query = {"command_id__eq": answer.json()["command_id"], "kind__eq": "BashOutput"}
        items = (await runtime.http.get("/api/bash/bash_events/search", params=query)).json()["items"]
        assert len(items) > 2
        shown = "".join(item["stdout"] for item in items)
        assert shown.replace(".", "") == "<secret-hidden>" * 60
        assert shown.count(".") == 60 * 65530


async def test_a_listener_that_does_not_read_is_dropped_and_holds_nobody_up(runtime: Runtime) -> None:
    address = runtime.url.replace("http", "ws", 1) + "/sockets/bash-events"
    headers = {"X-Session-API-Key": KEY}
    async with websockets.connect(address, additional_headers=headers, max_size=None, max_queue=1) as socket:
        wanted = {"command": "head -c 60000000 /dev/zero | tr '\\0' y"}
        last = await runtime.http.post("/api/bash/execute_bash_command", json=wanted, timeout=120)
        assert last.json()["exit_code"] == 0
        frames = Frames(socket)
        assert await frames.close_code(60) == 1013


def test_large_files_pass_through_little_memory(process: RuntimeProcess, tmp_path: Path) -> None:
    target = tmp_path / "large"

    def pieces() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for _ in range(LARGE_BYTES >> 20):
            yield b"z" * (1 << 20)
        yield b"\r\n--b--\r\n"

    headers = {"X-Session-API-Key": KEY}
    query = {"path": str(target)}
    with httpx.Client(base_url=process.url, headers=headers, timeout=120, trust_env=False) as http:
        small = {"path": str(tmp_path / "small")}
        http.post("/api/file/upload", params=small, files={"file": b"x"})
        http.get("/api/file/download", params=small)
        before = most_memory(process.pid)
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        up = http.post("/api/file/upload", params=query, content=pieces(), headers=kind)
        assert up.json() == {"success": True, "file_size": LARGE_BYTES}
        with http.stream("GET", "/api/file/download", params=query) as down:
            assert sum(len(piece) for piece in down.iter_raw()) == LARGE_BYTES
        archive = {"path": str(tmp_path), "format": "tar.gz"}
        with http.stream("GET", "/api/file/archive", params=archive) as packed:
            assert sum(len(piece) for piece in packed.iter_raw()) > 0
        assert most_memory(process.pid) - before < ALLOWED_GROWTH_BYTES


def test_a_command_ends_with_a_server_that_was_killed(process: RuntimeProcess) -> None:
    wanted = {"command": "setsid sleep 3456 & echo $$ $!; sleep 3456"}
    http = httpx.Client(base_url=process.url, headers={"X-Session-API-Key": KEY}, timeout=30, trust_env=False)
    with http:
        id = http.post("/api/bash/start_bash_command", json=wanted).json()["id"]
        eventually(lambda: is_running("sleep", "3456"))
        assert http.get(f"/api/bash/bash_events/{id}").json()["command"] == wanted["command"]
    process.kill()
    eventually(lambda: not is_running("sleep", "3456"))


def most_memory(pid: int) -> int:
    """The most that was resident at any moment, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def is_running(*words: str) -> bool:
    wanted = "\0".join(words).encode() + b"\0"
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cmdline").read_bytes() == wanted:
                return True
        except OSError:
            continue
    return False
