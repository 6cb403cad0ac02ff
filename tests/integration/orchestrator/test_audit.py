"""The audit log by the API: one entry for each request that may change something, whatever became of it."""

import re
from collections.abc import Mapping
from typing import Any

import anyio
import pytest
from support.orchestrators import MODEL, OPERATOR_KEY, Nestor
from support.receivers import webhook_receiver

from orchestrator.domain.errors import StoreUnavailable
from orchestrator.domain.ids import new_uuid
from orchestrator.state.audit_log import RedisAuditLog

from .test_empty_state_server import empty, rebuilt

pytestmark = pytest.mark.anyio
CANARIES = ("canary-secret-0001", "canary-token-0002", "canary-model-0003", "canary-variable-0004", "canary-words-0005")


async def entries(nestor: Nestor, sender: str, **query: Any) -> list[dict[str, Any]]:
    found = await nestor.call("GET", "/api/v2/audit", sender, params=query, status=200)
    items: list[dict[str, Any]] = found["items"]
    return items


def bodies(ids: Mapping[str, str]) -> dict[str, Any]:
    """What is sent to each unsafe call of the document."""
    secret, token, model, variable, words = CANARIES
    return {
        "POST /api/v2/tenants": {"name": "another"},
        "PATCH /api/v2/tenants/{tenant}": {"limits": {"max_runtimes": 50}},
        "POST /api/v2/tenants/{tenant}/users": {"name": "bob"},
        "POST /api/v2/tenants/{tenant}/api-keys": {"name": "more"},
        "PATCH /api/v2/settings": {"agent_settings": {"llm": {"model": "openai/scripted", "api_key": model}}},
        "PUT /api/v2/secrets/{name}": {"value": secret},
        "PUT /api/v2/git-providers/{provider}": {"token": token},
        "POST /api/v2/conversations": {"secrets": {"OWN": secret}, "initial_message": words},
        "POST /api/v2/conversations/{conversation}/messages": {"content": words},
        "POST /api/v2/conversations/{conversation}/links": {"port": 3000},
        "POST /api/v2/runtimes": {"name": "box", "environment": {"OWN": variable}},
        "POST /api/v2/runtimes/{runtime}/links": {"port": 3000},
        "POST /api/v2/webhooks": {"url": ids["url"]},
        "PATCH /api/v2/webhooks/{webhook}": {"description": "ours"},
    }


