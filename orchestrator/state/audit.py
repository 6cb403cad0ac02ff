"""The audit log in Redis, and how an entry gets into it in the same step as the change that it tells of.

A request that may change something has a `Telling`, made at the edge and found here by context. Whatever notes a change
in the journal while it is served carries the telling along, and the script writes both (`scripts/journal.lua`). A
request that changed nothing that is kept here is written at its end. Each entry is written once: the first one counts.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from orchestrator.domain.audit import Actor, AuditEntry, Keep, entry_from, head_of
from orchestrator.domain.ids import TenantId, UserId
from orchestrator.state import cursor as cursors
from orchestrator.state import keys
from orchestrator.state.keys import TenantKeys

log = structlog.get_logger(__name__)
_current: ContextVar["Telling | None"] = ContextVar("telling", default=None)


@dataclass
class Telling:
    """What is to be told of one request. Nothing is, as long as nobody is known who asks."""

    entry: AuditEntry
    keep: Keep
    wanted: bool  #: an entry is to be there at its end, whatever became of it
    known: bool = False  #: the actor is
    tenant: TenantId | None = None  #: the actor's; an operator has none
    home: TenantId | None = None  #: the tenant of whom something was to be changed
    ahead: bool = False  #: it was written before anything was done

    def by(self, actor: Actor, tenant: TenantId | None) -> None:
        """Who asks."""
        self.entry, self.tenant, self.known = replace(self.entry, actor=actor), tenant, True

    def acting_for(self, user: UserId | None) -> None:
        """The user that it is about."""
        self.entry = replace(self.entry, actor=replace(self.entry.actor, user=user))

    @property
    def member(self) -> str:
        return cursors.member(self.entry.at, self.entry.id)

    @property
    def oldest(self) -> str:
        """The member before which nothing is kept."""
        return f"{max(0, cursors.milliseconds(self.entry.at - self.keep.age)):013d}"

    def argument(self) -> str:
        """For the scripts (`audit.lua`)."""
        return json.dumps([self.member, self.entry.id, self.oldest, self.keep.entries, head_of(self.entry)])


@contextmanager
def telling(told: Telling) -> Iterator[Telling]:
    """What is changed meanwhile, by this task and those that it waits for, is told there."""
    token = _current.set(told)
    try:
        yield told
    finally:
        _current.reset(token)


def current() -> Telling | None:
    """Of the request that is being served."""
    return _current.get()


def carried_to(home: str) -> str:
    """The last argument of a script that notes a change in the journal of `home`; empty where nothing is to be told."""
    told = _current.get()
    if told is None or not told.known or not told.wanted or home == keys.HOUSE:
        return ""
    told.home = TenantId(home)
    return told.argument()


def written_in(texts: Sequence[str | None]) -> list[AuditEntry]:
    """Those that can be read."""
    found: list[AuditEntry] = []
    for text in texts:
        if text is not None:
            try:
                found.append(entry_from(text))
            except (ValueError, TypeError):
                log.warning("audit.unreadable")
    return found


def bounds(cursor: str | None, since: datetime | None, until: datetime | None) -> tuple[str, str]:
    """From which member on (not included) to which one back, for a list with the newest first."""
    start = "+" if until is None else f"({max(0, cursors.milliseconds(until)):013d}"
    if cursor is not None:
        entry = cursors.decode(cursor)
        start = f"({entry}" if until is None else f"({min(entry, start[1:])}"
    return start, "-" if since is None else f"[{max(0, cursors.milliseconds(since)):013d}"


def places(tenant: TenantId | None) -> tuple[str, str, str | None]:
    """Entries, index, and the journal that has them as well. None: what is no tenant's, in no journal."""
    if tenant is None:
        return keys.HOUSE_AUDIT, f"{keys.HOUSE_AUDIT}:index", None
    t = TenantKeys(tenant)
    return t.audit, t.audit_index, t.journal.stream
