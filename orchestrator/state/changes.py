"""Which conversations changed, by publish and subscribe. See `base.Changes`."""

from collections.abc import AsyncIterator

from orchestrator.domain.ids import ConversationId
from orchestrator.state import keys
from orchestrator.state.funnel import Call, Funnel, command


class RedisChanges:
    def __init__(self, funnel: Funnel) -> None:
        self._funnel = funnel

    async def listen(self) -> AsyncIterator[ConversationId]:
        async for text in self._funnel.subscribed(keys.CHANGED):
            yield ConversationId(text)


def told(id: ConversationId) -> Call:
    """Goes with whatever changed the conversation, in one batch."""
    return command("PUBLISH", keys.CHANGED, id)
