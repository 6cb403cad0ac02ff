"""Which replicas are there. See `base.Presence`."""

from collections.abc import Sequence

from orchestrator.state import keys
from orchestrator.state.funnel import Funnel, command, run


class RedisPresence:
    def __init__(self, funnel: Funnel) -> None:
        self._funnel = funnel

    async def renew(self, replica: str, *, ttl_ms: int) -> Sequence[str]:
        return [str(one) for one in await self._funnel.one(run("presence", (keys.REPLICAS,), replica, ttl_ms))]

    async def leave(self, replica: str) -> None:
        await self._funnel.one(command("ZREM", keys.REPLICAS, replica))

    async def take(self, what: str, *, ttl_ms: int) -> bool:
        return await self._funnel.one(command("SET", f"{keys.TAKEN}{what}", "1", "NX", "PX", ttl_ms)) is not None
