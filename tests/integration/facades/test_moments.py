"""What clients of V0 and V1 see at moments that are neither before nor after: a start that fails, one that is given up,
a rest that a message ends, a state server that is away."""

import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.orchestrators import Nestor, nestor_at

from orchestrator.domain.ids import TenantId, UserId
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.drivers.values import Handle

pytestmark = pytest.mark.anyio
APPS = "/api/v1/app-conversations"
TEXT = {"role": "user", "content": [{"type": "text", "text": "hello"}]}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def nestor() -> AsyncIterator[Nestor]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        engine = FakeEngine()
        async with nestor_at(Path(folder), engine) as running:
            yield running
        await engine.shut_down()


async def app(nestor: Nestor, key: str, id: str, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The app-conversation, as soon as `until` holds of it."""
    with anyio.fail_after(60):
        while True:
            (found,) = await nestor.call("GET", f"{APPS}?ids={id}", key, status=200)
            if found is not None and until(found):
                return found  # type: ignore[no-any-return]
            await anyio.sleep(0.02)


async def task(nestor: Nestor, key: str, id: str, *statuses: str) -> dict[str, Any]:
    """The start task, as soon as its status is one of `statuses`."""
    with anyio.fail_after(60):
        while True:
            (found,) = await nestor.call("GET", f"{APPS}/start-tasks?ids={id}", key, status=200)
            if found["status"] in statuses:
                return found  # type: ignore[no-any-return]
            await anyio.sleep(0.02)


@asynccontextmanager
async def frozen(pid: int) -> AsyncIterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_start_that_fails_is_an_error_with_its_reason_on_every_surface(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    nestor.engine.script.fail("POST", "/api/settings", 422, times=None)
    try:
        begun = await nestor.call("POST", APPS, key, json={"title": "t"}, status=200)
        ended = await task(nestor, key, begun["id"], "ERROR", "READY")
        id = ended["app_conversation_id"]
        assert (ended["status"], ended["agent_server_url"]) == ("ERROR", None)
        assert "settings" in ended["detail"]
        found = await app(nestor, key, id, lambda one: one["sandbox_status"] == "ERROR")
        assert (found["execution_status"], found["conversation_url"]) == (None, None)
        told = await nestor.call("GET", f"/api/conversations/{id}", key, status=200)
        assert (told["status"], told["runtime_status"]) == ("ERROR", "STATUS$ERROR")
        refused = await nestor.call("POST", f"{APPS}/{id}/send-message", key, json=TEXT, status=503)
        assert (refused["success"], refused["sandbox_status"]) == (False, "ERROR")
        again = await nestor.call("POST", f"/api/conversations/{id}/start", key, status=200)
        assert again["conversation_status"] == "STARTING"
    finally:
        nestor.engine.script.clear()


async def test_the_id_of_a_stopped_one_brings_it_back_in_the_same_sandbox(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    begun = await nestor.call("POST", APPS, key, json={"initial_message": TEXT}, status=200)
    id = (await task(nestor, key, begun["id"], "READY"))["app_conversation_id"]
    await nestor.call("POST", f"/api/v2/conversations/{id}/stop", key, status=202)
    gone = await app(nestor, key, id, lambda one: one["sandbox_status"] == "MISSING")
    assert (gone["sandbox_id"], gone["session_api_key"]) == (begun["sandbox_id"], None)
    assert await nestor.call("GET", f"/api/v1/conversation/{id}/events/count", key, status=200) == 2

    body = {"conversation_id": id.replace("-", ""), "initial_message": TEXT}
    again = await nestor.call("POST", APPS, key, json=body, status=200)
    assert again["status"] in ("WORKING", "READY")  # never a stage in between; the fake driver may be quick
    assert again["sandbox_id"] == begun["sandbox_id"]
    assert again["id"] != begun["id"]
    await task(nestor, key, again["id"], "READY")
    with anyio.fail_after(30):
        while await nestor.call("GET", f"/api/v1/conversation/{id}/events/count", key, status=200) < 4:
            await anyio.sleep(0.02)


@pytest.mark.parametrize("surface", ["app", "v0", "agent server"])
async def test_one_that_is_being_stopped_is_brought_back_by_whoever_was_told_that_it_is_gone(
    nestor: Nestor, monkeypatch: pytest.MonkeyPatch, surface: str
) -> None:
    key = await nestor.ready_tenant()
    made = await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=60", key, json={}, status=200)
    id, may_end = made["id"], anyio.Event()
    destroy = nestor.house.driver.destroy

    async def late(handle: Handle, *, fence: int) -> None:
        await may_end.wait()
        await destroy(handle, fence=fence)

    async def ask() -> None:
        match surface:
            case "app":
                await nestor.call("POST", APPS, key, json={"conversation_id": id}, status=200)
            case "v0":
                await nestor.call("POST", f"/api/conversations/{id}/start", key, json={}, status=200)
            case _:
                body = {"conversation_id": id, "agent_settings": {}, "workspace": {"working_dir": "/workspace"}}
                await nestor.call("POST", "/api/conversations", key, json=body, status=200)

    monkeypatch.setattr(nestor.house.driver, "destroy", late)
    await nestor.call("POST", f"/api/v2/conversations/{id}/stop", key, status=202)
    await nestor.until(key, id, "stopping")
    (told,) = await nestor.call("GET", f"{APPS}?ids={id}", key, status=200)
    assert told["sandbox_status"] == "MISSING"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await anyio.sleep(0.3)
        may_end.set()
    again = await nestor.until(key, id, "ready", "failed", seconds=30)
    assert again["phase"] == "ready"
    assert again["runtime"]["id"] == made["runtime"]["id"]


async def test_a_first_message_with_an_image_is_one_message_and_the_agent_is_said_to_be_at_work(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    body = {"initial_user_msg": "what is it", "image_urls": ["https://example.org/a.png"]}
    id = (await nestor.call("POST", "/api/conversations", key, json=body, status=200))["conversation_id"]
    await nestor.until(key, id, "ready")
    with anyio.fail_after(30):
        events: list[dict[str, Any]] = []
        while len(events) < 3:
            page = await nestor.call("GET", f"/api/conversations/{id}/events", key, status=200)
            events = page["events"]
    assert events[0]["extras"]["agent_state"] == "loading"
    assert (events[1]["args"]["content"], events[1]["args"]["image_urls"]) == ("what is it", body["image_urls"])


async def test_each_token_of_a_call_is_judged_by_itself_and_one_that_is_refused_stores_none(
    nestor: Nestor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def probe(url: str, headers: Mapping[str, str]) -> int:
        return 401 if "expired" in headers["Authorization"] else 200

    monkeypatch.setattr(nestor.house.services.token_check, "_probe", probe)
    key = await nestor.ready_tenant()
    for tokens in ({"github": "expired", "gitlab": "good"}, {"github": "good", "gitlab": "expired"}):
        body = {"provider_tokens": {name: {"token": token} for name, token in tokens.items()}}
        told = await nestor.call("POST", "/api/add-git-providers", key, json=body, status=401)
        (bad,) = [name for name, token in tokens.items() if token == "expired"]
        assert f"valid {bad} token" in told["error"]
        assert (await nestor.call("GET", "/api/v2/git-providers", key, status=200))["items"] == []


async def test_a_map_of_git_providers_is_taken_also_when_another_call_removes_the_same(
    nestor: Nestor, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await nestor.ready_tenant()
    await nestor.call("POST", "/api/add-git-providers", key, json=tokens("github"), status=200)
    providers = nestor.house.services.layers.providers
    entries = providers.entries

    async def seen_before_another_call(tenant: TenantId, user: UserId | None) -> Any:
        found = await entries(tenant, user)
        monkeypatch.setattr(providers, "entries", entries)
        await nestor.call("DELETE", "/api/v2/git-providers/github", key, status=204)
        return found

    monkeypatch.setattr(providers, "entries", seen_before_another_call)
    await nestor.call("POST", "/api/add-git-providers", key, json=tokens("gitlab"), status=200)
    kept = (await nestor.call("GET", "/api/settings", key, status=200))["provider_tokens_set"]
    assert kept == {"gitlab": None}


def tokens(provider: str) -> dict[str, Any]:
    return {"provider_tokens": {provider: {"token": "token-of-the-tests"}}}


async def test_a_conversation_with_nothing_to_do_waits_for_its_user(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    id = (await nestor.call("POST", "/api/conversations", key, json={}, status=200))["conversation_id"]
    await nestor.until(key, id, "ready")
    (first,) = (await nestor.call("GET", f"/api/conversations/{id}/events", key, status=200))["events"]
    assert (first["id"], first["extras"]["agent_state"]) == (0, "awaiting_user_input")
    await nestor.call("POST", f"/api/conversations/{id}/message", key, json={"message": "now"}, status=200)
    events = (await nestor.call("GET", f"/api/conversations/{id}/events", key, status=200))["events"]
    assert [event["id"] for event in events[:2]] == [0, 1]
    assert events[1]["args"]["content"] == "now"  # it is in the log when its answer comes


async def test_a_stop_while_it_starts_gives_the_start_up(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    nestor.engine.script.pace = 0.1
    try:
        id = (await nestor.call("POST", "/api/conversations", key, json={}, status=200))["conversation_id"]
        stopped = await nestor.call("POST", f"/api/conversations/{id}/stop", key, status=200)
        assert (stopped["conversation_status"], stopped["message"]) == ("STARTING", None)
        await nestor.until(key, id, "stopped")
    finally:
        nestor.engine.script.pace = 0.0


async def test_a_message_wakes_what_nobody_used_and_not_what_somebody_paused(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    await nestor.call("PATCH", "/api/v2/settings", key, json={"limits": {"idle_pause_seconds": 0.5}}, status=200)
    begun = await nestor.call("POST", APPS, key, json={}, status=200)
    id = begun["app_conversation_id"]
    asleep = await app(nestor, key, id, lambda one: one["sandbox_status"] == "PAUSED")
    assert asleep["execution_status"] is None
    sent = await nestor.call("POST", f"{APPS}/{id}/send-message", key, json=TEXT, status=200)
    assert (sent["success"], sent["sandbox_status"]) == (True, "PAUSED")
    with anyio.fail_after(30):
        while not await nestor.call("GET", f"/api/v1/conversation/{id}/events/count", key, status=200):
            await anyio.sleep(0.02)
    await nestor.call("POST", f"/api/conversations/{id}/stop", key, status=200)
    with anyio.fail_after(30):
        while (await nestor.call("GET", f"/api/v2/conversations/{id}", key))["desired"] != "paused":
            await nestor.call("POST", f"/api/conversations/{id}/stop", key, status=200)
    await app(nestor, key, id, lambda one: one["sandbox_status"] == "PAUSED")
    await nestor.call("POST", f"{APPS}/{id}/send-message", key, json=TEXT, status=409)


async def test_what_is_polled_is_told_while_the_state_server_is_away(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    begun = await nestor.call("POST", APPS, key, json={"initial_message": TEXT}, status=200)
    id = (await task(nestor, key, begun["id"], "READY"))["app_conversation_id"]
    polled = (
        f"{APPS}?ids={id}",
        f"{APPS}/start-tasks?ids={begun['id']}",
        f"/api/conversations/{id}",
        f"/api/conversations/{id}/events",
        f"/api/v1/conversation/{id}/events/search",
    )
    before = [await nestor.http.get(path, headers=nestor.as_(key)) for path in polled]
    assert nestor.house.state_server is not None
    assert nestor.house.state_server.pid is not None
    async with frozen(nestor.house.state_server.pid):
        answers = [await nestor.http.get(path, headers=nestor.as_(key)) for path in polled]
    assert [(answer.status_code, "age" in answer.headers) for answer in answers] == [(200, True)] * len(polled)
    assert [answer.json() for answer in answers] == [answer.json() for answer in before]
    await nestor.call("GET", f"/api/conversations/{id}", key, status=200)
