"""Who waits on this replica for a conversation to get somewhere: told at once, instead of looking again and again.

`provisioning.py` and `suspension.py` tell, by `Surroundings.published`, and the feed of changes tells what any replica
stored; the API waits. The feed may miss something, so whoever waits looks again after a while all the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import anyio

from orchestrator.domain.ids import ConversationId


class News:
    """Of one conversation, for one who looks, waits and looks again: what is told while he looks ends the next wait."""

    def __init__(self) -> None:
        self._told = anyio.Event()

    def tell(self) -> None:
        self._told.set()

    async def wait(self, at_most: float) -> bool:
        """Until something was told since the last wait, or `at_most` seconds; whether something was."""
        with anyio.move_on_after(at_most):
            await self._told.wait()
        was_told, self._told = self._told.is_set(), anyio.Event()
        return was_told


class Arrivals:
    """Of one replica."""

    def __init__(self) -> None:
        self._listening: dict[ConversationId, set[News]] = {}

    def tell(self, id: ConversationId | None) -> None:
        """Something was stored of this one, or of any. Whoever waits looks for himself: the id may be another tenant's
        too."""
        waiting = self._listening.values() if id is None else [self._listening.get(id, set())]
        for news in chain.from_iterable(waiting):
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
