"""Lists of the native API: filters, batches by id, counts, and cursors that stay right under all of them."""

from typing import Any

import anyio
import pytest
from support.orchestrators import MODEL, OPERATOR_KEY, Nestor

from orchestrator.services import conversation_lists

pytestmark = pytest.mark.anyio
PATH = "/api/v2/conversations"
NOBODY = "00000000-0000-4000-8000-00000000dead"


async def ids(nestor: Nestor, key: str, **query: Any) -> list[str]:
    return [one["id"] for one in (await nestor.call("GET", PATH, key, params=query, status=200))["items"]]


async def several(nestor: Nestor, key: str, count: int) -> list[dict[str, Any]]:
    """Every second one blue, every third one titled; stopped before anything ran, so that nothing moves."""
    made = []
    for number in range(count):
        body: dict[str, Any] = {"labels": {"team": "blue" if number % 2 else "red", "n": str(number)}}
        body |= {} if number % 3 else {"title": f"Quarterly {number}"}
        made.append(await nestor.call("POST", PATH, key, json=body, status=202))
    return made


async def test_filters_of_conversations_and_what_they_leave_out(nestor: Nestor) -> None:
    key, other = await nestor.ready_tenant(), await nestor.ready_tenant("globex")
    made = await several(nestor, key, 7)
    by_number = [one["id"] for one in made]
    assert await ids(nestor, other) == []
    assert await ids(nestor, key, label="team:blue") == [by_number[n] for n in (5, 3, 1)]
    assert await ids(nestor, key, label=["team:blue", "n:3"]) == [by_number[3]]
    assert await ids(nestor, key, label="team:green") == []
    assert await ids(nestor, key, title__contains="QUARTERLY") == [by_number[n] for n in (6, 3, 0)]
    assert await ids(nestor, key, sort_order="CREATED_AT") == by_number
    middle = made[3]["created_at"]
    since = await ids(nestor, key, created_at__gte=middle)
    before = await ids(nestor, key, created_at__lt=middle)
    assert sorted(since + before) == sorted(by_number)
    assert made[3]["id"] in since
    assert await ids(nestor, key, created_at__gte=middle, label="team:blue", sort_order="CREATED_AT")
    await nestor.until(key, by_number[6], "ready")
    await nestor.call("PATCH", f"{PATH}/{by_number[6]}", key, json={"title": "now"}, status=200)
    changed = (await nestor.call("GET", f"{PATH}/{by_number[6]}", key, status=200))["updated_at"]
    assert by_number[6] in await ids(nestor, key, updated_at__gte=changed)
    assert by_number[6] not in await ids(nestor, key, updated_at__lt=changed)
    assert by_number[6] in await ids(nestor, key, status__eq="running", phase__in=["ready", "paused"])
    assert by_number[6] not in await ids(nestor, key, status__in=["stopped", "failed"])
    await nestor.call("DELETE", f"{PATH}/{by_number[1]}", key, status=202)
    assert await ids(nestor, key, label="team:blue") == [by_number[n] for n in (5, 3)]
    assert await ids(nestor, key, label="team:blue", deleted=True) == [by_number[n] for n in (5, 3, 1)]
    for query in ({"label": "blue"}, {"phase__eq": "sleeping"}, {"created_at__gte": "soon"}, {"title__is": "x"}):
        await nestor.call("GET", PATH, key, params=query, status=422)
    await nestor.call("GET", f"{PATH}?label=a:1&label=a:2", key, status=422)


