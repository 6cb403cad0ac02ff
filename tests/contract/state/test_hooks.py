"""Endpoints and their outbox: written with the change, in order, with one sender a lane, and bounded."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.domain.clock import SystemClock
from orchestrator.domain.conversation import REQUESTED, Phase, Reason, Why, advance, fail
from orchestrator.domain.errors import LimitReached
from orchestrator.domain.hooks import (
    Attempt,
    Delivery,
    Draft,
    HookEndpoint,
    HookEvent,
    HookSecret,
    HookStanding,
    Outcome,
    created,
    draft,
)
from orchestrator.domain.ids import HookId, TenantId, UserId, message_event_id, new_uuid
from orchestrator.state import records
from orchestrator.state.base import Hooks, StoredEvent

from .conftest import MOMENT, House, a_conversation, until
from .test_journal import noted
from .test_work import leased

pytestmark = pytest.mark.anyio
TENANT = TenantId(new_uuid())
CLAIM_MS = 60_000


def an_endpoint(*events: HookEvent, tenant: TenantId = TENANT) -> HookEndpoint:
    secrets = (HookSecret(2, "sealed-2"), HookSecret(1, "sealed-1", MOMENT))
    return HookEndpoint(HookId(new_uuid()), tenant, "sealed-url", events, "ours", secrets, MOMENT, MOMENT)


async def put(house: House, endpoint: HookEndpoint, *, expected: int = 0, queue: int = 1_000_000) -> bool:
    return await house.store.hooks.put(endpoint, expected_version=expected, queue_bytes=queue, limit=3)


async def claimed(hooks: Hooks, *, limit: int = 50) -> list[Delivery]:
    """What is due, in the order of endpoints and lanes."""
    found = await hooks.claim_due(limit=limit, each=lambda tenant: limit, claim_ms=CLAIM_MS)
    return sorted(found, key=lambda one: (one.endpoint, one.lane))


def an_attempt(delivery: Delivery, outcome: Outcome = Outcome.DELIVERED) -> Attempt:
    body = delivery.body()
    return Attempt(body["id"], body["type"], body["sequence"], delivery.lane, 1, outcome, 200, "", 12, delivery.entry)


async def done(hooks: Hooks, delivery: Delivery, outcome: Outcome = Outcome.DELIVERED) -> Delivery | None:
    return await hooks.delivered(delivery, an_attempt(delivery, outcome), claim_ms=CLAIM_MS)


async def not_taken(hooks: Hooks, delivery: Delivery, *, lane: int = 0, endpoint: int = 0) -> tuple[int, int]:
    attempt = replace(an_attempt(delivery, Outcome.FAILED), status=500, problem="answered 500")
    return await hooks.failed(delivery, attempt, lane_rests_ms=lane, endpoint_rests_ms=endpoint)


def types(deliveries: list[Delivery]) -> list[str]:
    return [one.body()["type"] for one in deliveries]


async def drained(hooks: Hooks, deliveries: list[Delivery]) -> list[dict[str, object]]:
    """The bodies of whole lanes, each as it was sent."""
    bodies = []
    for head in deliveries:
        one: Delivery | None = head
        while one is not None:
            bodies.append(one.body())
            one = await done(hooks, one)
    return bodies


async def test_endpoints_are_kept_compared_and_journaled(house: House) -> None:
    first, second = an_endpoint(), an_endpoint(HookEvent.CREATED)
    second = replace(second, created_at=MOMENT + timedelta(seconds=1))
    assert await put(house, first)
    assert await put(house, second)
    assert await house.other.hooks.get(TENANT, first.id) == first
    assert await house.other.hooks.all(TENANT) == [first, second]
    assert await house.store.hooks.get(TenantId(new_uuid()), first.id) is None
    changed = replace(first, description="new", version=2)
    assert await put(house, changed, expected=1)
    assert not await put(house, replace(first, description="late", version=2), expected=1)
    assert not await put(house, first, expected=0)
    assert await put(house, an_endpoint())
    with pytest.raises(LimitReached):
        await put(house, an_endpoint())
    assert not await house.store.hooks.delete(TENANT, second.id, expected_version=second.version + 1)
    assert await house.store.hooks.delete(TENANT, second.id, expected_version=second.version)
    assert not await house.store.hooks.delete(TENANT, second.id)
    entries = [(one.kind, one.id, one.body) for one in await noted(house, TENANT) if one.kind == "hook"]
    assert entries[0] == ("hook", first.id, records.hook_text(first))
    assert entries[2] == ("hook", first.id, records.hook_text(changed))
    assert entries[-1] == ("hook", second.id, None)


async def test_a_tenant_without_endpoints_leaves_nothing_in_the_outbox(house: House) -> None:
    conversation = a_conversation(TENANT)
    before = await house.size()
    await house.store.hooks.publish(TENANT, "-", created(conversation), once="quota", once_ms=60_000)
    assert await house.size() == before
    await house.store.conversations.create(conversation)
    assert await claimed(house.store.hooks) == []
    assert await house.store.hooks.next_due_ms() is None
    if house.raw is not None:
        assert [name async for name in house.raw.scan_iter("*hook*")] == []


async def test_changes_are_told_in_order_by_the_step_that_makes_them(house: House) -> None:
    store, endpoint = house.store, an_endpoint()
    await put(house, endpoint)
    conversation = await store.conversations.create(a_conversation(TENANT, UserId(new_uuid())))
    await store.conversations.create(conversation)  # it is there: nothing happened
    taken = await store.conversations.claim(TENANT, conversation.id, "me", lease_ms=60_000)
    assert taken is not None
    lease, record = taken
    for phase in (Phase.PROVISIONING, Phase.CONFIGURING, Phase.READY):
        moved = advance(record, phase, why=REQUESTED, now=MOMENT)
        record = await store.conversations.save(lease, moved, expected_version=record.version)
    record = await store.conversations.save(lease, record, expected_version=record.version)  # in the same phase
    why = Why(Reason.OOM, "the runtime ran out of memory", "give it more", True, "alive", ("a line of its log",))
    failed = fail(record, why, now=MOMENT)
    await store.conversations.save(lease, failed, expected_version=record.version)
    await store.inbox.put(TENANT, conversation.id, client_id="mine", content="{}", limit=9)
    event = StoredEvent(1, message_event_id(conversation.id, "mine"), "{}", is_message=True)
    await store.events.append(TENANT, conversation.id, [event, StoredEvent(2, "e2", "{}")])
    await store.events.append(TENANT, conversation.id, [event])  # there already
    assert await house.other.hooks.next_due_ms() == 0
    heads = await claimed(house.other.hooks)
    assert [head.lane for head in heads] == [conversation.id]
    bodies = await drained(house.other.hooks, heads)
    assert [body["type"] for body in bodies] == [
        "conversation.created",
        "conversation.status_changed",
        "conversation.status_changed",
        "conversation.status_changed",
        "runtime.ready",
        "conversation.status_changed",
        "runtime.failed",
        "message.accepted",
    ]
    assert [body["sequence"] for body in bodies] == list(range(1, 9))
    assert len({str(body["id"]) for body in bodies}) == 8
    assert all(body["tenant_id"] == TENANT and body["version"] == 1 for body in bodies)
    told = bodies[6]["data"]
    assert isinstance(told, dict)
    assert (told["reason"], told["hint"], told["retryable"], told["step"]) == ("oom", "give it more", True, "alive")
    assert told["log_tail"] == ["a line of its log"]
    assert json.dumps(bodies).count("a line of its log") == 1
    assert bodies[7]["data"] == {
        "conversation_id": conversation.id,
        "event_sequence": 1,
        "event_id": event.id,
        "client_id": "mine",
    }
    assert await store.hooks.standing(TENANT, endpoint.id) == HookStanding()


async def test_an_endpoint_gets_what_it_wants(house: House) -> None:
    picky, other = an_endpoint(HookEvent.CREATED), an_endpoint(HookEvent.RUNTIME_FAILED)
    await put(house, picky)
    await put(house, other)
    elsewhere = an_endpoint(tenant=TenantId(new_uuid()))
    await put(house, elsewhere)
    await house.store.conversations.create(a_conversation(TENANT))
    heads = await claimed(house.store.hooks)
    assert [(head.endpoint, head.tenant) for head in heads] == [(picky.id, TENANT)]


async def test_a_lane_has_one_sender_and_a_late_one_changes_nothing(house: House) -> None:
    hooks = house.store.hooks
    await put(house, an_endpoint())
    for _ in range(3):
        await hooks.publish(TENANT, "-", [_note()])
    [head] = await hooks.claim_due(limit=9, each=lambda tenant: 9, claim_ms=400)
    assert await claimed(house.other.hooks) == []

    async def again() -> list[Delivery]:
        return await claimed(house.other.hooks)

    [taken] = await until(again)  # the first sender died
    assert taken.entry == head.entry
    assert taken.mark != head.mark
    assert await done(hooks, head) is None  # it did not die: what it sent is sent again, and the lane is not its own
    following = await done(house.other.hooks, taken)
    assert following is not None
    assert following.body()["sequence"] == 2
    await house.other.hooks.hand_back(following)
    [back] = await claimed(hooks)
    assert back.entry == following.entry
    assert len(await hooks.attempts(TENANT, head.endpoint, before=None, limit=10)) == 2


async def test_a_failure_lets_the_endpoint_rest_and_then_one_lane_is_tried(house: House) -> None:
    hooks, endpoint = house.store.hooks, an_endpoint()
    await put(house, endpoint)
    for lane in "abc":
        await hooks.publish(TENANT, lane, [_note()])
    heads = await claimed(hooks)
    assert [head.lane for head in heads] == ["a", "b", "c"]
    for head in heads:
        failures, since_ms = await not_taken(hooks, head, endpoint=400)
    assert failures == 3
    assert 0 <= since_ms < 60_000
    assert await claimed(hooks) == []
    due = await hooks.next_due_ms()
    assert due is not None
    assert due <= 400
    standing = await hooks.standing(TENANT, endpoint.id)
    assert (standing.waiting, standing.failures) == (3, 3)
    assert standing.failing_since_ms is not None
    assert standing.rests_until_ms is not None

    async def again() -> list[Delivery]:
        return await claimed(hooks)

    [probe] = await until(again)
    assert probe.tries == 1
    assert await claimed(house.other.hooks) == []  # one at a time
    assert await done(hooks, probe) is None
    assert len(await claimed(hooks)) == 2
    assert (await hooks.standing(TENANT, endpoint.id)).failing_since_ms is None


async def test_what_does_not_fit_is_marked_and_counted(house: House) -> None:
    hooks, endpoint = house.store.hooks, an_endpoint()
    note = _note()
    await put(house, endpoint, queue=len(note.text) * 2 + 10)
    for number in range(7):
        await hooks.publish(TENANT, f"lane-{number}", [_note()])
    standing = await hooks.standing(TENANT, endpoint.id)
    assert standing.waiting == 3
    heads = await claimed(hooks)
    marker = next(head for head in heads if head.lane == "-").body()
    assert marker["type"] == "events.dropped"
    assert marker["data"] == {
        "webhook_id": endpoint.id,
        "reason": "full",
        "count": 5,
        "first_sequence": 3,
        "last_sequence": 7,
    }
    # It grows while it is sent: then it is sent again, under another id, so that nobody takes it for a repeat.
    await hooks.publish(TENANT, "lane-9", [_note()])
    again = await done(hooks, next(head for head in heads if head.lane == "-"))
    assert again is not None
    assert again.body()["data"]["count"] == 6
    assert again.body()["id"] != marker["id"]
    await drained(hooks, [again, *(head for head in heads if head.lane != "-")])
    assert await hooks.standing(TENANT, endpoint.id) == HookStanding()


async def test_what_is_given_up_is_marked_and_the_lane_goes_on(house: House) -> None:
    hooks, endpoint = house.store.hooks, an_endpoint()
    await put(house, endpoint)
    await hooks.publish(TENANT, "a", [_note(), _note()])
    [head] = await claimed(hooks)
    following = await done(hooks, head, Outcome.GIVEN_UP)
    assert following is not None
    assert following.body()["sequence"] == 2
    [marker] = await claimed(hooks)
    assert marker.body()["data"] == {
        "webhook_id": endpoint.id,
        "reason": "given_up",
        "count": 1,
        "first_sequence": 1,
        "last_sequence": 1,
    }


async def test_a_disabled_endpoint_keeps_what_waits_and_learns_of_the_rest(house: House) -> None:
    hooks, endpoint, other = house.store.hooks, an_endpoint(), an_endpoint(HookEvent.ENDPOINT_DISABLED)
    await put(house, endpoint)
    await put(house, other)
    await hooks.publish(TENANT, "a", [_note()])
    off = replace(endpoint, enabled=False, disabled_reason="gone", version=2)
    news = draft(HookEvent.ENDPOINT_DISABLED, TENANT, MOMENT, {"webhook_id": endpoint.id})
    assert await hooks.put(off, expected_version=1, queue_bytes=9_999, limit=3, told=[news])
    await hooks.publish(TENANT, "a", [_note()])  # to nobody
    heads = await claimed(hooks)
    assert [(head.endpoint, head.body()["type"]) for head in heads] == [(other.id, "endpoint.disabled")]
    await put(house, replace(off, enabled=True, version=3), expected=2)
    heads = [head for head in await claimed(hooks) if head.endpoint == endpoint.id]
    assert types(heads) == ["events.dropped", "quota.exceeded"]
    assert heads[0].body()["data"]["reason"] == "disabled"
    await hooks.delete(TENANT, endpoint.id)
    assert await done(hooks, heads[1]) is None
    assert await hooks.attempts(TENANT, endpoint.id, before=None, limit=9) == []


async def test_the_log_is_paged_kept_short_and_told_again(house: House) -> None:
    hooks, endpoint = house.store.hooks, an_endpoint()
    await put(house, endpoint)
    for _ in range(3):
        await hooks.publish(TENANT, "a", [_note()])
    sent = await drained(hooks, await claimed(hooks))
    page = await hooks.attempts(TENANT, endpoint.id, before=None, limit=2)
    assert [one.event for one in page] == [sent[2]["id"], sent[1]["id"]]
    [oldest] = await hooks.attempts(TENANT, endpoint.id, before=page[-1].id, limit=2)
    assert oldest.event == sent[0]["id"]
    assert oldest.at is not None
    found = await hooks.attempt(TENANT, endpoint.id, oldest.id)
    assert found == oldest
    assert await hooks.attempt(TENANT, endpoint.id, "no such id") is None
    assert await hooks.attempts(TENANT, endpoint.id, before="no such id", limit=2) == []
    assert await hooks.again(TENANT, endpoint.id, oldest)
    [again] = await claimed(hooks)
    assert again.body() == sent[0]
    await drained(hooks, [again])
    told = await hooks.attempts(TENANT, endpoint.id, before=None, limit=9)
    assert await hooks.again(TENANT, endpoint.id, *reversed(told[1:]))
    assert await drained(hooks, await claimed(hooks)) == sent, "in the order that was asked for"
    assert await hooks.note(TENANT, endpoint.id, oldest) != ""
    assert await hooks.note(TENANT, HookId(new_uuid()), oldest) == ""
    for _ in range(210):
        await hooks.note(TENANT, endpoint.id, oldest)
    assert len(await hooks.attempts(TENANT, endpoint.id, before=None, limit=999)) == 200


async def test_what_does_not_all_fit_is_not_told_again_at_all(house: House) -> None:
    hooks, endpoint = house.store.hooks, an_endpoint()
    await put(house, endpoint, queue=5_000)
    await hooks.publish(TENANT, "a", [_note()])
    await drained(hooks, await claimed(hooks))
    [one] = await hooks.attempts(TENANT, endpoint.id, before=None, limit=2)
    with pytest.raises(LimitReached):
        await hooks.again(TENANT, endpoint.id, *[one] * (5_000 // len(one.entry) + 1))
    assert (await hooks.standing(TENANT, endpoint.id)).waiting == 0


async def test_a_delivered_message_is_told_once(house: House) -> None:
    lease, record = await leased(house.store)
    await put(house, an_endpoint(tenant=record.tenant))
    await house.store.inbox.put(record.tenant, record.id, client_id="c", content="hi", limit=10)
    for _ in range(2):  # the second one after a crash
        await house.store.inbox.delivered(lease, 1, client_id="c")
    heads = [one for one in await claimed(house.store.hooks) if one.body()["type"] == "message.delivered"]
    assert [one.body()["data"] for one in heads] == [
        {
            "conversation_id": record.id,
            "client_id": "c",
            "message_sequence": 1,
            "event_id": message_event_id(record.id, "c"),
        }
    ]
    assert await drained(house.store.hooks, heads) == [heads[0].body()]


async def test_once_in_a_while_is_once(house: House) -> None:
    hooks = house.store.hooks
    await put(house, an_endpoint())
    for _ in range(3):
        await hooks.publish(TENANT, "-", [_note()], once="tenant.runtimes", once_ms=60_000)
    await hooks.publish(TENANT, "-", [_note()], once="another", once_ms=60_000)
    assert len(await drained(hooks, await claimed(hooks))) == 2


async def test_a_tenant_that_is_busy_is_passed_over(house: House) -> None:
    hooks, theirs = house.store.hooks, TenantId(new_uuid())
    await put(house, an_endpoint())
    await put(house, an_endpoint(tenant=theirs))
    await hooks.publish(TENANT, "-", [_note()])
    await hooks.publish(theirs, "-", [_note()])
    found = await hooks.claim_due(limit=9, each=lambda tenant: 0 if tenant == TENANT else 1, claim_ms=CLAIM_MS)
    assert [one.tenant for one in found] == [theirs]

    async def again() -> list[Delivery]:
        return await claimed(hooks)

    assert [one.tenant for one in await until(again)] == [TENANT]


def _note() -> Draft:
    return draft(HookEvent.QUOTA_EXCEEDED, TENANT, SystemClock().now(), {"rule": "tenant.runtimes"})
