"""What comes at the wrong moment: between a request and its worker, or between two writes of one. Nothing is lost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from support.orchestrators import Nestor

from orchestrator.domain.errors import DriverUnavailable
from orchestrator.domain.ids import ConversationId, OperationId, TenantId, new_uuid
from orchestrator.domain.operation import Operation, OperationState

pytestmark = pytest.mark.anyio


async def ready(nestor: Nestor) -> tuple[TenantId, str, ConversationId]:
    """A tenant, its key, and its ready conversation."""
    key = await nestor.ready_tenant()
    tenant = TenantId((await nestor.call("GET", "/api/v2/tenants", status=200))["items"][0]["id"])
    record = await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=20", key, json={}, status=200)
    return tenant, key, ConversationId(record["id"])


@asynccontextmanager
async def busy_elsewhere(nestor: Nestor, tenant: TenantId, id: ConversationId) -> AsyncIterator[None]:
    """Another replica holds the conversation meanwhile, so that requests pile up."""
    conversations = nestor.house.store.conversations
    with anyio.fail_after(20):
        while (taken := await conversations.claim(tenant, id, "another replica", lease_ms=60_000)) is None:
            await anyio.sleep(0.02)
    yield
    await conversations.settle(taken[0], due_in_ms=0)


async def operation_ends(nestor: Nestor, key: str, id: str) -> dict[str, Any]:
    with anyio.fail_after(20):
        while (found := await nestor.call("GET", f"/api/v2/operations/{id}", key, status=200))["state"] == "running":
            await anyio.sleep(0.05)
    return dict(found)


async def test_a_stop_right_after_a_start_is_not_lost(nestor: Nestor) -> None:
    tenant, key, id = await ready(nestor)
    path = f"/api/v2/conversations/{id}"
    await nestor.call("POST", f"{path}/stop", key, status=202)
    await nestor.until(key, id, "stopped")
    async with busy_elsewhere(nestor, tenant, id):
        started = await nestor.call("POST", f"{path}/start", key, status=202)
        stopped = await nestor.call("POST", f"{path}/stop", key, status=202)
        assert stopped["desired"] == "stopped"
    assert (await operation_ends(nestor, key, stopped["operation"]))["state"] == "succeeded"
    assert (await operation_ends(nestor, key, started["operation"]))["state"] == "failed"
    assert (await nestor.call("GET", path, key, status=200))["phase"] == "stopped"
    assert nestor.engine.runtimes == {}


async def test_a_stop_does_not_take_a_delete_back(nestor: Nestor) -> None:
    tenant, key, id = await ready(nestor)
    async with busy_elsewhere(nestor, tenant, id):
        deleted = await nestor.call("DELETE", f"/api/v2/conversations/{id}", key, status=202)
        await nestor.call("POST", f"/api/v2/conversations/{id}/stop", key, status=410)
    assert (await operation_ends(nestor, key, deleted["operation"]))["state"] == "succeeded"
    await nestor.call("GET", f"/api/v2/conversations/{id}", key, status=410)


async def test_the_operation_of_a_start_ends_although_a_crash_came_after_its_commit(nestor: Nestor) -> None:
    tenant, key, id = await ready(nestor)
    store, now = nestor.house.store, datetime.now(UTC)
    operation = OperationId(new_uuid())
    async with busy_elsewhere(nestor, tenant, id):  # leave behind what such a crash leaves
        await store.operations.create(Operation(operation, tenant, id, "start", OperationState.RUNNING, (), now, now))
        record = await store.conversations.get(tenant, id)
        assert record is not None
        await store.conversations.request(replace(record, operation=operation), expected_version=record.version)
    assert (await operation_ends(nestor, key, operation))["state"] == "succeeded"


async def test_waiting_for_a_start_waits_although_the_last_one_failed(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    nestor.engine.script.fail("POST", "/api/settings", 400, times=1)
    failed = await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=20", key, json={}, status=200)
    assert failed["phase"] == "failed"
    path = f"/api/v2/conversations/{failed['id']}/start?wait=ready&timeout=20"
    assert (await nestor.call("POST", path, key, status=200))["phase"] == "ready"


async def test_whoever_waited_too_short_learns_what_to_watch(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    nestor.engine.script.hang("POST", "/api/settings", times=1)
    path = "/api/v2/conversations?wait=ready&timeout=0.3"
    problem = await nestor.call("POST", path, key, json={}, status=408)
    operation = await nestor.call("GET", f"/api/v2/operations/{problem['operation']}", key, status=200)
    assert operation["conversation"] == problem["conversation"]


async def test_an_undo_that_was_stuck_is_tried_again_after_a_failed_start(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    nestor.engine.script.fail("POST", "/api/settings", 400, times=1)
    nestor.engine.fail("remove_volume", DriverUnavailable("the engine is away"), times=1)
    record = await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=20", key, json={}, status=200)
    assert record["phase"] == "failed"
    assert record["stuck"] == [{"step": "volume", "problem": "the engine is away"}]
    with anyio.fail_after(20):
        while record["stuck"]:
            await anyio.sleep(0.05)
            record = await nestor.call("GET", f"/api/v2/conversations/{record['id']}", key, status=200)
    assert not nestor.engine.volumes


async def test_an_event_log_that_the_runtime_refuses_is_told_as_it_is_kept(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    path = "/api/v2/conversations?wait=ready&timeout=20"
    record = await nestor.call("POST", path, key, json={"initial_message": "hello"}, status=200)
    events = f"/api/v2/conversations/{record['id']}/events"
    before = await nestor.call("GET", events, key, status=200)
    nestor.engine.script.fail("GET", "/api/conversations/*/events/search", 500, times=None)
    assert (await nestor.call("GET", events, key, status=200)) == before
