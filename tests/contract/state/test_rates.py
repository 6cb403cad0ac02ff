"""Buckets of calls, in each store, by the server's own time."""

import time

import pytest

from orchestrator.domain.ids import KeyId, TenantId, new_uuid
from orchestrator.domain.rates import Rate, Taken

from .conftest import House, until

pytestmark = pytest.mark.anyio
KEY, ALL = Rate("key.calls", 1), Rate("tenant.calls", 2)


async def test_a_bucket_gives_what_it_holds_and_then_its_rate(house: House) -> None:
    tenant, key = TenantId(new_uuid()), KeyId(new_uuid())
    began = time.monotonic()
    first = await house.store.buckets.take(tenant, [(key, KEY)], wanted=7)
    second = await house.other.buckets.take(tenant, [(key, KEY)], wanted=7)
    third = await house.store.buckets.take(tenant, [(key, KEY)], wanted=7)
    passed = time.monotonic() - began
    assert first == Taken(7)
    assert KEY.burst - 7 <= second.granted <= KEY.burst - 7 + passed + 1
    assert second.granted + third.granted <= KEY.burst - 7 + passed + 1
    if not third.granted:
        assert third.rule == "key.calls"
        assert 0 < third.wait_ms <= 1000

    async def again() -> Taken | None:
        taken = await house.store.buckets.take(tenant, [(key, KEY)], wanted=1)
        return taken if taken.granted else None

    assert await until(again, within=30) == Taken(1)


async def test_all_buckets_have_to_have_it_and_none_of_another_tenant_counts(house: House) -> None:
    tenant = TenantId(new_uuid())
    keys = [KeyId(new_uuid()) for _ in range(4)]
    began = time.monotonic()
    taken = [await house.store.buckets.take(tenant, [(key, KEY), (None, ALL)], wanted=9) for key in keys]
    passed = time.monotonic() - began
    assert [one.granted for one in taken[:2]] == [9, 9]
    assert ALL.burst <= sum(one.granted for one in taken) <= ALL.burst + 2 * passed + 1
    emptied = [one for one in taken if not one.granted]
    assert all(one.rule == "tenant.calls" for one in emptied)
    other = await house.store.buckets.take(TenantId(new_uuid()), [(keys[0], KEY), (None, ALL)], wanted=9)
    assert other == Taken(9)
    if house.raw is not None:
        names = [name async for name in house.raw.scan_iter(match="*:calls*")]
        assert names
        assert all([await house.raw.pttl(name) != -1 for name in names]), "each goes by itself"
