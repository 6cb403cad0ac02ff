"""The shipper: moves what was noted in the journal's streams to the archive, in order, and then takes it out.

Every replica runs one; homes are shared out by the visits of `stream.py`, and two that meet at one home are kept apart
by the archive itself. An accepted change is answered when it is in the archive: always where the state server cannot
tell that it has it on disk (`settled`), else for as long as the archive is there and quick (`soon`). Writers that come
while one append is under way share the next.
"""

from collections.abc import Sequence

import anyio
import structlog
from anyio.abc import TaskGroup

from orchestrator.domain.errors import StoreUnavailable
from orchestrator.state import cursor
from orchestrator.state.journal.archive import Archive, DamagedArchive, Overtaken
from orchestrator.state.journal.stream import Streams
from orchestrator.state.keys import HOUSE, Journaled
from orchestrator.telemetry import metrics

log = structlog.get_logger(__name__)
_AT_ONCE = 500
_HOMES_A_TICK = 64
_HOMES_AT_ONCE = 8
_OVERTAKEN_TRIES = 20
_SWEEP_HOMES = 200
_SWEEP_SECONDS = 30.0
_LONGEST_SLEEP = 1.0
_RETRY_SECONDS = 1.0
_GATHER_SECONDS = 0.02  #: for which changes that nobody waits for are gathered
SOON_SECONDS = 0.25
COMPACT_BYTES = 1024 * 1024  #: compact a chain when that much can be spared
_LOOK_EVERY = 512  #: appends to a home after which that is looked at


class _Home:
    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.begun = 0
        self.users = 0
        self.archived: list[str] = []  #: stream ids that are in the archive and still in the stream
        self.sequence = 0  #: up to where the archive reaches with them
        self.tidying = False
        self.since_look = 0


