"""Provisioning: the steps that bring one conversation from `pending` to `ready`, each with its undo.

`workers.py` runs them through `saga.py` under a fenced lease. Names and keys are made before anything bears them; the
commit point is `publish`, one compare-and-set. A step raises `StartFailed` (with the reason that users see), a
`NestorError`, or lets the deadline end it.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import anyio

from orchestrator.domain.clock import Clock
from orchestrator.domain.conversation import (
    REQUESTED,
    Conversation,
    Held,
    Kind,
    Phase,
    Reason,
    StartFailed,
    Why,
    advance,
)
from orchestrator.domain.drift import Seen
from orchestrator.domain.errors import (
    Conflict,
    ImageRefused,
    LeaseLost,
    PreconditionFailed,
    RuntimeNotFound,
    RuntimeUnreachable,
    StoreUnavailable,
)
from orchestrator.domain.ids import OperationId, TenantId, UserId
from orchestrator.domain.images import Pin
from orchestrator.domain.secrets import SecretText, new_secret
from orchestrator.domain.step_seconds import STEP_SECONDS
from orchestrator.drivers.base import (
    MAKE_SPACE,
    ClaimTaken,
    Condition,
    Dialect,
    Driver,
    Endpoint,
    ExitCause,
    Gated,
    Handle,
    ImageUnavailable,
    Limits,
    OwnerLabels,
    RuntimeSpec,
    ServingKeys,
    says_no_space,
)
from orchestrator.nested import stock, wire
from orchestrator.nested.client import RuntimeClient, RuntimeClients
from orchestrator.nested.refusals import Refused
from orchestrator.services.drift import seen_by
from orchestrator.services.effective import Effective
from orchestrator.services.held import held_by
from orchestrator.services.images import Images
from orchestrator.services.keys import KeyRing, RuntimeKeys
from orchestrator.services.pool import WarmPool
from orchestrator.services.reach import hosts_of, with_port
from orchestrator.services.saga import Step
from orchestrator.state.base import Conversations, Lease

Expose = Callable[[Conversation], int]  #: open this runtime's own listener; answers its port, 0 for none

CONVERSE_SECONDS = 150.0
_SHORTEST_REST, _LONGEST_REST = 0.005, 0.05  # between two questions whether it answers
_LOOK_SECONDS = 0.2  # between two looks whether it has ended
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
    #: the generation of what a runtime of this tenant and user is configured with
    generation: Callable[[TenantId, UserId | None], Awaitable[str]] = field(default=_no_generation)
    #: Waits until all that was stored of a tenant so far is in the journal's archive.
    archived: Callable[[TenantId], Awaitable[object]] = field(default=_nothing_to_wait_for)
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


async def ensure_volume(start: Provisioning) -> None:
    """The workspace and the runtime's state: made once, kept over generations."""
    await start.house.driver.ensure_volume(start.labels, fence=start.lease.fence)


async def remove_new_volume(start: Provisioning, _note: str) -> None:
    """A conversation that was never ready has no work to keep."""
    if not start.conversation.was_ready:
        with suppress(ClaimTaken):  # the id is another tenant's: nothing of ours was made
            await start.house.driver.remove_volume(start.labels, fence=start.lease.fence)


async def create_runtime(start: Provisioning) -> None:
    """Claim the name. The keys of this generation are stored, sealed, and in the journal, before anything bears them:
    a runtime whose keys were lost with the state server could not be taken over."""
    runtime, start.keys = await start.house.keys.renew(start.conversation, start.generation)
    pin = await _pinned(start)
    await start.store(replace(start.conversation, runtime=runtime, image=pin))
    await start.house.archived(start.conversation.tenant)
    request = start.conversation.request
    limits = Limits().times(request.size)
    image = pin.id if pin is not None else request.image
    spec = RuntimeSpec(name=start.name, labels=start.labels, image=image, limits=limits)
    try:
        start.handle = await start.house.driver.create(spec, fence=start.lease.fence)
    except ImageUnavailable as exc:
        if pin is None:
            raise
        raise ImageUnavailable(
            f"the image that this {start.conversation.kind} stays on is gone: {pin.name} ({pin.id})",
            hint="bring it back (docker load, docker pull), or choose another with POST "
            f"/api/v2/{start.conversation.kind}s/{start.conversation.id}/upgrade; then start it",
        ) from exc