async def test_pages_under_a_filter_skip_and_repeat_nothing(nestor: Nestor, monkeypatch: pytest.MonkeyPatch) -> None:
    """With bounds so small that a page has to say where to go on before it has found anything."""
    monkeypatch.setattr(conversation_lists, "_AT_ONCE", 2)
    monkeypatch.setattr(conversation_lists, "LOOKED_AT", 4)
    monkeypatch.setattr(conversation_lists, "COUNTED", 4)
    key = await nestor.ready_tenant()
    made = [one["id"] for one in await several(nestor, key, 11)]
    for order, wanted in (("CREATED_AT_DESC", made[::-1]), ("CREATED_AT", made)):
        for name, value, chosen in (
            ("label", "team:blue", set(made[1::2])),
            ("title__contains", "quarter", set(made[::3])),
            ("label", "n:0", {made[0]}),
            ("limit", 3, set(made)),
        ):
            found, query = (
                [],
                {name: value, "limit": 1, "sort_order": order} | ({"limit": 3} if name == "limit" else {}),
            )
            pages = 0
            while True:
                page = await nestor.call("GET", PATH, key, params=query, status=200)
                found += [one["id"] for one in page["items"]]
                pages += 1
                if page["next_page_id"] is None:
                    break
                query["page_id"] = page["next_page_id"]
                # what comes meanwhile is before or behind all of it, and what is asked for is found once all the same
            assert found == [id for id in wanted if id in chosen], (order, name, pages)
    count, page_id, calls = 0, None, 0
    while page_id is not None or not calls:
        query = {"label": "team:blue"} | ({"page_id": page_id} if page_id else {})
        told = await nestor.call("GET", f"{PATH}/count", key, params=query, status=200)
        count, page_id, calls = count + told["count"], told["next_page_id"], calls + 1
    assert (count, calls) == (5, 3)
    assert await nestor.call("GET", f"{PATH}/count", key, params={"deleted": True}, status=200) == {
        "count": 11,
        "next_page_id": None,
    }


async def test_a_batch_is_in_the_order_that_was_asked_for_with_null_for_what_is_not_there(nestor: Nestor) -> None:
    key, other = await nestor.ready_tenant(), await nestor.ready_tenant("globex")
    first, second = [one["id"] for one in await several(nestor, key, 2)]
    foreign = (await several(nestor, other, 1))[0]["id"]
    box = (await nestor.call("POST", "/api/v2/runtimes", key, json={}, status=202))["id"]
    asked = [second, NOBODY, first.replace("-", ""), foreign, box, second]
    page = await nestor.call("GET", PATH, key, params={"ids": asked}, status=200)
    assert [one and one["id"] for one in page["items"]] == [second, None, first, None, None, second]
    assert page["next_page_id"] is None
    assert await nestor.call("GET", PATH, other, params={"ids": [first, foreign]}, status=200) != page
    tenant = (await nestor.call("GET", "/api/v2/tenants", status=200))["items"][0]["id"]
    user = await nestor.call("POST", f"/api/v2/tenants/{tenant}/users", json={"name": "u"}, status=201)
    acting = {"X-Act-As-User": user["id"]}
    own = await nestor.call("POST", PATH, key, json={"labels": {"team": "red"}}, headers=acting, status=202)
    asked = {"ids": [first, own["id"]]}
    seen = await nestor.call("GET", PATH, key, params=asked, headers=acting, status=200)
    assert [one and one["id"] for one in seen["items"]] == [None, own["id"]]
    red = await nestor.call("GET", PATH, key, params={"label": "team:red"}, headers=acting, status=200)
    assert [one["id"] for one in red["items"]] == [own["id"]]
    assert (await nestor.call("GET", f"{PATH}/count", key, headers=acting, status=200))["count"] == 1
    await nestor.call("DELETE", f"{PATH}/{own['id']}?purge=true", key, status=202)
    runtimes = await nestor.call("GET", "/api/v2/runtimes", key, params={"ids": [first, box]}, status=200)
    assert [one and one["id"] for one in runtimes["items"]] == [None, box]
    assert (await nestor.call("GET", "/api/v2/runtimes/count", key, status=200))["count"] == 1
    assert (await nestor.call("GET", f"{PATH}/count", key, status=200))["count"] == 2
    await nestor.call("DELETE", f"{PATH}/{first}", key, status=202)
    assert (await nestor.call("GET", PATH, key, params={"ids": first}, status=200))["items"] == [None]
    kept = await nestor.call("GET", PATH, key, params={"ids": first, "deleted": True}, status=200)
    assert kept["items"][0]["purge_at"]
    for query in ({"ids": "x"}, {"ids": [first] * 101}, {"ids": first, "limit": 5}, {"ids": first, "label": "a:b"}):
        assert (await nestor.call("GET", PATH, key, params=query, status=422))["code"] == "invalid_request"


