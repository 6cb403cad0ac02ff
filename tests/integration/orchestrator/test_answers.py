"""Every call of the native API answers what its document declares: no field more, and none less.

Those of files, forks and snapshots are looked at in `test_files.py`, `test_forks.py` and `test_snapshots.py`, which
have runtimes that can do that.
"""

import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.answers import watched
from support.orchestrators import OPERATOR_KEY, Nestor, nestor_at
from support.receivers import WebhookReceiver, webhook_receiver

from orchestrator.domain.images import Catalogue
from orchestrator.drivers.fake import FakeDriver
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.drivers.values import Handle, Usage
from orchestrator.settings import OrchestratorSettings

pytestmark = pytest.mark.anyio
WAIT = {"wait": "ready", "timeout": 60}


@pytest.fixture
async def nestor(data_dir: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Nestor]:
    """Its driver measures runtimes and makes them of images, which the fake one does not."""

    async def usage(self: FakeDriver, handle: Handle) -> Usage:
        return Usage(1.5, 2, 3, 4, None, 1, 1.0, 5, 6, 7, None)

    async def disk(self: FakeDriver, handle: Handle) -> None:
        return None

    for name, verb in (("usage", usage), ("disk", disk), ("end_full", disk)):
        monkeypatch.setattr(FakeDriver, name, verb, raising=False)
    engine.images = {"runtime:latest": "sha256:" + "a" * 64}
    monkeypatch.setattr(FakeDriver, "capabilities", replace(FakeDriver.capabilities, images=True))
    monkeypatch.setattr(OrchestratorSettings, "catalogue", Catalogue("runtime:latest"))
    async with nestor_at(data_dir, engine, allow_hook_hosts="127.0.0.1", lease_seconds=2) as running:
        yield running


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with webhook_receiver() as running:
        yield running


async def test_every_call_answers_what_is_declared(nestor: Nestor, receiver: WebhookReceiver) -> None:
    watch = await watched(nestor)
    key = await tenancy(nestor)
    await configuration(nestor, key)
    await webhooks(nestor, key, receiver.url)
    await conversations(nestor, key)
    await records(nestor, key, "runtimes", {"name": "box"})
    elsewhere = {call for call in watch.calls if any(part in call[1] for part in ("/files", "/fork", "/snapshots"))}
    assert watch.seen == watch.calls - elsewhere


async def test_a_field_that_is_not_declared_and_one_that_is_missing_are_seen(nestor: Nestor) -> None:
    watch = await watched(nestor)
    tenant, _ = await nestor.tenant()
    path = f"/api/v2/tenants/{tenant}"
    answer = await nestor.call("GET", path, status=200)
    for wrong in (answer | {"more": 1}, {k: v for k, v in answer.items() if k != "sizes"}, answer | {"sizes": "1"}):
        with pytest.raises(AssertionError):
            watch.check("GET", path, 200, wrong)


async def tenancy(nestor: Nestor) -> str:
    tenant, key = await nestor.tenant()
    path = f"/api/v2/tenants/{tenant}"
    await nestor.call(
        "PATCH", path, json={"limits": {"max_runtimes": 9}, "sizes": [1], "images": ["runtime:latest"]}, status=200
    )
    user = await nestor.call("POST", f"{path}/users", json={"name": "ann", "external_id": "a"}, status=201)
    expiring = {"name": "u", "user": user["id"], "expires_at": "2090-01-01T00:00:00Z"}
    await nestor.call("POST", f"{path}/api-keys", json=expiring, status=201)
    made = await nestor.call("GET", f"{path}/api-keys", status=200)
    below = (
        "users",
        "users/count",
        f"users/{user['id']}",
        "api-keys",
        "api-keys/count",
        f"api-keys/{made['items'][0]['id']}",
    )
    for one in ("", "/count", f"/{tenant}", *(f"/{tenant}/{part}" for part in below)):
        await nestor.call("GET", f"/api/v2/tenants{one}", OPERATOR_KEY, status=200)
    return key


async def configuration(nestor: Nestor, key: str) -> None:
    llm = {"model": "openai/scripted", "api_key": "sk-model-key-of-the-tests"}
    settings = {"agent_settings": {"llm": llm}, "limits": {"max_runtimes": 5, "starts_per_minute": 50}}
    await nestor.call("PATCH", "/api/v2/settings", key, json=settings, status=200)
    await nestor.call("PUT", "/api/v2/secrets/TOKEN", key, json={"value": "v-of-the-tests"}, status=200)
    await nestor.call("PUT", "/api/v2/git-providers/github", key, json={"token": "ghp_of_the_tests"}, status=200)
    named = (
        "secrets",
        "secrets/count",
        "secrets/TOKEN",
        "git-providers",
        "git-providers/count",
        "git-providers/github",
    )
    for one in ("settings", "settings/effective", *named, "usage", "audit", "audit/count"):
        await nestor.call("GET", f"/api/v2/{one}", key, status=200)


async def webhooks(nestor: Nestor, key: str, url: str) -> None:
    made = await nestor.call("POST", "/api/v2/webhooks", key, json={"url": url}, status=201)
    path = f"/api/v2/webhooks/{made['id']}"
    await nestor.call("PATCH", path, key, json={"description": "ours"}, status=200)
    await nestor.call("POST", f"{path}/rotate", key, status=200)
    told = await nestor.call("POST", f"{path}/test", key, status=200)
    await nestor.call("POST", f"{path}/deliveries/{told['id']}/redeliver", key, status=202)
    await nestor.call("POST", f"{path}/redeliver", key, params={"from": 1}, status=202)
    for one in (path, f"{path}/deliveries", f"{path}/deliveries/count", "/api/v2/webhooks", "/api/v2/webhooks/count"):
        await nestor.call("GET", one, key, status=200)