async def test_each_call_that_may_change_something_leaves_exactly_one_entry(nestor: Nestor) -> None:
    tenant, key = await nestor.tenant()
    await nestor.call("PATCH", "/api/v2/settings", key, json=MODEL, status=200)
    user = await nestor.call("POST", f"/api/v2/tenants/{tenant}/users", json={"name": "ann"}, status=201)
    spare = await nestor.call("POST", f"/api/v2/tenants/{tenant}/api-keys", json={"name": "s"}, status=201)
    record = await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
    box = await nestor.call("POST", "/api/v2/runtimes", key, json={}, status=202)
    await nestor.until(key, record["id"], "ready")
    with webhook_receiver() as receiver:
        ids = {"tenant": tenant, "user": user["id"], "key": spare["id"], "conversation": record["id"]}
        ids |= {"runtime": box["id"], "name": "NAME", "provider": "github", "path": "a/b.txt", "url": receiver.url}
        ids |= dict.fromkeys(("webhook", "delivery", "link", "snapshot"), user["id"])  # of none that is there
        document = (await nestor.http.get("/openapi.json")).json()
        calls = [
            (method.upper(), path)
            for path, operations in document["paths"].items()
            for method in operations
            if path.startswith("/api/v2/") and method not in ("get", "head")
        ]
        # what ends something last, so that the others find it
        calls.sort(key=lambda call: (call[0] == "DELETE", call[1].endswith(("/stop", "/undelete", "/upgrade")), call))
        sent = bodies(ids)
        seen: dict[str, dict[str, Any]] = {}
        for method, path in calls:
            operators = path.startswith("/api/v2/tenants") and path.count("/") < 5
            sender = OPERATOR_KEY if operators else key
            answer = await nestor.http.request(
                method,
                re.sub(r"\{(\w+)\}", lambda found: ids[found[1]], path),
                headers=nestor.as_(sender) | {"X-Request-ID": f"call-{len(seen)}"},
                json=sent.get(f"{method} {path}"),
            )
            logs = [*await entries(nestor, key), *await entries(nestor, OPERATOR_KEY)]
            if path == "/api/v2/tenants":
                logs += await entries(nestor, OPERATOR_KEY, tenant=answer.json()["id"])
            [entry] = [one for one in logs if one["request_id"] == f"call-{len(seen)}"]
            outcome = "accepted" if answer.status_code < 400 else "refused" if answer.status_code < 500 else "failed"
            assert entry["outcome"] == outcome, (path, answer.text)
            assert entry["code"] == (None if answer.status_code < 400 else answer.json()["code"])
            assert (entry["verb"], entry["actor"]["kind"]) == (method, "operator" if operators else "tenant")
            assert entry["resource"] == answer.request.url.path
            seen[f"{method} {path}"] = entry
    assert set(sent) <= set(seen)
    assert seen["PUT /api/v2/secrets/{name}"]["object"] == {"kind": "secret", "id": "NAME", "user": None}
    assert seen["PATCH /api/v2/settings"]["object"] == {"kind": "settings", "id": None, "user": None}
    assert seen["POST /api/v2/conversations/{conversation}/links"]["object"]["id"] == record["id"]
    assert seen["POST /api/v2/runtimes/{runtime}/links"]["object"]["id"] == box["id"]
    assert seen["DELETE /api/v2/tenants/{tenant}/api-keys/{key}"]["object"]["id"] == spare["id"]
    told = str([await entries(nestor, key), await entries(nestor, OPERATOR_KEY)])
    assert not any(canary in told for canary in CANARIES)


async def test_what_is_refused_is_told_and_what_changes_nothing_again_is_not(nestor: Nestor) -> None:
    tenant, key = await nestor.tenant()
    _, other = await nestor.tenant("globex")
    path = f"/api/v2/tenants/{tenant}/api-keys"
    reader = await nestor.call("POST", path, json={"name": "r", "scopes": ["read"]}, status=201)
    before = {entry["id"] for entry in await entries(nestor, key)}
    secret = {"json": {"value": "canary-value"}}
    await nestor.call("PUT", "/api/v2/secrets/A", reader["key"], status=403, **secret)
    await nestor.call("PUT", "/api/v2/secrets/a-b", key, status=422, **secret)
    await nestor.call("PATCH", "/api/v2/settings", key, json={}, headers={"If-Match": '"77"'}, status=412)
    await nestor.call("DELETE", "/api/v2/secrets/NONE", key, status=404)
    await nestor.call("PUT", "/api/v2/secrets/A", key + "x", status=401, **secret)
    once = {"Idempotency-Key": "k-1"}
    for _ in range(2):
        await nestor.call("PUT", "/api/v2/secrets/A", key, headers=once, status=200, **secret)
    await nestor.call("PATCH", "/api/v2/settings", key, json=MODEL, status=200)
    await nestor.call("POST", "/api/v2/conversations", key, json={}, params={"dry_run": True}, status=200)
    new = [entry for entry in await entries(nestor, key) if entry["id"] not in before]
    assert [(entry["outcome"], entry["code"]) for entry in reversed(new)] == [
        ("refused", "forbidden"),
        ("refused", "invalid_request"),
        ("refused", "precondition_failed"),
        ("refused", "not_found"),
        ("accepted", None),
        ("accepted", None),
    ]
    assert new[-1]["actor"] == {
        "kind": "tenant", "key": reader["id"], "user": None, "runtime": None, "subject": None,
    }  # fmt: skip
    assert "canary" not in str(new)
    assert all(entry["resource"].startswith("/api/v2/tenants") for entry in await entries(nestor, other))


