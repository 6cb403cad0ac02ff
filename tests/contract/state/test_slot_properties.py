"""Slots as a state machine: whatever callers, workers and the keeper do, no limit is passed and no slot is lost.

On the memory store, whose clock the test holds; `test_slots.py` holds both stores to the same behaviour.
"""

from dataclasses import replace
from datetime import timedelta

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from orchestrator.domain.admission import Ask, Rule, Scope, Verdict
from orchestrator.domain.conversation import Conversation, Desired, Phase, slot_of
from orchestrator.domain.errors import LimitReached
from orchestrator.domain.ids import TenantId, UserId, new_uuid
from orchestrator.state.memory import MemoryStore

from .conftest import a_conversation
from .test_lease_properties import HeldClock, done

LIMIT, USER_LIMIT = 3, 2
USERS = (None, UserId(new_uuid()), UserId(new_uuid()))
TENANT = TenantId(new_uuid())
RULES = (Rule(Scope.TENANT, LIMIT), Rule(Scope.USER, USER_LIMIT))
any_number = st.integers(min_value=0, max_value=30)


def ask_of(user: UserId | None, queue: int) -> Ask:
    return Ask(user=user, rules=RULES[: 1 if user is None else 2], queue=queue, wait_ms=1000)


class Slots(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = HeldClock()
        self.store = MemoryStore(self.clock)
        self.known: list[Conversation] = []

    def present(self, number: int) -> Conversation | None:
        if not self.known:
            return None
        found = self.known[number % len(self.known)]
        return done(self.store.conversations.get(TENANT, found.id))

    def verdict(self, conversation: Conversation) -> Verdict:
        return done(self.store.slots.standing(TENANT, conversation.id)).verdict

    @rule(user=st.sampled_from(USERS), queue=st.sampled_from([0, 4]))
    def create(self, user: UserId | None, queue: int) -> None:
        try:
            made = done(self.store.conversations.create(a_conversation(TENANT, user), ask=ask_of(user, queue)))
        except LimitReached:
            return
        self.known.append(made)

    @rule(number=any_number, queue=st.sampled_from([0, 4]))
    def start_again(self, number: int, queue: int) -> None:
        """As a caller does, of one that rests."""
        present = self.present(number)
        if present is None or present.phase not in (Phase.STOPPED, Phase.FAILED, Phase.PAUSED):
            return
        wanted = replace(present, desired=Desired.RUNNING)
        try:
            ask = ask_of(present.user, queue)
            done(self.store.conversations.request(wanted, expected_version=present.version, ask=ask))
        except LimitReached:
            assert done(self.store.conversations.get(TENANT, present.id)) == present

    @rule(number=any_number)
    def stop(self, number: int) -> None:
        present = self.present(number)
        if present is not None:
            wanted = replace(present, desired=Desired.STOPPED)
            done(self.store.conversations.request(wanted, expected_version=present.version))

    @rule(number=any_number, ends=st.sampled_from([Phase.READY, Phase.FAILED, Phase.PAUSED, Phase.STOPPED]))
    def work(self, number: int, ends: Phase) -> None:
        """As a worker does: a runtime runs only with a slot, and what ended gives it back."""
        taken = done(self.store.conversations.claim_due("w", lease_ms=1000, limit=1 + number % 3))
        for lease, record in taken:
            if record.desired is Desired.STOPPED:
                ends = Phase.STOPPED
            elif record.phase is not Phase.READY:
                stands = done(self.store.slots.take(lease, ask_of(record.user, 4)))
                if stands.verdict not in (Verdict.HELD, Verdict.ADMITTED):
                    done(self.store.conversations.settle(lease, due_in_ms=None))
                    continue
            saved = replace(record, phase=ends)
            done(self.store.conversations.save(lease, saved, expected_version=record.version))
            if ends is Phase.FAILED:
                done(self.store.slots.release(lease))
            done(self.store.conversations.settle(lease, due_in_ms=None))

    @rule()
    def keep_the_queue(self) -> None:
        ask = Ask(rules=RULES)
        found = done(self.store.slots.next_waiting(TENANT, ask))
        if found.first is not None and found.standing.verdict is Verdict.NONE:
            assert done(self.store.slots.admit(TENANT, found.first, ask)).verdict is Verdict.ADMITTED

    @rule()
    def wait(self) -> None:
        self.clock.moment += timedelta(seconds=2)

    @invariant()
    def no_limit_is_passed(self) -> None:
        held = [one for one in self.known if self.verdict(one) is Verdict.HELD]
        assert len(held) <= LIMIT
        for user in USERS[1:]:
            assert sum(one.user == user for one in held) <= USER_LIMIT
        meters, _ = done(self.store.slots.meters(TENANT, ask_of(USERS[1], 0)))
        assert meters[0].current == len(held)

    @invariant()
    def what_runs_has_a_slot(self) -> None:
        for one in self.known:
            record = done(self.store.conversations.get(TENANT, one.id))
            if record is not None and slot_of(record.phase) == "hold":
                assert self.verdict(record) is Verdict.HELD

    @invariant()
    def what_rests_and_is_not_wanted_has_none(self) -> None:
        for one in self.known:
            record = done(self.store.conversations.get(TENANT, one.id))
            if record is not None and slot_of(record.phase) == "free" and record.desired is Desired.STOPPED:
                standing = done(self.store.slots.standing(TENANT, record.id))
                due = done(self.store.conversations.next_due_ms())
                assert standing.verdict is Verdict.NONE or due is not None, "a worker will see to it"


TestSlots = Slots.TestCase
TestSlots.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
