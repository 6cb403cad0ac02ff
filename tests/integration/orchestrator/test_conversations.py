"""Conversations after their start: messages, events, lists, stop, delete, and a runtime that is lost."""

import anyio
import pytest
from support.orchestrators import Nestor

pytestmark = pytest.mark.anyio


async def ready(nestor: Nestor, key: str, **body: object) -> dict[str, object]:
    record = await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=20", key, json=body, status=200)
    assert record["phase"] == "ready", record
    return record


async def events(nestor: Nestor, key: str, id: object, **query: object) -> dict[str, object]:
    return await nestor.call("GET", f"/api/v2/conversations/{id}/events", key, params=query, status=200)


def said_by_user(page: dict[str, object]) -> list[str]:
    found = [item["event"] for item in page["items"] if item["event"]["source"] == "user"]
    return [event["llm_message"]["content"][0]["text"] for event in found]


async def test_messages_reach_the_agent_in_order_and_once(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    id = (await ready(nestor, key))["id"]
    path = f"/api/v2/conversations/{id}/messages"
    for number in (1, 2, 2, 3):
        body = {"content": f"message {number}", "client_id": f"c{number}"}
        answer = await nestor.call("POST", path, key, json=body, status=202)
        assert (answer["id"], answer["sequence"]) == (f"c{number}", number)
    with anyio.fail_after(10):
        while len(texts := said_by_user(await events(nestor, key, id))) < 3:
            await anyio.sleep(0.02)
    assert texts == ["message 1", "message 2", "message 3"]


async def test_a_query_parameter_that_is_not_known_is_refused_and_nothing_is_done(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    record = await ready(nestor, key)
    path = f"/api/v2/conversations/{record['id']}"
    calls = [("POST", f"{path}/{verb}") for verb in ("stop", "pause", "undelete", "messages")]
    for method, where in [*calls, ("DELETE", path), ("GET", path), ("PUT", "/api/v2/secrets/NAME")]:
        body = {"content": "x"} if where.endswith("messages") else {"value": "x"}
        refused = await nestor.call(method, f"{where}?dry_run=true", key, json=body, status=422)
        assert (refused["field"], refused["code"]) == ("dry_run", "invalid_request")
    listed = await nestor.call("GET", "/api/v2/conversations?page=2", key, status=422)
    assert "ids, label, limit, page_id" in listed["hint"]
    await nestor.call("POST", f"{path}/stop?dry_run=true", "nst_tenant_x_y", status=401)
    now = await nestor.call("GET", path, key, status=200)
    assert (now["phase"], now["desired"], now["version"]) == ("ready", "running", record["version"])
    assert (await nestor.call("GET", f"{path}/messages", key, status=200))["items"] == []
    assert (await nestor.call("POST", f"{path}/start?dry_run=true", key, status=200))["decision"] == "join"


async def test_another_message_under_a_known_id_is_refused_and_changes_nothing(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    path = f"/api/v2/conversations/{(await ready(nestor, key))['id']}/messages"
    body = {"content": "the first", "client_id": "c"}
    first = await nestor.call("POST", path, key, json=body, status=202)
    for content in ("another", [{"type": "text", "text": "another"}]):
        refused = await nestor.call("POST", path, key, json={**body, "content": content}, status=422)
        assert (refused["code"], refused["field"]) == ("idempotency_mismatch", "client_id")
    again = await nestor.call("POST", path, key, json=body, status=202)
    assert (again["id"], again["sequence"]) == (first["id"], first["sequence"])
    assert [item["id"] for item in (await nestor.call("GET", path, key, status=200))["items"]] == ["c"]


async def test_a_message_has_a_receipt_that_follows_it(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    id = (await ready(nestor, key))["id"]
    path = f"/api/v2/conversations/{id}/messages"
    parts = [{"type": "text", "text": "look"}, {"type": "image", "image_urls": ["data:image/png;base64,AA=="]}]
    sent = await nestor.call("POST", path, key, json={"content": parts, "client_id": "a/b ü"}, status=202)
    assert sent["state"] in ("queued", "delivered")
    with anyio.fail_after(10):
        while (receipt := await nestor.call("GET", f"{path}/a%2Fb%20%C3%BC", key, status=200))["state"] != "accepted":
            await anyio.sleep(0.02)
    page = await events(nestor, key, id)
    event = page["items"][receipt["event_sequence"] - 1]["event"]
    assert event["llm_message"]["content"] == parts
    assert (await nestor.call("GET", path, key, status=200)) == {"items": [receipt], "next_page_id": None}
    assert (await nestor.call("GET", f"{path}?limit=1", key, status=200))["next_page_id"] == "1"
    await nestor.call("GET", f"{path}/unknown", key, status=404)
    for content in (
        "",
        [],
        [{"type": "text"}],
        [{"type": "image", "image_urls": ["file:///etc/passwd"]}],
        [{"type": "x"}],
    ):
        await nestor.call("POST", path, key, json={"content": content}, status=422)


async def test_a_message_is_taken_in_every_phase_and_delivered_when_there_is_a_runtime(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    nestor.engine.script.fail("POST", "/api/settings", 422, times=1, body={"error": "no"})
    id = (await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202))["id"]
    await nestor.until(key, id, "failed")
    path = f"/api/v2/conversations/{id}/messages"
    body = {"content": "while it has failed", "client_id": "c"}
    assert (await nestor.call("POST", path, key, json=body, status=202))["state"] == "queued"
    await nestor.call("POST", f"/api/v2/conversations/{id}/start?wait=ready", key, status=200)
    with anyio.fail_after(10):
        while (await nestor.call("GET", f"{path}/c", key, status=200))["state"] != "accepted":
            await events(nestor, key, id)
            await anyio.sleep(0.02)
    assert said_by_user(await events(nestor, key, id)) == ["while it has failed"]


async def test_events_are_numbered_from_one_and_paged(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    id = (await ready(nestor, key, initial_message="first"))["id"]
    page = await events(nestor, key, id, limit=1)
    assert [item["sequence"] for item in page["items"]] == [1]
    assert page["next_page_id"] == "1"
    following = await events(nestor, key, id, after=page["next_page_id"])
    assert all(item["sequence"] > 1 for item in following["items"])
    assert following["next_page_id"] is None


async def test_events_are_readable_after_the_runtime_was_stopped(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    id = (await ready(nestor, key, initial_message="first"))["id"]
    before = await events(nestor, key, id)
    await nestor.call("POST", f"/api/v2/conversations/{id}/stop", key, status=202)
    stopped = await nestor.until(key, id, "stopped")
    assert stopped["runtime"]["url"] is None
    assert nestor.engine.runtimes == {}
    assert len(nestor.engine.volumes) == 1, "the workspace is kept"
    assert (await events(nestor, key, id))["items"] == before["items"]


async def test_a_stopped_conversation_starts_again_with_its_session_key(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    first = await ready(nestor, key, initial_message="first")
    await nestor.call("POST", f"/api/v2/conversations/{first['id']}/stop", key, status=202)
    await nestor.until(key, first["id"], "stopped")
    path = f"/api/v2/conversations/{first['id']}/start?wait=ready&timeout=20"
    second = await nestor.call("POST", path, key, status=200)
    assert second["phase"] == "ready"
    assert second["runtime"]["session_key"] == first["runtime"]["session_key"]
    assert second["runtime"]["id"] == first["runtime"]["id"]


async def test_delete_leaves_nothing(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    id = (await ready(nestor, key))["id"]
    deleted = await nestor.call("DELETE", f"/api/v2/conversations/{id}?purge=true", key, status=202)
    await nestor.call("GET", f"/api/v2/conversations/{id}", key, status=404)
    assert (await nestor.ended(key, deleted["operation"]))["state"] == "succeeded"
    with anyio.fail_after(30):  # its operation ends a moment before its record goes
        while (await nestor.http.get(f"/api/v2/conversations/{id}?deleted=true", headers=nestor.as_(key))).is_success:
            await anyio.sleep(0.05)
    await nestor.call("GET", f"/api/v2/conversations/{id}?deleted=true", key, status=404)
    assert (nestor.engine.runtimes, nestor.engine.volumes) == ({}, {})


async def test_delete_during_a_start_ends_the_start(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    nestor.engine.script.hang("POST", "/api/settings", times=1)
    accepted = await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
    await nestor.until(key, accepted["id"], "configuring")
    path = f"/api/v2/conversations/{accepted['id']}"
    await nestor.call("DELETE", f"{path}?purge=true", key, status=202)
    with anyio.fail_after(15):
        while (await nestor.http.get(f"{path}?deleted=true", headers=nestor.as_(key))).status_code != 404:
            await anyio.sleep(0.05)
    assert (nestor.engine.runtimes, nestor.engine.volumes) == ({}, {})


async def test_a_runtime_that_dies_is_told_with_a_reason(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    id = (await ready(nestor, key))["id"]
    (name,) = nestor.engine.runtimes
    nestor.engine.crash(name)
    await nestor.call(
        "POST", f"/api/v2/conversations/{id}/messages", key, json={"content": "are you there"}, status=202
    )
    record = await nestor.until(key, id, "failed")
    assert record["reason"] == "runtime_lost"
    assert record["retryable"] is True
    with anyio.fail_after(10):
        while nestor.engine.runtimes:  # the record is stored a moment before
            await anyio.sleep(0.02)


async def test_lists_are_newest_first_and_paged(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    ids = [(await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202))["id"] for _ in range(3)]
    first = await nestor.call("GET", "/api/v2/conversations?limit=2", key, status=200)
    second = await nestor.call("GET", f"/api/v2/conversations?limit=2&page_id={first['next_page_id']}", key, status=200)
    assert [item["id"] for item in first["items"] + second["items"]] == ids[::-1]
    assert second["next_page_id"] is None
    for id in ids:
        await nestor.until(key, id, "ready")


async def test_title_and_labels_are_changed_as_they_were_read(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    body = {"title": "first", "labels": {"a": "1", "b": "2"}}
    path = f"/api/v2/conversations/{(await nestor.call('POST', '/api/v2/conversations', key, json=body))['id']}"
    await nestor.until(key, path.rpartition("/")[2], "ready")
    read = await nestor.http.get(path, headers=nestor.as_(key))
    seen = {"If-Match": read.headers["etag"]}
    changed = await nestor.call(
        "PATCH", path, key, json={"title": "second", "labels": {"b": None, "c": "3"}}, headers=seen, status=200
    )
    assert (changed["title"], changed["labels"]) == ("second", {"a": "1", "c": "3"})
    late = await nestor.call("PATCH", path, key, json={"title": "third"}, headers=seen, status=412)
    assert late["code"] == "precondition_failed"
    await nestor.call("PATCH", path, key, json={"title": "x"}, headers={"If-Match": '"no"'}, status=412)
    await nestor.call("PATCH", path, key, json={"labels": {f"l{n}": "v" for n in range(63)}}, status=422)
    await nestor.call("PATCH", path, key, json={"unheard_of": 1}, status=422)
    assert (await nestor.call("PATCH", path, key, json={"title": None}, status=200))["title"] is None
    after = await nestor.call("GET", path, key, status=200)
    assert (after["labels"], after["phase"]) == ({"a": "1", "c": "3"}, "ready")
    await nestor.call("PATCH", path, await nestor.ready_tenant("globex"), json={"title": "x"}, status=404)
    box = await nestor.call("POST", "/api/v2/runtimes", key, json={"labels": {"a": "1"}}, status=202)
    told = await nestor.call("PATCH", f"/api/v2/runtimes/{box['id']}", key, json={"labels": {"a": None}}, status=200)
    assert told["labels"] == {}
