"""Requests that no honest client sends: each is told what is wrong, is no 5xx, and breaks nothing that comes later."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.orchestrators import Nestor

pytestmark = pytest.mark.anyio
ABSENT = "11111111-1111-4111-8111-111111111111"
SURROGATE = '"a\\ud800b"'


async def sent(nestor: Nestor, method: str, path: str, key: str, body: str) -> int:
    """The status of a body that is sent as it is written."""
    headers = nestor.as_(key) | {"Content-Type": "application/json"}
    return (await nestor.http.request(method, path, headers=headers, content=body.encode())).status_code


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/api/v2/secrets/A", '{"value": %s}'),
        ("PUT", "/api/v2/git-providers/github", '{"token": %s}'),
        ("PATCH", "/api/v2/settings", '{"agent_settings": {"x": %s}}'),
        ("PATCH", "/api/v2/settings", '{"agent_settings": {%s: 1}}'),
        ("PATCH", "/api/v2/settings", '{"agent_settings": {"llm": {"api_key": %s}}}'),
        ("POST", "/api/v2/conversations", '{"secrets": {"A": %s}}'),
        ("POST", "/api/v2/conversations", '{"image": %s}'),
        ("POST", "/api/settings", '{"llm_model": "m", "language": %s}'),
        ("POST", "/api/settings", '{"llm_model": "m", "mcp_config": {"a": %s}}'),
        ("POST", "/api/secrets", '{"name": "A", "value": %s}'),
        ("POST", "/api/secrets", '{"name": "A", "value": "x", "description": %s}'),
        ("POST", "/api/secrets", '{"secrets": {"A": %s}}'),
        ("PUT", "/api/secrets/A", '{"name": "A", "description": %s}'),
        ("POST", "/api/add-git-providers", '{"provider_tokens": {"github": {"token": %s}}}'),
    ],
)
async def test_text_that_no_encoding_can_carry_is_refused(nestor: Nestor, method: str, path: str, body: str) -> None:
    key = await nestor.ready_tenant()
    assert await sent(nestor, method, path, key, body % SURROGATE) == 422


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/api/v2/settings", '{"agent_settings": {"x": [%s]}}'),
        ("POST", "/api/settings", '{"llm_model": "m", "max_budget_per_task": %s}'),
    ],
)
async def test_a_number_that_json_does_not_have_is_refused(
    nestor: Nestor, method: str, path: str, body: str, number: str
) -> None:
    key = await nestor.ready_tenant()
    assert await sent(nestor, method, path, key, body % number) == 422
    await nestor.call("GET", path, key)


@pytest.mark.parametrize("depth", [100, 400, 900, 100_000])
@pytest.mark.parametrize(
    ("method", "path", "before", "after"),
    [
        ("PATCH", "/api/v2/settings", '{"agent_settings": ', "}"),
        ("POST", "/api/v2/conversations", '{"settings": {"agent_settings": ', "}}"),
        ("POST", "/api/settings", '{"llm_model": "m", "mcp_config": ', "}"),
        ("POST", "/api/secrets", '{"secrets": ', "}"),
        ("POST", "/api/add-git-providers", '{"provider_tokens": ', "}"),
    ],
)
async def test_json_that_is_nested_too_deep_is_refused(
    nestor: Nestor, method: str, path: str, before: str, after: str, depth: int
) -> None:
    key = await nestor.ready_tenant()
    body = before + '{"a":' * depth + "1" + "}" * depth + after
    assert await sent(nestor, method, path, key, body) in (400, 422)


async def test_the_field_that_is_wrong_is_named(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    headers = nestor.as_(key) | {"Content-Type": "application/json"}
    body = '{"agent_settings": {"llm": {"extra": [1, {"y": NaN}]}}}'
    answer = (await nestor.http.patch("/api/v2/settings", headers=headers, content=body)).json()
    assert "agent_settings.llm.extra.1.y" in answer["detail"]
    flat = {"llm_model": "m", "llm_base_url": "nonsense"}
    answer = (await nestor.http.post("/api/settings", headers=nestor.as_(key), json=flat)).json()
    assert "llm_base_url" in json.dumps(answer)
    assert (
        await nestor.http.post("/api/settings", headers=nestor.as_(key), json={**flat, "llm_base_url": ""})
    ).is_success


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("PATCH", "settings", {"limits": {"max_runtimes": True}}, "limits.max_runtimes"),
        ("PATCH", "settings", {"limits": {"archive_seconds": False}}, "limits.archive_seconds"),
        ("PATCH", "settings", {"conversation_settings": {"max_iterations": True}}, "max_iterations"),
        ("PATCH", "settings", {"agent_settings": {"llm": {"timeout": True}}}, "timeout"),
        ("POST", "conversations", {"size": True}, "size"),
        ("POST", "runtimes", {"size": False}, "size"),
        ("POST", f"conversations/{ABSENT}/links", {"port": True}, "port"),
        ("POST", f"conversations/{ABSENT}/links", {"port": 80, "expires_in": True}, "expires_in"),
        ("POST", f"conversations/{ABSENT}/fork", {"at": True}, "at"),
        ("POST", f"webhooks/{ABSENT}/rotate", {"overlap_seconds": True}, "overlap_seconds"),
    ],
)
async def test_true_is_no_number(nestor: Nestor, method: str, path: str, body: dict[str, Any], field: str) -> None:
    key = await nestor.ready_tenant()
    answer = await nestor.call(method, f"/api/v2/{path}", key, json=body, status=422)
    assert answer["field"].endswith(field)
    assert "number" in answer["detail"]


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-23:00", "2999-01-01T00:00:00"])
async def test_an_expiry_that_cannot_be_told_is_refused_and_breaks_no_list(nestor: Nestor, moment: str) -> None:
    tenant, key = await nestor.tenant()
    path = f"/api/v2/tenants/{tenant}/api-keys"
    body = {"name": "x", "expires_at": moment}
    problem = await nestor.call("POST", path, key, json=body, status=422)
    assert "expires_at" in problem["detail"]
    assert len((await nestor.call("GET", path, key, status=200))["items"]) == 1


@pytest.mark.parametrize("tag", ["\u00b2", "9" * 5000, "abc", ""])
async def test_an_if_match_that_was_never_given_fails_the_precondition(nestor: Nestor, tag: str) -> None:
    key = await nestor.ready_tenant()
    headers = nestor.as_(key) | {"If-Match": tag.encode("latin-1")}
    answer = await nestor.http.patch("/api/v2/settings", headers=headers, json={"limits": {"idle_pause_seconds": 1}})
    assert answer.status_code == 412


@pytest.mark.parametrize("after", [2**63, 2**64, 10**30])
async def test_an_after_beyond_every_log_is_refused(nestor: Nestor, after: int) -> None:
    key = await nestor.ready_tenant()
    record = await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
    await nestor.call("GET", f"/api/v2/conversations/{record['id']}/events?after={after}", key, status=422)


@pytest.mark.parametrize("host", ["http://[", "https://[::1", "https://\u2100.example"])
async def test_a_host_that_cannot_be_parsed_is_refused(nestor: Nestor, host: str) -> None:
    key = await nestor.ready_tenant()
    body = {"token": "t", "host": host}
    problem = await nestor.call("PUT", "/api/v2/git-providers/github", key, json=body, status=422)
    assert "host" in problem["detail"]


@pytest.mark.parametrize("text", ["0x" + "0" * 30, "\u0660" * 32, "+" + "1" * 31])
async def test_an_id_in_other_digits_is_no_id(nestor: Nestor, text: str) -> None:
    key = await nestor.ready_tenant()
    await nestor.call("POST", "/api/v2/conversations", key, json={"id": text}, status=422)


async def test_a_name_that_no_secret_can_have_removes_none(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    await nestor.call("PUT", "/api/v2/secrets/ONLY", key, json={"value": "kept"}, status=200)
    await nestor.call("DELETE", "/api/secrets/%23", key, status=404)
    await nestor.call("PUT", "/api/secrets/%23", key, json={"name": "NEW"}, status=404)
    (kept,) = (await nestor.call("GET", "/api/v2/secrets", key, status=200))["items"]
    assert kept["name"] == "ONLY"


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}])
async def test_a_body_without_length_that_is_too_large_is_413(nestor: Nestor, headers: dict[str, str]) -> None:
    key = await nestor.ready_tenant()

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 65536

    answer = await nestor.http.post("/api/v2/conversations", headers=nestor.as_(key) | headers, content=endless())
    assert (answer.status_code, json.loads(answer.content)["code"]) == (413, "too_large")


async def test_a_body_that_is_no_json_and_one_that_is_not_said_to_be(nestor: Nestor) -> None:
    _, key = await nestor.tenant()
    path, headers = "/api/v2/secrets/A", nestor.as_(key)
    for content, kind, status, code in (
        (b'{"value": ', "application/json", 400, "bad_request"),
        (b'{"value": "v"}', "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b'{"value": "v"}', "text/plain", 415, "unsupported_media_type"),
        (b'{"value": "v"}', "application/merge-patch+json; charset=utf-8", 200, None),
    ):
        answer = await nestor.http.put(path, headers=headers | {"Content-Type": kind}, content=content)
        assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
        if code is not None:
            assert answer.json()["instance"] == f"urn:nestor:request:{answer.headers['x-request-id']}"
    nobody = await nestor.http.put(path, headers={"Content-Type": "text/plain"}, content=b"x")
    assert nobody.status_code == 401
