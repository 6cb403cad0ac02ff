"""What conversations used, and who spent it in which month: counted once, in the step in which it is told."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from orchestrator.domain.admission import Ask, Rule, Scope, Verdict
from orchestrator.domain.errors import LimitReached, NotFound
from orchestrator.domain.hooks import HookEvent
from orchestrator.domain.ids import ConversationId, TenantId, UserId, new_uuid
from orchestrator.domain.spending import MICROS, NOTHING, Budget, Month, Spent, Unit, month_of
from orchestrator.domain.tenancy import Tenant
from orchestrator.state.base import StoredEvent

from .conftest import MOMENT, House, a_conversation
from .test_hooks import an_endpoint, claimed, drained, put
from .test_journal import noted
from .test_work import leased

pytestmark = pytest.mark.anyio
MARCH = Month(2026, 3)
LATER = datetime(2026, 4, 1, tzinfo=UTC)


def spent(micros: int, prompt: int = 0, completion: int = 0) -> Spent:
    return Spent(micros, prompt, completion)


def event(sequence: int, told: Spent | None = None) -> StoredEvent:
    return StoredEvent(sequence, f"e{sequence}", "{}", spent=told)


async def a_tenant(house: House, budget: Budget | None = None) -> Tenant:
    tenant = Tenant(TenantId(new_uuid()), "acme", MOMENT, budget=budget)
    return await house.store.tenants.add_tenant(tenant)


async def conversation_of(house: House, tenant: TenantId, user: UserId | None = None) -> ConversationId:
    return (await house.store.conversations.create(a_conversation(tenant, user))).id


async def test_sums_that_come_again_late_or_lower_are_counted_once(house: House) -> None:
    store, tenant = house.store, TenantId(new_uuid())
    id = await conversation_of(house, tenant)
    first = [event(1), event(2, spent(10, 100, 5)), event(3, spent(30, 250, 9))]
    assert await store.events.append(tenant, id, first, at=MOMENT) == 3
    assert await house.other.spending.of_conversation(tenant, id) == spent(30, 250, 9)
    assert await house.other.spending.of(tenant, None, MARCH) == spent(30, 250, 9)
    await house.other.events.append(tenant, id, first, at=MOMENT)  # the whole batch again
    await store.events.append(tenant, id, [event(3, spent(30, 250, 9)), event(4, spent(31, 250, 10))], at=MOMENT)
    await store.events.append(tenant, id, [event(9, spent(99))], at=MOMENT)  # what is missing before it comes first
    await store.spending.report(tenant, id, spent(31, 250, 10), at=MOMENT)
    await store.spending.report(tenant, id, spent(4, 300, 1), at=MOMENT)  # of a record that is behind
    assert await store.spending.of_conversation(tenant, id) == spent(31, 300, 10)
    assert await store.spending.of(tenant, None, MARCH) == spent(31, 300, 10)


async def test_a_lower_sum_at_the_end_of_a_batch_hides_no_higher_one(house: House) -> None:
    tenant = TenantId(new_uuid())
    id = await conversation_of(house, tenant)
    await house.store.events.append(tenant, id, [event(1, spent(50, 1, 2)), event(2, spent(20, 3, 1))], at=MOMENT)
    assert await house.store.spending.of_conversation(tenant, id) == spent(50, 3, 2)


async def test_a_long_log_is_counted_whole(house: House) -> None:
    tenant = TenantId(new_uuid())
    id = await conversation_of(house, tenant)
    await house.store.events.append(tenant, id, [event(n, spent(n)) for n in range(1, 451)], at=MOMENT)
    assert await house.store.spending.of(tenant, None, MARCH) == spent(450)


async def test_racing_batches_of_one_log_are_counted_once(house: House) -> None:
    tenant = TenantId(new_uuid())
    id = await conversation_of(house, tenant)
    log = [event(n, spent(n * 7, n, n)) for n in range(1, 31)]
    async with anyio.create_task_group() as tasks:
        for number in range(20):
            store = house.store if number % 2 else house.other
            tasks.start_soon(store.events.append, tenant, id, log[: number + 11])
    month = month_of(datetime.now(UTC))
    assert await house.store.spending.of(tenant, None, month) == spent(210, 30, 30)


async def test_it_is_spent_by_tenant_and_user_in_the_month_in_which_it_was_told(house: House) -> None:
    store, tenant, ann, bob = house.store, TenantId(new_uuid()), UserId(new_uuid()), UserId(new_uuid())
    hers, his, own = [await conversation_of(house, tenant, user) for user in (ann, bob, None)]
    await store.spending.report(tenant, hers, spent(10, 1, 1), at=LATER - timedelta(microseconds=1))
    await store.spending.report(tenant, hers, spent(15, 1, 1), at=LATER)
    await store.spending.report(tenant, his, spent(100), at=LATER)
    await store.spending.report(tenant, own, spent(1000), at=LATER)
    april = MARCH.later(1)
    assert await store.spending.of(tenant, None, MARCH) == spent(10, 1, 1)
    assert await store.spending.of(tenant, None, april) == spent(1105)
    assert [await store.spending.of(tenant, user, april) for user in (ann, bob)] == [spent(5), spent(100)]
    assert await store.spending.of(tenant, ann, MARCH) == spent(10, 1, 1)
    assert await store.spending.of(TenantId(new_uuid()), None, april) == NOTHING
    assert await store.spending.of_conversation(tenant, hers) == spent(15, 1, 1)


async def test_what_is_gone_stays_spent_and_what_never_was_spends_nothing(house: House) -> None:
    store, (lease, _) = house.store, await leased(house.store)
    tenant = lease.tenant
    await store.spending.report(tenant, lease.conversation, spent(10), at=MOMENT)
    await store.conversations.remove(lease)
    with pytest.raises(NotFound):
        await store.spending.report(tenant, lease.conversation, spent(20), at=MOMENT)
    with pytest.raises(NotFound):
        await store.events.append(tenant, lease.conversation, [event(1, spent(20))], at=MOMENT)
    assert await store.spending.of(tenant, None, MARCH) == spent(10)
    assert await store.spending.of_conversation(tenant, lease.conversation) == NOTHING


async def test_the_journal_has_it_from_the_same_step_and_no_change_notes_nothing(house: House) -> None:
    tenant, ann = TenantId(new_uuid()), UserId(new_uuid())
    id = await conversation_of(house, tenant, ann)
    before = len(await noted(house, tenant))
    await house.store.events.append(tenant, id, [event(1)], at=MOMENT)
    assert len(await noted(house, tenant)) == before
    await house.store.events.append(tenant, id, [event(2, spent(7, 8, 9))], at=MOMENT)
    entries = (await noted(house, tenant))[before:]
    assert [(one.kind, one.id) for one in entries] == [
        ("used", id),
        ("spent", "|2025-02"),  # the month of which nothing is kept any more
        ("spent", "|2026-03"),
        ("spent", f"{ann}|2025-02"),
        ("spent", f"{ann}|2026-03"),
    ]
    assert [one.body is None for one in entries] == [False, True, False, True, False]
    assert json.loads(entries[0].body or "") == [7, 8, 9]
    for ledger in (entries[2], entries[4]):
        assert json.loads(ledger.body or "") == ["micros", "7", "prompt", "8", "completion", "9"]
    after = before + len(entries)
    await house.store.events.append(tenant, id, [event(2, spent(7, 8, 9)), event(3, spent(7, 8, 9))], at=MOMENT)
    await house.store.spending.report(tenant, id, spent(7, 8, 8), at=MOMENT)
    assert len(await noted(house, tenant)) == after


async def told(house: House) -> list[dict[str, object]]:
    """What waits for the endpoints, taken out."""
    bodies = await drained(house.store.hooks, await claimed(house.store.hooks))
    return [dict(body) for body in bodies]


def data(body: dict[str, object]) -> dict[str, object]:
    found = body["data"]
    assert isinstance(found, dict)
    return found


async def test_each_threshold_is_told_once_by_the_step_that_reaches_it(house: House) -> None:
    store, tenant = house.store, await a_tenant(house, Budget(usd=10 * MICROS))
    id, other = [await conversation_of(house, tenant.id) for _ in range(2)]
    endpoint = an_endpoint(HookEvent.BUDGET_REACHED, tenant=tenant.id)
    await put(house, endpoint)
    await store.spending.report(tenant.id, id, spent(4_999_999), at=MOMENT)
    assert await told(house) == []
    await store.events.append(tenant.id, id, [event(1, spent(5_000_000))], at=MOMENT)
    await store.events.append(tenant.id, id, [event(1, spent(5_000_000))], at=MOMENT)
    (half,) = await told(house)
    assert (half["type"], half["tenant_id"]) == ("budget.threshold_reached", tenant.id)
    assert data(half) == {
        "rule": "tenant.monthly_usd",
        "unit": "usd",
        "threshold_percent": 50,
        "limit": 10.0,
        "spent": 5.0,
        "month": "2026-03",
        "resets_at": "2026-04-01T00:00:00.000Z",
        "user_id": None,
    }
    await store.spending.report(tenant.id, other, spent(6_250_000), at=MOMENT)  # past two at once
    rest = await told(house)
    assert [data(body)["threshold_percent"] for body in rest] == [80, 100]
    assert [data(body)["spent"] for body in rest] == [11.25, 11.25]
    assert len({body["id"] for body in (half, *rest)}) == 3
    await store.spending.report(tenant.id, other, spent(99_000_000), at=MOMENT)
    assert await told(house) == []
    await store.spending.report(tenant.id, id, spent(5_000_000 + 5_000_000), at=LATER)
    (anew,) = await told(house)
    assert (data(anew)["threshold_percent"], data(anew)["month"]) == (50, "2026-04")


async def test_racing_reports_tell_each_threshold_once(house: House) -> None:
    tenant = await a_tenant(house, Budget(tokens=1000, thresholds=tuple(range(10, 101, 10))))
    ids = [await conversation_of(house, tenant.id) for _ in range(10)]
    await put(house, an_endpoint(HookEvent.BUDGET_REACHED, tenant=tenant.id))

    async def works(number: int) -> None:
        store = house.store if number % 2 else house.other
        for sum in range(10, 130, 10):
            await store.spending.report(tenant.id, ids[number], spent(0, sum, 0), at=MOMENT)

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(works, number)
    bodies = await told(house)
    assert [data(body)["threshold_percent"] for body in bodies] == list(range(10, 101, 10))
    assert {data(body)["unit"] for body in bodies} == {"tokens"}


async def test_each_user_has_a_budget_of_its_own(house: House) -> None:
    tenant = await a_tenant(house, Budget(usd_per_user=1000, tokens_per_user=100, thresholds=(100,)))
    ann, bob = UserId(new_uuid()), UserId(new_uuid())
    hers, his, own = [await conversation_of(house, tenant.id, user) for user in (ann, bob, None)]
    await put(house, an_endpoint(HookEvent.BUDGET_REACHED, tenant=tenant.id))
    report = house.store.spending.report
    await report(tenant.id, own, spent(5000), at=MOMENT)
    await report(tenant.id, his, spent(999, 99), at=MOMENT)
    await report(tenant.id, hers, spent(1000, 60, 40), at=MOMENT)
    bodies = await told(house)
    assert [(data(body)["rule"], data(body)["user_id"]) for body in bodies] == [
        ("user.monthly_usd", ann),
        ("user.monthly_tokens", ann),
    ]


async def test_a_changed_budget_tells_at_once_what_it_has_reached_by_that(house: House) -> None:
    store, tenant = house.store, await a_tenant(house)
    id = await conversation_of(house, tenant.id)
    await put(house, an_endpoint(HookEvent.BUDGET_REACHED, tenant=tenant.id))
    await store.spending.report(tenant.id, id, spent(900), at=MOMENT)
    assert await told(house) == []

    async def changed(budget: Budget | None) -> list[object]:
        nonlocal tenant
        tenant = replace(tenant, budget=budget, version=tenant.version + 1)
        assert await store.tenants.change_tenant(tenant, expected_version=tenant.version - 1, at=MOMENT)
        return [data(body)["threshold_percent"] for body in await told(house)]

    assert await changed(Budget(usd=1000)) == [50, 80]
    assert await changed(replace(Budget(usd=1000), tokens=5)) == []
    assert await changed(Budget(usd=2000)) == []
    await store.spending.report(tenant.id, id, spent(1000), at=MOMENT)
    assert [data(body)["threshold_percent"] for body in await told(house)] == [50], "of another sum"
    assert await changed(None) == []
    assert await changed(Budget(usd=1000)) == [100], "the others of this sum were told"
    entries = [one for one in await noted(house, tenant.id) if one.kind == "spent"]
    assert "told:usd:1000:100" in (entries[-1].body or "")


async def test_what_is_told_of_one_threshold_has_one_id_for_good(house: House) -> None:
    tenant, ids = await a_tenant(house, Budget(usd=100, thresholds=(100,))), []
    await put(house, an_endpoint(HookEvent.BUDGET_REACHED, tenant=tenant.id))
    id = await conversation_of(house, tenant.id)
    for number, at in enumerate((MOMENT, LATER), 1):
        await house.store.spending.report(tenant.id, id, spent(100 * number), at=at)
        ids += [body["id"] for body in await told(house)]
    assert len(set(ids)) == 2
    if house.raw is not None:  # what a loss of the ledger would do
        await house.raw.delete(f"t:{{{tenant.id}}}:slots:spent:2026-04")
        await house.store.spending.report(tenant.id, id, spent(300), at=LATER)
        assert [body["id"] for body in await told(house)] == ids[1:]


EACH_USER = Rule(Scope.USER, 100, unit=Unit.USD, month=MARCH.name, ends_ms=int(MARCH.ends.timestamp() * 1000))


def asking(user: UserId | None, runtimes: int, **more: object) -> Ask:
    """A start under a limit of runtimes and a budget of each user."""
    rules = (*((EACH_USER,) if user is not None else ()), Rule(Scope.TENANT, runtimes))
    return replace(Ask(user, rules=rules, budgets=(EACH_USER,)), **more)  # type: ignore[arg-type]  # by name


async def one_who_spent_it(house: House, tenant: TenantId, *, waiting: int) -> UserId:
    """A user whose budget is spent, and so many of whose conversations wait in the queue."""
    poor = UserId(new_uuid())
    await house.store.spending.report(tenant, await conversation_of(house, tenant, poor), spent(100), at=MOMENT)
    for _ in range(waiting):
        ask = asking(poor, 1, queue=1, wait_ms=60_000)
        made = await house.store.conversations.create(a_conversation(tenant, poor), ask=ask)
        assert (await house.store.slots.standing(tenant, made.id)).verdict is Verdict.QUEUED
    return poor


async def test_whom_a_budget_keeps_takes_nobody_elses_place(house: House) -> None:
    store, tenant, rich = house.store, TenantId(new_uuid()), UserId(new_uuid())
    await one_who_spent_it(house, tenant, waiting=3)

    async def start(ask: Ask) -> Verdict:
        made = await store.conversations.create(a_conversation(tenant, ask.user), ask=ask)
        return (await store.slots.standing(tenant, made.id)).verdict

    assert await start(asking(rich, 2)) is Verdict.HELD, "one that does not wait"
    assert await start(asking(None, 2, queue=1, wait_ms=60_000)) is Verdict.HELD, "nor stands behind them"
    assert await start(asking(rich, 2, queue=1, wait_ms=60_000)) is Verdict.QUEUED
    with pytest.raises(LimitReached) as refusal:
        await start(asking(None, 2, queue=1, wait_ms=60_000))
    assert (refusal.value.details["rule"], refusal.value.details["current"]) == ("tenant.queue", 1)
    with pytest.raises(LimitReached) as refusal:
        await start(asking(None, 3))
    assert (refusal.value.details["rule"], refusal.value.details["current"]) == ("tenant.runtimes", 3)
    assert (await store.slots.meters(tenant, asking(rich, 2)))[1] == 1, "waits for a place"
    assert (await store.slots.meters(tenant, Ask()))[1] == 4, "waits"


async def test_whom_a_budget_keeps_hides_nobody_who_stands_behind(house: House) -> None:
    store, tenant, rich = house.store, TenantId(new_uuid()), UserId(new_uuid())
    poor = await one_who_spent_it(house, tenant, waiting=201)
    ask = asking(rich, 0, queue=1, wait_ms=60_000)
    behind = await store.conversations.create(a_conversation(tenant, rich), ask=ask)
    found = await store.slots.next_waiting(tenant, asking(poor, 0))
    assert (found.first, found.standing.rule, found.waiting) == (behind.id, "tenant.runtimes", 202), "makes room"
    found = await store.slots.next_waiting(tenant, asking(poor, 1))
    assert (found.first, found.standing.verdict) == (behind.id, Verdict.NONE)
    assert (await store.slots.admit(tenant, behind.id, asking(poor, 1))).verdict is Verdict.ADMITTED
    found = await store.slots.next_waiting(tenant, asking(poor, 5))
    assert (found.standing.rule, found.waiting) == ("user.monthly_usd", 201)
