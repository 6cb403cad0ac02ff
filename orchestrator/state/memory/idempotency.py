"""Answers under idempotency keys in memory. See `base.Idempotency`."""

from orchestrator.state.base import Replay
from orchestrator.state.memory.shelf import Shelf


class MemoryIdempotency:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def begin(self, scope: str, key: str, digest: str, *, holder: str, ttl_ms: int) -> Replay | None:
        self._shelf.sweep()
        kept = self._shelf.answers.get((scope, key))
        if kept is not None:
            return kept[0]
        self._keep(scope, key, Replay(digest, 0, ""), holder, ttl_ms)
        return None

    async def renew(self, scope: str, key: str, *, holder: str, ttl_ms: int) -> None:
        self._shelf.sweep()
        if (replay := self._held(scope, key, holder)) is not None:
            self._keep(scope, key, replay, holder, ttl_ms)

    async def finish(
        self, scope: str, key: str, digest: str, *, holder: str, status: int, body: str, ttl_ms: int
    ) -> None:
        self._shelf.sweep()
        kept = self._shelf.answers.get((scope, key))
        if kept is None or kept[1] == holder:
            self._keep(scope, key, Replay(digest, status, body), holder, ttl_ms)

    async def abandon(self, scope: str, key: str, *, holder: str) -> None:
        if self._held(scope, key, holder) is not None:
            del self._shelf.answers[scope, key]

    def _held(self, scope: str, key: str, holder: str) -> Replay | None:
        """What the holder has not answered yet."""
        kept = self._shelf.answers.get((scope, key))
        return kept[0] if kept is not None and kept[1] == holder and not kept[0].status else None

    def _keep(self, scope: str, key: str, replay: Replay, holder: str, ttl_ms: int) -> None:
        self._shelf.answers[scope, key] = (replay, holder, self._shelf.now_ms() + ttl_ms)
