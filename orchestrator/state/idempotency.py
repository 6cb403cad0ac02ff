"""Answers under idempotency keys in Redis. See `base.Idempotency`."""

from orchestrator.state import keys
from orchestrator.state.base import Replay
from orchestrator.state.funnel import Funnel, run


class RedisIdempotency:
    def __init__(self, funnel: Funnel) -> None:
        self._funnel = funnel

    async def begin(self, scope: str, key: str, digest: str, *, holder: str, ttl_ms: int) -> Replay | None:
        call = run("idempotency_begin", (keys.idempotency(scope, key),), digest, holder, ttl_ms)
        stored = await self._funnel.one(call)
        return None if stored is None else Replay(stored[0], int(stored[1]), stored[2])

    async def renew(self, scope: str, key: str, *, holder: str, ttl_ms: int) -> None:
        await self._funnel.one(run("idempotency_renew", (keys.idempotency(scope, key),), holder, ttl_ms))

    async def finish(
        self, scope: str, key: str, digest: str, *, holder: str, status: int, body: str, ttl_ms: int
    ) -> None:
        call = run("idempotency_finish", (keys.idempotency(scope, key),), digest, holder, status, body, ttl_ms)
        await self._funnel.one(call)

    async def abandon(self, scope: str, key: str, *, holder: str) -> None:
        await self._funnel.one(run("idempotency_abandon", (keys.idempotency(scope, key),), holder))
