"""Which replicas are there, in memory. See `base.Presence`."""

from collections.abc import Sequence

from orchestrator.state.memory.shelf import Shelf


class MemoryPresence:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._until: dict[str, int] = {}
        self._taken: dict[str, int] = {}

    async def renew(self, replica: str, *, ttl_ms: int) -> Sequence[str]:
        now = self._shelf.now_ms()
        self._until[replica] = now + ttl_ms
        self._until = {one: until for one, until in self._until.items() if until > now}
        return sorted(self._until)

    async def leave(self, replica: str) -> None:
        self._until.pop(replica, None)

    async def take(self, what: str, *, ttl_ms: int) -> bool:
        now = self._shelf.now_ms()
        self._taken = {one: until for one, until in self._taken.items() if until > now}
        if what in self._taken:
            return False
        self._taken[what] = now + ttl_ms
        return True