async def conversations(nestor: Nestor, key: str) -> None:
    body = {"title": "t", "labels": {"a": "b"}, "initial_message": "hello"}
    id = await records(nestor, key, "conversations", body)
    path = f"/api/v2/conversations/{id}"
    await nestor.call("POST", f"{path}/resume", key, params=WAIT, status=200)
    await nestor.call("POST", f"{path}/messages", key, json={"content": "hi", "client_id": "c"}, status=202)
    with anyio.fail_after(60):
        while (await nestor.call("GET", f"{path}/messages/c", key, status=200))["state"] != "accepted":
            await anyio.sleep(0.02)
    for below in ("messages", "messages/count", "events/count"):
        await nestor.call("GET", f"{path}/{below}", key, status=200)
    await nestor.call("PUT", path.replace(id, str(uuid.uuid4())), key, json=body, status=202)
    await nestor.call("PUT", path, key, json=body, status=200)
    assert (await nestor.call("GET", f"{path}/events", key, status=200))["items"]
    await died(nestor, key, path)


async def died(nestor: Nestor, key: str, path: str) -> None:
    """One that died is the one that has most to tell."""
    runtimes = nestor.engine.runtimes.values()
    [runtime] = [one for one in runtimes if one.alive and path.endswith(one.spec.labels.conversation)]
    nestor.engine.crash(runtime.spec.name)
    with anyio.fail_after(60):
        while not (record := await nestor.call("GET", path, key, status=200))["failures"]:
            await anyio.sleep(0.02)
    await nestor.call("GET", f"/api/v2/operations/{record['operation']}", key, status=200)
    await nestor.call("DELETE", f"{path}?purge=true", key, status=202)


async def records(nestor: Nestor, key: str, kind: str, body: dict[str, Any]) -> str:
    """What conversations and bare runtimes have alike; its id, stopped."""
    path = f"/api/v2/{kind}"
    await nestor.call("POST", path, key, json=body, params={"dry_run": True}, status=200)
    made = await nestor.call("POST", path, key, json=body, status=202)
    one = f"{path}/{made['id']}"
    await nestor.call("PATCH", one, key, json={"labels": {"c": "d"}}, status=200)
    await nestor.call("PUT", f"{one}/labels", key, json={"c": "d"}, status=200)
    await nestor.call("GET", f"{path}/count", key, status=200)
    assert (
        await nestor.call("GET", path, key, params={"ids": [made["id"], made["user"] or made["operation"]]}, status=200)
    )["items"][1] is None
    for verb in ("start", "resume"):  # each joins
        await nestor.call("POST", f"{one}/{verb}", key, params=WAIT, status=200)
    await nestor.call("POST", f"{one}/start", key, params={"dry_run": True}, status=200)
    await nestor.call(
        "POST", path, key, json=body | ({"name": "other"} if "name" in body else {}), params=WAIT, status=200
    )
    await nestor.call("GET", f"/api/v2/operations/{made['operation']}", key, status=200)
    for below in ("", "/usage", "/logs"):
        await nestor.call("GET", one + below, key, status=200)
    await nestor.call("POST", f"{one}/links", key, json={"port": 3000}, status=201)
    [link] = (await nestor.call("GET", f"{one}/links", key, status=200))["items"]
    await nestor.call("GET", f"{one}/links/count", key, status=200)
    await nestor.call("DELETE", f"{one}/links/{link['id']}", key, status=204)
    assert (await nestor.call("GET", path, key, status=200))["items"]
    for verb, reached in (("pause", "paused"), ("resume", "ready"), ("stop", "stopped")):
        await nestor.call("POST", f"{one}/{verb}", key, status=202)
        await phase(nestor, key, one, reached)
        await again(nestor, key, "POST", f"{one}/{verb}", 200)
    await nestor.call("POST", f"{one}/start", key, status=202)
    await phase(nestor, key, one, "ready")
    await nestor.call("POST", f"{one}/stop", key, status=202)
    await phase(nestor, key, one, "stopped")
    await nestor.call("POST", f"{one}/upgrade", key, status=200)
    await nestor.call("DELETE", one, key, status=202)
    await nestor.call("GET", one, key, params={"deleted": True}, status=200)
    await again(nestor, key, "DELETE", one, 204)
    await again(nestor, key, "POST", f"{one}/undelete", 202)
    await phase(nestor, key, one, "stopped")
    await again(nestor, key, "POST", f"{one}/undelete", 200)
    return str(made["id"])


async def again(nestor: Nestor, key: str, method: str, path: str, wanted: int) -> None:
    """Until it is answered so: what was asked for before is told as done a moment after its phase."""
    with anyio.fail_after(60):
        while (await nestor.http.request(method, path, headers=nestor.as_(key))).status_code != wanted:
            await anyio.sleep(0.02)


async def phase(nestor: Nestor, key: str, path: str, wanted: str) -> None:
    with anyio.fail_after(60):
        while (await nestor.call("GET", path, key, status=200))["phase"] != wanted:
            await anyio.sleep(0.02)


async def test_another_method_is_told_what_there_is(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    for path, allowed in (("/api/v2/conversations", "GET, POST"), ("/api/v2/settings", "GET, PATCH")):
        answer = await nestor.http.delete(path, headers=nestor.as_(key))
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
        assert answer.headers["allow"] == allowed