class Shipper:
    """One replica's. `tick` is one round; `run` goes on for ever."""

    def __init__(
        self, streams: Streams, archive: Archive, *, compact_bytes: int = COMPACT_BYTES, look_every: int = _LOOK_EVERY
    ) -> None:
        self._streams = streams
        self.archive = archive
        self._compact_bytes = compact_bytes
        self._look_every = look_every
        self._homes: dict[str, _Home] = {}
        self._wake = anyio.Event()
        self._swept = ""
        self._tasks: TaskGroup | None = None
        self._limiter = anyio.CapacityLimiter(_HOMES_AT_ONCE)
        self.problem: str | None = None  #: why the archive took nothing at the last try

    def hint(self) -> None:
        """Something was noted: look now."""
        self._wake.set()

    async def soon(self, journaled: Sequence[Journaled]) -> None:
        """Return when what was noted there is in the archive, after `SOON_SECONDS` in any case, and at once while the
        archive takes nothing or nobody runs this."""
        if self._tasks is None or self.problem is not None:
            self.hint()
            return
        done = anyio.Event()
        self._tasks.start_soon(self._ship_for, [journal.home for journal in journaled], done)
        with anyio.move_on_after(SOON_SECONDS):
            await done.wait()

    async def settled(self, journaled: Sequence[Journaled]) -> None:
        for journal in journaled:
            await self.ship(journal.home)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                self.problem = None
                tasks.start_soon(self._sweep_on)
                while True:
                    self._wake = anyio.Event()
                    try:
                        with metrics.ticking("journal"):
                            await self.tick()
                    except (StoreUnavailable, DamagedArchive) as exc:
                        log.warning("journal.not_shipped", problem=exc.message)
                        await anyio.sleep(_RETRY_SECONDS)
                        continue
                    with anyio.move_on_after(_LONGEST_SLEEP):
                        await self._wake.wait()
                        await anyio.sleep(_GATHER_SECONDS)
        finally:
            self._tasks = None

    async def tick(self) -> int:
        """Ship what some homes hold; answers how many entries."""
        mark, homes = await self._streams.visit(limit=_HOMES_A_TICK)
        moved = 0
        failures: list[StoreUnavailable | DamagedArchive] = []

        async def visited(home: str) -> None:
            nonlocal moved
            try:
                async with self._limiter:
                    moved += await self.ship(home, tidy=True)
                await self._streams.leave(home, mark=mark, more=False)
            except (StoreUnavailable, DamagedArchive) as exc:  # one damaged chain must not keep the others
                failures.append(exc)

        async with anyio.create_task_group() as tasks:
            for home in homes:
                tasks.start_soon(visited, home)
        if failures:
            raise failures[0]
        return moved

    async def ship(self, home: str, *, tidy: bool = False) -> int:
        """Return when all that was noted there before this call is in the archive; answers how many entries it moved
        itself. `tidy`: take them out of the stream as well, which nobody waits for. Raises `StoreUnavailable`,
        `DamagedArchive`."""
        state = self._homes.setdefault(home, _Home())
        state.users += 1
        wanted = state.begun + 1
        try:
            async with state.lock:
                if state.begun >= wanted and not tidy:
                    return 0  # begun by another one after this call, and ended
                state.begun += 1
                try:
                    moved = await self._move(home, state, tidy=tidy)
                except BaseException:
                    state.begun -= 1
                    raise
                state.since_look += 1
            if tidy and state.since_look >= self._look_every:
                state.since_look = 0
                await self.archive.compact(home, at_least=self._compact_bytes)
            return moved
        finally:
            state.users -= 1
            if not state.users and not state.archived and not state.since_look:
                self._homes.pop(home, None)

    async def sweep(self) -> bool:
        """Look at a page of all tenants, for those whose note in the index a crash of the state server lost. True when
        it was the last page."""
        entries = await self._streams.tenants(self._swept, limit=_SWEEP_HOMES)
        await self._streams.wake([*map(cursor.member_id, entries), *([] if self._swept else [HOUSE])])
        self._swept = entries[-1] if len(entries) == _SWEEP_HOMES else ""
        return not self._swept

    async def _ship_for(self, homes: Sequence[str], done: anyio.Event) -> None:
        """Ship, tell who waits, and only then tidy up: that is a write as well."""
        try:
            for home in homes:
                await self.ship(home)
            done.set()
            for home in homes:
                if (state := self._homes.get(home)) is not None:
                    await self._tidy(home, state)
        except (StoreUnavailable, DamagedArchive) as exc:
            log.warning("journal.not_shipped", problem=exc.message)
        finally:
            done.set()

    async def _sweep_on(self) -> None:
        while True:
            try:
                await self.sweep()
            except StoreUnavailable as exc:
                log.warning("journal.not_swept", problem=exc.message)
            await anyio.sleep(_SWEEP_SECONDS)

    async def _move(self, home: str, state: _Home, *, tidy: bool) -> int:
        moved = tries = 0
        try:
            if tidy or len(state.archived) >= _AT_ONCE:
                await self._tidy(home, state)
            while True:
                # The tail first: what is read after it and appended behind it cannot be older than what is there. An
                # entry that is appended twice, with all that follows it, changes nothing that is known.
                tail = await self.archive.tail(home)
                last = state.archived[-1] if state.archived else None
                noted = await self._streams.read(home, after=last, limit=_AT_ONCE)
                if not noted:
                    break
                try:
                    with anyio.CancelScope(shield=True):  # an append that is under way is ended, and remembered
                        reached = await self.archive.append(home, [one.entry for one in noted], after=tail)
                        state.sequence = reached.sequence
                        state.archived += [one.stream_id for one in noted]
                except Overtaken:
                    tries += 1
                    if tries >= _OVERTAKEN_TRIES:
                        raise StoreUnavailable("the journal is written by too many at once") from None
                    continue
                moved += len(noted)
                if len(noted) < _AT_ONCE:
                    break
            if tidy:
                await self._tidy(home, state)
        except (StoreUnavailable, DamagedArchive) as exc:
            self.problem = exc.message
            raise
        self.problem = None
        return moved

    async def _tidy(self, home: str, state: _Home) -> None:
        """Take out of the stream what is in the archive. One at a time: it is left to whoever is at it."""
        if state.tidying:
            return
        state.tidying = True
        try:
            while state.archived:
                some = state.archived[:_AT_ONCE]
                await self._streams.drop(home, some, sequence=state.sequence)
                del state.archived[: len(some)]
        finally:
            state.tidying = False
