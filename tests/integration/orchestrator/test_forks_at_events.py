"""A fork at any event that has passed has the workspace as it was at that event, and says which one it has."""

import io
import shutil
import tarfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.orchestrators import Nestor, nestor_at

from orchestrator.demo.model_server import ScriptedModel
from orchestrator.drivers.fake_engine import FakeEngine

from .test_forks import READY, command, events, file, fork, owner, said

pytestmark = pytest.mark.anyio


@pytest.fixture
async def nestor(data_dir: Path) -> AsyncIterator[Nestor]:
    async with nestor_at(data_dir, None, driver="process", zygote="off", when_full="queue") as running:
        yield running


async def began(nestor: Nestor, key: str) -> str:
    return str((await nestor.call("POST", "/api/v2/conversations", key, json={}, params=READY, status=200))["id"])


async def tree(nestor: Nestor, key: str, id: str) -> dict[str, tuple[int, str]]:
    """All of the workspace but git's own: of each file its mode and content, of each link where it leads."""
    path = f"/api/v2/conversations/{id}/files/"
    packed = await nestor.http.get(path, params={"archive": "tar"}, headers=nestor.as_(key), timeout=60)
    assert packed.status_code == 200, packed.text
    found: dict[str, tuple[int, str]] = {}
    with tarfile.open(fileobj=io.BytesIO(packed.content)) as archive:
        for member in archive:
            read = archive.extractfile(member) if member.isreg() else None
            if not member.name.startswith(".git") and not member.isdir():
                content = read.read().decode() if read is not None else f"-> {member.linkname}"
                found[member.name] = (0 if member.issym() else member.mode, content)
    return found


def of_kind(log: Sequence[dict[str, Any]], kind: str) -> list[int]:
    return [int(one["sequence"]) for one in log if one["event"]["kind"] == kind]


async def test_a_fork_has_the_workspace_of_its_event(nestor: Nestor) -> None:
    async with ScriptedModel() as model:
        key = await owner(nestor, model)
        id = await began(nestor, key)
        one = command("umask 022; mkdir d; echo one > d/f; chmod 755 d/f; ln -s d/f link; echo x > gone")
        first = await said(nestor, key, id, one, command("echo two > d/f; chmod 640 d/f; rm gone"), last="first")
        path = f"/api/v2/conversations/{id}/files"
        put = await nestor.http.put(f"{path}/d/f", content=b"by hand", headers=nestor.as_(key))
        assert put.is_success, put.text
        second = await said(nestor, key, id, command("rm link; echo three >> d/f; echo new > new"), last="second")
        acts, ends = of_kind(second, "ActionEvent"), of_kind(second, "ObservationEvent")
        after_one = {"d/f": (0o755, "one\n"), "gone": (0o644, "x\n"), "link": (0, "-> d/f")}
        after_two = {"d/f": (0o640, "two\n"), "link": (0, "-> d/f")}
        by_hand = {"d/f": (0o640, "by hand"), "link": (0, "-> d/f")}
        now = {"d/f": (0o640, "by handthree\n"), "new": (0o644, "new\n")}
        assert await tree(nestor, key, id) == now
        wanted = {
            0: {},
            acts[0]: {},
            ends[0]: after_one,
            acts[1]: after_one,
            ends[1]: after_two,
            len(first): after_two,
            len(first) + 1: by_hand,
            acts[2]: by_hand,
            ends[2]: now,
        }
        for at, files in wanted.items():
            made = await fork(nestor, key, id, at=at)
            assert made["fork_of"] == {"conversation": id, "at": at, "workspace": "event", "snapshot": None}
            assert await tree(nestor, key, made["id"]) == files, at
            assert (await events(nestor, key, made["id"]))[:at] == second[:at]
            if at == ends[0]:
                kept = made["id"]
            else:
                await nestor.call("DELETE", f"/api/v2/conversations/{made['id']}", key, status=202)
        for body in ({}, {"at": len(second)}):
            made = await fork(nestor, key, id, **body)
            assert made["fork_of"]["workspace"] == "current"
            assert await tree(nestor, key, made["id"]) == now
        # A fork keeps versions of what comes, and of nothing that was before it.
        grown = await said(nestor, key, kept, command("echo on > d/f"), last="goes on")
        again = await fork(nestor, key, kept, at=ends[0])
        assert again["fork_of"]["workspace"] == "current"
        before = of_kind(grown, "ActionEvent")[-1]
        again = await fork(nestor, key, kept, at=before)
        assert (again["fork_of"]["workspace"], await tree(nestor, key, again["id"])) == ("event", after_one)
        assert await tree(nestor, key, id) == now


async def test_one_whose_workspace_is_gone_by_its_start_fails_and_says_so(nestor: Nestor, data_dir: Path) -> None:
    async with ScriptedModel() as model:
        key = await owner(nestor, model)
        limits = {"limits": {"max_runtimes": 2}}
        await nestor.call("PATCH", "/api/v2/settings", key, json=limits, status=200)
        id, other = await began(nestor, key), await began(nestor, key)
        log = await said(nestor, key, id, command("echo one > f"), command("echo two > f"), last="done")
        at = of_kind(log, "ObservationEvent")[0]
        path = f"/api/v2/conversations/{id}/fork"
        made = await nestor.call("POST", path, key, json={"at": at}, status=202)
        assert made["fork_of"]["workspace"] == "event"
        for versions in data_dir.rglob("versions"):
            shutil.rmtree(versions)
        await nestor.call("POST", f"/api/v2/conversations/{other}/stop", key, status=202)
        failed = await nestor.until(key, made["id"], "failed", seconds=120)
        assert (failed["reason"], "not kept any more" in failed["message"]) == ("config_rejected", True), failed
        again = await fork(nestor, key, id, at=at)
        assert (again["fork_of"]["workspace"], await file(nestor, key, again["id"], "f")) == ("current", "two\n")


async def test_without_room_for_versions_it_has_the_workspace_of_now(data_dir: Path) -> None:
    settings = {"driver": "process", "zygote": "off", "version_megabytes": 0}
    async with nestor_at(data_dir, None, **settings) as nestor, ScriptedModel() as model:
        key = await owner(nestor, model)
        id = await began(nestor, key)
        log = await said(nestor, key, id, command("echo one > f"), command("echo two > f"), last="done")
        made = await fork(nestor, key, id, at=of_kind(log, "ObservationEvent")[0])
        assert (made["fork_of"]["workspace"], await file(nestor, key, made["id"], "f")) == ("current", "two\n")


async def test_a_runtime_that_does_not_know_the_question_is_not_believed(data_dir: Path, engine: FakeEngine) -> None:
    async with nestor_at(data_dir, engine) as nestor:
        key = await nestor.ready_tenant()
        id = await began(nestor, key)
        of = f"/api/conversations/{id}/copy"
        engine.script.fail("GET", of, 200, body={"events": 3, "workspace": "event"})
        engine.script.fail("GET", f"{of}/archive*", 200, body={"not": "the workspace of an event"}, times=None)
        made = await nestor.call("POST", f"/api/v2/conversations/{id}/fork", key, json={"at": 3}, status=202)
        failed = await nestor.until(key, made["id"], "failed", seconds=60)
        assert (failed["reason"], "not kept any more" in failed["message"]) == ("config_rejected", True), failed
        assert [one.path for one in engine.script.received if one.method == "PUT"] == []
