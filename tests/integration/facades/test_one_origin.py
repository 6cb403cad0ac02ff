"""The agent server's API on the single origin, without a proxy: what is answered from records, and who claims what."""

import tempfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from support.orchestrators import Nestor, nestor_at

from orchestrator.app.claims import claims_of
from orchestrator.domain.ids import ConversationId, RuntimeId
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.proxy.admission import Refused
from orchestrator.proxy.claims import ClaimRoutes
from orchestrator.proxy.route import Route, Unavailable
from orchestrator.proxy.single_origin import Claim, Place

pytestmark = pytest.mark.anyio
CANARY = "sk-canary-of-the-start-body"
BODY = {"agent": {"kind": "Agent", "llm": {"model": "openai/m", "api_key": CANARY}}, "workspace": {"working_dir": "w"}}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def nestor(anyio_backend: str) -> AsyncIterator[Nestor]:
    engine = FakeEngine()
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        async with nestor_at(Path(folder), engine) as running:
            yield running
    await engine.shut_down()


async def ask(nestor: Nestor, method: str, path: str, key: str, **more: Any) -> httpx.Response:
    return await nestor.http.request(method, path, headers={"X-Session-API-Key": key}, **more)


async def start(nestor: Nestor, key: str, **fields: object) -> httpx.Response:
    return await ask(nestor, "POST", "/api/conversations", key, json={**BODY, **fields})


def claim(key: str, conversation: str | None = None, *, acts_for: str | None = None) -> RuntimeId:
    place = Place(ConversationId(conversation) if conversation is not None else None)
    return RuntimeId(Claim(key.encode(), place, acts_for.encode() if acts_for is not None else None))


async def refusal(routes: ClaimRoutes, claimed: RuntimeId) -> tuple[int, dict[str, object]]:
    with pytest.raises(Refused) as caught:
        await routes.resolve(claimed)
    return caught.value.refusal.status, dict(caught.value.refusal.body)


async def test_a_start_waits_sends_the_body_on_and_is_joined_by_its_id(nestor: Nestor) -> None:
    _, key = await nestor.tenant()
    id = str(uuid.uuid4())
    made = await start(nestor, key, conversation_id=id, initial_message={"role": "user", "content": [], "run": True})
    assert made.status_code == 201, made.text
    assert made.json()["id"] == id
    again = await start(nestor, key, conversation_id=id.replace("-", ""))
    assert (again.status_code, again.json()["id"]) == (200, id)
    sent = [
        one.body for one in nestor.engine.script.received if (one.method, one.path) == ("POST", "/api/conversations")
    ]
    own = [body for body in sent if body is not None and body["conversation_id"] == id]
    assert [body["agent"] for body in own] == [BODY["agent"]], "with the model's key, and once"
    record = await nestor.call("GET", f"/api/v2/conversations/{id}", key, status=200)
    assert CANARY not in str(record)
    await nestor.call("POST", f"/api/v2/conversations/{id}/stop", key, status=202)
    await nestor.until(key, id, "stopped")
    back = await start(nestor, key, conversation_id=id)
    assert (back.status_code, (await nestor.until(key, id, "ready"))["phase"]) == (200, "ready")


async def test_two_tenants_may_choose_the_same_id_and_see_their_own(nestor: Nestor) -> None:
    (_, one), (_, two) = await nestor.tenant(), await nestor.tenant("other")
    id = str(uuid.uuid4())
    for key in (one, two):
        assert (await start(nestor, key, conversation_id=id)).status_code == 201
    routes = claims_of(nestor.house)
    found = [await routes.resolve(claim(key, id)) for key in (one, two)]
    assert all(isinstance(route, Route) for route in found)
    assert len({route.runtime for route in found if isinstance(route, Route)}) == 2
    assert (await ask(nestor, "DELETE", f"/api/conversations/{id}", one)).json() == {"success": True}
    assert (await ask(nestor, "DELETE", f"/api/conversations/{id}", one)).status_code == 404
    assert (await ask(nestor, "GET", "/api/conversations/count", one)).json() == 0
    listed = (await ask(nestor, "GET", "/api/conversations/search?status=idle", two)).json()
    assert [item["id"] for item in listed["items"]] == [id]
    assert (await ask(nestor, "GET", "/api/conversations/count?status=running", two)).json() == 0


async def test_a_start_that_fails_says_why_and_leaves_nothing(nestor: Nestor) -> None:
    _, key = await nestor.tenant()
    id = str(uuid.uuid4())
    nestor.engine.script.fail("POST", "/api/conversations", 422, times=1)
    refused = await start(nestor, key, conversation_id=id)
    assert refused.status_code == 422, refused.text
    assert {"detail", "error", "message", "code"} <= refused.json().keys()
    assert CANARY not in refused.text
    with anyio.fail_after(30):
        while (await start(nestor, key, conversation_id=id)).status_code == 409:
            await anyio.sleep(0.02)
    assert (await ask(nestor, "GET", "/api/conversations/count", key)).json() == 1
    for wrong in ({"conversation_id": "no-id"}, {"conversation_id": 7}):
        assert (await start(nestor, key, **wrong)).status_code == 422