async def test_who_sees_what_and_filters(nestor: Nestor) -> None:
    tenant, key = await nestor.tenant()
    _, other = await nestor.tenant("globex")
    ann = await nestor.call("POST", f"/api/v2/tenants/{tenant}/users", json={"name": "ann"}, status=201)
    own = await nestor.call(
        "POST", f"/api/v2/tenants/{tenant}/api-keys", json={"name": "u", "user": ann["id"]}, status=201
    )
    value = {"json": {"value": "v-1"}}
    await nestor.call("PUT", "/api/v2/secrets/A", key, status=200, **value)
    await nestor.call("PUT", "/api/v2/secrets/B", own["key"], status=200, **value)
    await nestor.call("PUT", "/api/v2/secrets/C", key, headers={"X-Act-As-User": ann["id"]}, status=200, **value)
    names = [entry["object"]["id"] for entry in await entries(nestor, own["key"])]
    assert names == ["C", "B"]
    assert [entry["object"]["id"] for entry in await entries(nestor, key, user__eq=ann["id"])] == ["C", "B"]
    assert [entry["object"]["id"] for entry in await entries(nestor, key, object_id__eq="A")] == ["A"]
    assert [entry["object"]["id"] for entry in await entries(nestor, key, key__eq=own["id"])] == ["B"]
    assert [entry["actor"]["kind"] for entry in await entries(nestor, key, verb__eq="post")] == ["operator"] * 4
    assert await entries(nestor, key, outcome__eq="refused") == []
    whole = await entries(nestor, OPERATOR_KEY, tenant=tenant)
    assert whole == await entries(nestor, key)
    paged, page_id = [], None
    while True:
        query = {"limit": 2} | ({"page_id": page_id} if page_id else {})
        page = await nestor.call("GET", "/api/v2/audit", key, params=query, status=200)
        paged, page_id = paged + page["items"], page["next_page_id"]
        if page_id is None:
            break
    assert paged == whole
    asked = {"ids": [whole[3]["id"], ann["id"], whole[0]["id"].replace("-", "")]}
    batch = await nestor.call("GET", "/api/v2/audit", key, params=asked, status=200)
    assert batch == {"items": [whole[3], None, whole[0]], "next_page_id": None}
    about = [one["id"] for one in await entries(nestor, own["key"])]
    seen = await nestor.call("GET", "/api/v2/audit", own["key"], params={"ids": [whole[-1]["id"], *about]}, status=200)
    assert [one and one["id"] for one in seen["items"]] == [None, *about]
    assert (await nestor.call("GET", "/api/v2/audit", other, params=asked, status=200))["items"] == [None] * 3
    await nestor.call("GET", "/api/v2/audit", key, params={**asked, "verb__eq": "put"}, status=422)
    operators = await nestor.call("GET", "/api/v2/audit", params={**asked, "tenant": tenant}, status=200)
    assert operators == batch
    counted = await nestor.call("GET", "/api/v2/audit/count", key, params={"verb__eq": "put"}, status=200)
    assert counted == {"count": 3, "next_page_id": None}
    middle = whole[2]["at"]
    assert await entries(nestor, key, at__gte=middle) + await entries(nestor, key, at__lt=middle) == whole
    await nestor.call("GET", "/api/v2/audit", own["key"], params={"user__eq": tenant}, status=403)
    await nestor.call("GET", "/api/v2/audit", key, params={"tenant": ann["id"]}, status=403)
    await nestor.call("GET", "/api/v2/audit", OPERATOR_KEY, params={"tenant": ann["id"]}, status=404)
    assert all(entry["resource"].startswith("/api/v2/tenants") for entry in await entries(nestor, other))


