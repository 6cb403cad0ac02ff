"""Who may do what: another tenant's things look exactly like things that do not exist."""

import anyio
import pytest
from support.orchestrators import OPERATOR_KEY, Nestor

pytestmark = pytest.mark.anyio
UNKNOWN = "00000000-0000-4000-8000-00000000dead"


def without_request_id(problem: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in problem.items() if name not in ("request_id", "instance")}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/v2/conversations/{id}", None),
        ("DELETE", "/api/v2/conversations/{id}", None),
        ("POST", "/api/v2/conversations/{id}/start", None),
        ("POST", "/api/v2/conversations/{id}/stop", None),
        ("POST", "/api/v2/conversations/{id}/upgrade", {}),
        ("POST", "/api/v2/conversations/{id}/messages", {"content": "x"}),
        ("GET", "/api/v2/conversations/{id}/events", None),
        ("GET", "/api/v2/operations/{operation}", None),
        ("GET", "/api/v2/tenants/{tenant}", None),
        ("GET", "/api/v2/tenants/{tenant}/users", None),
        ("POST", "/api/v2/tenants/{tenant}/api-keys", {"name": "x"}),
    ],
)
async def test_another_tenants_object_is_as_unknown(
    nestor: Nestor, method: str, path: str, body: dict[str, str] | None
) -> None:
    key = await nestor.ready_tenant("one")
    record = await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=20", key, json={}, status=200)
    own, stranger = await nestor.tenant("two")
    tenants = await nestor.call("GET", "/api/v2/tenants", status=200)
    foreign = next(item["id"] for item in tenants["items"] if item["id"] != own)
    names = {"id": record["id"], "operation": record["operation"], "tenant": foreign}
    theirs = await nestor.http.request(method, path.format(**names), headers=nestor.as_(stranger), json=body)
    unknown = path.format(id=UNKNOWN, operation=UNKNOWN, tenant=UNKNOWN)
    nobodys = await nestor.http.request(method, unknown, headers=nestor.as_(stranger), json=body)
    assert theirs.status_code == nobodys.status_code == 404
    assert without_request_id(theirs.json()) == without_request_id(nobodys.json())


async def test_keys_are_refused_in_the_same_words(nestor: Nestor) -> None:
    _, key = await nestor.tenant()
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
    answers = [
        await nestor.call("GET", "/api/v2/settings", text, status=401)
        for text in (wrong, "nst_tenant_" + "0" * 32 + "_" + "x" * 43, "nonsense", OPERATOR_KEY + "x")
    ]
    assert len({answer["detail"] for answer in answers}) == 1
    missing = await nestor.http.get("/api/v2/settings")
    assert missing.status_code == 401
    assert "Bearer" in missing.json()["hint"]


async def test_a_revoked_key_is_refused_at_once(nestor: Nestor) -> None:
    tenant, key = await nestor.tenant()
    await nestor.call("GET", "/api/v2/settings", key, status=200)
    (stored,) = (await nestor.call("GET", f"/api/v2/tenants/{tenant}/api-keys", status=200))["items"]
    await nestor.call("DELETE", f"/api/v2/tenants/{tenant}/api-keys/{stored['id']}", status=204)
    await nestor.call("GET", "/api/v2/settings", key, status=401)


async def test_a_user_sees_only_its_own_conversations(nestor: Nestor) -> None:
    tenant, key = await nestor.tenant()
    await nestor.call(
        "PATCH", "/api/v2/settings", key, json={"agent_settings": {"llm": {"model": "openai/x"}}}, status=200
    )
    keys = []
    for name in ("ann", "bob"):
        user = await nestor.call("POST", f"/api/v2/tenants/{tenant}/users", json={"name": name}, status=201)
        body = {"name": name, "user": user["id"]}
        keys.append((await nestor.call("POST", f"/api/v2/tenants/{tenant}/api-keys", json=body, status=201))["key"])
    ann, bob = keys
    record = await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=20", ann, json={}, status=200)
    await nestor.call("GET", f"/api/v2/conversations/{record['id']}", bob, status=404)
    assert (await nestor.call("GET", "/api/v2/conversations", bob, status=200))["items"] == []
    assert len((await nestor.call("GET", "/api/v2/conversations", key, status=200))["items"]) == 1


async def test_a_key_with_scopes_does_no_more(nestor: Nestor) -> None:
    tenant, _ = await nestor.tenant()
    body = {"name": "reader", "scopes": ["read"]}
    reader = (await nestor.call("POST", f"/api/v2/tenants/{tenant}/api-keys", json=body, status=201))["key"]
    await nestor.call("GET", "/api/v2/settings", reader, status=200)
    problem = await nestor.call("PATCH", "/api/v2/settings", reader, json={}, status=403)
    assert "write" in problem["detail"]
    more = await nestor.call("POST", f"/api/v2/tenants/{tenant}/api-keys", reader, json={"name": "more"}, status=403)
    assert more["code"] == "forbidden"


async def test_two_tenants_may_use_the_same_id_and_notice_nothing(nestor: Nestor) -> None:
    ours, theirs = await nestor.ready_tenant("one"), await nestor.ready_tenant("two")
    path = "/api/v2/conversations?wait=ready&timeout=20"
    first = await nestor.call("POST", path, ours, json={}, status=200)
    second = await nestor.call("POST", path, theirs, json={"id": first["id"]}, status=200)
    assert (first["phase"], second["phase"]) == ("ready", "ready")
    assert second["runtime"]["id"] != first["runtime"]["id"]
    deleted = await nestor.call("DELETE", f"/api/v2/conversations/{first['id']}?purge=true", theirs, status=202)
    with anyio.fail_after(10):
        while (await nestor.call("GET", f"/api/v2/operations/{deleted['operation']}", theirs))["state"] == "running":
            await anyio.sleep(0.02)
    await nestor.call("GET", f"/api/v2/conversations/{first['id']}", theirs, status=404)
    assert (await nestor.call("GET", f"/api/v2/conversations/{first['id']}", ours, status=200))["phase"] == "ready"
    assert len(nestor.engine.volumes) == 1
    assert len(nestor.engine.runtimes) == 1