async def _pinned(start: Provisioning) -> Pin | None:
    """The image that it stays on; found now for one that is older than pins, or that came while the engine was away."""
    known, images = start.conversation.image, start.house.images
    if known is not None or images is None:
        return known
    try:
        return await images.pin_now(start.lease.tenant, start.conversation.request.image, start.conversation.id)
    except ImageRefused as exc:
        raise StartFailed(Why(Reason.IMAGE_REFUSED, exc.message, exc.hint or "")) from exc


async def destroy_runtime(start: Provisioning, note: str) -> None:
    """By name: the reply of `create` may have been lost, or another replica may have sent it."""
    start.house.withdraw(start.conversation)
    handle = await start.house.driver.find(note)
    if handle is not None:
        await start.house.driver.destroy(handle, fence=start.lease.fence)
    if start.house.pool is not None:
        await start.house.pool.gone(note)


async def start_runtime(start: Provisioning) -> None:
    """Start it, dormant. The init key is known to this saga alone, and of use only until `init`."""
    start.init_key, keys = new_secret(), made(start.keys)
    serving = ServingKeys(session=keys.inner, state=keys.state)
    start.endpoint = await start.house.driver.start(
        made(start.handle), fence=start.lease.fence, init_key=start.init_key, serving=serving
    )


async def wait_alive(start: Provisioning) -> None:
    """Until the runtime answers. One that ends is told at once, with its last lines, not after the deadline."""
    seconds = start.house.alive_seconds
    began = looked = anyio.current_time()
    async with client_of(start) as client:
        with anyio.move_on_after(seconds):
            while not await client.alive():
                now = anyio.current_time()
                if now - looked >= _LOOK_SECONDS:
                    await _raise_if_ended(start)
                    looked = now
                # A hundredth of what it took so far is what is lost by having asked a moment too early.
                await anyio.sleep(min(_LONGEST_REST, max(_SHORTEST_REST, (now - began) / 50)))
            return
    raise StartFailed(
        Why(
            Reason.HEALTH_TIMEOUT,
            f"the runtime did not answer within {seconds:.0f} seconds",
            "the last log lines say why; check the runtime command or image",
            log_tail=tuple(await start.house.driver.logs(made(start.handle))),
        )
    )


async def _raise_if_ended(start: Provisioning) -> None:
    handle = made(start.handle)
    try:
        observed = await start.house.driver.inspect(handle)
    except RuntimeNotFound:
        why = Why(Reason.RUNTIME_LOST, "the runtime was removed while it started", "start it again", retryable=True)
        raise StartFailed(why) from None
    if observed.condition is not Condition.EXITED:
        return
    oom = observed.cause is ExitCause.OOM
    tail = tuple(await start.house.driver.logs(handle))
    if says_no_space("\n".join(tail)):  # before anybody else could have written there
        message = f"the runtime ended at once (exit status {observed.exit_code}): no space is left"
        raise StartFailed(Why(Reason.DISK_FULL, message, MAKE_SPACE, retryable=True, log_tail=tail))
    raise StartFailed(
        Why(
            Reason.OOM if oom else Reason.IMAGE_START,
            "the runtime ran out of memory" if oom else f"the runtime ended at once (exit status {observed.exit_code})",
            "give it more memory" if oom else "the last log lines say why; check the runtime command or image",
            log_tail=tail,
        )
    )


async def bind_runtime(start: Provisioning) -> None:
    """The keys of this generation. From here on the runtime belongs to this conversation and to nobody else."""
    keys = made(start.keys)
    if made(start.endpoint).stock:
        await _bind_stock(start, keys)
        return
    async with client_of(start) as client:
        await client.init(made(start.init_key), await init_body(start, keys))
    start.init_key = None
    await start.store(advance_to(start, Phase.CONFIGURING))


async def init_body(start: Provisioning, keys: RuntimeKeys) -> Mapping[str, Any]:
    """What a dormant runtime is told. Raises `Undecryptable`."""
    body: dict[str, Any] = {
        "session_api_keys": [keys.inner.open()],
        "secret_key": keys.state.open(),
        "public_urls": list(start.house.public_urls(start.conversation)),
        "generation": start.generation,
        "allow_set_conversation_id": True,
        "allow_http_hosts": list(start.house.allow_http_hosts),
        "allow_cors_origins": list(start.house.allowed_origins),
        "lookup_secret_hosts": [with_port(host) for host in start.house.reached_hosts],
    }
    if (webhook := start.house.webhook(start.conversation, start.endpoint)) is not None:
        body["webhooks"] = [webhook]
    if environment := await _environment(start):
        body["env"] = environment
    return body


