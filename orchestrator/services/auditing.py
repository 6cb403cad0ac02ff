"""The audit log: what is told of each request that may change something, and reading it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from orchestrator.domain.audit import Actor, ActorKind, AuditEntry, Keep, Outcome, refused
from orchestrator.domain.clock import Clock
from orchestrator.domain.errors import StoreUnavailable
from orchestrator.domain.ids import TenantId, UserId, new_uuid
from orchestrator.state import cursor as cursors
from orchestrator.state.audit import Telling
from orchestrator.state.base import AuditLog, Page

log = structlog.get_logger(__name__)
_NOBODY = Actor(ActorKind.OPERATOR)  #: until somebody is known, by whom nothing is told
_FAILURE = 400
_WAIT_ELAPSED = 408  #: what was asked for is under way
_LOOKED_AT = 200  #: entries that are read at once where only some are wanted
_LONGEST_LOOK = 10  #: so many times within one page


@dataclass(frozen=True)
class Wanted:
    """Which entries. None: all."""

    since: datetime | None = None
    until: datetime | None = None
    user: UserId | None = None
    key: str | None = None
    verb: str | None = None
    outcome: Outcome | None = None
    touched: str | None = None  #: the id of what was changed

    def has(self, entry: AuditEntry) -> bool:
        touched = entry.touched.id if entry.touched is not None else None
        pairs = (
            (self.user, entry.actor.user),
            (self.key, entry.actor.key),
            (self.verb, entry.verb),
            (self.outcome, entry.outcome),
            (self.touched, touched),
        )
        return all(wanted is None or wanted == found for wanted, found in pairs)

    @property
    def is_some(self) -> bool:
        """Whether entries have to be looked at to know."""
        return any((self.user, self.key, self.verb, self.outcome, self.touched))


class Auditing:
    """Entries are written by the changes themselves (`state/audit.py`), or here."""

    def __init__(self, store: AuditLog, clock: Clock, keep: Keep) -> None:
        self._store = store
        self._clock = clock
        self._keep = keep

    def begin(self, verb: str, resource: str, *, request_id: str | None, address: str | None, wanted: bool) -> Telling:
        """Of a request that just came. It is told once its actor is known."""
        now = self._clock.now()
        entry = AuditEntry(new_uuid(), now, _NOBODY, address, verb, resource, request_id, Outcome.ACCEPTED)
        return Telling(entry, self._keep, wanted)

    async def first(self, told: Telling) -> None:
        """Before something is done that the state server does not know, or something secret is told: on its disk when
        this returns. Raises `StoreUnavailable`; then nothing is to be done."""
        if told.known:
            told.wanted = told.ahead = True
            await self._store.put(told.home or told.tenant, told, durable=True)

    async def settle(self, told: Telling, status: int, code: str | None) -> None:
        """The end of a request, before its answer goes out. Where a change has carried the entry, nothing. What cannot
        be written is in the program's own log: nothing was changed, or the change has told it."""
        failed = status >= _FAILURE and status != _WAIT_ELAPSED
        if not told.known or not told.wanted or (told.ahead and not failed):
            return
        if failed:
            told.entry = refused(told.entry, status, code)
        try:
            await self._store.put(told.home or told.tenant, told, again=told.ahead)
        except StoreUnavailable:
            entry = told.entry
            log.warning("audit.not_written", verb=entry.verb, resource=entry.resource, outcome=entry.outcome)

    async def many(self, tenant: TenantId | None, user: UserId | None, ids: Sequence[str]) -> list[AuditEntry | None]:
        """In that order; None for what is not kept, or not about `user`'s things where that is given."""
        found, since = await self._store.many(tenant, ids), self._clock.now() - self._keep.age
        shown = {id: one for id, one in found.items() if one.at >= since and user in (None, one.actor.user)}
        return [shown.get(id) for id in ids]

    async def page(
        self, tenant: TenantId | None, wanted: Wanted, *, cursor: str | None, limit: int
    ) -> Page[AuditEntry]:
        """Newest first. Where few are what is wanted a page may be short, or empty, and still have a next one."""
        since = max(filter(None, (wanted.since, self._clock.now() - self._keep.age)))
        if not wanted.is_some:
            return await self._store.page(tenant, cursor=cursor, limit=limit, since=since, until=wanted.until)
        found: list[AuditEntry] = []
        for _ in range(_LONGEST_LOOK):
            page = await self._store.page(tenant, cursor=cursor, limit=_LOOKED_AT, since=since, until=wanted.until)
            for entry in page.items:
                if wanted.has(entry):
                    found.append(entry)
                    if len(found) == limit:
                        return Page(found, cursors.encode(cursors.member(entry.at, entry.id)))
            cursor = page.next_cursor
            if cursor is None:
                break
        return Page(found, cursor)
