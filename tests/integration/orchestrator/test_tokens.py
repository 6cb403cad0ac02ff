"""Tokens (JWT) in the place of API keys: a real key set on loopback, two tenants, and whom a token speaks for."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from support.issuer import AUDIENCE, ISSUER, KeySetServer, Signer, claims, key_set_server
from support.orchestrators import MODEL, Nestor, nestor_at

from orchestrator.app import tokens as place_of_keys
from orchestrator.app.claims import Claims
from orchestrator.app.doctor import tokens as doctor
from orchestrator.app.doctor.finding import Level
from orchestrator.app.tokens import MAXIMUM_BYTES
from orchestrator.domain.errors import Misconfigured, Unauthenticated
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.proxy import answers
from orchestrator.proxy.admission import Refused
from orchestrator.proxy.single_origin import Claim, Place
from orchestrator.security import token_keys
from orchestrator.settings import OrchestratorSettings

pytestmark = pytest.mark.anyio
SIGNER = Signer()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no outage."""
    monkeypatch.setattr(place_of_keys, "FETCH_SECONDS", 30.0)


@pytest.fixture
def server() -> Iterator[KeySetServer]:
    with key_set_server() as running:
        running.publish(SIGNER.jwk())
        yield running


def trusting(place: str, **more: Any) -> dict[str, Any]:
    return {"jwt_keys": place, "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, **more}


@pytest.fixture
async def nestor(data_dir: Path, engine: FakeEngine, server: KeySetServer) -> AsyncIterator[Nestor]:
    async with nestor_at(data_dir, engine, **trusting(server.url)) as running:
        yield running


def token(tenant: str, **more: Any) -> str:
    return SIGNER.sign(claims(tenant=tenant, **more))


async def user_of(nestor: Nestor, tenant: str, name: str) -> str:
    body = {"name": name, "external_id": name}
    made = await nestor.call("POST", f"/api/v2/tenants/{tenant}/users", json=body, status=201)
    return str(made["id"])


async def test_a_token_is_a_user_of_its_tenant_and_of_no_other(nestor: Nestor) -> None:
    (acme, acme_key), (other, other_key) = await nestor.tenant(), await nestor.tenant("other")
    ann, bob = await user_of(nestor, acme, "ann"), await user_of(nestor, acme, "bob")
    await user_of(nestor, other, "ann")
    await nestor.call("PATCH", "/api/v2/settings", acme_key, json=MODEL, status=200)
    made = await nestor.call("POST", "/api/v2/conversations", token(acme), json={}, status=202)
    await nestor.until(token(acme), made["id"], "ready")

    path = f"/api/v2/conversations/{made['id']}"
    await nestor.call("GET", path, token(acme, sub=ann), status=200)  # by the user's own id
    for stranger in (token(other), other_key, token(acme, sub="bob"), token(acme, sub=bob)):
        await nestor.call("GET", path, stranger, status=404)
        assert (await nestor.call("GET", "/api/v2/conversations", stranger, status=200))["items"] == []
        await nestor.call("DELETE", path, stranger, status=404)
    # as a user's key: neither the operator's calls, nor the tenant's, nor another user's things
    for method, place in (("GET", "/api/v2/tenants"), ("POST", "/api/v2/tenants"), ("GET", "/metrics")):
        answer = await nestor.http.request(method, place, headers=nestor.as_(token(acme)), json={"name": "x"})
        assert answer.status_code == 403, answer.text
    await nestor.call("POST", f"/api/v2/tenants/{acme}/api-keys", token(acme), json={"name": "x"}, status=404)
    acting = {"X-Act-As-User": bob}
    await nestor.call("GET", "/api/v2/conversations", token(acme), headers=acting, status=403)


async def test_who_is_not_there_is_refused_on_every_surface(nestor: Nestor) -> None:
    acme, _ = await nestor.tenant()
    await user_of(nestor, acme, "ann")
    nobodys = "7b1c5c6e-9a3b-4a43-8b0f-3a5d0e6f1c2d"
    refused = [
        token(nobodys), token("acme"), token(None), token(""), token(acme, sub="eve"), token(acme, sub="x" * 201),
        token(acme, sub="ann\n"), token(acme, sub="\ud800"), token(acme, sub=["ann"]), token(acme, aud="x"),
        SIGNER.sign(claims(tenant=[acme])), Signer().sign(claims(tenant=acme)),
    ]  # fmt: skip
    for text in refused:
        found = await nestor.call("GET", "/api/v2/conversations", text, status=401)
        assert found["code"] == "unauthenticated"
        assert text not in json.dumps(found)
    for place in ("/api/settings", "/api/v1/users/me", "/list", "/api/v2/audit"):
        assert (await nestor.http.get(place, headers=nestor.as_(refused[-1]))).status_code == 401
        assert (await nestor.http.get(place, headers=nestor.as_(token(acme)))).status_code in (200, 404)


async def test_scopes_are_those_that_it_names(nestor: Nestor) -> None:
    acme, _ = await nestor.tenant()
    await user_of(nestor, acme, "ann")
    change = {"json": {"conversation_settings": {"max_iterations": 5}}}
    for scope in ("openid read", ["read", 7, None], "read nestor:write"):
        await nestor.call("GET", "/api/v2/conversations", token(acme, scope=scope), status=200)
        await nestor.call("PATCH", "/api/v2/settings", token(acme, scope=scope), **change, status=403)
    for scope in ("", "openid", "op", {"read": 1}, 7):
        await nestor.call("GET", "/api/v2/conversations", token(acme, scope=scope), status=403)
    await nestor.call("PATCH", "/api/v2/settings", token(acme, scope="write"), **change, status=200)
    await nestor.call("PATCH", "/api/v2/settings", token(acme), **change, status=200)  # without the claim
    services = nestor.house.services
    assert "secrets:reveal" not in (await services.tenancy.authenticate(token(acme))).scopes
    assert "secrets:reveal" in (await services.tenancy.authenticate(token(acme, scope="secrets:reveal"))).scopes


async def test_the_audit_log_names_the_subject(nestor: Nestor) -> None:
    acme, key = await nestor.tenant()
    ann = await user_of(nestor, acme, "ann")
    await nestor.call("PUT", "/api/v2/secrets/A", token(acme), json={"value": "v"}, status=200)
    await nestor.call("PUT", "/api/v2/secrets/A", token(acme, scope="read"), json={"value": "v"}, status=403)
    await nestor.call("PUT", "/api/v2/secrets/A", key, json={"value": "v"}, status=200)
    by_key, refused, done, *_ = (await nestor.call("GET", "/api/v2/audit", key, status=200))["items"]
    for entry, outcome in ((refused, "refused"), (done, "accepted")):
        assert entry["outcome"] == outcome
        assert entry["actor"] | {"key": None} == {
            "kind": "user", "key": None, "user": ann, "runtime": None, "subject": "ann",
        }  # fmt: skip
    assert refused["actor"] == done["actor"]
    assert by_key["actor"]["subject"] is None


async def test_rates_and_idempotency_are_a_subjects(data_dir: Path, engine: FakeEngine, server: KeySetServer) -> None:
    chosen = trusting(server.url, jwt_makes_users=True, calls_per_second_per_key=1, tenant_calls_per_second=0)
    async with nestor_at(data_dir, engine, **chosen) as nestor:
        acme, _ = await nestor.tenant()
        body, once = {"name": "box"}, {"Idempotency-Key": "one"}
        first = await nestor.call("POST", "/api/v2/runtimes", token(acme, jti="1"), json=body, headers=once, status=202)
        again = await nestor.call("POST", "/api/v2/runtimes", token(acme, jti="2"), json=body, headers=once, status=202)
        assert first["id"] == again["id"]
        statuses: list[int] = []
        while 429 not in statuses:  # another token of the same subject has no allowance of its own
            sent = nestor.as_(token(acme, jti=str(len(statuses))))
            statuses.append((await nestor.http.get("/api/v2/conversations", headers=sent)).status_code)
            assert len(statuses) < 2000
        await nestor.call("GET", "/api/v2/conversations", token(acme, sub="bob"), status=200)


async def test_users_are_made_on_first_sight_where_that_is_chosen(
    data_dir: Path, engine: FakeEngine, server: KeySetServer
) -> None:
    async with nestor_at(data_dir, engine, **trusting(server.url, jwt_makes_users=True)) as nestor:
        acme, key = await nestor.tenant()
        for _ in range(2):
            await nestor.call("PUT", "/api/v2/secrets/A", token(acme, sub="new"), json={"value": "v"}, status=200)
        users = (await nestor.call("GET", f"/api/v2/tenants/{acme}/users", key, status=200))["items"]
        assert [user["external_id"] for user in users] == ["new"]
        log = (await nestor.call("GET", "/api/v2/audit", key, status=200))["items"]
        assert [entry["object"]["kind"] for entry in log if entry["actor"]["subject"] == "new"] == ["secret"] * 2
        await nestor.call("GET", "/api/v2/conversations", token("00000000-0000-4000-8000-000000000009"), status=401)


async def test_without_a_claim_for_users_it_is_the_tenant(
    data_dir: Path, engine: FakeEngine, server: KeySetServer
) -> None:
    chosen = trusting(server.url, jwt_user_claim="", jwt_tenant_claim="https://acme.example/tenant")
    async with nestor_at(data_dir, engine, **chosen) as nestor:
        (acme, _), (other, _) = await nestor.tenant(), await nestor.tenant("other")
        sent = SIGNER.sign(claims(sub="backend") | {"https://acme.example/tenant": acme})
        made = await nestor.call("POST", f"/api/v2/tenants/{acme}/users", sent, json={"name": "u"}, status=201)
        await nestor.call("GET", "/api/v2/conversations", sent, headers={"X-Act-As-User": made["id"]}, status=200)
        await nestor.call("GET", f"/api/v2/tenants/{other}", sent, status=404)
        await nestor.call("POST", "/api/v2/tenants", sent, json={"name": "more"}, status=403)
        body = {"name": "k", "scopes": ["read", "secrets:reveal"], "expires_at": "2099-01-01T00:00:00Z"}
        key = await nestor.call("POST", f"/api/v2/tenants/{acme}/api-keys", sent, json=body, status=201)
        assert key["scopes"] == ["read"]  # no more than the token may, and no longer
        assert key["expires_at"] < "2099"


async def test_a_rotation_and_an_outage_of_the_issuer(
    nestor: Nestor, server: KeySetServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_keys, "BETWEEN_SECONDS", 0.0)
    monkeypatch.setattr(token_keys, "BETWEEN_WITHOUT_SECONDS", 0.0)
    acme, key = await nestor.tenant()
    await user_of(nestor, acme, "ann")
    server.status = 500
    found = await nestor.call("GET", "/api/v2/conversations", token(acme), status=503)
    assert found["code"] == "token_keys_unavailable"
    await nestor.call("GET", "/api/v2/conversations", key, status=200)  # API keys go on
    server.status = 200
    await nestor.call("GET", "/api/v2/conversations", token(acme), status=200)
    server.status, renewed = 500, Signer("P-256", "second")
    by_new_key = renewed.sign(claims(tenant=acme))
    await nestor.call("GET", "/api/v2/conversations", by_new_key, status=401)
    await nestor.call("GET", "/api/v2/conversations", token(acme), status=200)
    server.status = 200
    server.publish(renewed.jwk())
    await nestor.call("GET", "/api/v2/conversations", by_new_key, status=200)
    await nestor.call("GET", "/api/v2/conversations", token(acme), status=401)


async def test_an_agent_servers_client_may_send_one_and_is_shut_out_with_its_key(
    nestor: Nestor, server: KeySetServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_keys, "BETWEEN_SECONDS", 0.0)
    monkeypatch.setattr(token_keys, "BETWEEN_WITHOUT_SECONDS", 0.0)
    (acme, acme_key), (other, _) = await nestor.tenant(), await nestor.tenant("other")
    for tenant in (acme, other):
        await user_of(nestor, tenant, "ann")
    await nestor.call("PATCH", "/api/v2/settings", acme_key, json=MODEL, status=200)
    made = await nestor.call("POST", "/api/v2/conversations", token(acme), json={}, status=202)
    made = await nestor.until(token(acme), made["id"], "ready")
    place, now = Place(made["id"]), Claims(nestor.house.services)
    theirs = Claim(token(acme).encode(), place)
    assert await now.look(theirs) == made["runtime"]["id"]
    assert await now.look(Claim(token(other).encode(), place)) is None
    server.publish()
    with pytest.raises(Unauthenticated):  # of another key: the set is fetched, and has none now
        await nestor.house.services.tenancy.authenticate(Signer(id="other").sign(claims(tenant=acme)))
    with pytest.raises(Refused) as refused:
        await now.look(theirs)
    assert refused.value.refusal is answers.UNAUTHORIZED


def settings(data_dir: Path, **more: Any) -> OrchestratorSettings:
    return OrchestratorSettings(data_dir=data_dir, driver="fake", **more)


async def found_by_doctor(chosen: OrchestratorSettings) -> tuple[Level, str]:
    async with AsyncExitStack() as stack:
        (finding,) = await doctor.look(chosen, stack)
        return finding.level, finding.message


async def test_the_doctor_looks_at_the_keys(data_dir: Path, server: KeySetServer) -> None:
    chosen = settings(data_dir, **trusting(server.url))
    server.publish(SIGNER.jwk(), {"kty": "oct", "k": "x"})
    assert await found_by_doctor(chosen) == (Level.OK, "1 can verify tokens; 1 others are not for that")
    server.publish({"kty": "oct", "k": "x"})
    assert (await found_by_doctor(chosen))[0] is Level.FAILURE
    server.publish(Signer(id=None).jwk(), SIGNER.jwk())
    assert (await found_by_doctor(chosen))[0] is Level.WARNING
    for server.status, server.body in ((200, b"<html>"), (200, b" " * (MAXIMUM_BYTES + 1)), (404, b""), (302, b"")):
        assert (await found_by_doctor(chosen))[0] is Level.FAILURE
    async with AsyncExitStack() as stack:
        assert await doctor.look(settings(data_dir), stack) == []


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("http://login.example.org/jwks", "https"), ("ftp://login.example.org/jwks", "https"),
        ("http://10.0.0.1/jwks", "https"), ("https://user:word@login.example.org/", "credentials"),
        ("/nowhere/jwks.json", "cannot be read"), ("EMPTY", "no key"), ("WRONG", "no key set"),
    ],
)  # fmt: skip
async def test_a_place_that_cannot_be_trusted_is_refused_at_the_start(data_dir: Path, place: str, said: str) -> None:
    for name, text in (("EMPTY", '{"keys": []}'), ("WRONG", "<html>")):
        (data_dir / name).write_text(text)
    named = str(data_dir / place) if place.isupper() else place
    with pytest.raises(Misconfigured, match=said):
        async with nestor_at(data_dir / "house", FakeEngine(), **trusting(named)):
            pass


async def test_a_file_holds_keys_as_well(data_dir: Path, engine: FakeEngine) -> None:
    place = data_dir / "jwks.json"
    place.write_text(json.dumps({"keys": [SIGNER.jwk()]}))
    async with nestor_at(data_dir / "house", engine, **trusting(str(place), jwt_makes_users=True)) as nestor:
        acme, _ = await nestor.tenant()
        await nestor.call("GET", "/api/v2/conversations", token(acme), status=200)


@pytest.mark.parametrize("left_out", ["jwt_keys", "jwt_issuer", "jwt_audience"])
def test_half_a_configuration_says_what_is_missing(data_dir: Path, left_out: str) -> None:
    every = trusting("https://login.example.org/jwks")
    del every[left_out]
    with pytest.raises(ValueError, match=f"NESTOR_{left_out.upper()}: needed"):
        settings(data_dir, **every)
