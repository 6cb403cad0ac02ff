"""Who waits on this replica for a conversation to get somewhere: told at once, instead of looking again and again.

`provisioning.py` and `suspension.py` tell, by `Surroundings.published`; the API waits. What another replica does is
told to nobody here, so whoever waits looks again after a moment all the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from orchestrator.domain.conversation import Conversation
from orchestrator.domain.ids import ConversationId


class News:
    """Of one conversation, for one who looks, waits and looks again: what is told while he looks ends the next wait."""

    def __init__(self) -> None:
        self._told = anyio.Event()

    def tell(self) -> None:
        self._told.set()

    async def wait(self, at_most: float) -> None:
        """Until something was told since the last wait, or `at_most` seconds."""
        with anyio.move_on_after(at_most):
            await self._told.wait()
        self._told = anyio.Event()


class Arrivals:
    """Of one replica."""

    def __init__(self) -> None:
        self._listening: dict[ConversationId, set[News]] = {}

    def tell(self, conversation: Conversation) -> None:
        """Something was stored of this one. Whoever waits looks for himself: the id may be another tenant's too."""
        for news in self._listening.get(conversation.id, ()):
            news.tell()

    @contextmanager
    def of(self, id: ConversationId) -> Iterator[News]:
        """Its news, from now on: to be entered before one looks for the first time."""
        news = News()
        self._listening.setdefault(id, set()).add(news)
        try:
            yield news
        finally:
            self._listening[id].discard(news)
            if not self._listening[id]:
                del self._listening[id]
