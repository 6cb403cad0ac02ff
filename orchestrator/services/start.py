"""One start under way: what its steps are given, what they have made so far, and how its record is stored.

Used by the steps (`making.py`, `configuring.py`, `provisioning.py`) and whoever else acts on a runtime under a lease.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from orchestrator.domain.clock import Clock
from orchestrator.domain.conversation import REQUESTED, Conversation, Held, Phase, advance
from orchestrator.domain.drift import Seen
from orchestrator.domain.errors import Conflict, LeaseLost, PreconditionFailed
from orchestrator.domain.ids import OperationId, TenantId, UserId
from orchestrator.domain.secrets import SecretText
from orchestrator.domain.step_seconds import STEP_SECONDS
from orchestrator.drivers.base import Driver
from orchestrator.drivers.values import Endpoint, Handle, OwnerLabels
from orchestrator.nested import wire
from orchestrator.nested.client import RuntimeClient, RuntimeClients
from orchestrator.services.effective import Effective
from orchestrator.services.images import Images
from orchestrator.services.keys import KeyRing, RuntimeKeys
from orchestrator.services.pool import WarmPool
from orchestrator.state.base import Conversations, Lease

Expose = Callable[[Conversation], int]  #: open this runtime's own listener; answers its port, 0 for none

_SAVE_TRIES = 10
T = TypeVar("T")


async def _nothing_to_wait_for(tenant: TenantId) -> None:
    """Where there is no journal."""


async def _no_generation(tenant: TenantId, user: UserId | None) -> str:
    """Where nothing is stored."""
    return ""


@dataclass(frozen=True)
class Surroundings:
    """What the steps need of the house. Made once in `app.py`."""

    installation: str
    driver: Driver
    conversations: Conversations
    effective: Effective
    keys: KeyRing
    clients: RuntimeClients
    clock: Clock
    public_urls: Callable[[Conversation], Sequence[str]]
    allow_http_hosts: Sequence[str]
    expose: Expose
    published: Callable[[Conversation], None]  #: the route of this conversation is there now
    withdraw: Callable[[Conversation], None]
    #: where the runtime of this conversation tells its events; None: nowhere, and its log is read
    webhook: Callable[[Conversation, Endpoint | None], Mapping[str, Any] | None] = lambda conversation, endpoint: None
    alive_seconds: float = 60.0
    #: how long each step of a saga may take (`domain/step_seconds.py`)
    step_seconds: Mapping[str, float] = field(default_factory=lambda: STEP_SECONDS)
    #: what every runtime may reach beside its model and git hosts, where the driver lets them reach named hosts only
    reached_hosts: Sequence[str] = ()
    #: of browser pages that may read what a runtime answers
    allowed_origins: Sequence[str] = ()
    #: whether the commands of those who made a sandbox find its session key in their environment
    keys_in_commands: bool = True
    #: the generation of what a runtime of this tenant and user is configured with
    generation: Callable[[TenantId, UserId | None], Awaitable[str]] = field(default=_no_generation)
    #: Waits until all that was stored of a tenant so far is in the journal's archive.
    archived: Callable[[TenantId], Awaitable[object]] = field(default=_nothing_to_wait_for)
    #: variables of every runtime that is made; no secret
    variables: Mapping[str, str] = field(default_factory=dict)
    #: what the source of this fork gives of itself; None: there are no forks
    source: Callable[[Conversation], AbstractAsyncContextManager[AsyncIterator[bytes]]] | None = None
    #: None: there are no spares, and never were any.
    pool: WarmPool | None = None
    #: None: runtimes are made of no images.
    images: Images | None = None


@dataclass
class Provisioning:
    """One start under way: the record as last stored, and what the steps have made so far."""

    house: Surroundings
    lease: Lease
    conversation: Conversation
    generation: int
    keys: RuntimeKeys | None = None
    handle: Handle | None = None
    init_key: SecretText | None = None
    endpoint: Endpoint | None = None
    warm: bool = False  #: a spare was claimed and has its keys (`warm_start.py`): nothing is asked of the driver
    told: str = ""  #: whether a spare was claimed, and if not why, for the operation
    generation_pushed: str = ""  #: of the configuration, read before its first call
    bundle: wire.Bundle | None = None  #: what it is configured with, from the first call of these to the commit point
    is_read: bool = False  #: the bundle was read ahead of its first call
    is_permitted: bool = False  #: and what it needs may be reached
    held: Held | None = None
    seen: Seen | None = None  #: what the runtime says of its configuration, before anybody else can change it
    #: one client for all calls of the start; None: one for each
    connections: AsyncExitStack | None = None
    client: RuntimeClient | None = None

    @property
    def labels(self) -> OwnerLabels:
        runtime = self.conversation.runtime
        if runtime is None:
            raise ValueError("the record of a conversation names its runtime from the start")
        return OwnerLabels(
            installation=self.house.installation,
            tenant=self.conversation.tenant,
            conversation=self.conversation.id,
            runtime=runtime.id,
            generation=self.generation,
            user=self.conversation.user,
            volume=runtime.volume,
        )

    @property
    def name(self) -> str:
        return runtime_name(self.conversation, self.generation)

    async def store(self, conversation: Conversation) -> None:
        """Save under the lease, and keep what is stored."""
        self.conversation = await save(self.house.conversations, self.lease, conversation, known=self.conversation)


def runtime_name(conversation: Conversation, generation: int) -> str:
    """The claim on the engine: one runtime per conversation and generation. A spare keeps the name that it had.

    By the runtime's id, which is ours and stays the conversation's for good: a conversation's id may be its caller's
    choice, and two tenants may choose the same one.
    """
    runtime = made(conversation.runtime)
    if runtime.spare and generation == runtime.generation:
        return runtime.spare
    return f"nestor-{runtime.id}-g{generation}"


async def save(
    store: Conversations,
    lease: Lease,
    conversation: Conversation,
    *,
    operation: OperationId | None = None,
    known: Conversation | None = None,
) -> Conversation:
    """Store what the holder of the lease did; answers what is stored. `operation` is a new one of the holder's own, in
    the place of the one it knows. What callers changed meanwhile is kept: desired
    state, labels and title by the store itself, the rest of what callers write here. `known` is what was stored when
    the holder looked last, and is taken for what is stored until its version says otherwise. Raises `LeaseLost`."""
    for _ in range(_SAVE_TRIES):
        stored, known = known or await store.get(lease.tenant, lease.conversation), None
        if stored is None:
            raise LeaseLost("the conversation is gone")
        try:
            kept = stored.operation
            if operation is not None and kept == conversation.operation:
                kept = operation
            current = replace(conversation, operation=kept, key=stored.key, purge_at=stored.purge_at)
            current = replace(current, image=stored.image or conversation.image)
            return await store.save(lease, current, expected_version=stored.version)
        except PreconditionFailed:
            continue  # a caller was faster; its change is kept
    raise Conflict("the conversation is changing too quickly to be saved")


def advance_to(start: Provisioning, phase: Phase) -> Conversation:
    """The record in the next phase of a start."""
    return advance(start.conversation, phase, why=REQUESTED, now=start.house.clock.now())


def made(value: T | None) -> T:
    """`value`, which an earlier step must have made."""
    if value is None:
        raise ValueError("the steps ran out of order")
    return value


@asynccontextmanager
async def client_of(start: Provisioning) -> AsyncIterator[RuntimeClient]:
    """Of the runtime that is being started, under its keys. The next steps of the start get the same one."""
    origin, key = made(start.endpoint).origin, made(start.keys).inner
    opened = start.house.clients.open(origin, key, fence=start.lease.fence, generation=start.generation)
    if start.connections is None:
        async with opened as client:
            yield client
        return
    if start.client is None or not start.client.is_for(origin, key):
        start.client = await start.connections.enter_async_context(opened)
    yield start.client
