"""Answers under idempotency keys in memory. See `base.Idempotency`."""

from orchestrator.state.base import Replay
from orchestrator.state.memory.shelf import Shelf


class MemoryIdempotency:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def begin(self, scope: str, key: str, digest: str, *, ttl_ms: int) -> Replay | None:
        self._shelf.sweep()
        kept = self._shelf.answers.get((scope, key))
        if kept is not None:
            return kept[0]
        self._shelf.answers[scope, key] = (Replay(digest, 0, ""), self._shelf.now_ms() + ttl_ms)
        return None

    async def finish(self, scope: str, key: str, digest: str, *, status: int, body: str, ttl_ms: int) -> None:
        self._shelf.sweep()
        kept = self._shelf.answers.get((scope, key))
        if kept is None or kept[0].request_digest == digest:
            self._shelf.answers[scope, key] = (Replay(digest, status, body), self._shelf.now_ms() + ttl_ms)

    async def abandon(self, scope: str, key: str, digest: str) -> None:
        kept = self._shelf.answers.get((scope, key))
        if kept is not None and kept[0].request_digest == digest and not kept[0].status:
            del self._shelf.answers[scope, key]
