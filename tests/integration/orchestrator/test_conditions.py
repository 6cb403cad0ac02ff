"""`ETag` on every resource, reads that were not changed since, and changes of what was read."""

import uuid
from typing import Any

import anyio
import pytest
from support.orchestrators import Nestor

pytestmark = pytest.mark.anyio
HOOK = {"url": "https://hooks.example.com/nestor"}


async def tag_of(nestor: Nestor, path: str, key: str) -> str:
    """Its `ETag`; and with it the read is 304, without a body."""
    with anyio.fail_after(60):  # what moves by itself may have moved in between
        while True:
            read = await nestor.http.get(path, headers=nestor.as_(key))
            assert read.status_code == 200, read.text
            tag = read.headers["etag"]
            again = await nestor.http.get(path, headers=nestor.as_(key) | {"If-None-Match": f'"other", W/{tag}'})
            if again.status_code == 304:
                assert (again.content, again.headers["etag"]) == (b"", tag)
                assert "content-type" not in again.headers
                assert again.headers["x-request-id"]
                return str(tag)


async def changed(nestor: Nestor, method: str, path: str, key: str, read: str | None = None, **more: Any) -> None:
    """Refused under a tag that it never had, made under its own, refused under that one then."""
    for wrong in ('"77777"', '"nonsense"', "W/"):
        refused = await nestor.call(method, path, key, headers={"If-Match": wrong}, status=412, **more)
        assert refused["code"] == "precondition_failed"
    with anyio.fail_after(
        60
    ):  # its worker may have changed it since it was read: then it is read again, as anybody would
        while True:
            tag = await tag_of(nestor, read or path, key)
            seen = nestor.as_(key) | {"If-Match": f'"77777", {tag}'}
            done = await nestor.http.request(method, path, headers=seen, **more)
            if done.status_code != 412:
                break
    assert done.status_code < 300, done.text
    late = await nestor.http.request(method, path, headers=nestor.as_(key) | {"If-Match": tag}, **more)
    assert late.status_code in (404, 412), late.text


async def test_every_resource_has_a_tag_and_is_changed_as_it_was_read(nestor: Nestor) -> None:
    tenant, key = await nestor.tenant()
    of, op = f"/api/v2/tenants/{tenant}", "operator-key-of-the-tests-0123456789"
    user = await nestor.call("POST", f"{of}/users", json={"name": "u"}, status=201)
    spare = await nestor.call("POST", f"{of}/api-keys", json={"name": "s"}, status=201)
    await nestor.call("PUT", "/api/v2/secrets/A", key, json={"value": "v"}, status=200)
    await nestor.call("PUT", "/api/v2/git-providers/github", key, json={"token": "t"}, status=200)
    hook = f"/api/v2/webhooks/{(await nestor.call('POST', '/api/v2/webhooks', key, json=HOOK, status=201))['id']}"
    for path in (f"{of}/users/{user['id']}", f"{of}/users", f"{of}/api-keys", "/api/v2/secrets", "/api/v2/usage"):
        await tag_of(nestor, path, key)
    for method, path, asked_with, body in (
        ("PATCH", of, op, {"limits": {"max_runtimes": 3}}),
        ("DELETE", f"{of}/api-keys/{spare['id']}", key, None),
        ("PATCH", "/api/v2/settings", key, {"conversation_settings": {"max_iterations": 5}}),
        ("PUT", "/api/v2/secrets/A", key, {"value": "w"}),
        ("DELETE", "/api/v2/secrets/A", key, None),
        ("PUT", "/api/v2/git-providers/github", key, {"token": "u"}),
        ("DELETE", "/api/v2/git-providers/github", key, None),
        ("PATCH", hook, key, {"description": "ours"}),
        ("POST", f"{hook}/rotate", key, None),
        ("DELETE", hook, key, None),
    ):
        sent = {} if body is None else {"json": body}
        await changed(nestor, method, path, asked_with, path.removesuffix("/rotate"), **sent)
    assert (await nestor.call("GET", of, status=200))["limits"] == {"max_runtimes": 3}


async def test_what_is_not_there_is_made_once_and_what_is_there_is_not_made(nestor: Nestor) -> None:
    _, key = await nestor.tenant()
    new, there = {"If-None-Match": "*"}, {"If-Match": "*"}
    for path, body in (("secrets/A", {"value": "v"}), ("git-providers/github", {"token": "t"})):
        await nestor.call("PUT", f"/api/v2/{path}", key, json=body, headers=there, status=412)
        await nestor.call("PUT", f"/api/v2/{path}", key, json=body, headers=new, status=200)
        await nestor.call("PUT", f"/api/v2/{path}", key, json=body, headers=new, status=412)
        assert (await nestor.call("PUT", f"/api/v2/{path}", key, json=body, headers=there, status=200))["version"] == 2
    told = await nestor.call("POST", "/api/v2/webhooks", key, json=HOOK, headers=there, status=422)
    assert told["field"] == "if-match"
    assert (await nestor.call("GET", "/api/v2/webhooks", key, status=200))["items"] == []


