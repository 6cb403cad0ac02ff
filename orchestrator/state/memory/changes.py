"""Which conversations changed, inside of one process. See `base.Changes`."""

from collections.abc import AsyncIterator

import anyio

from orchestrator.domain.ids import ConversationId
from orchestrator.state.memory.shelf import Shelf

_HINTS = 1024


class MemoryChanges:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def listen(self) -> AsyncIterator[ConversationId]:
        send, receive = anyio.create_memory_object_stream[ConversationId](_HINTS)
        self._shelf.listeners.add(send)
        try:
            async with receive:
                async for id in receive:
                    yield id
        finally:
            self._shelf.listeners.discard(send)
            send.close()
