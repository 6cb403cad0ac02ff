"""Reviews in memory: all of what is asked for in one step. See `base.Reviews`."""

from orchestrator.domain.conversation import Phase
from orchestrator.domain.ids import TenantId, UserId
from orchestrator.state.memory.shelf import Shelf


class MemoryReviews:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._reason = ""

    async def ask(self, tenant: TenantId, user: UserId | None) -> None:
        self._shelf.reviews[tenant, user] = None

    async def ask_all(self, reason: str) -> bool:
        if reason == self._reason:
            return False
        self._reason = reason
        for tenant, _ in self._shelf.places:
            self._shelf.reviews[tenant, None] = None
        return True

    async def step(self) -> int | None:
        if not self._shelf.reviews:
            return None
        whose = next(iter(self._shelf.reviews))
        del self._shelf.reviews[whose]
        made = 0
        for (tenant, _), place in self._shelf.places.items():
            of = (tenant, None if whose[1] is None else place.conversation.user)
            if of == whose and place.conversation.phase in (Phase.STOPPED, Phase.FAILED):
                place.poke(self._shelf.now_ms())
                made += 1
        return made
