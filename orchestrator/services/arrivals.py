"""Who waits on this replica for a conversation to get somewhere: told at once, instead of looking again and again.

`provisioning.py` and `suspension.py` tell, by `Surroundings.published`; the API waits. What another replica does is
told to nobody here, so whoever waits looks again after a moment all the same.
"""

import anyio

from orchestrator.domain.conversation import Conversation
from orchestrator.domain.ids import ConversationId


class Arrivals:
    """Of one replica."""

    def __init__(self) -> None:
        self._waiting: dict[ConversationId, set[anyio.Event]] = {}

    def tell(self, conversation: Conversation) -> None:
        """Something was stored of this one. Whoever waits looks for himself: the id may be another tenant's too."""
        for event in self._waiting.get(conversation.id, ()):
            event.set()

    async def wait(self, id: ConversationId, at_most: float) -> None:
        """Until it is told, or `at_most` seconds."""
        event = anyio.Event()
        self._waiting.setdefault(id, set()).add(event)
        try:
            with anyio.move_on_after(at_most):
                await event.wait()
        finally:
            self._waiting[id].discard(event)
            if not self._waiting[id]:
                del self._waiting[id]
