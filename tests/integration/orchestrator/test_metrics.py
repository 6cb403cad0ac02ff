"""What `/metrics` tells, and to whom."""

import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families
from support.orchestrators import MODEL, OPERATOR_KEY, Nestor, nestor_at

from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.telemetry import metrics, stalls

pytestmark = pytest.mark.anyio
Samples = dict[tuple[str, ...], float]


@pytest.fixture
async def nestor(data_dir: Path, engine: FakeEngine) -> AsyncIterator[Nestor]:
    async with nestor_at(data_dir, engine, tenant_max_runtimes=1) as running:
        yield running


async def scraped(nestor: Nestor) -> tuple[str, Samples]:
    """The text, and every sample by its name and the values of its labels in the order of their names."""
    response = await nestor.http.get("/metrics", headers=nestor.as_(OPERATOR_KEY))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain")
    samples: Samples = {}
    for family in text_string_to_metric_families(response.text):
        assert family.name.startswith(("nestor_", "process_", "python_")), family.name
        for sample in family.samples:
            samples[sample.name, *(value for _, value in sorted(sample.labels.items()))] = sample.value
    return response.text, samples


async def test_only_the_operator_is_told(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    assert (await nestor.http.get("/metrics")).status_code == 401
    assert (await nestor.http.get("/metrics", headers=nestor.as_(key))).status_code == 403


async def test_a_conversations_life_is_counted_and_nothing_names_it(nestor: Nestor) -> None:
    tenant, key = await nestor.tenant("Very Secret Inc")
    await nestor.call("PATCH", "/api/v2/settings", key, json=MODEL, status=200)
    _, before = await scraped(nestor)

    nestor.engine.script.fail("POST", "/api/settings", 500, times=1)
    failed = await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
    await nestor.until(key, failed["id"], "failed")
    body = {"initial_message": "hello", "title": "Plans", "secrets": {"TOKEN_NAME": "its-secret-value"}}
    ready = await nestor.call("POST", "/api/v2/conversations?wait=ready", key, json=body, status=200)
    await nestor.call("POST", f"/api/v2/conversations/{ready['id']}/messages", key, json={"content": "x"}, status=202)
    await nestor.call("POST", "/api/v2/conversations", key, json={}, status=429)
    with anyio.fail_after(10):
        while True:
            text, after = await scraped(nestor)
            if more(before, after, "nestor_deliveries_total", "message", "delivered"):
                break
            await anyio.sleep(0.02)

    assert more(before, after, "nestor_starts_total", "ready", "") == 1
    assert more(before, after, "nestor_starts_total", "failed", "config_rejected") == 1
    assert more(before, after, "nestor_start_seconds_count", "cold") == 1
    assert more(before, after, "nestor_start_step_seconds_count", "failed", "settings") == 1
    assert more(before, after, "nestor_start_step_seconds_count", "succeeded", "publish") == 1
    assert more(before, after, "nestor_runtime_call_seconds_count", "POST /api/init") == 2
    assert more(before, after, "nestor_runtime_call_seconds_count", "POST /api/conversations") >= 2  # and its message
    assert more(before, after, "nestor_admission_refused_total", "tenant.runtimes") == 1
    assert more(before, after, "nestor_tick_seconds_count", "workers") > 0
    assert (after["nestor_conversations", "ready"], after["nestor_conversations", "failed"]) == (1, 1)
    assert (after["nestor_tenants",], after["nestor_state_server_up",], after["nestor_queue_length",]) == (1, 1, 0)
    own = [tenant, key, ready["id"], ready["runtime"]["id"], ready["runtime"]["session_key"], ready["operation"]]
    for value in [*own, "Very Secret", "Plans", "TOKEN_NAME", "its-secret-value", "sk-model-key", OPERATOR_KEY]:
        assert value not in text

    for one in (failed, ready):
        await nestor.call("DELETE", f"/api/v2/conversations/{one['id']}?purge=true", key, status=202)
    with anyio.fail_after(10):
        while sum(value for name, value in (await scraped(nestor))[1].items() if name[0] == "nestor_conversations"):
            await anyio.sleep(0.05)


async def test_a_state_server_that_is_away_is_told_beside_what_the_process_knows(nestor: Nestor) -> None:
    await nestor.ready_tenant()
    _, before = await scraped(nestor)
    assert nestor.house.state_server is not None
    assert nestor.house.state_server.pid is not None
    os.kill(nestor.house.state_server.pid, signal.SIGKILL)
    with anyio.fail_after(10):
        while True:
            _, after = await scraped(nestor)
            if not after["nestor_state_server_up",]:
                break
            await anyio.sleep(0.02)
    assert ("nestor_tenants",) not in after
    assert more(before, after, "nestor_state_server_errors_total", "unreachable") >= 1


def more(before: Samples, after: Samples, *of: str) -> float:
    return after.get(of, 0) - before.get(of, 0)


async def test_a_loop_that_was_kept_busy_is_told() -> None:
    def late() -> tuple[float, float]:
        taken = {one.name: one.value for one in metrics.LOOP_LATE_SECONDS.collect()[0].samples if not one.labels}
        return taken["nestor_loop_late_seconds_count"], taken["nestor_loop_late_seconds_sum"]

    count, seconds = late()
    with structlog.testing.capture_logs() as logs:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stalls.watch)
            await anyio.sleep(0.05)
            time.sleep(1.5)  # noqa: ASYNC251 - what it is about
            with anyio.fail_after(30):
                while late()[0] == count:
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
    assert late()[1] - seconds > 1
    assert [one["event"] for one in logs] == ["loop.stalled"]
