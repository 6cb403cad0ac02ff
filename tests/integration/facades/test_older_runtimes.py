"""V1 sandboxes with their secrets, `/users/me`, and the runtime API: the rows of outer-api.md 2 and 3 against the fake
driver."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import pytest
from support.orchestrators import MODEL, Nestor, nestor_at

from orchestrator.domain.secrets import REDACTED
from orchestrator.drivers.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio
UNKNOWN = "00000000-0000-4000-8000-00000000dead"
SANDBOX = {
    "id",
    "created_by_user_id",
    "sandbox_spec_id",
    "status",
    "session_api_key",
    "exposed_urls",
    "created_at",
}
LIVE = {"runtime_id", "session_id", "url", "session_api_key", "status", "pod_status", "restart_count"}
MODEL_KEY = MODEL["agent_settings"]["llm"]["api_key"]


@pytest.fixture
async def nestor() -> AsyncIterator[Nestor]:
    engine = FakeEngine()
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        async with nestor_at(Path(folder), engine) as running:
            yield running
    await engine.shut_down()


async def running_sandbox(nestor: Nestor, key: str) -> dict[str, Any]:
    made: dict[str, Any] = await nestor.call("POST", "/api/v1/sandboxes", key, status=200)
    assert (made["status"], set(made)) == ("RUNNING", SANDBOX)
    return made


async def status(nestor: Nestor, key: str, id: str) -> str | None:
    (found,) = await nestor.call("GET", f"/api/v1/sandboxes?id={id}", key, status=200)
    return None if found is None else found["status"]


async def until(nestor: Nestor, key: str, id: str, wanted: str | None) -> None:
    with anyio.fail_after(30):
        while await status(nestor, key, id) != wanted:
            await anyio.sleep(0.02)


def session(key: str) -> dict[str, str]:
    return {"X-Session-API-Key": key}


async def test_a_sandbox_is_made_found_paused_resumed_and_deleted(nestor: Nestor) -> None:
    _, key = await nestor.tenant()
    _, other = await nestor.tenant("other")
    made = await running_sandbox(nestor, key)
    id, path = made["id"], f"/api/v1/sandboxes/{made['id']}"
    (address,) = made["exposed_urls"]
    assert (address["name"], address["port"]) == ("AGENT_SERVER", 60000)
    assert made["session_api_key"]
    asked = f"/api/v1/sandboxes?id={UNKNOWN}&id={id}&id=no-id&id={id.replace('-', '')}"
    assert [item and item["id"] for item in await nestor.call("GET", asked, key, status=200)] == [None, id, None, id]
    listed = await nestor.call("GET", "/api/v1/sandboxes/search?limit=1", key, status=200)
    assert [item["id"] for item in listed["items"]] == [id]
    assert await status(nestor, other, id) is None
    for verb, method in (("/pause", "POST"), ("/resume", "POST"), ("", "DELETE")):
        for who, which in ((other, id), (key, UNKNOWN), (key, "no-id")):
            answer = await nestor.call(method, f"/api/v1/sandboxes/{which}{verb}", who, status=404)
            assert answer["detail"] == answer["error"] == "there is no such runtime"
    for _ in range(2):
        assert await nestor.call("POST", f"{path}/pause", key, status=200) == {"success": True}
    await until(nestor, key, id, "PAUSED")
    (asleep,) = await nestor.call("GET", f"/api/v1/sandboxes?id={id}", key, status=200)
    assert (asleep["session_api_key"], asleep["exposed_urls"]) == (None, None)
    for _ in range(2):
        assert await nestor.call("POST", f"{path}/resume", key, status=200) == {"success": True}
    await until(nestor, key, id, "RUNNING")
    (again,) = await nestor.call("GET", f"/api/v1/sandboxes?id={id}", key, status=200)
    assert again == made
    assert await nestor.call("DELETE", f"{path}?sandbox_id={id}", key, status=200) == {"success": True}
    assert await status(nestor, key, id) is None
    await nestor.call("DELETE", path, key, status=404)
    await nestor.call("POST", f"/api/v2/runtimes/{id}/undelete", key, status=202)


async def test_what_its_caller_runs_in_a_sandbox_is_told_its_id_and_key(nestor: Nestor) -> None:
    _, key = await nestor.tenant()
    made = await running_sandbox(nestor, key)
    (told,) = [one.body for one in nestor.engine.script.received if (one.method, one.path) == ("POST", "/api/init")]
    own = made["session_api_key"]
    assert (told["env"], told["command_env"]) == ({"SANDBOX_ID": made["id"]}, {"SESSION_API_KEY": own})
    inner, accepted = told["session_api_keys"]
    assert (accepted, inner != own) == (own, True)


async def test_the_operator_keeps_the_keys_of_sandboxes_out_of_them() -> None:
    engine = FakeEngine()
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        async with nestor_at(Path(folder), engine, sandbox_key=False) as nestor:
            _, key = await nestor.tenant()
            made = await running_sandbox(nestor, key)
    await engine.shut_down()
    (told,) = [one.body for one in engine.script.received if (one.method, one.path) == ("POST", "/api/init")]
    assert (told["env"], "command_env" in told) == ({"SANDBOX_ID": made["id"]}, False)
    assert made["session_api_key"] not in str(told)


async def test_questions_about_sandboxes_that_nobody_can_mean_are_refused(nestor: Nestor) -> None:
    _, key = await nestor.tenant()
    await nestor.call("GET", "/api/v1/sandboxes", key, status=422)
    await nestor.call("GET", "/api/v1/sandboxes?" + "&".join([f"id={UNKNOWN}"] * 101), key, status=400)
    await nestor.call("GET", "/api/v1/sandboxes/search?limit=101", key, status=422)
    refused = await nestor.call("POST", "/api/v1/sandboxes?sandbox_spec_id=an-image", key, status=422)
    assert "images" in refused["detail"]
    (spec,) = (await nestor.call("GET", "/api/v1/sandbox-specs/search", key, status=200))["items"]
    known = await nestor.call("GET", f"/api/v1/sandbox-specs?id={spec['id']}&id=other", key, status=200)
    assert known == [spec, None]


async def test_a_start_that_fails_is_told_at_once_and_the_same_session_may_begin_anew(nestor: Nestor) -> None:
    _, key = await nestor.tenant()
    nestor.engine.script.fail("POST", "/api/settings", 422, times=2, body={"error": "no"})
    sandbox = await nestor.call("POST", "/api/v1/sandboxes", key, status=200)
    assert (sandbox["status"], sandbox["session_api_key"], sandbox["exposed_urls"]) == ("ERROR", None, None)
    failed = await nestor.call("POST", "/start", key, json={"session_id": "s"}, status=200)
    assert (failed["status"], failed["pod_status"]) == ("error", "failed")
    assert failed["pod_logs"].startswith("config_rejected: ")
    again = await nestor.call("POST", "/start", key, json={"session_id": "s"}, status=200)
    assert (again["runtime_id"], again["status"], again["pod_logs"]) == (failed["runtime_id"], "running", "")


async def test_the_runtime_of_a_conversation_is_a_sandbox_too(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    path = "/api/v2/conversations?wait=ready&timeout=30"
    record = await nestor.call("POST", path, key, json={}, status=200)
    id = record["runtime"]["id"]
    assert await status(nestor, key, id) == "RUNNING"
    assert await nestor.call("POST", f"/api/v1/sandboxes/{id}/pause", key, status=200) == {"success": True}
    assert (await nestor.until(key, record["id"], "paused"))["phase"] == "paused"


async def test_secrets_are_given_to_the_key_of_a_running_sandbox_alone(nestor: Nestor, caplog: Any) -> None:
    _, key = await nestor.tenant()
    _, other = await nestor.tenant("other")
    value, token = "value-of-a-secret-4711", "token-of-a-provider-4711"
    await nestor.call("PUT", "/api/v2/secrets/OWN", key, json={"value": value, "description": "mine"}, status=200)
    await nestor.call("PUT", "/api/v2/git-providers/gitlab", key, json={"token": token}, status=200)
    made, foreign = await running_sandbox(nestor, key), await running_sandbox(nestor, other)
    path = f"/api/v1/sandboxes/{made['id']}/settings/secrets"
    told = await nestor.http.get(path, headers=session(made["session_api_key"]))
    assert told.json() == {
        "secrets": [
            {"name": "OWN", "description": "mine"},
            {"name": "gitlab_token", "description": "the token for gitlab"},
        ]
    }
    for name, expected in (("OWN", value), ("gitlab_token", token)):
        found = await nestor.http.get(f"{path}/{name}", headers=session(made["session_api_key"]))
        assert (found.text, found.headers["content-type"]) == (expected, "text/plain; charset=utf-8")
    for name in ("github_token", "UNKNOWN", "no%20name", "PATH"):
        found = await nestor.http.get(f"{path}/{name}", headers=session(made["session_api_key"]))
        assert found.status_code == 404, name
    cut = made["session_api_key"][:-1] + ("a" if made["session_api_key"][-1] != "a" else "b")
    for wrong, expected in (
        ({}, 401),
        (session("nonsense"), 401),
        (session(cut), 401),
        (session(key), 401),
        ({"Authorization": f"Bearer {key}"}, 401),
        (session(foreign["session_api_key"]), 403),
    ):
        for place in (path, f"{path}/OWN"):
            assert (await nestor.http.get(place, headers=wrong)).status_code == expected, wrong
    await nestor.call("POST", f"/api/v1/sandboxes/{made['id']}/pause", key, status=200)
    await until(nestor, key, made["id"], "PAUSED")
    assert (await nestor.http.get(path, headers=session(made["session_api_key"]))).status_code == 401
    assert value not in caplog.text


async def test_me_shows_keys_to_whoever_holds_a_sandbox_and_marks_to_others(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    _, other = await nestor.tenant("other")
    mcp = {
        "a": {"url": "https://a.example.org/mcp", "headers": {"Authorization": "Bearer key-of-a-server"}},
        "b": {"url": "https://b.example.org/sse", "transport": "sse", "timeout": 7},
        "c": {"command": "serve", "args": ["-v"], "env": {"TOKEN": "token-of-c-0123"}},
    }
    await nestor.call("PATCH", "/api/v2/settings", key, json={"agent_settings": {"mcp_config": mcp}}, status=200)
    made, foreign = await running_sandbox(nestor, key), await running_sandbox(nestor, other)
    plain = await nestor.call("GET", "/api/v1/users/me", key, status=200)
    assert (plain["llm_model"], plain["llm_api_key"]) == ("openai/scripted", REDACTED)
    assert plain["mcp_config"] == {
        "sse_servers": [{"url": "https://b.example.org/sse", "api_key": None, "timeout": 7}],
        "shttp_servers": [{"url": "https://a.example.org/mcp", "api_key": REDACTED, "timeout": None}],
        "stdio_servers": [{"name": "c", "command": "serve", "args": ["-v"], "env": {"TOKEN": REDACTED}}],
    }
    held = session(made["session_api_key"])
    inside = await nestor.call("GET", "/api/v1/users/me", key, headers=held, status=200)
    assert (inside["llm_api_key"], inside["mcp_config"]["shttp_servers"][0]["api_key"]) == (REDACTED, "key-of-a-server")
    exposed = "/api/v1/users/me?expose_secrets=true"
    assert (await nestor.call("GET", exposed, key, headers=held, status=200))["llm_api_key"] == MODEL_KEY
    await nestor.call("GET", exposed, key, status=401)
    await nestor.call("GET", exposed, key, headers=session("nonsense"), status=401)
    await nestor.call("GET", exposed, key, headers=session(foreign["session_api_key"]), status=403)
    assert (await nestor.http.get(exposed, headers=held)).status_code == 401  # no key of the API


async def test_values_are_told_to_a_key_that_may_reveal_and_only_with_an_entry_in_the_audit_log(nestor: Nestor) -> None:
    tenant, key = await nestor.tenant()
    await nestor.call("PATCH", "/api/v2/settings", key, json=MODEL, status=200)
    held = session((await running_sandbox(nestor, key))["session_api_key"])
    body = {"name": "no reveal", "scopes": ["read", "write"]}
    lesser = (await nestor.call("POST", f"/api/v2/tenants/{tenant}/api-keys", json=body, status=201))["key"]
    refused = await nestor.call("GET", "/api/v1/users/me?expose_secrets=true", lesser, headers=held, status=403)
    assert "secrets:reveal" in refused["detail"]
    inside = await nestor.call("GET", "/api/v1/users/me", lesser, headers=held, status=200)
    assert inside["llm_api_key"] == REDACTED

    before = len((await nestor.call("GET", "/api/v2/audit", key, status=200))["items"])
    told = await nestor.http.get("/api/v1/users/me%0A?expose_secrets=true", headers=nestor.as_(key) | held)
    assert told.status_code == 404
    assert MODEL_KEY not in told.text
    await nestor.call("GET", "/api/v1/users/me?expose_secrets=true", key, headers=held, status=200)
    assert len((await nestor.call("GET", "/api/v2/audit", key, status=200))["items"]) == before + 1


async def test_every_session_id_that_is_taken_can_be_asked_for(nestor: Nestor) -> None:
    _, key = await nestor.tenant()
    for refused in ("batch", "a\nb", "a\x07", "", "x" * 201):
        await nestor.call("POST", "/start", key, json={"session_id": refused}, status=422)
    for taken in ("a/b c?d#e%", "é日本"):
        made = await nestor.call("POST", "/start", key, json={"session_id": taken}, status=200)
        found = await nestor.call("GET", f"/sessions/{quote(taken, safe='')}", key, status=200)
        assert (found["session_id"], found["runtime_id"]) == (taken, made["runtime_id"])


async def test_a_session_of_the_runtime_api_is_one_runtime_for_all_who_ask(nestor: Nestor) -> None:
    _, key = await nestor.tenant()
    _, other = await nestor.tenant("other")
    body = {
        "session_id": "the-session",
        "image": "any",
        "runtime_class": "sysbox-runc",
        "command": ["x"],
        "fs_group": 1,
    }
    answers: list[dict[str, Any]] = []

    async def ask() -> None:
        answers.append(await nestor.call("POST", "/start", key, json=body, status=200))

    await nestor.call("GET", "/sessions/the-session", key, status=404)
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask)
    (id,) = {answer["runtime_id"] for answer in answers}
    one = answers[0]
    assert set(one) >= LIVE
    assert (one["status"], one["pod_status"], one["restart_count"]) == ("running", "ready", 0)
    assert await nestor.call("GET", f"/runtime/{id}", key, status=200) == one
    assert await nestor.call("GET", "/sessions/the-session", key, status=200) == one
    assert await nestor.call("GET", "/sessions/batch?ids=none&ids=the-session", key, status=200) == [one]
    assert (await nestor.call("GET", "/list", key, status=200))["runtimes"] == [one]
    theirs = await nestor.call("POST", "/start", other, json=body, status=200)
    assert theirs["runtime_id"] != id
    await nestor.call("POST", "/stop", other, json={"runtime_id": id}, status=404)
    named = {"runtime_id": id}
    for _ in range(2):
        await nestor.call("POST", "/pause", key, json=named, status=200)
    with anyio.fail_after(30):
        while (await nestor.call("GET", f"/runtime/{id}", key))["status"] != "paused":
            await anyio.sleep(0.02)
    asleep = await nestor.call("GET", "/sessions/the-session", key, status=200)
    assert (asleep["pod_status"], asleep["url"]) == ("not found", one["url"])
    await nestor.call("POST", "/resume", key, json=named, status=200)
    for _ in range(2):
        await nestor.call("POST", "/stop", key, json=named, status=200)
    again = await nestor.call("POST", "/start", key, json=body, status=200)  # while it stops, as it may be
    assert (again["runtime_id"], again["status"]) == (id, "running")
    assert again["session_api_key"] == one["session_api_key"]
    for method, path in (("GET", "/image_exists?image=x"), ("POST", "/build"), ("GET", "/registry_prefix")):
        assert (await nestor.call(method, path, key, status=501))["code"] == "not_offered"


async def test_what_a_client_of_the_runtime_api_may_not_set_is_left_out_or_refused(nestor: Nestor) -> None:
    _, key = await nestor.tenant()
    body: dict[str, Any] = {"session_id": "s", "environment": {"OH_SECRET_KEY": "theirs", "PLAIN": "value"}}
    assert (await nestor.call("POST", "/start", key, json=body, status=200))["status"] == "running"
    (told,) = [one for one in nestor.engine.script.received if one.path == "/api/init" and one.method == "POST"]
    assert {name: told.body["env"][name] for name in told.body["env"] if name != "SANDBOX_ID"} == {"PLAIN": "value"}
    assert "command_env" not in told.body
    refused = await nestor.call("POST", "/start", key, json={"environment": {"NO NAME": "x"}}, status=422)
    assert "NO NAME" in refused["error"]
    too_large = await nestor.call("POST", "/start", key, json={"resource_factor": 8}, status=422)
    assert "size" in too_large["detail"]
    await nestor.call("POST", "/start", key, json={"resource_factor": 0}, status=422)