async def test_lists_of_what_a_tenant_has_beside_them(nestor: Nestor) -> None:
    tenant, key = await nestor.tenant()
    path = f"/api/v2/tenants/{tenant}"
    users = [
        await nestor.call("POST", f"{path}/users", key, json={"name": n, "external_id": f"x-{n}"}, status=201)
        for n in "abc"
    ]
    assert (await nestor.call("GET", f"{path}/users", key, params={"external_id__eq": "x-b"}))["items"] == [users[1]]
    assert (await nestor.call("GET", f"{path}/users", key, params={"external_id__eq": "x"}))["items"] == []
    picked = await nestor.call("GET", f"{path}/users", key, params={"ids": [users[2]["id"], NOBODY]}, status=200)
    assert picked["items"] == [users[2], None]
    assert (await nestor.call("GET", f"{path}/users/count", key, status=200))["count"] == 3
    late = {"created_at__gte": users[1]["created_at"]}
    assert users[2] in (await nestor.call("GET", f"{path}/users", key, params=late, status=200))["items"]
    assert (await nestor.call("GET", f"{path}/users/count", key, params={"created_at__lt": "2020-01-01"}))["count"] == 0
    user = users[0]["id"]
    await nestor.call("POST", f"{path}/api-keys", key, json={"name": "u", "user": user}, status=201)
    of_user = await nestor.call("GET", f"{path}/api-keys", key, params={"user__eq": user}, status=200)
    assert [one["user"] for one in of_user["items"]] == [user]
    assert (await nestor.call("GET", f"{path}/api-keys/count", key, status=200))["count"] == 2
    for name in "CAB":
        await nestor.call("PUT", f"/api/v2/secrets/{name}", key, json={"value": "v"}, status=200)
    first = await nestor.call("GET", "/api/v2/secrets", key, params={"limit": 2}, status=200)
    assert [one["name"] for one in first["items"]] == ["A", "B"]
    await nestor.call("DELETE", "/api/v2/secrets/B", key, status=204)
    rest = await nestor.call("GET", "/api/v2/secrets", key, params={"page_id": first["next_page_id"]}, status=200)
    assert ([one["name"] for one in rest["items"]], rest["next_page_id"]) == (["C"], None)
    some = await nestor.call("GET", "/api/v2/secrets", key, params={"ids": ["C", "B"]}, status=200)
    assert [one and one["name"] for one in some["items"]] == ["C", None]
    assert (await nestor.call("GET", "/api/v2/secrets/count", key, status=200))["count"] == 2
    await nestor.call("GET", "/api/v2/secrets", key, params={"page_id": "é"}, status=422)
    listed = await nestor.call("GET", "/api/v2/tenants", params={"ids": [NOBODY, tenant]}, status=200)
    assert [one and one["id"] for one in listed["items"]] == [None, tenant]
    assert (await nestor.call("GET", "/api/v2/tenants/count", status=200))["count"] == 1
    await nestor.call("GET", "/api/v2/tenants/count", key, status=403)