async def _environment(start: Provisioning) -> dict[str, str]:
    """The variables that the request brought."""
    brought = (await start.house.effective.brought(start.conversation)).environment
    return {name: value.open() for name, value in brought.items()}


async def _bind_stock(start: Provisioning, keys: RuntimeKeys) -> None:
    """As `bind_runtime`, where no proof can be had: the engine is asked once more who has this address."""
    observed = await start.house.driver.inspect(made(start.handle))
    if observed.endpoint != start.endpoint:
        why = Why(Reason.RUNTIME_LOST, "the runtime moved while it started", "start it again", retryable=True)
        raise StartFailed(why)
    environment = await _environment(start)
    if made(start.endpoint).dialect is Dialect.DORMANT:
        body: dict[str, Any] = {"session_api_keys": [keys.inner.open()], "secret_key": keys.state.open()}
        if environment:
            body["env"] = environment
        async with client_of(start) as client:
            await client.init_unproven(made(start.init_key), body)
    elif environment:
        hint = "leave environment out, or use Nestor's own runtime"
        raise StartFailed(Why(Reason.CONFIG_REJECTED, "this image's agent server takes no variables", hint))
    start.init_key = None
    await start.store(advance_to(start, Phase.CONFIGURING))


async def read_configuration(start: Provisioning) -> None:
    """What the runtime is to be configured with, and of which generation it is: that first, so that a change in
    between is pushed once more instead of not at all."""
    tenant, user = start.conversation.tenant, start.conversation.user
    start.generation_pushed = await start.house.generation(tenant, user)
    start.bundle = await start.house.effective.bundle(tenant, user, own=start.conversation)
    start.is_read = True


async def push_settings(start: Provisioning) -> None:
    """First of the three: the runtime refuses the rest before it."""
    if not start.is_read:
        await read_configuration(start)
    start.is_read, bundle = False, made(start.bundle)  # a second try reads it anew
    await permit(start.house, start.conversation, made(start.endpoint), bundle)
    async with client_of(start) as client:
        if made(start.endpoint).stock:
            if body := stock.settings_body(bundle.settings):
                await client.patch_settings(body)
            return
        await client.post_settings(wire.settings_body(bundle.settings))
        rest = wire.settings_rest(bundle.settings)
        if rest:
            await client.patch_settings(rest)


async def permit(house: Surroundings, conversation: Conversation, endpoint: Endpoint, bundle: wire.Bundle) -> None:
    """Let the runtime reach what its configuration needs, where it reaches named hosts only."""
    if isinstance(house.driver, Gated):
        request = conversation.request
        brought = (await house.effective.brought(conversation)).start_body if request.has_start_body else None
        body = json.loads(brought.open()) if brought is not None else None
        hosts = hosts_of(bundle, request.repository, house.reached_hosts, start_body=body)
        await house.driver.permit(endpoint, hosts)


async def push_git_providers(start: Provisioning) -> None:
    """Second, and only when there are any."""
    bundle = made(start.bundle)
    async with client_of(start) as client:
        if made(start.endpoint).stock:
            await _put_secrets(client, stock.provider_secrets(bundle))
            return
        await client.post_git_providers(wire.providers_body(bundle.providers))


async def push_secrets(start: Provisioning) -> None:
    """Third, and only when there are any."""
    bundle = made(start.bundle)
    async with client_of(start) as client:
        if made(start.endpoint).stock:
            await _put_secrets(client, bundle.secrets)
            return
        await client.post_secrets(wire.secrets_body(bundle.secrets))


async def _holds(start: Provisioning) -> Held:
    """What the runtime was configured with. A change that came meanwhile leaves that unknown."""
    now = await start.house.generation(start.conversation.tenant, start.conversation.user)
    held = replace(
        held_by(made(start.bundle), made(start.keys).inner, now, at=start.house.clock.now()), seen=start.seen
    )
    return held if now == start.generation_pushed else replace(held, generation="", digest="")


async def _put_secrets(client: RuntimeClient, secrets: Mapping[str, SecretText]) -> None:
    for name, value in secrets.items():
        await client.put_secret(name, value)


