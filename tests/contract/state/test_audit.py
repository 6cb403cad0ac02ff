"""The audit log: an entry goes with the change that it tells of, once; the log is as long as it may be."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from orchestrator.domain.audit import Actor, ActorKind, AuditEntry, Keep, Outcome, Touched
from orchestrator.domain.ids import KeyId, TenantId, UserId, new_uuid
from orchestrator.domain.tenancy import Tenant, User
from orchestrator.state.audit import Telling, telling
from orchestrator.state.base import Page, Store, StoredSecret

from .conftest import MOMENT, House
from .test_journal import noted

pytestmark = pytest.mark.anyio
KEEP = Keep(entries=1000, age=timedelta(days=30))
ACTOR = Actor(ActorKind.TENANT, KeyId(new_uuid()), UserId(new_uuid()))


def a_telling(tenant: TenantId | None, *, at: datetime = MOMENT, keep: Keep = KEEP, resource: str = "/a") -> Telling:
    entry = AuditEntry(new_uuid(), at, ACTOR, "127.0.0.1", "PUT", resource, "r-1", Outcome.ACCEPTED)
    return Telling(entry, keep, wanted=True, known=True, tenant=tenant)


async def told(
    store: Store, tenant: TenantId | None, *, cursor: str | None = None, limit: int = 100
) -> Page[AuditEntry]:
    return await store.audit.page(tenant, cursor=cursor, limit=limit)


async def test_a_change_writes_its_entry_in_the_same_step_and_in_the_journal(house: House) -> None:
    tenant, user = TenantId(new_uuid()), UserId(new_uuid())
    secret = StoredSecret("NAME", None, "sealed", 1)
    change = a_telling(tenant)
    with telling(change):
        assert await house.store.configuration.put_secret(tenant, user, secret, expected_version=0)
    [entry] = (await told(house.other, tenant)).items
    assert replace(entry, at=change.entry.at) == replace(change.entry, touched=Touched("secret", "NAME", user))
    assert abs(entry.at - MOMENT) < timedelta(milliseconds=1)
    assert [(one.kind, one.id) for one in await noted(house, tenant)] == [
        ("secret", f"{user}|NAME"),
        ("audit", entry.id),
    ]
    await house.store.audit.put(tenant, change)  # the end of the request: it is there
    assert (await told(house.store, tenant)).items == [entry]


async def test_a_change_that_is_refused_writes_none(store: Store) -> None:
    tenant = TenantId(new_uuid())
    secret = StoredSecret("NAME", None, "sealed", 4)
    with telling(a_telling(tenant)):
        assert not await store.configuration.put_secret(tenant, None, secret, expected_version=3)
        await store.configuration.add_data_key(tenant, 1, "wrapped")  # on the way of many, and none of them
    assert (await told(store, tenant)).items == []


async def test_nothing_is_told_of_what_nobody_asks_for(store: Store) -> None:
    tenant = TenantId(new_uuid())
    await store.tenants.add_tenant(Tenant(tenant, "acme", MOMENT))
    for unwanted in (replace_known(a_telling(tenant)), replace_wanted(a_telling(tenant))):
        with telling(unwanted):
            await store.tenants.add_user(User(UserId(new_uuid()), tenant, "ann", None, MOMENT))
    assert (await told(store, tenant)).items == []


def replace_known(one: Telling) -> Telling:
    one.known = False
    return one


def replace_wanted(one: Telling) -> Telling:
    one.wanted = False
    return one


async def test_several_changes_of_one_request_are_one_entry_and_the_first_counts(store: Store) -> None:
    tenant = TenantId(new_uuid())
    with telling(a_telling(tenant)):
        await store.tenants.add_tenant(Tenant(tenant, "acme", MOMENT))
        await store.tenants.add_user(User(UserId(new_uuid()), tenant, "ann", None, MOMENT))
    [entry] = (await told(store, tenant)).items
    assert entry.touched == Touched("tenant", tenant)


@pytest.mark.parametrize("tenant", [TenantId(new_uuid()), None], ids=["tenant", "house"])
async def test_an_entry_may_be_written_again_with_what_became_of_it(store: Store, tenant: TenantId | None) -> None:
    ahead = a_telling(tenant)
    await store.audit.put(tenant, ahead, durable=True)
    ahead.entry = replace(ahead.entry, outcome=Outcome.REFUSED, code="conflict")
    await store.audit.put(tenant, ahead)
    assert [entry.outcome for entry in (await told(store, tenant)).items] == [Outcome.ACCEPTED]
    await store.audit.put(tenant, ahead, again=True)
    assert [(entry.outcome, entry.code) for entry in (await told(store, tenant)).items] == [
        (Outcome.REFUSED, "conflict")
    ]


async def test_pages_are_newest_first_within_two_times_and_no_other_tenants(store: Store) -> None:
    tenant, other = TenantId(new_uuid()), TenantId(new_uuid())
    for minute in range(5):
        await store.audit.put(tenant, a_telling(tenant, at=MOMENT + timedelta(minutes=minute), resource=f"/{minute}"))
    await store.audit.put(other, a_telling(other))
    first = await told(store, tenant, limit=2)
    rest = await told(store, tenant, cursor=first.next_cursor, limit=3)
    assert [entry.resource for entry in (*first.items, *rest.items)] == ["/4", "/3", "/2", "/1", "/0"]
    assert rest.next_cursor is None
    since, until = MOMENT + timedelta(minutes=1), MOMENT + timedelta(minutes=3)
    between = await store.audit.page(tenant, cursor=None, limit=1, since=since, until=until)
    last = await store.audit.page(tenant, cursor=between.next_cursor, limit=9, since=since, until=until)
    assert [entry.resource for entry in (*between.items, *last.items)] == ["/2", "/1"]


async def test_the_oldest_go_by_number_and_by_age_also_from_the_journal(house: House) -> None:
    store, tenant = house.store, TenantId(new_uuid())
    few = Keep(entries=3, age=timedelta(days=1))
    for minute in range(5):
        await store.audit.put(tenant, a_telling(tenant, at=MOMENT + timedelta(minutes=minute), keep=few))
    assert len((await told(store, tenant)).items) == 3
    await store.audit.put(tenant, a_telling(tenant, at=MOMENT + timedelta(days=2), keep=few, resource="/late"))
    assert [entry.resource for entry in (await told(store, tenant)).items] == ["/late"]
    kept: dict[str, str | None] = {}
    for one in await noted(house, tenant):
        kept[one.id] = one.body
    assert sum(body is not None for body in kept.values()) == 1
