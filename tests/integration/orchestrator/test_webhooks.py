"""Customer webhooks, end to end: the real API, store and deliverer, and a receiver that checks signatures."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.orchestrators import Nestor, nestor_at
from support.receivers import Answer, Post, WebhookReceiver, webhook_receiver

from orchestrator.drivers.errors import StartRefused
from orchestrator.drivers.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio
HERE = "127.0.0.1"


PATIENT = {"allow_hook_hosts": HERE, "hook_backoff_seconds": 0.05, "hook_seconds": 1, "lease_seconds": 2}


@pytest.fixture
async def nestor(data_dir: Path, engine: FakeEngine) -> AsyncIterator[Nestor]:
    async with nestor_at(data_dir, engine, **PATIENT) as running:
        yield running


@pytest.fixture
async def hurried(data_dir: Path, engine: FakeEngine) -> AsyncIterator[Nestor]:
    """One that gives up after a few seconds."""
    async with nestor_at(data_dir, engine, **PATIENT, hook_dead_seconds=4) as running:
        yield running


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with webhook_receiver() as running:
        yield running


async def a_hook(nestor: Nestor, key: str, url: str, *events: str) -> dict[str, Any]:
    body = {"url": url, "events": list(events), "description": "ours"}
    return dict(await nestor.call("POST", "/api/v2/webhooks", key, json=body, status=201))


async def ready(nestor: Nestor, key: str, **body: object) -> dict[str, Any]:
    return dict(await nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=30", key, json=body, status=200))


async def came(receiver: WebhookReceiver, condition: Callable[[list[Post]], Any], seconds: float = 20) -> list[Post]:
    """What was taken, as soon as it meets the condition."""
    with anyio.fail_after(seconds):
        while True:
            taken = [post for post in list(receiver.posts) if post.answered < 300]
            if condition(taken):
                return taken
            await anyio.sleep(0.02)


def types(posts: list[Post]) -> list[str]:
    return [post.body["type"] for post in posts]


def signed_by(post: Post, secret: str) -> bool:
    """As a receiver checks it, from the bytes that came."""
    key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    text = f"{post.headers['webhook-id']}.{post.headers['webhook-timestamp']}.".encode() + post.raw
    wanted = "v1," + base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
    fresh = abs(time.time() - int(post.headers["webhook-timestamp"])) < 300
    return fresh and wanted in post.headers["webhook-signature"].split(" ")


async def hook(nestor: Nestor, key: str, id: str) -> dict[str, Any]:
    return dict(await nestor.call("GET", f"/api/v2/webhooks/{id}", key, status=200))


async def log(nestor: Nestor, key: str, id: str) -> list[dict[str, Any]]:
    return list((await nestor.call("GET", f"/api/v2/webhooks/{id}/deliveries", key, status=200))["items"])


async def test_a_conversations_life_is_told_signed_and_in_order(nestor: Nestor, receiver: WebhookReceiver) -> None:
    key = await nestor.ready_tenant()
    made = await a_hook(nestor, key, receiver.url)
    assert made["secret"].startswith("whsec_")
    assert "secret" not in await hook(nestor, key, made["id"])
    record = await ready(nestor, key, initial_message="hello")
    await nestor.call("POST", f"/api/v2/conversations/{record['id']}/pause", key, status=202)
    await nestor.until(key, record["id"], "paused")
    posts = await came(receiver, lambda posts: posts and posts[-1].body["data"].get("phase") == "paused")
    await nestor.call("DELETE", f"/api/v2/conversations/{record['id']}", key, status=202)
    posts = await came(receiver, lambda posts: posts[-1].body["data"].get("phase") == "deleting")
    phases = [post.body["data"]["phase"] for post in posts if post.body["type"] == "conversation.status_changed"]
    assert phases == ["provisioning", "configuring", "ready", "pausing", "paused", "deleting"]
    assert types(posts)[0] == "conversation.created"
    assert {"runtime.ready", "message.accepted"} <= set(types(posts))
    assert all(signed_by(post, made["secret"]) for post in posts)
    assert not signed_by(posts[0], "whsec_" + base64.b64encode(b"x" * 32).decode())
    numbers = [post.body["sequence"] for post in posts]
    assert numbers == sorted(set(numbers))
    assert len({post.headers["webhook-id"] for post in posts}) == len(posts)
    assert all(post.body["id"] == post.headers["webhook-id"] for post in posts)
    created = posts[0].body
    assert created["data"]["conversation_id"] == record["id"]
    assert created["data"]["status"] == "starting"
    accepted = next(post.body["data"] for post in posts if post.body["type"] == "message.accepted")
    assert (accepted["event_sequence"], accepted["client_id"]) == (1, None), "the first one, of the creation itself"
    lines = await log(nestor, key, made["id"])
    assert {line["state"] for line in lines} == {"delivered"}
    assert {line["status"] for line in lines} == {200}
    standing = await hook(nestor, key, made["id"])
    assert (standing["waiting"], standing["waiting_bytes"], standing["failures"]) == (0, 0, 0)


async def test_what_was_told_is_told_again_from_a_number_on(nestor: Nestor, receiver: WebhookReceiver) -> None:
    key = await nestor.ready_tenant()
    made = await a_hook(nestor, key, receiver.url)
    record = await ready(nestor, key)
    body = {"content": "hello", "client_id": "m-1"}
    await nestor.call("POST", f"/api/v2/conversations/{record['id']}/messages", key, json=body, status=202)
    both = {"message.delivered", "message.accepted"}
    first = await came(receiver, lambda posts: both <= set(types(posts)))
    delivered = next(post.body["data"] for post in first if post.body["type"] == "message.delivered")
    assert (delivered["conversation_id"], delivered["client_id"]) == (record["id"], "m-1")
    assert (delivered["message_sequence"], bool(delivered["event_id"])) == (1, True)
    with anyio.fail_after(30):
        while (await hook(nestor, key, made["id"]))["waiting"]:
            await anyio.sleep(0.02)
    sent = list(receiver.posts)
    path = f"/api/v2/webhooks/{made['id']}"
    since = sent[2].body["sequence"]
    told = await nestor.call("POST", f"{path}/redeliver", key, params={"from": since}, status=202)
    last = max(post.body["sequence"] for post in sent)
    assert told == {"queued": len(sent) - 2, "first_sequence": since, "last_sequence": last, "complete": True}
    posts = await came(receiver, lambda posts: len(posts) == len(sent) + told["queued"])
    again = [post.body for post in posts[len(sent) :] if _of(post, record["id"])]
    assert again == [post.body for post in sent[2:] if _of(post, record["id"])], "in order, under the same ids"
    lines = await nestor.call("GET", f"{path}/deliveries", key, params={"limit": 2}, status=200)
    assert (await nestor.call("GET", f"{path}/deliveries/count", key, status=200))["count"] >= len(sent)
    ids = [lines["items"][1]["id"], "1-1", lines["items"][0]["id"]]
    found = await nestor.call("GET", f"{path}/deliveries", key, params={"ids": ids}, status=200)
    assert found["items"] == [lines["items"][1], None, lines["items"][0]]
    nothing = await nestor.call("POST", f"{path}/redeliver", key, params={"from": 10**6}, status=202)
    assert (nothing["queued"], nothing["first_sequence"], nothing["complete"]) == (0, None, True)
    await nestor.call("POST", f"{path}/redeliver", key, status=422)
    await nestor.call("PATCH", path, key, json={"enabled": False}, status=200)
    await nestor.call("POST", f"{path}/redeliver", key, params={"from": 1}, status=409)


async def test_a_callers_trace_goes_on_in_runtimes_and_receivers(nestor: Nestor, receiver: WebhookReceiver) -> None:
    key, id = await nestor.ready_tenant(), "4bf92f3577b34da6a3ce929d0e0e4736"
    await a_hook(nestor, key, receiver.url)
    trace = {"traceparent": f"00-{id}-00f067aa0ba902b7-01", "tracestate": "theirs=1"}
    path = "/api/v2/conversations"
    made = await nestor.call("POST", path, key, json={}, headers=trace, status=202)
    await nestor.ended(key, made["operation"], seconds=30)
    asked = [one.headers for one in nestor.engine.script.received if one.method == "POST"]
    assert len(asked) >= 3
    assert {(one.get("traceparent"), one.get("tracestate")) for one in asked} == {tuple(trace.values())}
    posts = await came(receiver, lambda posts: "runtime.ready" in types(posts))
    told = [post for post in posts if post.body["type"] != "message.accepted"]
    assert {(post.headers.get("traceparent"), post.headers.get("tracestate")) for post in told} == {
        tuple(trace.values())
    }
    assert not [post for post in posts if "trace" in post.body]
    request = await nestor.http.post(f"{path}/{made['id']}/pause", headers=nestor.as_(key) | {"traceparent": "wrong"})
    assert request.status_code == 202
    posts = await came(receiver, lambda posts: posts[-1].body["data"].get("phase") == "paused")
    assert posts[-1].headers["traceparent"][3:35] == request.headers["x-request-id"]


async def test_no_secret_is_told_logged_or_kept_in_the_clear(
    nestor: Nestor, receiver: WebhookReceiver, data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    key = await nestor.ready_tenant()
    made = await a_hook(nestor, key, receiver.url + "/token-in-the-path")
    words = ("its last words", "and a key: sk-model-key-of-the-tests")
    nestor.engine.fail("start", StartRefused("sk-model-key-of-the-tests was refused", log_tail=words), times=9)
    await nestor.call("POST", "/api/v2/conversations", key, json={}, status=202)
    posts = await came(receiver, lambda posts: "runtime.failed" in types(posts))
    failed = next(post.body["data"] for post in posts if post.body["type"] == "runtime.failed")
    assert failed["reason"] == "image_start"
    assert failed["hint"]
    assert failed["log_tail"][0] == "its last words"
    assert failed["log_tail"][1].startswith("and a key: ")
    assert b"sk-model-key" not in b"".join(post.raw for post in posts)
    rotated = await nestor.call("POST", f"/api/v2/webhooks/{made['id']}/rotate", key, status=200)
    kept = b"".join(path.read_bytes() for path in data_dir.rglob("*") if path.is_file())
    said = "".join(capfd.readouterr())
    for secret in (made["secret"], rotated["secret"]):
        assert secret.removeprefix("whsec_").encode() not in kept
        assert secret not in said
    assert b"token-in-the-path" not in kept
    assert "token-in-the-path" not in said


async def test_two_secrets_sign_for_the_overlap_and_then_one(nestor: Nestor, receiver: WebhookReceiver) -> None:
    key = await nestor.ready_tenant()
    made = await a_hook(nestor, key, receiver.url)
    path = f"/api/v2/webhooks/{made['id']}"
    rotated = await nestor.call("POST", f"{path}/rotate", key, json={"overlap_seconds": 1.0}, status=200)
    assert len(rotated["secrets"]) == 2
    result = await nestor.call("POST", f"{path}/test", key, status=200)
    assert (result["state"], result["status"], result["type"]) == ("delivered", 200, "webhook.test")
    [post] = receiver.posts
    assert signed_by(post, made["secret"])
    assert signed_by(post, rotated["secret"])
    await anyio.sleep(1.1)
    await nestor.call("POST", f"{path}/test", key, status=200)
    assert not signed_by(receiver.posts[-1], made["secret"])
    assert signed_by(receiver.posts[-1], rotated["secret"])
    at_once = await nestor.call("POST", f"{path}/rotate", key, json={"overlap_seconds": 0}, status=200)
    await nestor.call("POST", f"{path}/test", key, status=200)
    assert not signed_by(receiver.posts[-1], rotated["secret"])
    assert signed_by(receiver.posts[-1], at_once["secret"])
    assert [one["number"] for one in (await hook(nestor, key, made["id"]))["secrets"]] == [3]


async def test_a_receiver_that_was_down_gets_everything_in_order(nestor: Nestor, receiver: WebhookReceiver) -> None:
    key = await nestor.ready_tenant()
    made = await a_hook(nestor, key, receiver.url, "conversation.created", "conversation.status_changed")
    receiver.stop()
    records = [await ready(nestor, key) for _ in range(3)]
    with anyio.fail_after(10):
        while not (standing := await hook(nestor, key, made["id"]))["failures"]:
            await anyio.sleep(0.05)
    assert standing["waiting"] == 12
    assert standing["failures"] > 0
    assert standing["failing_since"] is not None
    assert (await log(nestor, key, made["id"]))[0]["problem"] == "the connection was refused"
    receiver.started()
    posts = await came(receiver, lambda posts: len(posts) >= 12)
    for record in records:
        phases = [p.body["data"]["phase"] for p in posts if p.body["data"]["conversation_id"] == record["id"]]
        assert phases == ["pending", "provisioning", "configuring", "ready"]
    assert (await hook(nestor, key, made["id"]))["failures"] == 0


async def test_what_is_refused_is_tried_again_and_a_wish_to_be_left_alone_is_kept(
    nestor: Nestor, receiver: WebhookReceiver
) -> None:
    key = await nestor.ready_tenant()
    made = await a_hook(nestor, key, receiver.url, "conversation.created")
    moments: list[float] = []

    def decide(path: str, number: int) -> Answer:
        moments.append(time.monotonic())
        return (
            [Answer(500), Answer(503, (("Retry-After", "1"),)), Answer(302, (("Location", "http://127.0.0.1:1/"),))][
                number
            ]
            if number < 3
            else Answer(204, body=b"")
        )

    receiver.decide = decide
    await ready(nestor, key)
    await came(receiver, lambda posts: len(posts) >= 1)
    assert moments[2] - moments[1] >= 1.0
    assert len({post.headers["webhook-id"] for post in receiver.posts}) == 1, "a repeat is known by its id"
    lines = await log(nestor, key, made["id"])
    assert [(line["attempt"], line["state"], line["status"]) for line in lines] == [
        (4, "delivered", 204),
        (3, "failed", 302),
        (2, "failed", 503),
        (1, "failed", 500),
    ]
    assert "redirects are not followed" in lines[1]["problem"]


async def test_one_that_is_gone_is_disabled_and_the_others_hear_of_it(
    nestor: Nestor, receiver: WebhookReceiver
) -> None:
    key = await nestor.ready_tenant()
    with webhook_receiver(lambda path, number: Answer(410)) as gone:
        made = await a_hook(nestor, key, gone.url)
        await a_hook(nestor, key, receiver.url, "endpoint.disabled")
        await ready(nestor, key)
        [post] = await came(receiver, lambda posts: posts)
        assert post.body["data"] == {"webhook_id": made["id"], "reason": "gone"}
        off = await hook(nestor, key, made["id"])
        assert (off["enabled"], off["disabled_reason"]) == (False, "gone")
        count = len(gone.posts)
        await ready(nestor, key)
        assert len(gone.posts) == count
        gone.decide = lambda path, number: Answer()
        await nestor.call("PATCH", f"/api/v2/webhooks/{made['id']}", key, json={"enabled": True}, status=200)
        posts = await came(gone, lambda posts: "events.dropped" in types(posts) and "runtime.ready" in types(posts))
        dropped = next(post.body for post in posts if post.body["type"] == "events.dropped")
        assert dropped["data"]["reason"] == "disabled"


async def test_one_that_fails_for_too_long_is_disabled(hurried: Nestor, receiver: WebhookReceiver) -> None:
    key = await hurried.ready_tenant()
    with webhook_receiver(lambda path, number: Answer(500)) as broken:
        made = await a_hook(hurried, key, broken.url, "conversation.created")
        await a_hook(hurried, key, receiver.url, "endpoint.disabled")
        await ready(hurried, key)
        [post] = await came(receiver, lambda posts: posts)
        assert post.body["data"] == {"webhook_id": made["id"], "reason": "failing"}
        assert len(broken.posts) >= 3


async def test_an_event_that_is_refused_for_good_holds_up_neither_its_lane_nor_others(hurried: Nestor) -> None:
    key = await hurried.ready_tenant()
    poison: list[str] = []
    with webhook_receiver() as receiver:
        receive = receiver._post

        def picky(request: Any) -> None:
            poison.extend([] if poison else [request.headers["webhook-id"]])
            if request.headers["webhook-id"] == poison[0]:
                request.path = "/poison"
            receive(request)

        made = await a_hook(hurried, key, receiver.url, "conversation.created", "conversation.status_changed")
        receiver.decide = lambda path, number: Answer(400 if path == "/poison" else 200)
        receiver._post = picky  # type: ignore[method-assign]  # a receiver that dislikes one event
        first = await ready(hurried, key)
        with anyio.fail_after(40):
            while not poison:  # before there is another lane, which might be sent first
                await anyio.sleep(0.02)
            while "events.dropped" not in types(receiver.posts):
                await hurried.call("POST", "/api/v2/conversations", key, json={}, status=202)
                await anyio.sleep(0.5)  # what it takes of others: the endpoint as a whole does not fail
        posts = await came(receiver, lambda posts: sum(_of(post, first["id"]) for post in posts) >= 3)
        dropped = next(post.body for post in posts if post.body["type"] == "events.dropped")
        assert (dropped["data"]["reason"], dropped["data"]["count"]) == ("given_up", 1)
        assert [post.body["data"]["phase"] for post in posts if _of(post, first["id"])] == [
            "provisioning",
            "configuring",
            "ready",
        ]
        assert (await hook(hurried, key, made["id"]))["enabled"]
        given_up = next(line for line in await log(hurried, key, made["id"]) if line["state"] == "given_up")
        assert given_up["event_id"] == poison[0]
        poison[:] = ["nothing"]
        path = f"/api/v2/webhooks/{made['id']}/deliveries/{given_up['id']}/redeliver"
        await hurried.call("POST", path, key, status=202)
        again = given_up["event_id"]
        posts = await came(receiver, lambda posts: again in [post.headers["webhook-id"] for post in posts])
        [post] = [post for post in posts if post.headers["webhook-id"] == again]
        assert post.body["type"] == "conversation.created"


def _of(post: Post, conversation: str) -> bool:
    return bool(post.body["data"].get("conversation_id") == conversation)


async def test_a_slow_receiver_costs_others_nothing(nestor: Nestor, receiver: WebhookReceiver) -> None:
    key = await nestor.ready_tenant()
    with webhook_receiver(lambda path, number: Answer(seconds=1.5)) as slow:
        made = await a_hook(nestor, key, slow.url, "conversation.created")
        await a_hook(nestor, key, receiver.url, "conversation.created")
        for _ in range(3):
            await ready(nestor, key)
        await came(receiver, lambda posts: len(posts) == 3, seconds=5)
        with anyio.fail_after(10):
            while not await log(nestor, key, made["id"]):
                await anyio.sleep(0.05)
        line = (await log(nestor, key, made["id"]))[-1]
        assert (line["state"], line["problem"]) == ("failed", "no answer within 1 seconds")


async def test_a_refused_start_is_told_once(nestor: Nestor, receiver: WebhookReceiver) -> None:
    key = await nestor.ready_tenant()
    await nestor.call("PATCH", "/api/v2/settings", key, json={"limits": {"max_runtimes": 1}}, status=200)
    await a_hook(nestor, key, receiver.url, "quota.exceeded")
    await ready(nestor, key)
    for _ in range(3):
        await nestor.call("POST", "/api/v2/conversations", key, json={}, status=429)
    [post] = await came(receiver, lambda posts: posts)
    data = post.body["data"]
    assert (data["rule"], data["limit"], data["current"]) == ("tenant.runtimes", 1, 1)


async def test_addresses_inside_are_refused_and_nothing_is_made(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    for url in (
        "http://example.com/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::ffff:127.0.0.1]/",
        "https://2130706433/",
        "https://localhost/",
        "https://user:pw@example.com/",
        "ftp://example.com/",
        "",
    ):
        problem = await nestor.call("POST", "/api/v2/webhooks", key, json={"url": url}, status=422)
        assert problem["code"] in ("target_refused", "invalid_request")
        assert "pw" not in json.dumps(problem)
    assert (await nestor.call("GET", "/api/v2/webhooks", key, status=200))["items"] == []


async def test_webhooks_are_their_tenants_alone(nestor: Nestor, receiver: WebhookReceiver) -> None:
    tenant, key = await nestor.tenant()
    _, other = await nestor.tenant("other")
    made = await a_hook(nestor, key, receiver.url)
    path = f"/api/v2/webhooks/{made['id']}"
    await nestor.call("POST", f"{path}/test", key, status=200)
    [line] = await log(nestor, key, made["id"])
    for method, where in (
        ("GET", path),
        ("PATCH", path),
        ("DELETE", path),
        ("POST", f"{path}/rotate"),
        ("POST", f"{path}/test"),
        ("GET", f"{path}/deliveries"),
        ("POST", f"{path}/deliveries/{line['id']}/redeliver"),
        ("GET", f"{path}/deliveries/count"),
        ("POST", f"{path}/redeliver?from=1"),
    ):
        body = {"json": {}} if method == "PATCH" else {}
        theirs = await nestor.call(method, where, other, status=404, **body)
        missing = await nestor.call(
            method, where.replace(made["id"], "00000000-0000-4000-8000-00000000000f"), other, status=404, **body
        )
        assert theirs["detail"] == missing["detail"]
    user = await nestor.call("POST", f"/api/v2/tenants/{tenant}/users", key, json={"name": "ann"}, status=201)
    keys = f"/api/v2/tenants/{tenant}/api-keys"
    own = await nestor.call("POST", keys, key, json={"name": "u", "user": user["id"]}, status=201)
    await nestor.call("GET", "/api/v2/webhooks", own["key"], status=403)
    await nestor.call("GET", "/api/v2/webhooks", key, headers={"X-Act-As-User": user["id"]}, status=403)
    reader = await nestor.call("POST", keys, key, json={"name": "r", "scopes": ["read"]}, status=201)
    await nestor.call("POST", "/api/v2/webhooks", reader["key"], json={"url": receiver.url}, status=403)
    await nestor.call("GET", path, reader["key"], status=200)
    await nestor.call("POST", f"{path}/deliveries/1-1/redeliver", key, status=404)
    await nestor.call("POST", f"{path}/deliveries/nonsense/redeliver", key, status=404)
    await nestor.call("DELETE", path, key, status=204)
    await nestor.call("DELETE", path, key, status=404)
    assert len(receiver.posts) == 1


async def test_bad_input_is_named(nestor: Nestor, receiver: WebhookReceiver) -> None:
    key = await nestor.ready_tenant()
    for body in (
        {},
        {"url": receiver.url, "events": ["no.such"]},
        {"url": receiver.url, "secret": "mine"},
        {"url": receiver.url, "description": "x" * 1001},
        {"url": "https://example.com/" + "a" * 3000},
    ):
        problem = await nestor.call("POST", "/api/v2/webhooks", key, json=body, status=422)
        assert problem["errors"]
    made = await a_hook(nestor, key, receiver.url)
    path = f"/api/v2/webhooks/{made['id']}"
    await nestor.call("POST", f"{path}/rotate", key, json={"overlap_seconds": -1}, status=422)
    await nestor.call("POST", f"{path}/rotate", key, json={"overlap_seconds": 1e9}, status=422)
    await nestor.call("GET", "/api/v2/webhooks/nonsense", key, status=422)
    for _ in range(19):
        await a_hook(nestor, key, receiver.url)
    problem = await nestor.call("POST", "/api/v2/webhooks", key, json={"url": receiver.url}, status=429)
    assert problem["rule"] == "tenant.webhooks"


async def test_endpoints_outlive_a_state_server_that_lost_everything(
    nestor: Nestor, receiver: WebhookReceiver, data_dir: Path
) -> None:
    from redis.asyncio import Redis

    key = await nestor.ready_tenant()
    made = await a_hook(nestor, key, receiver.url)
    await ready(nestor, key)
    before = await came(receiver, lambda posts: "runtime.ready" in types(posts))
    assert nestor.house.state_server is not None
    raw = Redis.from_url(nestor.house.state_server.url)
    await raw.flushall()
    await raw.aclose()
    posts = await came(receiver, lambda posts: "events.dropped" in types(posts))
    assert next(p.body for p in posts if p.body["type"] == "events.dropped")["data"]["reason"] == "lost"
    count = len(posts)
    await ready(nestor, key)
    posts = (await came(receiver, lambda posts: "runtime.ready" in types(posts[count:])))[count:]
    assert all(signed_by(post, made["secret"]) for post in posts)
    assert min(post.body["sequence"] for post in posts) > max(post.body["sequence"] for post in before)