async def test_lists_within_a_conversation_have_counts_and_batches_too(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    _, other = await nestor.tenant("other")
    body = {"initial_message": "hello"}
    id = (await nestor.call("POST", f"{PATH}?wait=ready&timeout=60", key, json=body, status=200))["id"]
    path = f"{PATH}/{id}"

    async def counted(what: str) -> int:
        await nestor.call("GET", f"{path}/{what}/count", other, status=404)
        found = await nestor.call("GET", f"{path}/{what}/count", key, status=200)
        assert found["next_page_id"] is None
        return int(found["count"])

    async def batch(what: str, *ids: str) -> list[Any]:
        found = await nestor.call("GET", f"{path}/{what}", key, params={"ids": [*ids]}, status=200)
        await nestor.call("GET", f"{path}/{what}", key, params={"ids": [*ids], "limit": 1}, status=422)
        return list(found["items"])

    for client in ("a", "count", "b"):
        sent = {"content": client, "client_id": client}
        await nestor.call("POST", f"{path}/messages", key, json=sent, status=202)
    assert await counted("messages") == 3
    assert [one and one["id"] for one in await batch("messages", "count", "x", "a")] == ["count", None, "a"]
    with anyio.fail_after(60):
        while (await nestor.call("GET", f"{path}/messages/b", key, status=200))["state"] != "accepted":
            await anyio.sleep(0.02)
    whole = (await nestor.call("GET", f"{path}/events", key, status=200))["items"]
    assert await counted("events") >= len(whole) > 3
    last = whole[-1]
    assert await batch("events", str(last["sequence"]), "999999", "0", "1") == [last, None, None, whole[0]]
    await nestor.call("GET", f"{path}/events", key, params={"ids": ["x"]}, status=422)
    links = [await nestor.call("POST", f"{path}/links", key, json={"port": port}, status=201) for port in (3000, 3001)]
    assert await counted("links") == 2
    found = await batch("links", links[1]["id"], id, links[0]["id"])
    assert [one and one["port"] for one in found] == [3001, None, 3000]
    assert await counted("snapshots") == 0
    assert await batch("snapshots", id) == [None]


async def test_a_problem_says_why_a_runtime_is_not_there(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    nestor.engine.script.fail("POST", "/api/settings", 400, times=1)
    failed = await nestor.call("POST", f"{PATH}?wait=ready&timeout=60", key, json={}, status=200)
    assert failed["phase"] == "failed"
    path = f"{PATH}/{failed['id']}"
    for method, below, more in (
        ("POST", "/pause", {}),
        ("GET", "/files", {}),
        ("POST", "/links", {"json": {"port": 3000}}),
    ):
        problem = await nestor.call(method, path + below, key, status=409, **more)
        same = {name: failed[name] for name in ("reason", "message", "hint", "retryable", "step", "log_tail")}
        assert problem["cause"] == same, below
    await nestor.call("POST", f"{path}/start?wait=ready&timeout=60", key, status=200)
    stopped = await nestor.call("POST", f"{path}/stop", key, status=202)
    await nestor.ended(key, stopped["operation"])
    assert "cause" not in await nestor.call("GET", f"{path}/files", key, status=409)


async def test_a_page_id_goes_with_the_call_that_answered_it(nestor: Nestor) -> None:
    tenant, key = await nestor.tenant()
    await nestor.call("PATCH", "/api/v2/settings", key, json=MODEL, status=200)
    other = await nestor.ready_tenant("globex")
    await several(nestor, key, 5)
    first = await nestor.call("GET", PATH, key, params={"limit": 2}, status=200)
    page_id = first["next_page_id"]
    rest = await nestor.call("GET", PATH, key, params={"limit": 100, "page_id": page_id}, status=200)
    assert len(rest["items"]) == 3
    person = await nestor.call("POST", f"/api/v2/tenants/{tenant}/users", key, json={"name": "u"}, status=201)
    acting, id = {"X-Act-As-User": person["id"]}, first["items"][0]["id"]
    refused = [
        await nestor.call("GET", path, of, params={**query, "page_id": page_id}, headers=headers, status=422)
        for path, of, query, headers in (
            (PATH, other, {}, {}),
            (PATH, key, {}, acting),
            (PATH, key, {"label": "team:blue"}, {}),
            (PATH, key, {"deleted": "true"}, {}),
            (PATH, key, {"sort_order": "CREATED_AT"}, {}),
            (f"{PATH}/count", key, {}, {}),
            ("/api/v2/runtimes", key, {}, {}),
            ("/api/v2/secrets", key, {}, {}),
            ("/api/v2/audit", key, {}, {}),
            ("/api/v2/webhooks", key, {}, {}),
            (f"{PATH}/{id}/links", key, {}, {}),
            (f"{PATH}/{id}/snapshots", key, {}, {}),
            (f"/api/v2/tenants/{tenant}/users", key, {}, {}),
        )
    ]
    for problem in refused:
        assert (problem["code"], problem["field"]) == ("invalid_request", "page_id")
        assert problem["errors"] == [{"field": "page_id", "message": problem["detail"], "type": "invalid_request"}]
        assert "repeat the call that answered it" in problem["hint"]
    for made_up in (page_id[:-4], "MDAwMDAwMDAwMDAwMTp4", "x"):
        await nestor.call("GET", PATH, key, params={"page_id": made_up}, status=422)


async def test_a_page_id_is_good_for_an_id_in_either_form_and_after_a_change(nestor: Nestor) -> None:
    tenant, _ = await nestor.tenant()
    paths = [f"/api/v2/tenants/{form}/api-keys" for form in (tenant, tenant.replace("-", ""), tenant.upper())]
    made = [await nestor.call("POST", paths[0], json={"name": n}, status=201) for n in "abc"]
    whole = [one["id"] for one in (await nestor.call("GET", paths[0], status=200))["items"]]
    first = await nestor.call("GET", paths[0], params={"limit": 2}, status=200)
    await nestor.call("DELETE", f"{paths[0]}/{first['items'][1]['id']}", status=204)
    for path in paths:
        rest = await nestor.call("GET", path, params={"page_id": first["next_page_id"]}, status=200)
        assert [one["id"] for one in rest["items"]] == whole[2:]
    assert {one["id"] for one in made} <= set(whole)


async def test_each_list_that_is_kept_by_creation_is_read_from_either_end(nestor: Nestor) -> None:
    tenant, key = await nestor.tenant()
    await nestor.call("PATCH", "/api/v2/settings", key, json=MODEL, status=200)
    body = {"initial_message": "hello"}
    id = (await nestor.call("POST", f"{PATH}?wait=ready&timeout=60", key, json=body, status=200))["id"]
    made = {
        "/api/v2/tenants": [{"name": name} for name in "abc"],
        f"/api/v2/tenants/{tenant}/users": [{"name": name} for name in "abc"],
        f"/api/v2/tenants/{tenant}/api-keys": [{"name": name} for name in "abc"],
        f"{PATH}/{id}/links": [{"port": port} for port in (1, 2, 3)],
    }
    for path, bodies in made.items():
        of = key if path.startswith(PATH) else OPERATOR_KEY
        for body in bodies:
            await nestor.call("POST", path, of, json=body, status=201)
        whole = (await nestor.call("GET", path, of, status=200))["items"]
        assert len(whole) >= len(bodies)
        for order, wanted in (("CREATED_AT", whole), ("CREATED_AT_DESC", whole[::-1])):
            found, query = [], {"limit": 2, "sort_order": order}
            while "page_id" not in query or query["page_id"] is not None:
                page = await nestor.call("GET", path, of, params=query, status=200)
                found, query = found + page["items"], {**query, "page_id": page["next_page_id"]}
            assert found == wanted, path
        await nestor.call("GET", path, of, params={"sort_order": "NAME"}, status=422)
    moments = [one["created_at"] for one in whole]
    assert moments == sorted(moments)


async def test_every_list_has_the_same_bounds(nestor: Nestor) -> None:
    _, key = await nestor.tenant()
    document = (await nestor.http.get("/openapi.json")).json()["paths"]
    lists = [
        path
        for path, verbs in document.items()
        if path.startswith("/api/v2/")
        and "get" in verbs
        and any(one["name"] == "limit" for one in verbs["get"].get("parameters", ()))
    ]
    assert len(lists) > 12
    for path in lists:
        place = path.format(tenant=NOBODY, conversation=NOBODY, runtime=NOBODY, webhook=NOBODY, path="")
        of = OPERATOR_KEY if "tenants" in path else key
        for limit in ("0", "101", "-1", "x", ""):
            problem = await nestor.call("GET", place, of, params={"limit": limit}, status=422)
            assert problem["field"] == problem["errors"][0]["field"] == "limit"
        if "/files" not in path:
            assert f"{path}/count" in document, path
            names = [one["name"] for one in document[path]["get"]["parameters"]]
            assert "ids" in names, path
            assert "page_id" in names, path


async def test_lists_by_number_go_on_by_either_name(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    body = {"initial_message": "SAY:5"}
    id = (await nestor.call("POST", f"{PATH}?wait=ready&timeout=60", key, json=body, status=200))["id"]
    await nestor.call("POST", f"{PATH}/{id}/messages", key, json={"content": "x"}, status=202)
    for what in ("events", "messages"):
        whole = (await nestor.call("GET", f"{PATH}/{id}/{what}", key, status=200))["items"]
        first = await nestor.call("GET", f"{PATH}/{id}/{what}", key, params={"limit": 1}, status=200)
        rest = {"page_id": first["next_page_id"]}
        following = (await nestor.call("GET", f"{PATH}/{id}/{what}", key, params=rest, status=200))["items"]
        numbers = [one["sequence"] for one in [*first["items"], *following]]  # there may be more by now
        assert numbers[: len(whole)] == [one["sequence"] for one in whole]
        for wrong in ({**rest, "after": 1}, {"page_id": "x"}, {"page_id": "-1"}):
            await nestor.call("GET", f"{PATH}/{id}/{what}", key, params=wrong, status=422)
