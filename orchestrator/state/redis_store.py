"""The store in Redis or Valkey, put together. `app.py` makes one `RedisStore`; see `base.Store`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from orchestrator.domain.ids import TenantId, new_uuid
from orchestrator.state import durability, figures, keys, survey
from orchestrator.state.audit_log import RedisAuditLog
from orchestrator.state.changes import RedisChanges
from orchestrator.state.configuration import RedisConfiguration
from orchestrator.state.conversations import RedisConversations
from orchestrator.state.events import RedisEvents
from orchestrator.state.figures import Figures
from orchestrator.state.funnel import Funnel, command
from orchestrator.state.hooks import RedisHooks
from orchestrator.state.idempotency import RedisIdempotency
from orchestrator.state.inbox import RedisInbox
from orchestrator.state.journal.archive import Archive
from orchestrator.state.journal.exporting import export
from orchestrator.state.journal.restoring import Restoring
from orchestrator.state.journal.shipper import Shipper
from orchestrator.state.journal.stream import Streams, house_note
from orchestrator.state.operations import RedisOperations
from orchestrator.state.presence import RedisPresence
from orchestrator.state.rates import RedisBuckets
from orchestrator.state.reviews import RedisReviews
from orchestrator.state.saga_log import RedisSagaLog
from orchestrator.state.slots import RedisSlots
from orchestrator.state.spares import RedisSpares
from orchestrator.state.spending import RedisSpending
from orchestrator.state.tenants import RedisTenants

#: As the state server lists the connections (`CLIENT LIST`) that proxied requests cost it something on.
TRAFFIC = "nestor-traffic"
_TRAFFIC_CONNECTIONS = 8


class RedisStore:
    """All parts over one `Funnel`, and `traffic` over one of its own: routes and use of proxied requests, which do not
    wait behind all the work that is done for conversations. Call `check` before anything that has to be durable."""

    def __init__(self, url: str, *, timeout: float = 5.0, connections: int = 64, durable_within: float = 3.0) -> None:
        """`url`: redis://, rediss:// or unix://. `timeout` in seconds for each call, `durable_within` for the disk on
        top of it. Connects at the first call."""
        self._url = url
        self._limits = (timeout, durable_within)
        self._funnel = Funnel(url, timeout=timeout, connections=connections, durable_within=durable_within)
        self._traffic = Funnel(
            url, timeout=timeout, connections=_TRAFFIC_CONNECTIONS, durable_within=durable_within, name=TRAFFIC
        )
        self.traffic = RedisConversations(self._traffic)  #: the same conversations
        # Without a name: of a slow server that would be one more answer to wait for, before a lease is renewed.
        self._leases = Funnel(url, timeout=timeout, connections=1, durable_within=durable_within)
        #: What moves the journal to its archive; None while no archive was given.
        self.journal: Shipper | None = None
        self.tenants = RedisTenants(self._funnel)
        self.configuration = RedisConfiguration(self._funnel)
        self.conversations = RedisConversations(self._funnel)
        self.reviews = RedisReviews(self._funnel)
        self.slots = RedisSlots(self._funnel)
        self.spares = RedisSpares(self._funnel)
        self.presence = RedisPresence(self._funnel)
        self.buckets = RedisBuckets(self._funnel)
        self.saga = RedisSagaLog(self._funnel)
        self.operations = RedisOperations(self._funnel)
        self.inbox = RedisInbox(self._funnel)
        self.events = RedisEvents(self._funnel)
        self.spending = RedisSpending(self._funnel)
        self.hooks = RedisHooks(self._funnel)
        self.changes = RedisChanges(self._funnel)
        self.idempotency = RedisIdempotency(self._funnel)
        self.audit = RedisAuditLog(self._funnel)

    async def check(self) -> Mapping[str, str]:
        report = await durability.inspect(self._funnel)
        await self._funnel.one(command("PUBLISH", keys.CHANGED, ""))  # a user without the channel is found now
        self._funnel.waits_for_disk = report.waits_for_disk
        self._funnel.waits_for_archive = self.journal is not None and report.durability in ("second", "none")
        return report.lines(archived=self._funnel.waits_for_archive)

    def archive_to(self, archive: Archive) -> Shipper:
        """From now on the journal has an archive. Call it before `check`, which decides what a durable write waits
        for; the shipper is to be run by the caller."""
        self.journal = self._funnel.archiving = Shipper(Streams(self._funnel), archive)
        return self.journal

    def restoring(self, archive: Archive) -> Restoring:
        """For `services/rebuild.py`; to be closed by the caller."""
        timeout, durable_within = self._limits
        funnel = Funnel(self._url, timeout=timeout, connections=4, durable_within=durable_within)
        return Restoring(funnel, archive)

    async def same_archive(self, identity: str) -> bool:
        """Whether every replica writes its journal to the archive of this identity; the first one decides. A server
        that names none although it holds something is older than its journal: all of it is noted first."""
        if await self._funnel.one(command("GET", keys.ARCHIVE)) is None:
            await export(self._funnel)
        return await self._once(keys.ARCHIVE, identity) == identity

    async def same_event_archive(self, identity: str) -> bool:
        """The same for the archive of events."""
        return await self._once(keys.EVENT_ARCHIVE, identity) == identity

    async def forget_archive(self) -> None:
        """The archives are lost: the next start takes those that it finds, and notes everything in the journal's."""
        await self._funnel.one(command("DEL", keys.ARCHIVE, keys.EVENT_ARCHIVE))

    def guard(self, epoch: str, server: str, on_loss: Callable[[], None]) -> None:
        """From now on nothing is answered from a server that does not hold this epoch, or is another run than this one;
        `on_loss` is called instead. `server` is empty where it does not say which it is: then only the epoch counts."""
        loop = asyncio.get_running_loop()

        def seen_by_a_thread() -> None:
            loop.call_soon_threadsafe(on_loss)

        self._leases.on_loss = seen_by_a_thread
        self._funnel.on_loss = self._traffic.on_loss = on_loss
        for funnel in (self._funnel, self._traffic, self._leases):
            funnel.epoch, funnel.server = epoch, server or None

    @asynccontextmanager
    async def leases(self) -> AsyncIterator[RedisConversations]:
        """The same conversations over a connection of its own, for one thread with an event loop of its own: opened,
        used and closed there, and by nobody else meanwhile."""
        try:
            yield RedisConversations(self._leases)
        finally:
            await self._leases.close()

    async def clock(self) -> float:
        """The server's time, in seconds since the epoch."""
        seconds, microseconds = await self._funnel.one(command("TIME"))
        return int(seconds) + int(microseconds) / 1_000_000

    async def peek(self, *names: str) -> list[str | None]:
        """What is stored under these keys, without making any."""
        return await self._funnel.batch(*(command("GET", name) for name in names))

    async def backlog(self) -> int:
        """How many tenants may have changes that are not in the archive."""
        return int(await self._funnel.one(command("ZCARD", keys.JOURNAL_DUE)))

    async def figures(self) -> Figures:
        """How much there is."""
        return await figures.read(self._funnel)

    def ailing(self, tenant: TenantId) -> AsyncIterator[survey.Ailing]:
        """Conversations of a tenant that are damaged, or of which something is stuck."""
        return survey.ailing(self._funnel, tenant)

    async def probe(self) -> None:
        """As `ping`, for somebody who is in no hurry."""
        await self._funnel.probe()
        if self._traffic.silent:
            await self._traffic.probe()

    async def ping(self) -> None:
        await self._funnel.one(command("PING"))

    async def installation(self) -> str:
        return await self._once(keys.INSTALLATION, new_uuid(), noted="installation")

    async def master_check(self, value: str) -> str:
        return await self._once(keys.MASTER_CHECK, value, noted="master_check")

    async def close(self) -> None:
        await self._traffic.close()
        await self._funnel.close()

    async def _once(self, key: str, value: str, *, noted: str | None = None) -> str:
        """Store `value` unless something is there; answers what is stored. It is noted in the journal as
        well, at every start, since no script spans the two."""
        _, stored = await self._funnel.batch(command("SET", key, value, "NX"), command("GET", key), durable=True)
        if noted is not None:  # what is stored, not what was offered: another replica may have been first
            await self._funnel.one(house_note("house", noted, str(stored)), durable=True)
        return str(stored)
