"""A snapshot has log and workspace of one event together, and forks of it have both, whatever became of its source."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.answers import watched
from support.orchestrators import Nestor, nestor_at

from orchestrator.demo.model_server import ScriptedModel
from orchestrator.domain.ids import ConversationId, new_uuid
from orchestrator.drivers.values import Condition
from orchestrator.state.event_archive.snapshots import SnapshotArchive

from .test_forks import READY, command, events, file, fork, has_said, owner, said

pytestmark = pytest.mark.anyio


@pytest.fixture
async def nestor(data_dir: Path) -> AsyncIterator[Nestor]:
    settings = {"driver": "process", "zygote": "off", "snapshots": 2, "snapshot_megabytes": 1}
    async with nestor_at(data_dir, None, undelete_seconds=0, **settings) as running:
        yield running


def kept(data_dir: Path, conversation: str) -> list[Path]:
    """What of its snapshots is in the archive."""
    return [path for path in (data_dir / "events").rglob("*") if path.is_file() and f"{conversation}/snap" in str(path)]


async def began(nestor: Nestor, key: str) -> tuple[str, str]:
    made = await nestor.call("POST", "/api/v2/conversations", key, json={}, params=READY, status=200)
    return str(made["id"]), f"/api/v2/conversations/{made['id']}"


async def taken(nestor: Nestor, key: str, path: str) -> dict[str, Any]:
    return dict(await nestor.call("POST", f"{path}/snapshots", key, status=201))


async def test_a_fork_has_the_workspace_of_its_event_also_when_its_source_runs_no_more(nestor: Nestor) -> None:
    async with ScriptedModel() as model:
        watch = await watched(nestor)
        key = await owner(nestor, model)
        id, path = await began(nestor, key)
        first = await said(nestor, key, id, command("mkdir d; echo one > d/file; ln -s file d/link"), last="first")
        early = await taken(nestor, key, path)
        assert early["at"] == len(first)
        second = await said(nestor, key, id, command("echo two > d/file; touch new"), last="second")
        late = await taken(nestor, key, path)
        assert (late["at"], late["bytes"] > 1000) == (len(second), True)
        third = await said(nestor, key, id, command("echo three > d/file"), last="third")
        listed = await nestor.call("GET", f"{path}/snapshots?limit=1", key, status=200)
        assert listed["items"] == [early]
        rest = {"page_id": listed["next_page_id"]}
        rest = await nestor.call("GET", f"{path}/snapshots", key, params=rest, status=200)
        assert rest == {"items": [late], "next_page_id": None}
        assert (await nestor.call("GET", f"{path}/snapshots/count", key, status=200))["count"] == 2
        query = {"sort_order": "CREATED_AT_DESC"}
        newest = await nestor.call("GET", f"{path}/snapshots", key, params=query, status=200)
        assert newest["items"] == [late, early]
        asked = {"ids": [late["id"], new_uuid(), early["id"]]}
        found = await nestor.call("GET", f"{path}/snapshots", key, params=asked, status=200)
        assert found["items"] == [late, None, early]
        full = await nestor.call("POST", f"{path}/snapshots", key, status=429)
        assert (full["rule"], full["limit"]) == ("conversation.snapshots", 2)

        refused = {"snapshot": early["id"], "at": early["at"] + 1}
        assert (await nestor.call("POST", f"{path}/fork", key, json=refused, status=422))["field"] == "at"
        await nestor.call("POST", f"{path}/fork", key, json={"snapshot": new_uuid()}, status=404)

        await nestor.call("POST", f"{path}/stop", key, status=202)
        await nestor.until(key, id, "stopped", seconds=60)
        made = await fork(nestor, key, id, at=early["at"])
        of = {"conversation": id, "at": early["at"], "workspace": "snapshot", "snapshot": early["id"]}
        assert made["fork_of"] == of
        assert await events(nestor, key, made["id"]) == first
        assert await file(nestor, key, made["id"], "d/file") == "one\n"
        assert await file(nestor, key, made["id"], "new") is None
        other = await fork(nestor, key, id, snapshot=late["id"], id=new_uuid())
        assert other["fork_of"]["at"] == late["at"]
        assert await file(nestor, key, other["id"], "d/file") == "two\n"
        goes_on = await said(nestor, key, other["id"], command("cat d/file"), last="fourth")
        assert goes_on[: len(second)] == second
        assert await events(nestor, key, id) == third

        await nestor.call("DELETE", f"{path}/snapshots/{early['id']}", key, status=204)
        await nestor.call("DELETE", f"{path}/snapshots/{early['id']}", key, status=404)
        assert not [one for one in kept(Path(nestor.house.settings.data_dir), id) if early["id"] in str(one)]
        assert {call for call in watch.calls if "/snapshots" in call[1]} <= watch.seen
        await nestor.call("DELETE", path, key, status=202)
        with anyio.fail_after(60):
            while kept(Path(nestor.house.settings.data_dir), id):
                await anyio.sleep(0.05)


async def test_what_cannot_be_kept_is_refused_and_leaves_nothing(nestor: Nestor) -> None:
    async with ScriptedModel() as model:
        key, foreign = await owner(nestor, model), await nestor.ready_tenant("other")
        id, path = await began(nestor, key)
        data_dir = Path(nestor.house.settings.data_dir)
        for method, below in (("POST", ""), ("GET", ""), ("DELETE", f"/{new_uuid()}")):
            await nestor.call(method, f"{path}/snapshots{below}", foreign, status=404)
        await said(nestor, key, id, command("head -c 1500000 /dev/urandom > large"), last="large")
        assert "larger" in (await nestor.call("POST", f"{path}/snapshots", key, status=413))["detail"]
        assert kept(data_dir, id) == []
        await said(nestor, key, id, command("rm large"), last="small")
        await taken(nestor, key, path)
        content = 'SCRIPT:[{"tool": "terminal", "args": {"command": "touch begun; sleep 300"}}, {"text": "never"}]'
        await nestor.call("POST", f"{path}/messages", key, json={"content": content}, status=202)
        with anyio.fail_after(60):
            while await file(nestor, key, id, "begun") is None:
                await anyio.sleep(0.05)
        assert "at work" in (await nestor.call("POST", f"{path}/snapshots", key, status=409))["detail"]
        await nestor.call("PATCH", "/api/v2/settings", key, json={"limits": {"archive_seconds": 0.1}}, status=200)
        await nestor.call("POST", f"{path}/stop", key, status=202)
        with anyio.fail_after(60):
            while (await nestor.call("GET", path, key, status=200))["archived_at"] is None or kept(data_dir, id):
                await anyio.sleep(0.05)
        assert (await nestor.call("GET", f"{path}/snapshots", key, status=200))["items"] == []
        await nestor.call("POST", f"{path}/snapshots", key, status=409)


async def paused(nestor: Nestor, key: str, id: str, path: str) -> None:
    await nestor.call("POST", f"{path}/pause", key, status=202)
    await nestor.until(key, id, "paused", seconds=60)


async def is_frozen(nestor: Nestor) -> bool:
    driver = nestor.house.driver
    [handle] = await driver.list(nestor.house.installation)
    return (await driver.inspect(handle)).condition is Condition.PAUSED


async def test_one_that_somebody_paused_is_copied_and_stays_as_it_is(nestor: Nestor) -> None:
    async with ScriptedModel() as model:
        key = await owner(nestor, model)
        id, path = await began(nestor, key)
        first = await said(nestor, key, id, command("echo one > file"), last="first")
        await paused(nestor, key, id, path)
        before = await nestor.call("GET", path, key, status=200)
        waiting = {"content": 'SCRIPT:[{"text": "second"}]'}
        await nestor.call("POST", f"{path}/messages", key, json=waiting, status=202)
        made = await taken(nestor, key, path)
        assert made["at"] == len(first)
        assert await is_frozen(nestor)
        after = await nestor.call("GET", path, key, status=200)
        same = ("phase", "desired", "reason", "runtime", "operation", "phase_since")
        assert {name: after[name] for name in same} == {name: before[name] for name in same}
        assert await events(nestor, key, id) == first, "what waits is not given to the agent"
        other = await fork(nestor, key, id, snapshot=made["id"])
        assert await file(nestor, key, other["id"], "file") == "one\n"
        assert await events(nestor, key, other["id"]) == first
        await nestor.call("POST", f"{path}/resume", key, params=READY, status=200)
        with anyio.fail_after(60):
            while not has_said(await events(nestor, key, id), "second"):
                await anyio.sleep(0.05)


async def test_an_agent_that_was_paused_at_work_is_not_copied_and_is_frozen_again(nestor: Nestor) -> None:
    async with ScriptedModel() as model:
        key = await owner(nestor, model)
        id, path = await began(nestor, key)
        content = 'SCRIPT:[{"tool": "terminal", "args": {"command": "touch begun; sleep 300"}}, {"text": "never"}]'
        await nestor.call("POST", f"{path}/messages", key, json={"content": content}, status=202)
        with anyio.fail_after(60):
            while await file(nestor, key, id, "begun") is None:
                await anyio.sleep(0.05)
        await paused(nestor, key, id, path)
        refused = await nestor.call("POST", f"{path}/snapshots", key, status=409)
        assert "at work" in refused["detail"]
        assert "resumed" in refused["hint"]
        assert await is_frozen(nestor)
        assert kept(Path(nestor.house.settings.data_dir), id) == []


async def test_a_resume_does_not_wait_for_the_end_of_a_copy(nestor: Nestor, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedModel() as model:
        key = await owner(nestor, model)
        id, path = await began(nestor, key)
        await said(nestor, key, id, last="first")
        await paused(nestor, key, id, path)
        begun = anyio.Event()

        async def never(*_: Any, **__: Any) -> None:
            begun.set()
            await anyio.sleep_forever()

        monkeypatch.setattr(SnapshotArchive, "write", never)
        async with anyio.create_task_group() as tasks:

            async def take() -> None:
                refused = await nestor.call("POST", f"{path}/snapshots", key, status=409)
                assert "something else" in refused["detail"]

            tasks.start_soon(take)
            with anyio.fail_after(60):
                await begun.wait()
            assert not await is_frozen(nestor)
            await nestor.call("POST", f"{path}/resume", key, params=READY, status=200)
        assert not await is_frozen(nestor)
        assert kept(Path(nestor.house.settings.data_dir), id) == []


async def test_what_a_replica_that_died_within_a_copy_left_running_is_frozen_again(nestor: Nestor) -> None:
    async with ScriptedModel() as model:
        key = await owner(nestor, model)
        id, path = await began(nestor, key)
        await paused(nestor, key, id, path)
        store, driver = nestor.house.store.conversations, nestor.house.driver
        [handle] = await driver.list(nestor.house.installation)
        tenant = handle.labels.tenant
        with anyio.fail_after(60):
            while (claim := await store.claim(tenant, ConversationId(id), "dead", lease_ms=1500)) is None:
                await anyio.sleep(0.05)
        await driver.unpause(handle, fence=claim[0].fence)
        assert not await is_frozen(nestor)
        with anyio.fail_after(60):
            while not await is_frozen(nestor):
                await anyio.sleep(0.05)
        assert (await nestor.call("GET", path, key, status=200))["phase"] == "paused"
