"""One replica's lifecycle over a store in memory and the fake driver: all that acts on conversations, without loops.

A test decides when it acts and what becomes of each of its calls (`mortal.py`).
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from orchestrator.domain.admission import OperatorLimits
from orchestrator.domain.clock import SystemClock
from orchestrator.domain.conversation import Conversation, ForkOf, Phase, StartRequest
from orchestrator.domain.errors import NestorError
from orchestrator.domain.restarts import Restarts
from orchestrator.domain.retention import Span, Spans
from orchestrator.domain.secrets import SecretText
from orchestrator.domain.step_seconds import step_seconds
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.security.envelope import Envelope, MasterKeys
from orchestrator.services.activity import Activity
from orchestrator.services.admission import Admission
from orchestrator.services.conversations import ConversationService
from orchestrator.services.deaths import Deaths
from orchestrator.services.deletion import Deletion
from orchestrator.services.drafting import Wanted
from orchestrator.services.effective import Effective
from orchestrator.services.event_archiving import Bounds, EventArchiving
from orchestrator.services.events import EventLog
from orchestrator.services.idleness import Idleness
from orchestrator.services.images import Images
from orchestrator.services.keys import KeyRing
from orchestrator.services.layers import Layers
from orchestrator.services.lifecycle import Lifecycle
from orchestrator.services.overrides import Overrides, OverrideSeal
from orchestrator.services.reconciler import Reconciler
from orchestrator.services.retiring import Retiring
from orchestrator.services.shares import Shares
from orchestrator.services.start import Surroundings, made
from orchestrator.services.suspension import Suspension
from orchestrator.services.tending import Tending
from orchestrator.services.warm_start import stages_of
from orchestrator.state.base import Lease
from orchestrator.state.event_archive.archive import EventArchive
from orchestrator.state.event_archive.files import FilePlace
from orchestrator.state.memory import MemoryStore
from support.mortal import Mortal

MASTER = MasterKeys([bytes(range(32))])
NEVER = Spans(idle_pause_seconds=Span(0))


@dataclass(frozen=True)
class Policy:
    """What the operator of this replica says."""

    spans: Spans = NEVER
    restarts: Restarts = field(default_factory=Restarts)
    undelete_seconds: float = 600.0
    start_timeout: float = 30.0
    limits: OperatorLimits = field(default_factory=OperatorLimits)
    step_seconds: str = ""


@dataclass
class Ground:
    """What outlives every replica. `crossed` are the changes of phase that were stored."""

    engine: FakeEngine
    folder: Path
    store: MemoryStore = field(default_factory=lambda: MemoryStore(SystemClock()))
    crossed: set[tuple[Phase, Phase]] = field(default_factory=set)
    on_crossing: Callable[[], None] = lambda: None  #: called when another phase has been stored

    def __post_init__(self) -> None:
        saved = self.store.conversations.save

        async def save(lease: Lease, conversation: Conversation, *, expected_version: int) -> Conversation:
            before = await self.store.conversations.get(lease.tenant, lease.conversation)
            after = await saved(lease, conversation, expected_version=expected_version)
            if before is not None and before.phase is not after.phase:
                self.crossed.add((before.phase, after.phase))
                self.on_crossing()
            return after

        self.store.conversations.save = save  # type: ignore[method-assign]


class Replica:
    """Services and lifecycle of one orchestrator, each of whose calls goes through `mortal`."""

    def __init__(
        self,
        ground: Ground,
        mortal: Mortal | None = None,
        policy: Policy = Policy(),
        shares: Shares | None = None,
        images: Images | None = None,
    ) -> None:
        self.mortal = mortal or Mortal()
        self.ground = ground
        store: Any = self.mortal.store(ground.store)
        clock, clients = SystemClock(), self.mortal.clients()
        envelope = Envelope(MASTER, ground.store.configuration)
        layers, overrides = Layers(store.configuration, envelope), OverrideSeal(envelope)
        effective, keys = Effective(layers, overrides), KeyRing(envelope)
        archive = EventArchive(FilePlace(ground.folder))
        archiving = EventArchiving(store.events, archive, Bounds(1000, 1024 * 1024))
        events = EventLog(store.events, archiving, clients, keys, clock)
        self.activity = activity = Activity(store.conversations)
        driver = self.mortal.driver(ground.engine)
        self.house = Surroundings(
            installation="here",
            driver=driver,
            conversations=store.conversations,
            effective=effective,
            keys=keys,
            clients=clients,
            clock=clock,
            public_urls=lambda conversation: [],
            allow_http_hosts=(),
            expose=lambda conversation: 0,
            published=lambda conversation: None,
            withdraw=lambda conversation: None,
            generation=store.configuration.generation,
            step_seconds=step_seconds(policy.step_seconds),
            images=images,
            source=self._given,
        )
        idleness = Idleness(store.conversations, effective, activity, clients, keys, clock, policy.spans)
        admission = Admission(store, layers.settings, idleness, policy.limits, clock)
        deaths = Deaths(self.house, store.operations, store.saga, admission, policy.restarts)
        self.lifecycle = Lifecycle(
            self.house,
            store,
            Tending(self.house, store.inbox, events, deaths),
            events,
            Suspension(self.house, store, deaths, events, idleness, admission),
            idleness,
            admission,
            Deletion(self.house, store, events, archiving, admission),
            Retiring(self.house, store, idleness, archiving=archiving, undelete_seconds=policy.undelete_seconds),
            archiving,
            start_timeout=policy.start_timeout,
        )
        self.reconciler = Reconciler(
            "here", driver, store.conversations, store.spares, self.house.expose, shares or Shares(None, "a replica")
        )
        self.service = ConversationService(
            store,
            effective,
            overrides,
            events,
            admission,
            clock,
            wake=lambda: None,
            gone=lambda conversation: None,
            undelete_seconds=policy.undelete_seconds,
            images=images,
            stages=lambda: stages_of(self.house),
        )
        self.lifecycle.subscribe(self.service.wake)

    @asynccontextmanager
    async def _given(self, fork: Conversation) -> AsyncIterator[AsyncIterator[bytes]]:
        """By the source of a fork, which is another replica's to bring."""

        async def pieces() -> AsyncIterator[bytes]:
            yield b"log of "
            yield made(fork.request.fork_of).conversation.encode()

        yield pieces()

    async def created(self, tenant: str, *, fork_of: ForkOf | None = None) -> Conversation:
        """A conversation with a model of its own."""
        llm = {"model": "openai/scripted", "api_key": SecretText("sk-model-key-of-the-tests")}
        wanted = Wanted(None, StartRequest(fork_of=fork_of), Overrides({"agent_settings": {"llm": llm}}, {}), None, {})
        return await self.service.create(tenant, None, wanted)  # type: ignore[arg-type]

    async def act(self, conversation: Conversation) -> int | None:
        """One act, under a lease that is waited for and given back; what failed is due again soon, as for workers. The
        lease of one that may die is short: whoever comes next does not wait for long."""
        lease_ms = 1 if self.mortal.may_strike else 60_000
        conversations = self.ground.store.conversations
        taken = None
        while taken is None:
            if await conversations.get(conversation.tenant, conversation.id) is None:
                return None
            taken = await conversations.claim(conversation.tenant, conversation.id, "a replica", lease_ms=lease_ms)
        lease, record = taken
        try:
            due_in_ms = await self.lifecycle.act(lease, record)
        except NestorError:
            due_in_ms = 1
        await conversations.settle(lease, due_in_ms=due_in_ms)
        return due_in_ms

    async def settle(
        self, conversation: Conversation, until: Callable[[Conversation | None], bool], *, rounds: int = 30
    ) -> Conversation | None:
        """Act until the stored record is as `until` wants it, and once more."""
        for _ in range(rounds):
            if until(await self.ground.store.conversations.get(conversation.tenant, conversation.id)):
                break
            if await self.act(conversation):
                await anyio.sleep(0.001)
        else:
            found = await self.ground.store.conversations.get(conversation.tenant, conversation.id)
            raise AssertionError(f"after {rounds} acts it is {found}")
        await self.act(conversation)
        return await self.ground.store.conversations.get(conversation.tenant, conversation.id)
