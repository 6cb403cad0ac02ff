"""The Lua scripts as a state machine, over a real server: two clients, holders that sleep past their lease, a server
that is killed, and one that loses everything.

A model in Python says what has to be there. Whoever does not hold the lease (any more) changes nothing of the tenant's
keys, which is asked of the server itself, as a digest of all of them.
"""

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis import Phase as HypothesisPhase
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from redis import Redis
from redis.exceptions import RedisError

from orchestrator.domain.admission import Ask, Rule, Scope, Verdict
from orchestrator.domain.conversation import Conversation, Desired
from orchestrator.domain.errors import LeaseLost, LimitReached, NotFound, StoreUnavailable
from orchestrator.domain.hooks import Attempt, Delivery, HookEvent, Outcome
from orchestrator.domain.ids import TenantId, new_uuid
from orchestrator.state.base import Lease, StoredEvent
from orchestrator.state.embedded import find_server
from orchestrator.state.redis_store import RedisStore

from .conftest import a_conversation
from .test_hooks import an_endpoint

T = TypeVar("T")
LEASE_MS, LIMIT, CLAIM_MS = 600_000, 2, 600_000
ASKS = [Ask(rules=(Rule(Scope.TENANT, LIMIT),), queue=queue, wait_ms=600_000) for queue in (0, 3)]
ACTS = ["save", "renew", "give back", "step", "undo", "slot"]
number = st.integers(min_value=0, max_value=30)


def an_event(sequence: int, id: str) -> StoredEvent:
    return StoredEvent(sequence, id, f'{{"id":"{id}","kind":"MessageEvent","source":"user"}}')


class Server:
    """On whose disk every write is before it is answered."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="nst-", dir="/tmp")
        self._socket = Path(self._folder.name) / "s.sock"
        self.url = f"unix://{self._socket}"
        self.start()

    def start(self) -> None:
        command = [str(find_server()), "--port", "0", "--unixsocket", str(self._socket), "--dir", self._folder.name]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--enable-debug-command", "yes"]
        log = str(self._socket.with_name("log"))
        self._process = subprocess.Popen([*command, "--logfile", log], stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        self.raw = Redis.from_url(self.url)
        while True:
            with suppress(RedisError):
                self.raw.ping()
                return
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def kill(self) -> None:
        self.raw.close()
        self._process.kill()
        self._process.wait(10)

    def close(self) -> None:
        self.kill()
        self._folder.cleanup()

    def digest(self) -> list[bytes]:
        """Of everything that is a tenant's."""
        keys = sorted(self.raw.scan_iter("t:*"))
        return [*keys, *self.raw.execute_command("DEBUG", "DIGEST-VALUE", *keys)] if keys else []


@dataclass
class Known:
    """What has to be there of one conversation."""

    record: Conversation
    fence: int = 0
    held: bool = False  #: by whoever has the highest fence, and nobody else may take it
    owned: bool = False  #: nobody has given it back: the last holder writes, also when its time is over
    messages: list[str] = field(default_factory=list)  #: client ids, in order
    delivered: int = 0
    steps: list[str] = field(default_factory=list)
    events: int = 0