async def test_an_entry_does_not_hang_on_the_end_of_its_request(
    nestor: Nestor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that dies after the change has left the entry with it. What the state server does not know of is not
    begun without one."""
    key = await nestor.ready_tenant()
    record = await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
    await nestor.until(key, record["id"], "ready")

    async def away(*_args: object, **_more: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(RedisAuditLog, "put", away)
    await nestor.call("PUT", "/api/v2/secrets/A", key, json={"value": "v"}, status=200)
    await nestor.call("POST", f"/api/v2/conversations/{record['id']}/pause", key, status=202)
    await nestor.call("PUT", f"/api/v2/conversations/{record['id']}/files/a", key, content=b"x", status=503)
    await nestor.call("POST", f"/api/v2/conversations/{record['id']}/snapshots", key, status=503)
    await nestor.call("DELETE", f"/api/v2/conversations/{record['id']}/snapshots/{new_uuid()}", key, status=503)
    told = [(entry["resource"].rpartition("/")[2], entry["outcome"]) for entry in await entries(nestor, key)]
    assert told[:2] == [("pause", "accepted"), ("A", "accepted")]
    resources = [entry["resource"] for entry in await entries(nestor, key)]
    assert not [one for one in resources if "/files/" in one or "/snapshots" in one]


async def test_it_is_there_again_when_the_state_server_comes_back_empty(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    await nestor.call("PUT", "/api/v2/secrets/A", key, json={"value": "v"}, status=200)
    await nestor.call("PUT", "/api/v2/secrets/a-b", key, json={"value": "v"}, status=422)
    whole = await entries(nestor, key)
    assert len(whole) == 5
    with anyio.fail_after(30):
        while await nestor.house.shipper.tick():
            pass
    await empty(nestor)
    await rebuilt(nestor)
    assert await entries(nestor, key) == whole


async def test_a_secret_that_a_sandbox_reads_is_told_first(nestor: Nestor, monkeypatch: pytest.MonkeyPatch) -> None:
    key = await nestor.ready_tenant()
    await nestor.call("PUT", "/api/v2/secrets/A", key, json={"value": "canary-value"}, status=200)
    sandbox = await nestor.call("POST", "/api/v2/runtimes", key, json={}, params={"wait": "ready"}, status=200)
    headers = {"X-Session-API-Key": sandbox["session_key"]}
    path = f"/api/v1/sandboxes/{sandbox['id']}/settings/secrets"
    assert (await nestor.http.get(f"{path}/A", headers=headers)).text == "canary-value"
    assert (await nestor.http.get(f"{path}/NONE", headers=headers)).status_code == 404
    assert (await nestor.http.get(f"{path}/A", headers={"X-Session-API-Key": "x"})).status_code == 401
    asked = {"Authorization": f"Bearer {key}", **headers}
    assert (await nestor.http.get("/api/v1/users/me?expose_secrets=true", headers=asked)).status_code == 200
    assert (await nestor.http.get("/api/v1/users/me", headers=nestor.as_(key))).status_code == 200  # shows marks
    found = await entries(nestor, key, verb__eq="GET")
    told = [(entry["resource"].rpartition("/")[2], entry["actor"]["kind"], entry["outcome"]) for entry in found]
    assert told == [("me", "tenant", "accepted"), ("NONE", "runtime", "refused"), ("A", "runtime", "accepted")]
    assert found[-1]["actor"]["runtime"] == sandbox["id"]
    assert "canary" not in str(found)

    async def away(*_args: object, **_more: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(RedisAuditLog, "put", away)
    silent = await nestor.http.get(f"{path}/A", headers=headers)
    assert silent.status_code == 503
    assert "canary" not in silent.text


async def test_a_dry_run_of_what_has_none_hides_nothing(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    await nestor.call("POST", "/api/v2/conversations?dry_run=true", key, json={}, status=200)
    assert [one for one in await entries(nestor, key) if one["resource"] == "/api/v2/conversations"] == []
    record = await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
    await nestor.until(key, record["id"], "ready")
    native = f"/api/v2/conversations/{record['id']}"
    refused = await nestor.http.delete(f"{native}?dry_run=true", headers=nestor.as_(key))
    assert refused.status_code == 422, refused.text
    older = f"/api/conversations/{record['id']}"
    done = await nestor.http.delete(f"{older}?dry_run=true", headers=nestor.as_(key))
    assert done.status_code == 200, done.text
    told = [(one["verb"], one["outcome"]) for one in await entries(nestor, key) if one["resource"] == older]
    assert told == [("DELETE", "accepted")]
