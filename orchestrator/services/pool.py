"""The warm pool: runtimes that were started before anybody wanted them, dormant and nobody's.

`tick` keeps it full: on every replica, and never too full, because the store counts what all of them make. A spare is
given to one conversation by `claim`, which asks the engine nothing, and never comes back; whatever was claimed and came
to nothing, or may have been told something, is removed. The init key of a spare is kept sealed under the master key,
until it is claimed.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import MappingProxyType

import anyio
import structlog

from orchestrator.domain.errors import (
    LeaseLost,
    NestorError,
    PermanentError,
    RuntimeNotFound,
    StoreUnavailable,
    Undecryptable,
)
from orchestrator.domain.ids import RuntimeId, new_uuid
from orchestrator.domain.secrets import SecretText, new_secret
from orchestrator.domain.spares import Stock
from orchestrator.drivers.base import Driver, Paced, Spareable
from orchestrator.drivers.errors import ClaimTaken
from orchestrator.drivers.values import Condition, Endpoint, Handle, Limits, RuntimeSpec, spare_labels
from orchestrator.nested.client import RuntimeClients
from orchestrator.security.master_keys import MasterKeys
from orchestrator.services.images import Images
from orchestrator.state.base import Lease, Spares
from orchestrator.state.spares_base import Claimed, SpareState
from orchestrator.telemetry import metrics

log = structlog.get_logger(__name__)
PREFIX = "nestor-spare-"
#: Under which a spare is made; every lease has a higher one.
_MAKING_FENCE = 0
#: Under which one is removed that is nobody's: who made it and fell asleep must not go on with it.
_REMOVING_FENCE = 1
_AT_ONCE = 2  # made at once by all replicas: a refill must not take the machine from those that work
_PACE_MS = 100
_HOLD_SECONDS = 120.0
_TICK_SECONDS = 1.0
_LOOK_SECONDS = 10.0
_AFTER_TROUBLE_SECONDS = 5.0
_PATIENCE_SECONDS = 2.0  # for which a refill waits for the starts that are under way


@dataclass(frozen=True)
class Taken:
    """A spare in the hand of a conversation's worker."""

    name: str
    volume: RuntimeId
    handle: Handle
    endpoint: Endpoint
    init_key: SecretText


