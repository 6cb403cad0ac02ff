"""A key that calls too often, over the API itself."""

from pathlib import Path

import pytest
from support.orchestrators import OPERATOR_KEY, Nestor, nestor_at

from orchestrator.drivers.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio
NOBODY = "00000000-0000-4000-8000-00000000dead"
POLLED = (
    ("/api/v2/conversations/{id}", 404),
    ("/api/v2/runtimes/{id}", 404),
    ("/api/v2/operations/{id}", 404),
    ("/api/v1/sandboxes?id={id}", 200),
    ("/api/v1/app-conversations/start-tasks?ids={id}", 200),
    ("/sessions/{id}", 404),
    ("/list", 200),
)


async def until_refused(nestor: Nestor, key: str) -> dict[str, str]:
    """Calls until one is refused, and what its head says; what it would have done was not done."""
    for number in range(60):
        body = {"value": f"v{number}"}
        answer = await nestor.http.put(f"/api/v2/secrets/S{number}", headers=nestor.as_(key), json=body)
        if answer.status_code == 429:
            problem = answer.json()
            told = {name: problem[name] for name in ("code", "rule", "limit", "retryable")}
            assert told == {"code": "limit_reached", "rule": "key.calls", "limit": 1, "retryable": True}
            assert "in a second" in problem["hint"]
            return {"name": f"S{number}", **answer.headers}
        assert answer.status_code < 300
    raise AssertionError("60 calls at once passed a limit of one in a second")


async def test_a_key_is_refused_and_polling_and_other_keys_are_not(data_dir: Path, engine: FakeEngine) -> None:
    async with nestor_at(data_dir, engine, calls_per_second_per_key=1) as nestor:
        tenant, key = await nestor.tenant()
        other = await nestor.call("POST", f"/api/v2/tenants/{tenant}/api-keys", json={"name": "other"}, status=201)
        head = await until_refused(nestor, key)
        assert head["retry-after"] == "1"
        assert (head["ratelimit-policy"], head["ratelimit"]) == ('"key.calls";q=1;w=1', '"key.calls";r=0;t=1')
        for _ in range(12):
            for path, status in POLLED:
                await nestor.call("GET", path.format(id=NOBODY), key, status=status)
        names = [
            one["name"] for one in (await nestor.call("GET", "/api/v2/secrets", other["key"], status=200))["items"]
        ]
        assert head["name"] not in names
        log = await nestor.call("GET", "/api/v2/audit", other["key"], status=200)
        assert not [entry for entry in log["items"] if entry["code"] == "limit_reached"]
        assert (
            "nestor_calls_refused_total" in (await nestor.http.get("/metrics", headers=nestor.as_(OPERATOR_KEY))).text
        )