async def create_nested_conversation(start: Provisioning) -> None:
    """Under our own id, so that a second try joins the first; the repository is cloned in this call. A bare runtime has
    none."""
    request, id = start.conversation.request, start.conversation.id
    if start.conversation.kind is Kind.RUNTIME:
        async with client_of(start) as client:
            start.seen = await _seen(start, client)
        return
    own = (await start.house.effective.brought(start.conversation)).start_body if request.has_start_body else None
    if own is not None:  # both kinds of agent servers know their own body
        body = {**json.loads(own.open()), "conversation_id": id}
    elif made(start.endpoint).stock:
        if request.repository is not None:
            hint = "leave repository out and let the agent clone it, or use Nestor's own runtime"
            raise StartFailed(Why(Reason.CONFIG_REJECTED, "this image's agent server clones no repository", hint))
        workspace = made(start.endpoint).workspace
        body = stock.conversation_body(start.conversation.id, request, made(start.bundle), workspace)
    else:
        body = wire.conversation_body(id, request)
    async with client_of(start) as client:
        start.seen = await _seen(start, client)
        await client.create_conversation(body, timeout=CONVERSE_SECONDS)


async def _seen(start: Provisioning, client: RuntimeClient) -> Seen | None:
    key = made(start.keys).inner
    held = held_by(made(start.bundle), key, "", at=start.house.clock.now())
    with suppress(Refused, RuntimeUnreachable):  # then the first round pushes once more
        return await seen_by(client, held, key, is_stock=made(start.endpoint).stock)
    return None


async def publish_route(start: Provisioning) -> None:
    """The commit point: phase `ready` and the route in one compare-and-set. A lost reply is read back, never undone."""
    runtime = made(start.conversation.runtime)
    endpoint = made(start.endpoint)
    if start.bundle is not None:  # else this is a second try
        start.held, start.bundle = await _holds(start), None
    exposed = replace(start.conversation, runtime=replace(runtime, address=f"{endpoint.host}:{endpoint.port}"))
    exposed = replace(exposed, runtime=replace(made(exposed.runtime), held=start.held), trouble=None, drift=None)
    port = start.house.expose(exposed)
    started = replace(made(exposed.runtime), public_port=port, started_at=start.house.clock.now())
    exposed = replace(exposed, runtime=started, was_ready=True)
    ready = advance(exposed, Phase.READY, why=REQUESTED, now=start.house.clock.now())
    try:
        await start.store(ready)
    except StoreUnavailable:
        stored = await start.house.conversations.get(start.lease.tenant, start.lease.conversation)
        committed = stored is not None and stored.phase is Phase.READY and stored.runtime is not None
        if not committed or made(made(stored).runtime).generation != start.generation:
            raise
        start.conversation = made(stored)
    start.house.published(start.conversation)


async def withdraw_route(start: Provisioning, _note: str) -> None:
    """Close the runtime's own listener. The phase in the record is what the proxy goes by."""
    start.house.withdraw(start.conversation)


def _is_warm(start: Provisioning) -> bool:
    return start.warm


STEPS: Sequence[Step[Provisioning]] = (
    Step("volume", ensure_volume, undo=remove_new_volume, needless=_is_warm),
    Step("create", create_runtime, undo=destroy_runtime, note=lambda start: start.name, needless=_is_warm),
    Step("start", start_runtime, needless=_is_warm),  # undone by "create", as everything that lives in the runtime
    Step("alive", wait_alive, needless=_is_warm, logged_beside=True),
    Step("init", bind_runtime, needless=_is_warm),
    Step("settings", push_settings, logged_beside=True),
    Step("providers", push_git_providers, needless=lambda start: not made(start.bundle).providers, logged_beside=True),
    Step("secrets", push_secrets, needless=lambda start: not made(start.bundle).secrets, logged_beside=True),
    Step("converse", create_nested_conversation, logged_beside=True),
    Step("publish", publish_route, undo=withdraw_route),
)
STAGES = tuple(step.name for step in STEPS)


def advance_to(start: Provisioning, phase: Phase) -> Conversation:
    """The record in the next phase of a start."""
    return advance(start.conversation, phase, why=REQUESTED, now=start.house.clock.now())


#: What undoes whatever made the runtime: a stop, a deletion and a death do the same.
CREATE = STEPS[1]


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
