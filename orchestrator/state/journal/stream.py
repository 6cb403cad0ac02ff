"""The journal's streams in the state server: what is noted there and not in the archive yet.

A stream is written by the scripts; `shipper.py` reads and empties it. Which streams have something in them is in one
sorted set, worked like that of due tenants (`state/due.py`): a visitor puts a home off for a moment, and takes it out
only if nobody noted anything during the visit.
"""

from collections.abc import Sequence

from orchestrator.domain.ids import TenantId
from orchestrator.state import keys
from orchestrator.state.funnel import Call, Funnel, command, noted, run
from orchestrator.state.journal.entry import Entry, Noted
from orchestrator.state.keys import HOUSE, HOUSE_JOURNAL, Journaled, TenantKeys

VISIT_MS = 2_000


def journal_of(home: str) -> Journaled:
    """The stream of a home."""
    return Journaled(HOUSE, HOUSE_JOURNAL) if home == HOUSE else TenantKeys(TenantId(home)).journal


def house_note(kind: str, id: str, body: str) -> Call:
    """A change that is no tenant's. It is sent before the change itself, since no script spans the two."""
    call = command("XADD", HOUSE_JOURNAL, "*", "kind", kind, "id", id, "body", body)
    return noted(call, journal_of(HOUSE))


class Streams:
    """Reading and emptying."""

    def __init__(self, funnel: Funnel) -> None:
        self._funnel = funnel

    async def visit(self, *, limit: int) -> tuple[str, Sequence[str]]:
        """The mark of this visit, and homes whose streams may hold something."""
        mark, *homes = await self._funnel.one(run("tenants_visit", (keys.JOURNAL_DUE,), limit, VISIT_MS))
        return mark, homes

    async def leave(self, home: str, *, mark: str, more: bool) -> None:
        """The end of a visit."""
        await self._funnel.one(run("tenant_refile", (keys.JOURNAL_DUE,), home, mark, "0" if more else ""))

    async def read(self, home: str, *, after: str | None = None, limit: int) -> Sequence[Noted]:
        """The oldest entries, or the oldest behind one that is known."""
        start = "-" if after is None else f"({after}"
        found = await self._funnel.one(command("XRANGE", journal_of(home).stream, start, "+", "COUNT", limit))
        return [Noted(id, Entry(fields["kind"], fields["id"], fields.get("body"))) for id, fields in found]

    async def drop(self, home: str, stream_ids: Sequence[str], *, sequence: int) -> None:
        """Those are in the archive, which reaches to `sequence`. By name, never by range: what is not named was not
        archived."""
        journal = journal_of(home)
        # In this order: whoever finds neither the entry nor that it is archived has found a loss (`Restoring.behind`).
        await self._funnel.batch(command("SET", journal.tail, sequence), command("XDEL", journal.stream, *stream_ids))

    async def known_tail(self, home: str) -> int | None:
        """How far the archive reached when this server last heard of it; None when it never did."""
        found = await self._funnel.one(command("GET", journal_of(home).tail))
        return None if found is None else int(found)

    async def tenants(self, after: str, *, limit: int) -> Sequence[str]:
        """A page of the list of tenants, as its entries: for the sweep."""
        start = f"({after}" if after else "-"
        found: list[str] = await self._funnel.one(command("ZRANGEBYLEX", keys.TENANTS, start, "+", "LIMIT", 0, limit))
        return found

    async def wake(self, homes: Sequence[str]) -> None:
        """Look at those as well."""
        pairs = [part for home in homes for part in (0, home)]
        if pairs:
            await self._funnel.one(command("ZADD", keys.JOURNAL_DUE, "NX", *pairs))
