"""Runtime id -> where its bytes go: how the proxy's `resolve` is answered from the records."""

from collections.abc import Awaitable, Callable

import anyio

from orchestrator.domain.conversation import Conversation, Desired, Phase
from orchestrator.domain.errors import CapacityReached, LimitReached, NotFound
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.proxy.route import Found, Route, Unavailable
from orchestrator.services.conversations import may_wake
from orchestrator.services.keys import KeyRing
from orchestrator.state.base import Conversations

#: The runtime exists, or will: the client may come again. In all other phases there is nothing to come back to.
_COMING = frozenset({Phase.PENDING, Phase.PROVISIONING, Phase.CONFIGURING, Phase.RESUMING, Phase.PAUSING, Phase.PAUSED})
_POLL_SECONDS = 0.05


Rouse = Callable[[TenantId, ConversationId], Awaitable[None]]


class Routes:
    """Loads routes; caching is the proxy's business."""

    def __init__(self, conversations: Conversations, keys: KeyRing) -> None:
        self._conversations = conversations
        self._keys = keys

    async def load(self, runtime: RuntimeId) -> Found:
        """The route of a ready runtime, `Unavailable` on its way there, None when it is unknown or over."""
        place = await self._conversations.route(runtime)
        record = await self._conversations.get(*place) if place is not None else None
        if record is None or record.runtime is None or record.runtime.id != runtime:
            return None
        if record.desired is Desired.DELETED:
            return None
        if record.phase is Phase.READY:
            return await self._route(record)
        if may_wake(record) or record.phase is Phase.RESUMING:
            return Unavailable(_not_ready(record), session_key_hash=record.runtime.session_key_hash or None)
        return Unavailable(_not_ready(record)) if record.phase in _COMING else None

    async def wake(self, runtime: RuntimeId, rouse: Rouse) -> Found:
        """Rouse a conversation that policy put to rest, and wait until its runtime is there, or will not be. The caller
        bounds the time."""
        while True:
            place = await self._conversations.route(runtime)
            if place is None:
                return None
            try:
                await rouse(*place)
            except NotFound:
                return None
            except (LimitReached, CapacityReached) as refusal:  # it sleeps on until there is room
                return Unavailable(refusal.message, retry_after=_seconds(refusal))
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
        )


def _seconds(refusal: LimitReached | CapacityReached) -> int:
    return max(1, round(refusal.retry_after))


def _not_ready(record: Conversation) -> str:
    if record.phase is Phase.PAUSED and record.desired is Desired.PAUSED:
        return "the runtime is paused: resume its conversation to go on"
    return f"the runtime is not ready: its conversation is {record.phase}"