async def test_a_conversation_under_an_id_of_ones_own(nestor: Nestor) -> None:
    key, other = await nestor.ready_tenant(), await nestor.ready_tenant("globex")
    path = f"/api/v2/conversations/{uuid.uuid4()}"
    body = {
        "repository": "o/n",
        "title": "a",
        "labels": {"a": "1"},
        "secrets": {"S": "one"},
        "settings": {"limits": {}},
    }
    assert (await nestor.call("PUT", path, key, json=body, params={"dry_run": True}, status=200))["decision"] == "start"
    made = await nestor.call("PUT", path, key, json=body, headers={"If-None-Match": "*"}, status=202)
    await nestor.call("PUT", path, key, json=body, headers={"If-None-Match": "*"}, status=412)
    dry = {"dry_run": True}
    await nestor.call("PUT", path, key, json=body, params=dry, headers={"If-None-Match": "*"}, status=412)
    await nestor.call("POST", f"{path}/start", key, params=dry, headers={"If-Match": '"77777"'}, status=412)
    again = await nestor.call("PUT", path, key, json=body | {"title": "b", "labels": {}}, status=200)
    assert (again["id"], again["operation"], again["title"]) == (made["id"], made["operation"], "a")
    others: list[dict[str, Any]] = [
        {"repository": "o/m"},
        {"secrets": {"S": "two"}},
        {"secrets": {}},
        {"initial_message": "x"},
        {"size": 2},
    ]
    for change in others:
        assert (await nestor.call("PUT", path, key, json=body | change))["status"] in (409, 422)
    assert (await nestor.call("PUT", path, key, json=body | {"secrets": {}}, params={"dry_run": True}, status=409))[
        "code"
    ]
    joined = await nestor.call("PUT", path, key, json=body, params={"dry_run": True}, status=200)
    assert joined["decision"] == "join"
    await nestor.call("PUT", path, key, json=body | {"id": str(uuid.uuid4())}, status=422)
    await nestor.call("PUT", "/api/v2/conversations/mine", key, json=body, status=422)
    # Another tenant may have the same id, and notices nothing.
    elsewhere = await nestor.call("PUT", path, other, json={}, status=202)
    assert elsewhere["id"] == made["id"]
    assert elsewhere["repository"] is None
    ready = await nestor.until(key, made["id"], "ready")
    assert ready["runtime"]["id"] != elsewhere["runtime"]["id"]
    entries = (await nestor.call("GET", "/api/v2/audit", key, params={"verb__eq": "PUT"}, status=200))["items"]
    assert [one["object"]["id"] for one in entries if one["object"] is not None] == [made["id"]]


async def test_of_many_that_make_it_at_once_where_there_is_none_one_does(nestor: Nestor) -> None:
    key, path, told = await nestor.ready_tenant(), f"/api/v2/conversations/{uuid.uuid4()}", list[int]()

    async def make() -> None:
        made = await nestor.http.put(path, headers=nestor.as_(key) | {"If-None-Match": "*"}, json={})
        told.append(made.status_code)

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(make)
    assert sorted(told) == [202, *[412] * 5]


async def test_records_are_changed_as_they_were_read_and_labels_replaced(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    for kind, label in (("conversations", "conversation"), ("runtimes", "runtime")):
        made = await nestor.call("POST", f"/api/v2/{kind}", key, json={"labels": {"a": "1"}}, status=202)
        path = f"/api/v2/{kind}/{made['id']}"
        await nestor.ended(key, made["operation"])
        await changed(nestor, "PUT", f"{path}/labels", key, path, json={"b": "2"})
        shown = await nestor.call("GET", path, key, status=200)
        assert (shown["labels"], shown["phase"]) == ({"b": "2"}, "ready")
        for verb, wanted in (("pause", "paused"), ("stop", "stopped")):
            await changed(nestor, "POST", f"{path}/{verb}", key, path)
            with anyio.fail_after(60):
                while (await nestor.call("GET", path, key, status=200))["phase"] != wanted:
                    await anyio.sleep(0.02)
        for labels in ({"a": None}, {"a": 1}, ["a"], {"-": "x"}, {f"l{n}": "v" for n in range(65)}):
            await nestor.call("PUT", f"{path}/labels", key, json=labels, status=422)
        assert (await nestor.call("PUT", f"{path}/labels", key, json={}, status=200))["labels"] == {}
        await changed(nestor, "DELETE", path, key)
        missing = await nestor.call("PUT", f"{path}/labels", key, json={}, status=410)
        assert missing["detail"] == f"the {label} is deleted"