class WarmPool:
    """Of one replica. Kinds that `stocks` does not name, or names with a minimum of 0, are drained. Where runtimes are
    made of images (`images`), a kind is of one image by its id, however that is called by now. `variables` are those of
    every runtime."""

    def __init__(
        self,
        installation: str,
        driver: Driver,
        spares: Spares,
        clients: RuntimeClients,
        master: MasterKeys,
        stocks: Sequence[Stock],
        *,
        images: Images | None = None,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._variables = variables
        self._installation = installation
        self._driver = driver
        self._spares = spares
        self._clients = clients
        self._master = master
        self._stocks = stocks
        self._images = images
        self._kinds: dict[str, Stock] = {}  #: what spares of a stock are by now, as it was looked at last
        self._looked = float("-inf")
        self._wanted = anyio.Event()
        self._starts = 0
        self._calm = anyio.Event()

    @property
    def is_on(self) -> bool:
        return any(stock.minimum for stock in self._stocks)

    async def run(self) -> None:
        """Until cancelled: a tick, then a pause, which a claim cuts short."""
        while True:
            pause = _TICK_SECONDS if self.is_on else _LOOK_SECONDS
            try:
                with metrics.ticking("pool"):
                    made = await self.tick()
                pause = _PACE_MS / 1000 if made else pause
            except* NestorError as trouble:  # of its tasks a group comes
                log.warning("pool.skipped", problem=_first(trouble))
                pause = _AFTER_TROUBLE_SECONDS
            with anyio.move_on_after(pause):
                await self._wanted.wait()
            self._wanted = anyio.Event()
            with anyio.move_on_after(_PATIENCE_SECONDS):
                await self._calm_down()

    @contextmanager
    def start_under_way(self) -> Iterator[None]:
        """Somebody waits for a start of this replica meanwhile: a refill would take the machine from it."""
        self._starts += 1
        try:
            yield
        finally:
            self._starts -= 1
            if not self._starts:
                self._calm.set()

    async def _calm_down(self) -> None:
        while self._starts:
            self._calm = anyio.Event()
            await self._calm.wait()

    async def tick(self) -> int:
        """Look at what there is, remove what is to go, and make what is missing. Answers how many it made."""
        await self._look()
        for name in await self._spares.leaving():
            await self._remove_unowned(name)
        if not self.is_on:
            return 0
        made = 0
        async with anyio.create_task_group() as tasks:
            for kind, stock in self._kinds.items():
                while reserved := await self._reserved(kind, stock):
                    tasks.start_soon(self._make, reserved, kind, stock)
                    made += 1
        return made

    async def claim(self, lease: Lease, image: str | None, size: int = 1) -> Taken | None:
        """A spare of that image and size, bound to the lease's conversation; None for a miss. One that the
        conversation has from an earlier try is removed first. Raises `DriverUnavailable`, then nothing was claimed."""
        wanted = (image, size)
        kind = next((kind for kind, stock in self._kinds.items() if stock.kind == wanted), None)
        if not self.is_on or kind is None:
            return None
        while isinstance(found := await self._spares.claim(lease, kind), str):
            if not await self.held_by(lease):
                raise LeaseLost("a later holder of the conversation has claimed a spare")
            await self.remove(found, fence=lease.fence)
        self._wanted.set()
        return None if found is None else await self._opened(found, lease)

    async def remove(self, name: str, *, fence: int) -> None:
        """A bound one, and its storage, which holds nothing of its conversation yet. Raises `DriverUnavailable`."""
        await self._end(name, fence)
        await self._drop_storage(name, fence)
        await self._spares.forget(name)

    async def held_by(self, lease: Lease) -> str:
        """The name of the spare that the lease's conversation has, claimed under this fence or a lower one; empty for
        none."""
        bound = await self._spares.bound_to(lease.tenant, lease.conversation)
        return bound.name if bound is not None and bound.generation <= lease.fence else ""

    async def gone(self, name: str) -> None:
        """The runtime of that name was removed, by whoever had it; its storage is the conversation's."""
        if name.startswith(PREFIX):
            await self._spares.forget(name)

    async def set_aside(self, name: str) -> None:
        """It was told keys that are not this conversation's: the state server has lost whose it is."""
        log.error("spare.strange", name=name, hint="look at it, and end it by hand if no conversation uses it")
        await self._spares.set_aside(name)

    async def _opened(self, found: Claimed, lease: Lease) -> Taken | None:
        try:
            key = self._master.unwrap(found.sealed, _place(found.name))
        except Undecryptable as exc:
            log.error("spare.not_opened", name=found.name, problem=exc.message)
            await self.remove(found.name, fence=lease.fence)
            return None
        host, _, port = found.address.rpartition(":")
        labels = spare_labels(self._installation, id_of(found.name))
        handle = Handle(self._driver.name, found.name, found.reference, labels)
        return Taken(found.name, labels.runtime, handle, Endpoint(host, int(port)), SecretText(key.decode()))

    async def _look(self) -> None:
        """Now and then: what a spare would be now, and whether those that are ready still are."""
        if time.monotonic() < self._looked + _LOOK_SECONDS:
            return
        made_of = [self._made_of(stock) for stock in self._stocks if stock.minimum]
        kinds = {kind: stock for stock in made_of if (kind := await self._kind_of(stock))}
        self._kinds = kinds
        for kind in await self._spares.kinds():
            wanted = kinds.get(kind)
            keep = 0 if wanted is None else wanted.minimum
            retired = await self._spares.retire(kind, keep=keep, made_too=wanted is None)
            if retired:
                log.info("pool.drained", kind=kind, spares=retired)
            for name in await self._spares.waiting(kind):
                if not await self._runs(name) and await self._spares.drop(name, kind):
                    log.warning("spare.lost", name=name)
        self._looked = time.monotonic()

    def _made_of(self, stock: Stock) -> Stock:
        """With the id in the place of the image's name: what is made later is of the same."""
        return stock if self._images is None else replace(stock, image=self._images.id_of(stock.image) or stock.image)

    async def _kind_of(self, stock: Stock) -> str | None:
        """None where there can be no spares of it, which is said; the others are made all the same."""
        driver = self._driver
        if not (isinstance(driver, Spareable) and driver.capabilities.spares):
            return None
        try:
            return kind_of(await driver.spare_kind(stock.image), stock)
        except PermanentError as exc:
            log.warning("pool.kind_not_possible", image=stock.image, problem=exc.message, hint=exc.hint)
            return None

    async def _runs(self, name: str) -> bool:
        handle = await self._driver.find(name)
        try:
            return handle is not None and (await self._driver.inspect(handle)).condition is Condition.RUNNING
        except RuntimeNotFound:
            return False

    async def _reserved(self, kind: str, stock: Stock) -> str | None:
        name = f"{PREFIX}{new_uuid()}"
        limits = {"minimum": stock.minimum, "maximum": stock.maximum, "at_once": _AT_ONCE}
        hold_ms = int(_HOLD_SECONDS * 1000)
        made = await self._spares.reserve(name, kind, **limits, hold_ms=hold_ms, pace_ms=_PACE_MS)
        return name if made else None

    async def _make(self, name: str, kind: str, stock: Stock) -> None:
        """Start one. What fails is removed, and tried anew after a while."""
        try:
            with anyio.fail_after(_HOLD_SECONDS):
                began = time.monotonic()
                if await self._started(name, kind, stock):
                    log.info("spare.ready", name=name, seconds=round(time.monotonic() - began, 3))
                    return
            log.warning("spare.late", name=name)
        except (NestorError, TimeoutError) as exc:
            problem = exc.message if isinstance(exc, NestorError) else type(exc).__name__
            log.warning("spare.not_made", name=name, problem=problem)
            await anyio.sleep(_AFTER_TROUBLE_SECONDS)  # keeps its place meanwhile, so that nobody tries in a hurry
        with suppress(StoreUnavailable):  # then its time runs out
            await self._spares.drop(name, kind)
        await self._remove_unowned(name)

    async def _started(self, name: str, kind: str, stock: Stock) -> bool:
        labels = spare_labels(self._installation, id_of(name))
        await self._driver.ensure_volume(labels, fence=_MAKING_FENCE)
        limits = Limits().times(stock.size)
        spec = RuntimeSpec(name, labels, image=stock.image, environment=self._variables, limits=limits)
        handle = await self._driver.create(spec, fence=_MAKING_FENCE)
        key = new_secret()
        endpoint = await self._driver.start(handle, fence=_MAKING_FENCE, init_key=key)
        async with self._clients.open(endpoint.origin, new_secret()) as client:  # it has proved nothing yet
            await client.wait_dormant()
        if isinstance(self._driver, Paced):
            self._driver.came_up(handle)
        sealed = self._master.wrap(key.open().encode(), _place(name))
        address = f"{endpoint.host}:{endpoint.port}"
        return await self._spares.ready(name, kind, reference=handle.reference, address=address, sealed=sealed)

    async def _remove_unowned(self, name: str) -> None:
        """One that is nobody's, and its storage. What cannot be removed now is tried again."""
        try:
            known = await self._spares.get(name)
            if known is not None and known.state not in (SpareState.LEAVING, SpareState.MAKING):
                return
            await self._end(name, _REMOVING_FENCE)
            await self._drop_storage(name, _REMOVING_FENCE)
            await self._spares.forget(name)
        except NestorError as exc:
            log.warning("spare.not_removed", name=name, problem=exc.message)

    async def _end(self, name: str, fence: int) -> None:
        handle = await self._driver.find(name)
        if handle is not None:
            await self._driver.destroy(handle, fence=fence)

    async def _drop_storage(self, name: str, fence: int) -> None:
        with suppress(ClaimTaken):  # it is a tenant's by now, and so is what becomes of it
            await self._driver.remove_volume(spare_labels(self._installation, id_of(name)), fence=fence)


def kind_of(program: str, stock: Stock) -> str:
    """A short name for what a driver says that a spare would be. For size 1 the one that it had before there were
    sizes."""
    size = f"{stock.size}|" if stock.size > 1 else ""
    return hashlib.sha256(f"{size}{stock.image or ''}|{program}".encode()).hexdigest()[:16]


def id_of(name: str) -> RuntimeId:
    """The id in the name of a spare, under which its storage is filed."""
    return RuntimeId(name.removeprefix(PREFIX))


def _place(name: str) -> bytes:
    return f"spare|{name}".encode()


def _first(trouble: BaseExceptionGroup[NestorError]) -> str:
    """What the first of them says, however deep it is."""
    one: BaseException = trouble
    while isinstance(one, BaseExceptionGroup):
        one = one.exceptions[0]
    return str(one)
