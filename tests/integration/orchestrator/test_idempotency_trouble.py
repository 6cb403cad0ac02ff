"""`Idempotency-Key` where things go wrong: the replica that serves the first request dies, or the store fails."""

from typing import Any

import anyio
import pytest
from support.orchestrators import Nestor

from orchestrator.api import idempotency
from orchestrator.domain.errors import StoreUnavailable
from orchestrator.domain.tenancy import Tenant


def failing(monkeypatch: pytest.MonkeyPatch, nestor: Nestor, name: str, *, times: int) -> list[str]:
    """Let a call of the store for idempotency keys fail that often, behind its work: a lost reply. What was asked."""
    store = nestor.house.services.store.idempotency
    real, asked = getattr(store, name), []

    async def act(*given: Any, **more: Any) -> Any:
        asked.append(name)
        found = await real(*given, **more) if name != "abandon" else None
        if len(asked) <= times:
            raise StoreUnavailable("the state server cannot be reached")
        return found

    monkeypatch.setattr(store, name, act)
    return asked


async def test_a_repeat_is_served_soon_after_the_replica_of_the_first_died(
    nestor: Nestor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "HELD_MS", 1500)
    monkeypatch.setattr(idempotency, "_RENEWED_SECONDS", 0.1)
    failing(monkeypatch, nestor, "abandon", times=9)  # who is killed abandons nothing
    tenants, goes_on = nestor.house.services.store.tenants, anyio.Event()
    add = tenants.add_tenant

    async def slow(tenant: Tenant) -> Tenant:
        await goes_on.wait()
        return await add(tenant)

    monkeypatch.setattr(tenants, "add_tenant", slow)
    asked: dict[str, Any] = {"json": {"name": "once"}, "headers": {"Idempotency-Key": "k"}}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: nestor.call("POST", "/api/v2/tenants", **asked))
        await anyio.sleep(2)  # longer than it is held without being renewed
        running = await nestor.call("POST", "/api/v2/tenants", status=409, **asked)
        assert running["code"] == "idempotency_running"
        tasks.cancel_scope.cancel()
    goes_on.set()
    with anyio.fail_after(10):
        while (made := await nestor.call("POST", "/api/v2/tenants", **asked)).get("code"):
            await anyio.sleep(0.05)
    assert made["name"] == "once"


async def test_what_was_done_is_answered_and_kept_when_the_state_server_fails_just_then(
    nestor: Nestor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = failing(monkeypatch, nestor, "finish", times=2)
    headers = {"Idempotency-Key": "k"}
    first = await nestor.call("POST", "/api/v2/tenants", json={"name": "once"}, headers=headers, status=201)
    assert len(asked) == 3
    again = await nestor.call("POST", "/api/v2/tenants", json={"name": "once"}, headers=headers, status=201)
    assert again == first


async def test_a_failure_stays_what_it_is_when_its_key_cannot_be_given_back(
    nestor: Nestor, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, nestor, "abandon", times=1)
    tenants = nestor.house.services.store.tenants

    async def full(tenant: Tenant) -> Tenant:
        raise StoreUnavailable("the state server is out of memory")

    monkeypatch.setattr(tenants, "add_tenant", full)
    problem = await nestor.call(
        "POST", "/api/v2/tenants", json={"name": "x"}, headers={"Idempotency-Key": "k"}, status=503
    )
    assert "out of memory" in problem["detail"]


@pytest.fixture
def dies(nestor: Nestor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is done is done, and dies before its answer is kept."""

    async def died(*given: Any, **more: Any) -> None:
        raise StoreUnavailable("nothing is kept")

    monkeypatch.setattr(nestor.house.services.store.idempotency, "finish", died)
    monkeypatch.setattr(idempotency, "_KEEP_PAUSE_SECONDS", 0)
    monkeypatch.setattr(idempotency, "HELD_MS", 100)


async def repeated(nestor: Nestor, *given: Any, **more: Any) -> Any:
    """The answer, as soon as the first one's hold on the key is over."""
    with anyio.fail_after(10):
        while (again := await nestor.call(*given, **more)).get("code"):
            await anyio.sleep(0.05)
    return again


@pytest.mark.usefixtures("dies")
@pytest.mark.parametrize("what", ["tenants", "users"])
async def test_a_repeat_makes_nothing_anew_although_the_first_died_before_its_answer_was_kept(
    nestor: Nestor, what: str
) -> None:
    tenant, _ = await nestor.tenant()
    path = "/api/v2/tenants" if what == "tenants" else f"/api/v2/tenants/{tenant}/users"
    headers = {"Idempotency-Key": "k"}
    first = await nestor.call("POST", path, json={"name": "once"}, headers=headers, status=201)
    assert await repeated(nestor, "POST", path, json={"name": "once"}, headers=headers) == first
    named = [item for item in (await nestor.call("GET", path))["items"] if item["name"] == "once"]
    assert named == [first]
    other = await repeated(nestor, "POST", path, json={"name": "another"}, headers=headers)
    assert other["id"] != first["id"]


@pytest.mark.usefixtures("dies")
async def test_an_api_key_that_nobody_was_told_of_is_replaced_by_the_repeat(nestor: Nestor) -> None:
    tenant, _ = await nestor.tenant()
    path = f"/api/v2/tenants/{tenant}/api-keys"
    body = {"name": "once", "scopes": ["read"], "expires_at": "2999-01-01T00:00:00.123456Z"}
    asked: dict[str, Any] = {"json": body, "headers": {"Idempotency-Key": "k"}}
    first = await nestor.call("POST", path, status=201, **asked)
    again = await repeated(nestor, "POST", path, **asked)
    assert again["id"] == first["id"]
    assert again["key"] != first["key"]
    assert [item["name"] for item in (await nestor.call("GET", path))["items"]].count("once") == 1
    await nestor.call("GET", "/api/v2/conversations", again["key"], status=200)
    await nestor.call("GET", "/api/v2/conversations", first["key"], status=401)
    await nestor.call("DELETE", f"{path}/{first['id']}", status=204)
    assert (await repeated(nestor, "POST", path, **asked))["id"] != first["id"], "a revoked one does not come back"
    await nestor.call("GET", "/api/v2/conversations", again["key"], status=401)


@pytest.mark.usefixtures("dies")
async def test_a_webhook_is_made_once_and_has_one_secret(nestor: Nestor) -> None:
    _, key = await nestor.tenant()
    path = "/api/v2/webhooks"
    asked: dict[str, Any] = {"json": {"url": "https://hooks.example.com/a"}, "headers": {"Idempotency-Key": "k"}}
    first = await nestor.call("POST", path, key, status=201, **asked)
    assert await repeated(nestor, "POST", path, key, **asked) == first
    assert len((await nestor.call("GET", path, key))["items"]) == 1
    other = await repeated(nestor, "POST", path, key, **(asked | {"json": {"url": "https://hooks.example.com/b"}}))
    assert other["id"] != first["id"]
