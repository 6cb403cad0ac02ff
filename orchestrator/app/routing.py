"""Runtime id -> where its bytes go: how the proxy's `resolve` is answered from the records."""

from orchestrator.domain.conversation import Conversation, Phase
from orchestrator.domain.ids import RuntimeId
from orchestrator.proxy.route import Found, Route, Unavailable
from orchestrator.services.keys import KeyRing
from orchestrator.state.base import Conversations

#: The runtime exists, or will: the client may come again. In all other phases there is nothing to come back to.
_COMING = frozenset({Phase.PENDING, Phase.PROVISIONING, Phase.CONFIGURING, Phase.RESUMING, Phase.PAUSING, Phase.PAUSED})


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
        if record.phase is Phase.READY:
            return await self._route(record)
        if record.phase in _COMING:
            return Unavailable(f"the runtime is not ready: its conversation is {record.phase}")
        return None

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
