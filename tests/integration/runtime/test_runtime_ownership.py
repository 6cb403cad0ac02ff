"""Several servers over one folder of conversations: one of them owns each, and another takes over when it is gone."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import httpx
import pytest

from orchestrator.demo.model_server import ScriptedModel
from runtime.conversations.ownership import OwnedElsewhere, Ownership
from tests.support.runtimes import KEY, Runtime, RuntimeProcess, runtime_at

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def client(process: RuntimeProcess, model: ScriptedModel) -> AsyncIterator[Runtime]:
    headers = {"X-Session-API-Key": KEY}
    async with httpx.AsyncClient(base_url=process.url, headers=headers, timeout=60, trust_env=False) as http:
        yield Runtime(http, process.url, process.folder, model.base_url)


@contextmanager
def process(folder: Path, **variables: str) -> Iterator[RuntimeProcess]:
    made = RuntimeProcess(folder, **variables)
    try:
        yield made.start()
    finally:
        made.ensure_gone()


async def runtime_status(runtime: Runtime, id: str) -> Any:
    answer = await runtime.http.get(f"/api/conversations/{id}/runtime")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_what_another_server_owns_is_not_touched(tmp_path: Path, model: ScriptedModel) -> None:
    async with runtime_at(tmp_path, model.base_url) as first, runtime_at(tmp_path, model.base_url) as second:
        id = await first.start([{"text": "one"}])
        await first.finish(id)
        other = second.http
        path = f"/api/conversations/{id}"
        for method, rest, body in (
            ("GET", "", None),
            ("DELETE", "", None),
            ("PATCH", "", {"title": "x"}),
            ("POST", "/run", None),
            ("POST", "/pause", None),
            ("POST", "/goal", {"objective": "x"}),
            ("POST", "/events", {"role": "user", "content": [{"type": "text", "text": "x"}], "run": True}),
            ("GET", "/events/search", None),
            ("POST", "/fork", {}),
            ("POST", "/runtime/reprovision", None),
        ):
            answer = await other.request(method, path + rest, json=body)
            assert (answer.status_code, "Another server" in answer.text) == (409, True), (method, rest, answer.text)
        again = await other.post("/api/conversations", json={**second.body(), "conversation_id": id})
        assert again.status_code == 409
        told = await runtime_status(second, id)
        assert (told["runtime_status"], told["can_resume"]) == ("ownership_lost", False)
        assert told["runtime_error"]["code"] == "ownership_lost"
        assert (await runtime_status(first, id))["runtime_status"] == "available"
        async with second.socket(id) as frames:
            assert await frames.close_code() == 1012
        listed = (await other.get("/api/conversations/search")).json()["items"]
        assert [(one["id"], one["execution_status"]) for one in listed] == [(id, "finished")]
        assert listed[0]["runtime_info"] == told
        listed = (await first.http.get("/api/conversations/search")).json()["items"]
        assert listed[0]["runtime_info"]["runtime_status"] == "available"
        assert len(await first.events(id, "MessageEvent")) == 2
        # what was made elsewhere is found, what was removed is gone
        assert (await first.http.delete(path)).status_code == 200
        assert (await other.get(path)).status_code == 404
        assert (await other.get("/api/conversations/count")).json() == 0


async def test_what_nobody_has_in_memory_is_anybodys(tmp_path: Path, model: ScriptedModel) -> None:
    brief = {"conversation_idle_ttl_seconds": 0.3}
    async with (
        runtime_at(tmp_path, model.base_url, **brief) as first,
        runtime_at(tmp_path, model.base_url, **brief) as second,
    ):
        id = await first.start([{"text": "one"}])
        await first.finish(id)
        for turn, (runtime, other) in enumerate(((second, first), (first, second), (second, first))):
            with anyio.fail_after(20):
                while (await runtime_status(runtime, id))["runtime_status"] != "available":
                    await anyio.sleep(0.05)
            await runtime.say(id, [{"text": f"turn {turn}"}])
            await runtime.finish(id)
            assert len(await runtime.events(id, "MessageEvent")) == 4 + 2 * turn
            assert (await other.http.get("/api/conversations/count")).json() == 1


async def test_the_dead_leave_at_once(tmp_path: Path, model: ScriptedModel) -> None:
    with process(tmp_path) as first:
        async with client(first, model) as runtime:
            id = await runtime.start([{"text": "late", "sleep": 60}])
        async with runtime_at(tmp_path, model.base_url) as second:
            assert (await second.http.get(f"/api/conversations/{id}")).status_code == 409
            first.kill()
            assert await second.until(id, "error") == "error"  # asked for, so opened and told the truth
            (error,) = await second.events(id, "ConversationErrorEvent")
            assert error["code"] == "RuntimeRestarted"
            await second.say(id, [{"text": "on"}])
            await second.finish(id)


async def test_a_server_that_stands_still_loses_what_it_owns(tmp_path: Path, model: ScriptedModel) -> None:
    with process(tmp_path, OH_LEASE_TTL_SECONDS="2") as first:
        async with client(first, model) as stuck:
            id = await stuck.start([{"text": "one"}])
            await stuck.finish(id)
            os.kill(first.pid, signal.SIGSTOP)
            async with runtime_at(tmp_path, model.base_url, lease_ttl_seconds=2) as second:
                with anyio.fail_after(20):
                    while (await runtime_status(second, id))["runtime_status"] != "available":
                        await anyio.sleep(0.1)
                await second.say(id, [{"text": "two"}])
                await second.finish(id)
                log = await second.events(id)
                os.kill(first.pid, signal.SIGCONT)
                answer = await stuck.http.post(f"/api/conversations/{id}/run")
                assert answer.status_code == 409
                assert (await runtime_status(stuck, id))["runtime_status"] == "ownership_lost"
                assert await second.events(id) == log


async def test_a_reprovisioned_runtime_has_its_directory_again(tmp_path: Path) -> None:
    async with runtime_at(tmp_path) as runtime:
        id = await runtime.start()
        place = tmp_path / "work"
        available = {"runtime_status": "available", "can_resume": True, "runtime_error": None}
        assert await runtime_status(runtime, id) == available
        (place / ".git").rename(tmp_path / "aside")
        place.rmdir()
        told = await runtime_status(runtime, id)
        assert (told["runtime_status"], told["can_resume"], told["runtime_error"]["code"]) == (
            "missing",
            True,
            "missing",
        )
        shown = [
            (await runtime.http.get(f"/api/conversations/{id}")).json(),
            (await runtime.http.get(f"/api/conversations/{id}", params={"include_skills": True})).json(),
            (await runtime.http.get("/api/conversations/search")).json()["items"][0],
            (await runtime.http.get("/api/conversations", params={"ids": id})).json()[0],
        ]
        assert [one["runtime_info"] for one in shown] == [told] * 4
        answer = await runtime.http.post(f"/api/conversations/{id}/runtime/reprovision")
        assert (answer.status_code, answer.json()) == (200, available)
        assert (await runtime.http.get(f"/api/conversations/{id}")).json()["runtime_info"] == available
        assert (place / ".git").is_dir()
        unknown = "/api/conversations/00000000-0000-4000-8000-000000000000/runtime"
        assert (await runtime.http.get(unknown)).status_code == 404
        assert (await runtime.http.post(f"{unknown}/reprovision")).status_code == 404


# -- the claims alone


def claimed(folder: Path, owner: Ownership, id: UUID) -> bool:
    (folder / id.hex).mkdir(parents=True, exist_ok=True)
    try:
        owner.claim(id)
    except OwnedElsewhere:
        return False
    return True


def test_one_of_many_gets_it(tmp_path: Path) -> None:
    id = uuid4()
    owners = [Ownership(tmp_path, lease_seconds=45) for _ in range(5)]
    assert [claimed(tmp_path, owner, id) for owner in owners] == [True, False, False, False, False]
    owners[1].release(id)
    assert not claimed(tmp_path, owners[1], id)
    owners[0].release(id)
    assert claimed(tmp_path, owners[3], id)
    owners[3].check(id)
    with pytest.raises(OwnedElsewhere):
        owners[0].check(id)
    for owner in owners:
        owner.close()
    assert os.listdir(tmp_path / ".owners") == ["lock"]


def test_without_leases_nothing_is_written(tmp_path: Path) -> None:
    id = uuid4()
    owner = Ownership(tmp_path, lease_seconds=0)
    assert claimed(tmp_path, owner, id)
    owner.check(id)
    assert os.listdir(tmp_path / id.hex) == []
    assert not (tmp_path / ".owners").exists()


def test_an_owner_of_another_machine_counts_by_its_time(tmp_path: Path) -> None:
    id = uuid4()
    (tmp_path / id.hex).mkdir()
    (tmp_path / ".owners").mkdir()
    (tmp_path / id.hex / "owner").write_text("faraway")
    far = tmp_path / ".owners" / "faraway"
    far.write_text('{"boot": "another machine", "lease_seconds": 45}')
    mine = Ownership(tmp_path, lease_seconds=45)
    assert mine.is_elsewhere(id)
    assert not claimed(tmp_path, mine, id)
    os.utime(far, (1, 1))
    assert not mine.is_elsewhere(id)
    assert claimed(tmp_path, mine, id)
    mine.close()
