"""What a key may not get by asking cleverly: another key's answers, a stronger key, or power over a runtime."""

import pytest
from support.orchestrators import MODEL, Nestor

pytestmark = pytest.mark.anyio
NAMED = {"name": "n"}


async def key_of(nestor: Nestor, tenant: str, **body: object) -> str:
    made = await nestor.call("POST", f"/api/v2/tenants/{tenant}/api-keys", json=NAMED | body, status=201)
    return str(made["key"])


async def user_of(nestor: Nestor, tenant: str) -> str:
    return str((await nestor.call("POST", f"/api/v2/tenants/{tenant}/users", json=NAMED, status=201))["id"])


async def test_an_answer_is_repeated_to_the_key_that_asked_alone(nestor: Nestor) -> None:
    tenant, key = await nestor.tenant()
    reader = await key_of(nestor, tenant, scopes=["read"])
    user = await key_of(nestor, tenant, user=await user_of(nestor, tenant))
    path, known = f"/api/v2/tenants/{tenant}/api-keys", {"Idempotency-Key": "k-1"}
    first = await nestor.call("POST", path, key, json=NAMED, headers=known, status=201)
    again = await nestor.call("POST", path, key, json=NAMED, headers=known, status=201)
    assert again["key"] == first["key"]
    assert "key" not in await nestor.call("POST", path, reader, json=NAMED, headers=known, status=403)
    assert "key" not in await nestor.call("POST", path, user, json=NAMED, headers=known, status=404)


async def test_an_answer_for_one_user_is_not_repeated_for_another(nestor: Nestor) -> None:
    tenant, key = await nestor.tenant()
    await nestor.call("PATCH", "/api/v2/settings", key, json=MODEL, status=200)
    ids = []
    for _ in range(2):
        headers = {"Idempotency-Key": "k-1", "X-Act-As-User": await user_of(nestor, tenant)}
        made = await nestor.call("POST", "/api/v2/conversations", key, json={}, headers=headers, status=202)
        assert made["user"] == headers["X-Act-As-User"]
        ids.append(made["id"])
    assert ids[0] != ids[1]


async def test_the_operator_speaks_for_a_tenant_by_its_name_and_nobody_else_does(nestor: Nestor) -> None:
    (one, key), (other, _) = await nestor.tenant(), await nestor.tenant("other")
    for_one, for_other = {"X-Act-As-Tenant": one}, {"X-Act-As-Tenant": other}
    await nestor.call("PATCH", "/api/v2/settings", json=MODEL, headers=for_one, status=200)
    same = {"Idempotency-Key": "k-1"}
    made = await nestor.call("POST", "/api/v2/conversations", json={}, headers=for_one | same, status=202)
    path = f"/api/v2/conversations/{made['id']}"
    await nestor.call("GET", path, key, status=200)
    await nestor.call("GET", path, headers=for_one, status=200)
    await nestor.call("GET", path, headers=for_other, status=404)
    await nestor.call("POST", "/api/v2/conversations", json={}, headers=for_other, status=422)  # no model
    await nestor.call("PATCH", "/api/v2/settings", json=MODEL, headers=for_other, status=200)
    theirs = await nestor.call("POST", "/api/v2/conversations", json={}, headers=for_other | same, status=202)
    assert theirs["id"] != made["id"], "another tenant's answer is not repeated"
    user = await user_of(nestor, one)
    acting = for_one | {"X-Act-As-User": user}
    assert (await nestor.call("POST", "/api/v2/runtimes", json={}, headers=acting, status=202))["user"] == user
    await nestor.call("POST", "/api/v2/runtimes", json={}, headers=acting | for_other, status=422)
    for named, status in (("00000000-0000-4000-8000-00000000000f", 422), ("nonsense", 422)):
        await nestor.call("GET", path, headers={"X-Act-As-Tenant": named}, status=status)
    await nestor.call("GET", path, status=403)
    for mine in (key, await key_of(nestor, one, user=user)):
        for named in (for_one, for_other):
            await nestor.call("GET", "/api/v2/conversations", mine, headers=named, status=403)
    await nestor.call("GET", "/api/conversations", headers=for_one, status=403)  # older surfaces know no such header
    told = (await nestor.call("GET", "/api/v2/audit", headers=for_one, status=200))["items"]
    assert told == (await nestor.call("GET", "/api/v2/audit", key, status=200))["items"]
    [entry] = [item for item in told if item["object"]["id"] == made["id"]]
    assert (entry["actor"]["kind"], entry["outcome"]) == ("operator", "accepted")