class Scripts(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.server = Server()
        self.loop = asyncio.Runner()
        self.clients = [RedisStore(self.server.url), RedisStore(self.server.url)]
        self.tenant = TenantId(new_uuid())
        self.known: list[Known] = []
        self.leases: list[tuple[Known, Lease]] = []
        self.deliveries: list[Delivery] = []
        self.told: dict[str, list[int]] = {}  #: what a receiver got, by lane
        self.crashes = 1
        self.losses = 1
        self.endpoint = an_endpoint(HookEvent.CREATED, HookEvent.MESSAGE_ACCEPTED, tenant=self.tenant)
        self.listen()

    def done(self, work: Coroutine[Any, Any, T] | Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return self.loop.run(awaited())

    def store(self, number: int) -> RedisStore:
        return self.clients[number % 2]

    def listen(self) -> None:
        put = self.store(0).hooks.put(self.endpoint, expected_version=0, queue_bytes=1_000_000, limit=3)
        assert self.done(put)

    def one(self, number: int) -> Known:
        return self.known[number % len(self.known)]

    @rule(client=number, ask=st.sampled_from(ASKS))
    def create(self, client: int, ask: Ask) -> None:
        try:
            record = self.done(self.store(client).conversations.create(a_conversation(self.tenant), ask=ask))
        except LimitReached:
            assert len(self.standing(Verdict.HELD, Verdict.QUEUED)) >= LIMIT
        else:
            self.known.append(Known(record))

    @precondition(lambda self: self.known)
    @rule(which=number, client=number)
    def claim(self, which: int, client: int) -> None:
        known = self.one(which)
        conversations, owner = self.store(client).conversations, f"owner-{client % 2}"
        taken = self.done(conversations.claim(self.tenant, known.record.id, owner, lease_ms=LEASE_MS))
        assert (taken is None) == known.held
        if taken is not None:
            assert taken[0].fence == known.fence + 1
            known.fence, known.held, known.owned = taken[0].fence, True, True
            self.leases.append((known, taken[0]))

    @precondition(lambda self: self.known)
    @rule(which=number)
    def sleep_past_the_lease(self, which: int) -> None:
        """Its holder goes on to think that it holds it."""
        known = self.one(which)
        if known.held:
            key = f"t:{{{self.tenant}}}:c:{known.record.id}"
            self.server.raw.hset(key, "lease_until_ms", 1)
            known.held = False

    @precondition(lambda self: self.leases)
    @rule(which=number, client=number, what=st.sampled_from(ACTS), ask=st.sampled_from(ASKS))
    def act(self, which: int, client: int, what: str, ask: Ask) -> None:
        """Of somebody who was given a lease once."""
        known, lease = self.leases[which % len(self.leases)]
        store = self.store(client)
        holds = known in self.known and known.owned and lease.fence == known.fence
        before = None if holds else self.server.digest()
        acts: dict[str, Callable[[], Awaitable[object]]] = {
            "save": lambda: self.saved(store, lease),
            "renew": lambda: store.conversations.renew([lease], lease_ms=LEASE_MS),
            "give back": lambda: store.conversations.settle(lease, due_in_ms=None),
            "step": lambda: store.saga.started(lease, f"step-{len(known.steps)}"),
            "undo": lambda: store.saga.undone(lease, known.steps[-1] if known.steps else "step-0"),
            "slot": lambda: store.slots.take(lease, ask),
        }
        refused = False
        try:
            answer = self.done(acts[what]())
            refused = answer == [False]
        except LeaseLost:
            refused = True
        if before is not None:
            assert refused or what == "give back"
            assert self.server.digest() == before
            return
        assert not refused
        if what == "give back":
            known.held = known.owned = False
        elif what == "renew":
            known.held = True
        elif what == "step":
            known.steps.append(f"step-{len(known.steps)}")
        elif what == "undo" and known.steps:
            known.steps.pop()

    async def saved(self, store: RedisStore, lease: Lease) -> object:
        present = await store.conversations.get(lease.tenant, lease.conversation)
        if present is None:
            raise LeaseLost("it is gone")
        saved = replace(present, attempt=present.attempt + 1)
        return await store.conversations.save(lease, saved, expected_version=present.version)

    @precondition(lambda self: self.known)
    @rule(which=number, client=number, message=st.integers(min_value=0, max_value=4))
    def send(self, which: int, client: int, message: int) -> None:
        known, name = self.one(which), f"m-{message}"
        inbox = self.store(client).inbox
        put = self.done(inbox.put(self.tenant, known.record.id, client_id=name, content="{}", limit=100))
        if name not in known.messages:
            known.messages.append(name)
        assert put.sequence == known.messages.index(name) + 1

    @precondition(lambda self: self.leases)
    @rule(which=number, client=number)
    def deliver(self, which: int, client: int) -> None:
        known, lease = self.leases[which % len(self.leases)]
        store = self.store(client)
        waiting = self.done(store.inbox.waiting(lease.tenant, lease.conversation, limit=5))
        if not waiting:
            return
        before = self.server.digest()
        with suppress(LeaseLost):
            self.done(store.inbox.delivered(lease, waiting[0].sequence))
        if known.owned and lease.fence == known.fence:
            known.delivered += 1
        else:
            assert self.server.digest() == before

    @precondition(lambda self: self.known)
    @rule(which=number, client=number, again=st.booleans())
    def event(self, which: int, client: int, again: bool) -> None:
        """The next of its log, or one that is known already, or one behind a gap."""
        known = self.one(which)
        first = known.events if again and known.events else known.events + 1
        told = [an_event(first, f"e-{first}")]
        told.append(an_event(first + 2, "late"))
        known.events = max(known.events, first)
        assert self.done(self.store(client).events.append(self.tenant, known.record.id, told)) == known.events

    @rule(client=number)
    def claim_webhooks(self, client: int) -> None:
        hooks = self.store(client).hooks
        self.deliveries += self.done(hooks.claim_due(limit=5, each=lambda tenant: 5, claim_ms=CLAIM_MS))

    @precondition(lambda self: self.deliveries)
    @rule(which=number, client=number, taken=st.booleans())
    def tell(self, which: int, client: int, taken: bool) -> None:
        """A receiver gets it, and its sender says so, or dies before that: then it is told again."""
        delivery = self.deliveries.pop(which % len(self.deliveries))
        body = delivery.body()
        lane = self.told.setdefault(delivery.lane, [])
        if not lane or body["sequence"] != lane[-1]:
            assert not lane or body["sequence"] > lane[-1], "in order"
            lane.append(body["sequence"])
        if not taken:
            self.done(self.store(client).hooks.hand_back(delivery))
            return
        what, entry = (body["id"], body["type"], body["sequence"]), delivery.entry
        attempt = Attempt(*what, delivery.lane, 1, Outcome.DELIVERED, 200, "", 1, entry)
        following = self.done(self.store(client).hooks.delivered(delivery, attempt, claim_ms=CLAIM_MS))
        self.deliveries += [following] if following is not None else []

    @precondition(lambda self: self.known)
    @rule(which=number, client=number, wish=st.sampled_from([Desired.STOPPED, Desired.RUNNING]))
    def ask(self, which: int, client: int, wish: Desired) -> None:
        known, conversations = self.one(which), self.store(client).conversations
        present = self.done(conversations.get(self.tenant, known.record.id))
        assert present is not None
        stale = self.done(conversations.request(replace(present, desired=wish), expected_version=present.version + 1))
        assert stale is False
        assert self.done(conversations.request(replace(present, desired=wish), expected_version=present.version))

    @precondition(lambda self: self.leases)
    @rule(which=number, client=number)
    def remove(self, which: int, client: int) -> None:
        known, lease = self.leases[which % len(self.leases)]
        try:
            self.done(self.store(client).conversations.remove(lease))
        except LeaseLost:
            assert not (known in self.known and known.owned and lease.fence == known.fence)
        else:
            self.known.remove(known)
            known.owned = False

    @precondition(lambda self: self.crashes and len(self.known) > 1)
    @rule()
    def crash(self) -> None:
        """Nothing of what was answered is missing afterwards."""
        self.crashes -= 1
        before = self.server.digest()
        self.server.kill()
        self.server.start()
        assert self.server.digest() == before
        for client in self.clients:
            with suppress(StoreUnavailable):
                self.done(client.ping())  # connections of before

    @precondition(lambda self: self.losses and len(self.leases) > 2)
    @rule()
    def lose_everything(self) -> None:
        """Whoever held something writes nothing into the empty server: what it wrote would be taken for a record."""
        self.losses -= 1
        self.server.raw.flushall()
        for known, lease in self.leases:
            known.owned = False
            for act in (self.saved, lambda store, lease: store.saga.started(lease, "step")):
                with suppress(LeaseLost, NotFound):
                    self.done(act(self.store(0), lease))
            with suppress(NotFound):
                self.done(self.store(1).inbox.put(lease.tenant, lease.conversation, client_id="x", content="", limit=9))
            with suppress(NotFound):
                told = [an_event(1, "e")]
                self.done(self.store(1).events.append(lease.tenant, lease.conversation, told))
        assert self.server.digest() == []
        self.known, self.deliveries = [], []
        self.told.clear()
        self.listen()

    def standing(self, *verdicts: Verdict) -> list[Known]:
        slots = self.store(0).slots
        found = [self.done(slots.standing(self.tenant, known.record.id)).verdict for known in self.known]
        return [known for known, verdict in zip(self.known, found, strict=True) if verdict in verdicts]

    @rule(client=number)
    def serve_the_queue(self, client: int) -> None:
        slots = self.store(client).slots
        found = self.done(slots.next_waiting(self.tenant, ASKS[0]))
        if found.first is not None and found.standing.verdict is Verdict.NONE:
            assert self.done(slots.admit(self.tenant, found.first, ASKS[0])).verdict is Verdict.ADMITTED

    @invariant()
    def no_limit_is_passed_and_the_count_is_right(self) -> None:
        held = self.standing(Verdict.HELD)
        assert len(held) <= LIMIT
        meters, _ = self.done(self.store(1).slots.meters(self.tenant, ASKS[0]))
        assert meters[0].current == len(held)

    @invariant()
    def all_that_was_accepted_is_there(self) -> None:
        store = self.store(1)
        for known in self.known:
            record = self.done(store.conversations.get(self.tenant, known.record.id))
            assert record is not None
            assert record.fence == known.fence
            page = self.done(store.inbox.page(self.tenant, record.id, after=0, limit=100))
            assert [message.client_id for message in page] == known.messages
            assert [message.delivered for message in page].count(True) == known.delivered
            steps = self.done(store.saga.attempted(self.tenant, record.id))
            assert [name for name, _, _ in steps] == known.steps
            last = self.done(store.events.last(self.tenant, record.id))
            assert (last.sequence if last is not None else 0) == known.events

    def teardown(self) -> None:
        async def close() -> None:
            for client in self.clients:
                await client.close()

        self.done(close())
        self.loop.close()
        self.server.close()


TestScripts = Scripts.TestCase
TestScripts.settings = settings(
    max_examples=8,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(HypothesisPhase.explicit, HypothesisPhase.generate),  # to shrink takes minutes
)
