"""What becomes of conversations whose records were lost: the journal says what was asked for, the driver what runs.

Trust, in this order: the driver's labels for what runs, the runtimes themselves for what happened, the journal for what
was wanted. A runtime is adopted when its generation is the one whose keys the journal holds; nobody is killed here, and
what cannot be given to a record is named and left. `recovery.py` calls this while nobody else may touch the store.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import anyio
import structlog

from orchestrator.domain.clock import Clock
from orchestrator.domain.conversation import Conversation, Desired, Phase, Reason, Why
from orchestrator.domain.errors import RuntimeNotFound, RuntimeUnreachable, Undecryptable
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.domain.secrets import new_secret
from orchestrator.drivers.base import Driver
from orchestrator.drivers.values import Condition, Handle, Observed, is_spare
from orchestrator.nested.client import RuntimeClients
from orchestrator.nested.refusals import Refused
from orchestrator.services.keys import KeyRing

log = structlog.get_logger(__name__)
_AT_ONCE = 32
_ANSWER_SECONDS = 5.0
#: Added to the fence where the runtime could not be asked what it has seen: more than it can have seen meanwhile.
_UNASKED = 2**20
#: Added to the version: saves that were not worth an entry of the journal have raised it since.
_VERSIONS = 1_000
_STARTING = frozenset({Phase.PENDING, Phase.PROVISIONING, Phase.CONFIGURING})
_RUNTIME_KEPT = frozenset({Phase.READY, Phase.PAUSING, Phase.PAUSED, Phase.RESUMING})
_ADOPTED = Why(Reason.REQUESTED, "found running after the state server had lost its records")
_FOUND_PAUSED = Why(Reason.IDLE, "found paused after the state server had lost its records", "use it", retryable=True)


@dataclass(frozen=True)
class Found:
    """One runtime that the driver has."""

    handle: Handle
    observed: Observed


@dataclass
class Settled:
    """The conversations of one tenant as they are to be written."""

    conversations: list[Conversation] = field(default_factory=list)
    unwound: list[tuple[Conversation, str]] = field(
        default_factory=list
    )  #: with a runtime to be removed before a start
    adopted: int = 0
    unclaimed: list[str] = field(default_factory=list)


class Rebuild:
    """Looks at what runs, once, and then settles tenant by tenant. Changes nothing itself."""

    def __init__(self, driver: Driver, installation: str, clients: RuntimeClients, clock: Clock) -> None:
        self._driver = driver
        self._installation = installation
        self._clients = clients
        self._clock = clock
        self._limiter = anyio.CapacityLimiter(_AT_ONCE)
        self._found: dict[TenantId, dict[ConversationId, list[Found]]] = {}
        self._spares: dict[str, Found] = {}  #: by name; their labels do not say whose they are, records do

    async def look(self) -> int:
        """Ask the driver what there is; answers how many runtimes. Raises `DriverUnavailable`."""
        self._found, self._spares = {}, {}
        handles = await self._driver.list(self._installation)
        async with anyio.create_task_group() as tasks:
            for handle in handles:
                tasks.start_soon(self._inspect, handle)
        return len(handles)

    async def settle(
        self,
        tenant: TenantId,
        conversations: Sequence[Conversation],
        unreadable: Sequence[ConversationId],
        keys: KeyRing,
    ) -> Settled:
        """What becomes of the tenant's conversations. Takes the tenant's runtimes off the list of `look`."""
        settled, found = Settled(), self._found.pop(tenant, {})
        async with anyio.create_task_group() as tasks:
            for conversation in conversations:
                own = found.pop(conversation.id, [])
                if conversation.runtime is not None and (bound := self._spares.pop(conversation.runtime.spare, None)):
                    own.append(bound)
                tasks.start_soon(self._settle, settled, conversation, own, keys)
        for id, left in found.items():
            if id not in unreadable:  # those are kept as they are, with what runs for them
                settled.unclaimed += [one.handle.name for one in left]
        return settled

    async def left(self) -> list[str]:
        """The names of runtimes of tenants that nobody knows, and of spares that no record names; those excepted that
        say that they are dormant: they are nobody's, and may go."""
        names = [one.handle.name for tenant in self._found.values() for found in tenant.values() for one in found]
        return names + [name for name, found in self._spares.items() if not await self._is_dormant(found)]

    async def _is_dormant(self, found: Found) -> bool:
        if found.observed.endpoint is None or found.observed.condition is not Condition.RUNNING:
            return False
        async with self._clients.open(found.observed.endpoint.origin, new_secret()) as client:
            return await client.is_dormant()

    async def _inspect(self, handle: Handle) -> None:
        async with self._limiter:
            try:
                observed = await self._driver.inspect(handle)
            except RuntimeNotFound:
                return
        if is_spare(handle.labels):
            self._spares[handle.name] = Found(handle, observed)
            return
        of_tenant = self._found.setdefault(handle.labels.tenant, {})
        of_tenant.setdefault(handle.labels.conversation, []).append(Found(handle, observed))

    async def _settle(self, settled: Settled, asked: Conversation, found: Sequence[Found], keys: KeyRing) -> None:
        runtime = asked.runtime

        def generation(one: Found) -> int:
            return runtime.generation if runtime is not None and is_spare(one.handle.labels) else _labelled(one)

        own = sorted(
            (
                one
                for one in found
                if runtime is not None and (is_spare(one.handle.labels) or one.handle.labels.runtime == runtime.id)
            ),
            key=generation,
        )
        settled.unclaimed += [one.handle.name for one in found if one not in own]
        fences = [asked.fence, runtime.generation if runtime is not None else 0]
        fences += [max(generation(one), one.observed.fence) for one in own]
        kept = replace(asked, fence=max(fences) + 1, version=asked.version + _VERSIONS)
        last = own[-1] if own else None
        if last is not None and runtime is not None and generation(last) == runtime.generation:
            present, fence = await self._asked(kept, last, keys)
            kept = replace(kept, fence=fence)
            adopted = self._adopted(kept, last.observed, present)
            if adopted is not None:
                settled.conversations.append(adopted)
                settled.adopted += 1
                return
        if kept.phase in _STARTING:
            kept = replace(kept, phase=Phase.PENDING)
        settled.conversations.append(kept)
        if last is not None and kept.phase is not Phase.DELETING:
            settled.unwound.append((kept, last.handle.name))

    def _adopted(self, kept: Conversation, observed: Observed, present: bool | None) -> Conversation | None:
        """The conversation with this runtime as its own; None when it is none that could be used."""
        runtime = kept.runtime
        if runtime is None or kept.desired is Desired.DELETED:
            return None
        if observed.endpoint is not None:
            kept = replace(kept, runtime=replace(runtime, address=f"{observed.endpoint.host}:{observed.endpoint.port}"))
        if kept.phase in _STARTING:
            if observed.condition is not Condition.RUNNING or not present:
                return None  # it was not ready yet: begun anew
            return self._in(replace(kept, was_ready=True), Phase.READY, _ADOPTED)
        if kept.phase not in _RUNTIME_KEPT:
            return None
        if observed.condition is Condition.PAUSED and kept.phase is Phase.READY:
            return self._in(kept, Phase.PAUSED, _FOUND_PAUSED)
        if observed.condition is Condition.RUNNING and kept.phase is Phase.PAUSED:
            return self._in(kept, Phase.READY, _ADOPTED)
        return kept

    def _in(self, kept: Conversation, phase: Phase, why: Why) -> Conversation:
        now = self._clock.now()
        return replace(kept, phase=phase, why=why, phase_since=now, updated_at=now)

    async def _asked(self, kept: Conversation, found: Found, keys: KeyRing) -> tuple[bool | None, int]:
        """Whether the runtime has the conversation (None: it did not say), and the fence from which to go on."""
        endpoint = found.observed.endpoint
        unasked = (None, kept.fence + _UNASKED)
        if endpoint is None or found.observed.condition is not Condition.RUNNING:
            return unasked
        try:
            key, made_for = await keys.inner_key(kept), kept.runtime
            if key is None or made_for is None:
                return unasked
            generation = made_for.generation
            async with (
                self._limiter,
                self._clients.open(endpoint.origin, key, fence=kept.fence, generation=generation) as client,
            ):
                with anyio.fail_after(_ANSWER_SECONDS):
                    present, highest = await client.known_fence(kept.id)
        except (RuntimeUnreachable, Refused, Undecryptable, TimeoutError) as exc:
            log.warning("rebuild.runtime_not_asked", conversation=kept.id, problem=type(exc).__name__)
            return unasked
        return present, max(kept.fence, highest + 1)


def _labelled(found: Found) -> int:
    return found.handle.labels.generation


@dataclass
class Totals:
    """For the log."""

    conversations: int = 0
    adopted: int = 0
    starts_begun_anew: int = 0

    def add(self, settled: Settled) -> None:
        self.conversations += len(settled.conversations)
        self.adopted += settled.adopted
        self.starts_begun_anew += len(settled.unwound)
