"""Runtime id -> where its bytes go: how the proxy's `resolve` is answered from the records."""

from collections.abc import Awaitable, Callable

import anyio

from orchestrator.domain.admission import Standing, shown
from orchestrator.domain.conversation import Conversation, Desired, Kind, Phase
from orchestrator.domain.errors import CapacityReached, LimitReached, NotFound
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.proxy.route import Found, LinkRoute, Route, Unavailable
from orchestrator.services.keys import KeyRing
from orchestrator.services.resting import may_wake, will_wake
from orchestrator.state.base import Conversations

#: The runtime exists, or will: the client may come again. In all other phases there is nothing to come back to.
_COMING = frozenset({Phase.PENDING, Phase.PROVISIONING, Phase.CONFIGURING, Phase.RESUMING, Phase.PAUSING, Phase.PAUSED})
_POLL_SECONDS = 0.05
_PLACES = 10_000  #: as many as the cache of routes has
_OF_REFUSALS = ("rule", "limit", "current")


Rouse = Callable[[TenantId, ConversationId], Awaitable[None]]
WaitsFor = Callable[[Conversation], Awaitable[Standing | None]]  #: how one stands in the queue; None: it is not there


class Routes:
    """Loads routes; caching is the proxy's business. Remembered is only whose a runtime is, which never changes: so a
    route that is read again costs one read."""

    def __init__(self, conversations: Conversations, keys: KeyRing) -> None:
        self._conversations = conversations
        self._keys = keys
        self._places: dict[RuntimeId, tuple[TenantId, ConversationId]] = {}

    async def load(self, runtime: RuntimeId) -> Found:
        """The route of a ready runtime, `Unavailable` on its way there, None when it is unknown or over."""
        record = await self._record(runtime)
        if record is None or record.runtime is None:
            return None
        if record.desired is Desired.DELETED:
            return None
        if record.phase is Phase.READY:
            return await self._route(record)
        if may_wake(record) or will_wake(record) or record.phase is Phase.RESUMING:
            key = record.runtime.session_key_hash or None
            return Unavailable(_not_ready(record), session_key_hash=key, links=_links(record))
        return Unavailable(_not_ready(record)) if record.phase in _COMING else None

    async def _record(self, runtime: RuntimeId) -> Conversation | None:
        """The record that names this runtime, None if none does."""
        place = self._places.pop(runtime, None)
        record = await self._at(place, runtime)
        if record is None:
            place = await self._conversations.route(runtime)
            record = await self._at(place, runtime)
        if place is not None and record is not None:
            self._places[runtime] = place
            if len(self._places) > _PLACES:
                del self._places[next(iter(self._places))]
        return record

    async def _at(self, place: tuple[TenantId, ConversationId] | None, runtime: RuntimeId) -> Conversation | None:
        record = await self._conversations.get(*place) if place is not None else None
        return record if record is not None and record.runtime is not None and record.runtime.id == runtime else None

    async def wake(self, runtime: RuntimeId, rouse: Rouse, waits_for: WaitsFor, *, seconds: float) -> Found:
        """Rouse a conversation that policy put to rest, and wait for so long until its runtime is there, or will not
        be. Then say what it waits for: it goes on waiting without the caller."""
        with anyio.move_on_after(seconds):
            return await self._awake(runtime, rouse)
        return await self._waits(runtime, waits_for)

    async def _waits(self, runtime: RuntimeId, waits_for: WaitsFor) -> Found:
        """What is known of it now; of one in the queue its place there, and the rule that is full."""
        found, place = await self.load(runtime), await self._conversations.route(runtime)
        record = await self._conversations.get(*place) if place is not None else None
        if not isinstance(found, Unavailable) or record is None:
            return found
        stands = await waits_for(record)
        if stands is None:
            return found
        limit, current = (shown(stands.rule, number) for number in (stands.limit, stands.current))
        numbers = {"limit": limit, "current": current} if limit else {}
        of = f" ({current} of {limit})" if limit else ""
        message = f"it waits for a place, as number {stands.place} of the queue: {stands.rule} is full{of}"
        details = {"rule": stands.rule, "place": stands.place, **numbers}
        return Unavailable(message, retry_after=_seconds(stands), details=details)

    async def _awake(self, runtime: RuntimeId, rouse: Rouse) -> Found:
        while True:
            place = await self._conversations.route(runtime)
            if place is None:
                return None
            try:
                await rouse(*place)
            except NotFound:
                return None
            except (LimitReached, CapacityReached) as refusal:  # it sleeps on until there is room
                told = {name: refusal.details[name] for name in _OF_REFUSALS if name in refusal.details}
                return Unavailable(refusal.message, retry_after=_seconds(refusal), details=told)
            found = await self.load(runtime)
            if not isinstance(found, Unavailable) or not await self._comes(place):
                return found
            await anyio.sleep(_POLL_SECONDS)

    async def _comes(self, place: tuple[TenantId, ConversationId]) -> bool:
        record = await self._conversations.get(*place)
        return record is not None and record.desired is Desired.RUNNING and record.phase is not Phase.FAILED

    async def _route(self, record: Conversation) -> Route | None:
        runtime, inner_key = record.runtime, await self._keys.inner_key(record)
        if runtime is None or inner_key is None:
            return None
        host, _, port = runtime.address.rpartition(":")
        return Route(
            runtime=runtime.id,
            tenant=record.tenant,
            conversation=record.id,
            generation=runtime.generation,
            host=host.strip("[]"),
            port=int(port),
            session_key_hash=runtime.session_key_hash,
            inner_key=inner_key,
            links=_links(record),
            version=record.version,
        )


def _links(record: Conversation) -> tuple[LinkRoute, ...]:
    files = "/api/workspace/files" if record.kind is Kind.RUNTIME else f"/api/conversations/{record.id}/files"
    return tuple(
        LinkRoute(link.digest, link.generation, link.expires_at.timestamp(), link.port, link.path, files)
        for link in record.links
    )


def _seconds(refusal: LimitReached | CapacityReached | Standing) -> int:
    return max(1, round(refusal.retry_after))


def _not_ready(record: Conversation) -> str:
    if record.phase is Phase.PAUSED and record.desired is Desired.PAUSED:
        own = "it" if record.kind is Kind.RUNTIME else "its conversation"
        return f"the runtime is paused: resume {own} to go on"
    of = "it" if record.kind is Kind.RUNTIME else "its conversation"
    return f"the runtime is not ready: {of} is {record.phase}"
