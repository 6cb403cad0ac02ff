"""The store in Redis or Valkey, put together. `app.py` makes one `RedisStore`; see `base.Store`."""

from collections.abc import Mapping

from orchestrator.domain.ids import new_uuid
from orchestrator.state import durability, keys
from orchestrator.state.configuration import RedisConfiguration
from orchestrator.state.conversations import RedisConversations
from orchestrator.state.events import RedisEvents
from orchestrator.state.funnel import Funnel, command
from orchestrator.state.idempotency import RedisIdempotency
from orchestrator.state.inbox import RedisInbox
from orchestrator.state.operations import RedisOperations
from orchestrator.state.saga_log import RedisSagaLog
from orchestrator.state.slots import RedisSlots
from orchestrator.state.tenants import RedisTenants


class RedisStore:
    """All parts over one `Funnel`. Call `check` before anything that has to be durable."""

    def __init__(self, url: str, *, timeout: float = 5.0, connections: int = 64, durable_within: float = 3.0) -> None:
        """`url`: redis://, rediss:// or unix://. `timeout` in seconds for each call, `durable_within` for the disk on
        top of it. Connects at the first call."""
        self._funnel = Funnel(url, timeout=timeout, connections=connections, durable_within=durable_within)
        self.tenants = RedisTenants(self._funnel)
        self.configuration = RedisConfiguration(self._funnel)
        self.conversations = RedisConversations(self._funnel)
        self.slots = RedisSlots(self._funnel)
        self.saga = RedisSagaLog(self._funnel)
        self.operations = RedisOperations(self._funnel)
        self.inbox = RedisInbox(self._funnel)
        self.events = RedisEvents(self._funnel)
        self.idempotency = RedisIdempotency(self._funnel)

    async def check(self) -> Mapping[str, str]:
        report = await durability.inspect(self._funnel)
        self._funnel.waits_for_disk = report.waits_for_disk
        return report.lines()

    async def ping(self) -> None:
        await self._funnel.one(command("PING"))

    async def installation(self) -> str:
        return await self._once(keys.INSTALLATION, new_uuid())

    async def master_check(self, value: str) -> str:
        return await self._once(keys.MASTER_CHECK, value)

    async def close(self) -> None:
        await self._funnel.close()

    async def _once(self, key: str, value: str) -> str:
        """Store `value` unless something is there; answers what is stored."""
        _, stored = await self._funnel.batch(command("SET", key, value, "NX"), command("GET", key), durable=True)
        return str(stored)