async def test_each_user_and_the_tenant_itself_have_one_home_that_is_made_once(nestor: Nestor) -> None:
    tenant, key = await nestor.tenant()
    users = [
        await nestor.call("POST", f"/api/v2/tenants/{tenant}/users", json={"name": name}, status=201)
        for name in ("ann", "bob")
    ]
    bob = await nestor.call(
        "POST", f"/api/v2/tenants/{tenant}/api-keys", json={"name": "k", "user": users[1]["id"]}, status=201
    )
    callers = [claim(key), claim(key, acts_for=users[0]["id"]), claim(bob["key"])]
    routes = claims_of(nestor.house)
    homes: dict[RuntimeId, set[str]] = {caller: set() for caller in callers}

    async def use(caller: RuntimeId) -> None:
        asked = await routes.resolve(caller)
        if isinstance(asked, Unavailable):
            assert asked.session_key_hash is not None, "the caller's key may ask for it"
            asked = await routes.wake(caller, 30.0)
        assert isinstance(asked, Route)
        homes[caller].add(asked.runtime)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            for caller in callers:
                tasks.start_soon(use, caller)
    assert [len(made) for made in homes.values()] == [1, 1, 1]
    assert len(set().union(*homes.values())) == 3
    listed = (await nestor.call("GET", "/api/v2/runtimes", key, status=200))["items"]
    assert sorted(item["name"] for item in listed) == ["home"] * 3
    assert {item["user"] for item in listed} == {None, users[0]["id"], users[1]["id"]}
    [own] = [item["id"] for item in listed if item["user"] is None]
    await nestor.call("POST", f"/api/v2/runtimes/{own}/stop", key, status=202)
    with anyio.fail_after(30):
        while (await nestor.call("GET", f"/api/v2/runtimes/{own}", key))["phase"] != "stopped":
            await anyio.sleep(0.02)
    stopped = await claims_of(nestor.house).resolve(callers[0])
    assert isinstance(stopped, Unavailable), "somebody stopped it, so no use starts it"
    assert (own in stopped.message, stopped.session_key_hash) == (True, None)


async def test_who_may_not_claim_is_told_the_same_of_what_is_there_and_what_is_not(nestor: Nestor) -> None:
    tenant, key = await nestor.tenant()
    _, other = await nestor.tenant("other")
    id, routes = str(uuid.uuid4()), claims_of(nestor.house)
    assert (await start(nestor, key, conversation_id=id)).status_code == 201
    assert await refusal(routes, claim(other, id)) == await refusal(routes, claim(other, str(uuid.uuid4())))
    path = f"/api/v2/tenants/{tenant}/api-keys"
    reader = await nestor.call("POST", path, json={"name": "r", "scopes": ["read"]}, status=201)
    assert (await refusal(routes, claim(reader["key"], id)))[0] == 403
    for place in (id, None):
        assert (await refusal(routes, claim("nonsense", place)))[0] == 401
    gone = await nestor.call("POST", path, json={"name": "g"}, status=201)
    assert isinstance(await routes.resolve(claim(gone["key"], id)), Route)
    await nestor.call("DELETE", f"{path}/{gone['id']}", status=204)
    with anyio.fail_after(30):
        while routes.known(claim(gone["key"], id)) is not None:
            await anyio.sleep(0.02)
    assert (await refusal(routes, claim(gone["key"], id)))[0] == 401


async def test_settings_that_are_changed_are_the_caller_s_layer(nestor: Nestor) -> None:
    _, key = await nestor.tenant()
    diff = {"agent_settings_diff": {"llm": {"model": "openai/x", "api_key": CANARY}}}
    changed = await ask(nestor, "PATCH", "/api/settings", key, json=diff)
    assert (changed.status_code, CANARY in changed.text) == (200, False)
    stored = await nestor.call("GET", "/api/v2/settings", key, status=200)
    assert stored["agent_settings"]["llm"]["model"] == "openai/x"
    for wrong in ({}, {"active_profile": "x"}, {"agent_settings_diff": {"nonsense": 1}}):
        assert (await ask(nestor, "PATCH", "/api/settings", key, json=wrong)).status_code == 422
    secret = {"name": "A", "value": CANARY, "description": "d"}
    put = await ask(nestor, "PUT", "/api/settings/secrets", key, json=secret)
    assert put.json() == {"name": "A", "description": "d"}
    assert (await ask(nestor, "DELETE", "/api/settings/secrets/A", key)).json() == {"deleted": True}
    assert (await ask(nestor, "DELETE", "/api/settings/secrets/A", key)).status_code == 404
