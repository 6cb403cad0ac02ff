"""The lease as a state machine: whatever two owners do, and whenever time passes, at most one of them can write.

Run on the memory store, whose clock the test holds; the other files hold both stores to the same behaviour.
"""

from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from orchestrator.domain.conversation import Conversation, Desired
from orchestrator.domain.errors import LeaseLost
from orchestrator.state.base import Lease
from orchestrator.state.memory import MemoryStore

from .conftest import a_conversation

T = TypeVar("T")
LEASE_MS = 1_000


def done(work: Coroutine[Any, Any, T]) -> T:
    """The memory store never gives way, so its methods end at the first step."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError("the memory store gave way")


class HeldClock:
    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()


class Leases(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = HeldClock()
        store = MemoryStore(self.clock)
        self.store = store.conversations
        self.first = done(self.store.create(a_conversation()))
        self.leases: list[Lease] = []
        self.highest = 0
        self.given_back = False
        self.unseen_wish = False

    def stored(self) -> Conversation:
        found = done(self.store.get(self.first.tenant, self.first.id))
        assert found is not None
        return found

    @rule(owner=st.sampled_from(["one", "two"]), by_due=st.booleans())
    def claim(self, owner: str, by_due: bool) -> None:
        if by_due:
            got = done(self.store.claim_due(owner, lease_ms=LEASE_MS, limit=1))
            taken = got[0] if got else None
        else:
            taken = done(self.store.claim(self.first.tenant, self.first.id, owner, lease_ms=LEASE_MS))
        if taken is None:
            return
        lease, record = taken
        assert lease.fence == record.fence == self.highest + 1
        self.highest = lease.fence
        self.given_back = self.unseen_wish = False
        self.leases.append(lease)

    @rule(milliseconds=st.sampled_from([1, LEASE_MS - 1, LEASE_MS, 10 * LEASE_MS]))
    def time_passes(self, milliseconds: int) -> None:
        self.clock.moment += timedelta(milliseconds=milliseconds)

    @rule(desired=st.sampled_from(list(Desired)))
    def wish(self, desired: Desired) -> None:
        stored = self.stored()
        wished = Conversation(**{**vars(stored), "desired": desired})
        assert done(self.store.request(wished, expected_version=stored.version))
        self.unseen_wish = True

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def save(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        stored = self.stored()
        attempted = Conversation(**{**vars(stored), "attempt": stored.attempt + 1, "desired": Desired.DELETED})
        if lease.fence == self.highest and not self.given_back:
            saved = done(self.store.save(lease, attempted, expected_version=stored.version))
            assert (saved.attempt, saved.desired) == (stored.attempt + 1, stored.desired)
        else:
            with pytest.raises(LeaseLost):
                done(self.store.save(lease, attempted, expected_version=stored.version))
            assert self.stored() == stored

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), due_in_ms=st.sampled_from([None, 0, LEASE_MS]))
    def settle(self, data: st.DataObject, due_in_ms: int | None) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        done(self.store.settle(lease, due_in_ms=due_in_ms))
        if lease.fence == self.highest:
            self.given_back = True

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        renewed = done(self.store.renew([lease], lease_ms=LEASE_MS))
        assert renewed == [lease.fence == self.highest and not self.given_back]

    @invariant()
    def a_wish_that_nobody_saw_is_never_forgotten(self) -> None:
        due = done(self.store.next_due_ms())
        if self.unseen_wish:
            assert due is not None
            assert due == 0 or (self.leases and not self.given_back and due <= LEASE_MS)

    @invariant()
    def the_fence_never_falls(self) -> None:
        assert self.stored().fence == self.highest


Leases.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_leases_hold_whatever_happens = Leases.TestCase
