"""Webhooks of a runtime over real HTTP: what is sent when, retries, outages, receivers that misbehave."""

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import pytest
from structlog.testing import capture_logs

from orchestrator.demo.model_server import ScriptedModel
from runtime.webhooks import kept
from tests.support.receivers import Answer, WebhookReceiver, webhook_receiver
from tests.support.runtimes import KEY, Runtime, message, runtime_at, terminal

pytestmark = pytest.mark.anyio

LATE = 3600.0


@pytest.fixture
async def model() -> AsyncIterator[ScriptedModel]:
    async with ScriptedModel() as made:
        yield made


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with webhook_receiver() as made:
        yield made


def hook(receiver: WebhookReceiver, **more: Any) -> dict[str, Any]:
    return {"base_url": receiver.url, "retry_delay": 0.05, "flush_delay": 0.3, **more}


async def until(condition: Any, seconds: float = 20) -> None:
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.02)


async def say(runtime: Runtime, id: str, *texts: str) -> None:
    for text in texts:
        answer = await runtime.http.post(f"/api/conversations/{id}/events", json={**message(text), "run": False})
        assert answer.status_code == 200


async def test_a_run_is_told_from_its_creation_to_its_end(
    model: ScriptedModel, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    async with runtime_at(
        tmp_path, model.base_url, webhooks=[hook(receiver, flush_delay=LATE)], generation=7
    ) as runtime:
        id = await runtime.start([terminal("echo hello"), {"text": "done"}])
        assert await runtime.until(id, seconds=90) == "finished"  # the first run imports the model library
        stored = await runtime.events(id)
        await until(lambda: "finished" in receiver.statuses(id) and len(receiver.events(id)) == len(stored))
    assert receiver.posts[0].path == "/hook/conversations"
    sent = receiver.events(id)
    assert [event["id"] for event in sent] == [event["id"] for event in stored]
    assert all(
        {key: sent_one[key] for key in one if one[key] is not None} for one, sent_one in zip(stored, sent, strict=True)
    )
    last = receiver.batches(id)[-1]
    assert (last.body[-1]["key"], last.body[-1]["value"]["execution_status"]) == ("full_state", "finished")
    assert last.headers["x-nestor-generation"] == "7"
    assert not [
        event for batch in receiver.batches(id) for event in batch.body if event["kind"] == "StreamingDeltaEvent"
    ]
    finished = receiver.states(id)[-1]
    assert finished.body["execution_status"] == "finished"
    assert finished.headers["x-nestor-log-events"] == str(len(stored))
    assert max(receiver.most_open.values()) == 1


async def test_a_receiver_of_the_first_releases_is_asked_as_it_wants(
    model: ScriptedModel, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    older = {"webhook_url": receiver.url, "method": "put", "event_buffer_size": 1}
    async with runtime_at(tmp_path, model.base_url, webhooks=[older]) as runtime:
        id = await runtime.start()
        await say(runtime, id, "one")
        await until(lambda: len(receiver.events(id)) == 3)
    assert {post.method for post in receiver.posts} == {"PUT"}


async def test_events_go_by_number_by_time_and_by_size(
    model: ScriptedModel, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    with webhook_receiver() as timed, webhook_receiver() as sized:
        hooks = [
            hook(receiver, flush_delay=LATE, event_buffer_size=7),
            hook(timed, flush_delay=0.3, event_buffer_size=1000),
            hook(sized, flush_delay=LATE, event_buffer_size=1000, max_batch_bytes=6000),
        ]
        async with runtime_at(tmp_path, model.base_url, webhooks=hooks) as runtime:
            id = await runtime.start()
            await say(runtime, id, "one", "two")  # with the prompt and the updates five events
            began = time.monotonic()
            await until(lambda: timed.batches(id))
            assert time.monotonic() - began < 20
            assert len(timed.events(id)) == len(await runtime.events(id)) == 5
            assert not receiver.batches(id)
            await say(runtime, id, "three")
            await until(lambda: receiver.batches(id))
            assert [len(batch.body) for batch in receiver.batches(id)] == [7]
            # The prompt alone was larger than a batch may be, so it went alone; what came then was held back.
            await say(runtime, id, "x" * 4000, "y" * 4000)
            await until(lambda: len(sized.events(id)) >= 8)
            assert all(len(batch.body) == 1 or len(str(batch.body)) < 7000 for batch in sized.batches(id))


async def test_what_is_held_back_goes_when_the_runtime_ends(
    model: ScriptedModel, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    async with runtime_at(tmp_path, model.base_url, webhooks=[hook(receiver, flush_delay=LATE)]) as runtime:
        id = await runtime.start()
        await say(runtime, id, "one")
        await until(lambda: receiver.states(id))
        assert not receiver.batches(id)
    assert len(receiver.events(id)) == 3


async def test_a_failing_receiver_is_tried_again_with_the_same_batch(model: ScriptedModel, tmp_path: Path) -> None:
    def decide(path: str, number: int) -> Answer:
        return Answer(500 if "events" in path and number < 4 else 201)

    with webhook_receiver(decide) as receiver:
        hooks = [hook(receiver, event_buffer_size=1)]
        async with runtime_at(tmp_path, model.base_url, webhooks=hooks) as runtime:
            id = await runtime.start()
            await say(runtime, id, "one", "two", "three")
            await until(lambda: len(receiver.events(id)) == 7)
        failed = [batch for batch in receiver.batches(id, taken=False) if batch.answered == 500]
        assert len(failed) >= 2
        assert len({(batch.first, batch.last) for batch in failed}) == 1
        assert receiver.batches(id)[0].body == failed[0].body


async def test_an_outage_loses_nothing_and_keeps_the_order(model: ScriptedModel, tmp_path: Path) -> None:
    with webhook_receiver() as receiver:
        receiver.stop()
        hooks = [hook(receiver, num_retries=1000, max_queue_size=40)]
        async with runtime_at(tmp_path, model.base_url, webhooks=hooks) as runtime:
            ids = [await runtime.start() for _ in range(3)]
            for id in ids:
                await say(runtime, id, *map(str, range(60)))
            await runtime.http.patch(f"/api/conversations/{ids[0]}", json={"title": "after all"})
            receiver.started()
            await until(lambda: all(len(receiver.events(id)) == 121 and receiver.states(id) for id in ids))
            for id in ids:
                assert [event["id"] for event in receiver.events(id)] == [e["id"] for e in await runtime.events(id)]
                assert max(len(batch.body) for batch in receiver.batches(id)) == 40
            assert [post.body["title"] for post in receiver.states(ids[0])][-1] == "after all"


async def test_a_conversation_that_has_left_memory_is_sent_all_the_same(model: ScriptedModel, tmp_path: Path) -> None:
    with webhook_receiver(lambda path, number: Answer(503)) as receiver, capture_logs() as logs:
        hooks = [hook(receiver, retry_delay=1.5)]
        settings = {"webhooks": hooks, "conversation_idle_ttl_seconds": 0.2}
        async with runtime_at(tmp_path, model.base_url, **settings) as runtime:
            id = await runtime.start()
            await say(runtime, id, *map(str, range(20)))
            await until(lambda: [line for line in logs if line["event"] == "conversation.left_memory"])
            receiver.decide = lambda path, number: Answer()
            await until(lambda: len(receiver.events(id)) == 41 and receiver.states(id))


async def test_receivers_are_independent_and_a_slow_one_holds_up_nobody(
    model: ScriptedModel, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    with webhook_receiver(lambda path, number: Answer(seconds=1.5)) as slow:
        hooks = [hook(slow, event_buffer_size=1), hook(receiver, event_buffer_size=1)]
        async with runtime_at(tmp_path, model.base_url, webhooks=hooks) as runtime:
            id = await runtime.start()
            began = time.monotonic()
            await say(runtime, id, *map(str, range(30)))
            await until(lambda: len(receiver.events(id)) == 61)
            assert time.monotonic() - began < 10
            assert len(slow.posts) < 15
            await until(lambda: len(slow.events(id)) == 61, 30)


async def test_a_redirect_is_not_followed(model: ScriptedModel, receiver: WebhookReceiver, tmp_path: Path) -> None:
    target = receiver.url

    def decide(path: str, number: int) -> Answer:
        return Answer(307, (("Location", f"{target}{path.removeprefix('/hook')}"),))

    with webhook_receiver(decide) as redirecting:
        hooks = [hook(redirecting, event_buffer_size=1, num_retries=9)]
        async with runtime_at(tmp_path, model.base_url, webhooks=hooks) as runtime:
            id = await runtime.start()
            await say(runtime, id, "one")
            await until(lambda: len(redirecting.posts) >= 2)
            await anyio.sleep(0.5)  # a refusal is not hammered, in spite of nine quick tries
            assert len(redirecting.posts) == 2
    assert receiver.posts == []


async def test_a_receiver_that_wants_no_more_is_left_alone(model: ScriptedModel, tmp_path: Path) -> None:
    with webhook_receiver(lambda path, number: Answer(410)) as receiver:
        hooks = [hook(receiver, event_buffer_size=1)]
        async with runtime_at(tmp_path, model.base_url, webhooks=hooks) as runtime:
            for _ in range(3):
                await say(runtime, await runtime.start(), "one", "two")
            await anyio.sleep(0.5)
            assert len(receiver.posts) <= 3  # as many as were under way
        receiver.decide = lambda path, number: Answer()
        async with runtime_at(tmp_path, model.base_url, webhooks=hooks):
            await until(lambda: len(receiver.states()) == 3)


async def test_it_waits_as_long_as_it_is_asked_to(model: ScriptedModel, tmp_path: Path) -> None:
    times: list[float] = []

    def decide(path: str, number: int) -> Answer:
        times.append(time.monotonic())
        return Answer(429, (("Retry-After", "2"),)) if number == 0 else Answer()

    with webhook_receiver(decide) as receiver:
        async with runtime_at(tmp_path, model.base_url, webhooks=[hook(receiver, retry_delay=0)]) as runtime:
            await runtime.start()
            await until(lambda: receiver.states())
        assert times[1] - times[0] >= 1.9


async def test_one_refused_kind_does_not_hold_up_the_other(model: ScriptedModel, tmp_path: Path) -> None:
    with webhook_receiver(lambda path, number: Answer(404 if "events" in path else 204, body=b"")) as receiver:
        async with runtime_at(tmp_path, model.base_url, webhooks=[hook(receiver)]) as runtime:
            id = await runtime.start([{"text": "done"}])
            assert await runtime.until(id, seconds=90) == "finished"
            await until(lambda: "finished" in receiver.statuses(id))
            assert not receiver.batches(id)


async def test_one_conversation_that_is_never_taken_does_not_hold_up_the_others(
    model: ScriptedModel, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    hooks = [hook(receiver, event_buffer_size=1, retry_delay=0.5, num_retries=1)]
    async with runtime_at(tmp_path, model.base_url, webhooks=hooks) as runtime:
        bad, good = [await runtime.start() for _ in range(2)]
        receiver.decide = lambda path, number: Answer(503 if bad.replace("-", "") in path else 200)
        await say(runtime, bad, "one")
        await until(lambda: len(receiver.batches(bad, taken=False)) > 1)
        began = time.monotonic()
        for number in range(20):
            await say(runtime, good, str(number))
            await until(lambda number=number: len(receiver.events(good)) == 3 + 2 * number)
        assert time.monotonic() - began < 60
        assert len(receiver.batches(bad, taken=False)) < 10
        receiver.decide = lambda path, number: Answer()
        await until(lambda: len(receiver.events(bad)) == 3, 30)


async def test_the_end_of_a_runtime_does_not_wait_for_a_receiver_that_hangs(
    model: ScriptedModel, tmp_path: Path
) -> None:
    with webhook_receiver(lambda path, number: Answer(seconds=20)) as receiver:
        async with runtime_at(tmp_path, model.base_url, webhooks=[hook(receiver, event_buffer_size=1)]) as runtime:
            await say(runtime, await runtime.start(), "one")
            await until(lambda: receiver.posts)
            began = time.monotonic()
        assert time.monotonic() - began < 16


async def test_a_batch_that_is_too_large_is_halved(model: ScriptedModel, tmp_path: Path) -> None:
    with webhook_receiver() as receiver:
        receiver.stop()
        async with runtime_at(tmp_path, model.base_url, webhooks=[hook(receiver, num_retries=1000)]) as runtime:
            id = await runtime.start()
            await say(runtime, id, *map(str, range(20)))
            receiver.started()
            taken: list[int] = []

            def decide(path: str, number: int) -> Answer:
                return Answer(413 if "events" in path and not taken else 200)

            receiver.decide = decide
            await until(lambda: receiver.batches(id, taken=False))
            taken.append(1)
            await until(lambda: len(receiver.events(id)) == 41)
            sizes = [len(batch.body) for batch in receiver.batches(id, taken=False)]
            assert sizes[0] > sizes[-1]


async def test_a_huge_answer_is_not_read_to_its_end(model: ScriptedModel, tmp_path: Path) -> None:
    with webhook_receiver(lambda path, number: Answer(body=b"x" * (64 << 20))) as receiver:
        async with runtime_at(tmp_path, model.base_url, webhooks=[hook(receiver, event_buffer_size=1)]) as runtime:
            id = await runtime.start()
            await say(runtime, id, "one")
            await until(lambda: len(receiver.events(id)) == 3)


async def test_what_a_conversation_goes_through_is_posted(
    model: ScriptedModel, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    async with runtime_at(tmp_path, model.base_url, webhooks=[hook(receiver)]) as runtime:
        path = f"/api/conversations/{(id := await runtime.start())}"

        async def posted(method: str, route: str, body: Any = None) -> Any:
            before = len(receiver.states())
            answer = await runtime.http.request(method, route, json=body)
            assert answer.is_success, answer.text
            await until(lambda: len(receiver.states()) > before)
            return answer.json()

        await until(lambda: receiver.states(id))
        await posted("POST", f"{path}/pause")
        await posted("POST", f"{path}/interrupt")
        await posted("PATCH", path, {"title": "another", "tags": {"a": "b"}})
        assert (receiver.states(id)[-1].body["title"], receiver.states(id)[-1].body["tags"]) == ("another", {"a": "b"})
        await say(runtime, id, "hello")
        copy = (await posted("POST", f"{path}/fork", {}))["id"]
        assert receiver.states(copy)[-1].body["forked_from_conversation_id"] == id
        await until(lambda: len(receiver.events(copy)) == 3)
        await posted("DELETE", path)
        assert receiver.statuses(id)[-1] == "deleting"
        assert [event["kind"] for event in receiver.events(id)][-2] == "MessageEvent"
        await until(lambda: not list((tmp_path / "conversations/.webhooks").iterdir()))


async def test_a_conversation_that_is_deleted_in_an_outage_is_still_told_whole(
    model: ScriptedModel, tmp_path: Path
) -> None:
    id = "0f0e0d0c-0b0a-4009-8807-060504030201"
    with webhook_receiver() as receiver:
        receiver.stop()
        hooks = [hook(receiver, num_retries=1000)]
        async with runtime_at(tmp_path, model.base_url, webhooks=hooks) as runtime:
            await runtime.start(conversation_id=id)
            await say(runtime, id, *map(str, range(10)))
            first = await runtime.events(id)
            assert (await runtime.http.delete(f"/api/conversations/{id}")).status_code == 200
            await runtime.start(conversation_id=id)
            await say(runtime, id, "again")
            second = await runtime.events(id)
        async with runtime_at(tmp_path, model.base_url, webhooks=hooks):  # another life
            receiver.started()
            await until(lambda: len(receiver.statuses(id)) >= 2 and len(receiver.batches(id)) >= 2)
            await until(lambda: not list((tmp_path / "conversations/.webhooks").iterdir()))
        assert receiver.statuses(id) == ["deleting", "idle"]
        sent = [event["id"] for batch in receiver.batches(id) for event in batch.stored]
        assert sent == [event["id"] for event in [*first, *second]]
        firsts = [batch.first for batch in receiver.batches(id)]
        assert (firsts[0], firsts.count(1)) == (1, 2)  # each conversation with its own numbers


async def test_what_was_not_kept_of_a_deleted_conversation_is_told_as_a_gap(
    model: ScriptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MOST_BYTES", 12_000)
    with webhook_receiver() as receiver:
        receiver.stop()
        async with runtime_at(tmp_path, model.base_url, webhooks=[hook(receiver, num_retries=1000)]) as runtime:
            id = await runtime.start()
            await say(runtime, id, *map(str, range(40)))
            stored = await runtime.events(id)
            assert (await runtime.http.delete(f"/api/conversations/{id}")).status_code == 200
            receiver.started()
            await until(lambda: receiver.statuses(id))
    *told, gap = receiver.batches(id)
    sent = [event["id"] for batch in told for event in batch.body]
    assert 0 < len(sent) < len(stored)
    assert sent == [event["id"] for event in stored[: len(sent)]]
    assert gap.body == []
    assert gap.headers["x-nestor-gap-first"] == str(len(sent) + 1)
    assert gap.headers["x-nestor-gap-last"] == str(len(stored))
    assert "x-nestor-sequence-first" not in gap.headers
    assert receiver.statuses(id) == ["deleting"]


async def test_what_a_receiver_refuses_of_a_deleted_conversation_is_given_up_in_the_end(
    model: ScriptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "KEPT_SECONDS", 0.0)
    with webhook_receiver(lambda path, number: Answer(404)) as receiver:
        async with runtime_at(tmp_path, model.base_url, webhooks=[hook(receiver)]) as runtime:
            id = await runtime.start()
            await say(runtime, id, "one")
            assert (await runtime.http.delete(f"/api/conversations/{id}")).status_code == 200
            await until(lambda: not list((tmp_path / "conversations/.webhooks").iterdir()))


async def test_keys_and_secrets_do_not_go_to_strangers(
    model: ScriptedModel, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    secret = "value-of-the-users-own-secret"
    with webhook_receiver() as stranger:
        hooks = [
            hook(receiver, send_session_key=True, event_buffer_size=1),
            hook(stranger, event_buffer_size=1, headers={"Authorization": "Bearer of-the-stranger"}),
        ]
        async with runtime_at(tmp_path, model.base_url, webhooks=hooks) as runtime:
            more = {"secrets": {"TOKEN": secret}, "tags": {"said": secret}}
            id = await runtime.start([terminal("echo $TOKEN"), {"text": "done"}], **more)
            assert await runtime.until(id, seconds=90) == "finished"
            await say(runtime, id, f"my secret is {secret}, keep it")
            count = len(await runtime.events(id))
            await until(lambda: len(stranger.events(id)) == len(receiver.events(id)) == count)
            assert (await runtime.http.delete(f"/api/conversations/{id}")).status_code == 200
            await until(lambda: stranger.statuses(id)[-1] == receiver.statuses(id)[-1] == "deleting")
    assert {post.headers.get("x-session-api-key") for post in receiver.posts} == {KEY}
    assert {post.headers.get("authorization") for post in stranger.posts} == {"Bearer of-the-stranger"}
    assert "authorization" not in receiver.posts[0].headers
    told = repr(stranger.posts)
    assert KEY not in told
    assert secret not in told + repr(receiver.posts)
    assert "my secret is <secret-hidden>, keep it" in told


async def test_a_value_that_is_like_the_form_of_events_does_not_break_them(
    model: ScriptedModel, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    async with runtime_at(tmp_path, model.base_url, webhooks=[hook(receiver, event_buffer_size=1)]) as runtime:
        id = await runtime.start([{"text": "done"}], secrets={"A": "e", "B": "user", "C": "2"})
        assert await runtime.until(id, seconds=90) == "finished"
        stored = await runtime.events(id)
        await until(lambda: len(receiver.events(id)) == len(stored))
        await until(lambda: receiver.batches(id)[-1].body[-1]["key"] == "full_state")
        assert UUID(receiver.batches(id)[-1].body[-1]["id"])
        for one, sent in zip(stored, receiver.events(id), strict=True):
            names = ("id", "timestamp", "kind", "source")
            assert {name: sent[name] for name in names} == {name: one[name] for name in names}
        assert receiver.states()[0].body["id"] == id


async def test_thousands_of_events_arrive_whole_and_in_order(
    model: ScriptedModel, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    async with runtime_at(tmp_path, model.base_url, webhooks=[hook(receiver)]) as runtime:
        id = await runtime.start()
        async with anyio.create_task_group() as writers:
            for writer in range(10):
                writers.start_soon(say, runtime, id, *(f"{writer} {number}" for number in range(150)))
        stored = await runtime.events(id)
        assert len(stored) == 3001
        await until(lambda: len(receiver.events(id)) == 3001, 60)
        assert [event["id"] for event in receiver.events(id)] == [event["id"] for event in stored]