async def test_reading_does_not_give_power_over_a_runtime(nestor: Nestor) -> None:
    tenant, key = await nestor.tenant()
    await nestor.call("PATCH", "/api/v2/settings", key, json=MODEL, status=200)
    record = await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=20", key, json={}, status=200)
    path = f"/api/v2/conversations/{record['id']}"
    reader = await key_of(nestor, tenant, scopes=["read"])
    assert (await nestor.call("GET", path, key, status=200))["runtime"]["session_key"]
    assert (await nestor.call("GET", path, reader, status=200))["runtime"]["session_key"] is None


async def test_a_key_that_ends_makes_no_key_that_lasts(nestor: Nestor) -> None:
    tenant, _ = await nestor.tenant()
    ending = await key_of(nestor, tenant, expires_at="2900-01-01T00:00:00Z")
    path = f"/api/v2/tenants/{tenant}/api-keys"
    for body in ({}, {"expires_at": "2950-01-01T00:00:00Z"}):
        made = await nestor.call("POST", path, ending, json=NAMED | body, status=201)
        assert made["expires_at"].startswith("2900-01-01")
    sooner = await nestor.call("POST", path, ending, json=NAMED | {"expires_at": "2800-01-01T00:00:00Z"}, status=201)
    assert sooner["expires_at"].startswith("2800-01-01")


async def test_what_is_secret_by_its_name_is_never_shown_again(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    planted = {
        "llm": {
            "aws_access_key_id": "planted-1",
            "aws_secret_access_key": "planted-2",
            "litellm_extra_body": {"client_secret": "planted-3"},
            "aws_session_token": "planted-4",
            "extra_headers": {"X": {"y": "planted-5"}},
        },
        "mcp_config": {"mcpServers": {"x": {"env": ["T=planted-6"], "headers": {"Authorization": "planted-7"}}}},
    }
    shown = await nestor.call("PATCH", "/api/v2/settings", key, json={"agent_settings": planted}, status=200)
    assert "planted" not in str(shown)
    agent = {name: shown["agent_settings"][name] for name in planted}
    await nestor.call("PATCH", "/api/v2/settings", key, json={"agent_settings": agent}, status=200)
    await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=20", key, json={}, status=200)
    pushed = str([body for path, body in nestor.engine.script.posts() if path == "/api/settings"]) + str(
        [one.body for one in nestor.engine.script.received if one.method == "PATCH"]
    )
    assert all(f"planted-{number}" in pushed for number in range(1, 8)), "what was shown and sent back changed nothing"


async def test_a_repository_is_no_place_for_credentials(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    body = {"repository": "https://someone:planted@git.example.org/acme/app"}
    problem = await nestor.call("POST", "/api/v2/conversations", key, json=body, status=422)
    assert "git-providers" in problem["hint"]
    assert "planted" not in str(problem)


async def test_an_older_record_is_shown_without_the_secrets_of_its_servers(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    body = {"llm_model": "openai/x", "mcp_config": {"x": {"env": {"T": "planted"}, "url": "http://127.0.0.1:9"}}}
    await nestor.call("POST", "/api/settings", key, json=body, status=200)
    shown = await nestor.call("GET", "/api/settings", key, status=200)
    assert shown["mcp_config"]["x"] == {"env": {"T": "**********"}, "url": "http://127.0.0.1:9"}
