"""Lists of conversations and bare runtimes: pages, by what they are like, and how many there are.

A list is kept in the order of creation and nothing else, so a filter by time of creation costs nothing, and every other
one looks at what it passes over: a page looks at 2,000 at most, newest first, and says where to go on (ADR 36).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from weakref import WeakValueDictionary

import anyio

from orchestrator.domain.conversation import Conversation, Desired, Kind, Phase
from orchestrator.domain.ids import ConversationId, TenantId, UserId
from orchestrator.state import cursor as cursors
from orchestrator.state.base import EVER, Conversations, Glance, Page, Span

LOOKED_AT = 2_000  #: entries of the list, for one page
COUNTED = 5_000  #: entries that are looked at for one count
_AT_ONCE = 500  # so that other requests have their turn
_WALKS = 2  # of one tenant at once: a walk is up to a hundred calls' work, and its parts take turns with everybody's


@dataclass(frozen=True)
class Filters:
    """Which ones. What is None, or empty, does not choose."""

    span: Span = EVER
    updated: Span = EVER
    phases: Collection[Phase] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)  #: has all of these
    title: str | None = None  #: has this in its title, upper and lower case alike
    deleted: bool = False  #: those too that are deleted and can still be brought back

    @property
    def choose(self) -> bool:
        """Whether records have to be looked at, but for those that are deleted."""
        return self.phases is not None or bool(self.labels) or self.title is not None or self.updated != EVER

    def glance(self, one: Glance) -> bool:
        """Whether it may be among them, as far as that can be seen."""
        return (
            (self.deleted or one.desired is not Desired.DELETED)
            and (self.phases is None or one.phase in self.phases)
            and all(one.labels.get(name) == value for name, value in self.labels.items())
            and (self.title is None or self.title.casefold() in (one.title or "").casefold())
        )

    def has(self, one: Conversation) -> bool:
        """The rest of it, and whether it is deleted."""
        return (self.deleted or one.desired is not Desired.DELETED) and _within(one.updated_at, self.updated)


Looked = Callable[[int], None]


def nobody(looked: int) -> None:
    """Who is not told."""


class ConversationLists:
    """Every method works on one kind of record of one tenant, and of one user where the caller is a user."""

    def __init__(self, store: Conversations, kind: Kind) -> None:
        self._store = store
        self._kind = kind
        self._walks: WeakValueDictionary[TenantId, anyio.Semaphore] = WeakValueDictionary()

    async def page(
        self,
        tenant: TenantId,
        user: UserId | None,
        filters: Filters,
        *,
        cursor: str | None,
        limit: int,
        oldest_first: bool = False,
        looked: Looked = nobody,
    ) -> Page[Conversation]:
        """In the order of creation. Where filters find little a page may be short, or empty, and have a next one; the
        cursor is a place in the list, and right under any filter. `looked` is told how many were looked at."""
        if not filters.choose:
            return await self._page(tenant, user, filters, cursor, limit, nobody, oldest_first=oldest_first)
        async with self._walk(tenant):
            return await self._page(tenant, user, filters, cursor, limit, looked, oldest_first=oldest_first)

    async def _page(
        self,
        tenant: TenantId,
        user: UserId | None,
        filters: Filters,
        cursor: str | None,
        limit: int,
        told: Looked,
        *,
        oldest_first: bool,
    ) -> Page[Conversation]:
        found: list[Conversation] = []
        looked, at_once = 0, limit
        while looked < LOOKED_AT:
            page = await self._store.list(
                tenant,
                user=user,
                cursor=cursor,
                limit=at_once,
                kind=self._kind,
                span=filters.span,
                oldest_first=oldest_first,
                where=filters.glance if filters.choose else None,
            )
            told(at_once if page.next_cursor is not None else len(page.items))
            found += [one for one in page.items if filters.has(one)]
            if len(found) > limit:
                last = found[limit - 1]
                return Page(found[:limit], cursors.encode(cursors.member(last.created_at, last.id)))
            cursor, looked = page.next_cursor, looked + at_once
            at_once = min(_AT_ONCE, 2 * at_once)  # where most are wanted, few are read for nothing
            if cursor is None or len(found) == limit:
                break
        return Page(found, cursor)

    async def many(
        self, tenant: TenantId, user: UserId | None, ids: Sequence[ConversationId], *, deleted: bool = False
    ) -> list[Conversation | None]:
        """In that order; None for what is not there for this caller."""
        return [
            one
            if one is not None
            and one.kind is self._kind
            and (user is None or one.user == user)
            and (deleted or one.desired is not Desired.DELETED)
            else None
            for one in await self._store.many(tenant, ids)
        ]

    async def count(
        self,
        tenant: TenantId,
        user: UserId | None,
        filters: Filters,
        *,
        cursor: str | None,
        looked: Looked = nobody,
    ) -> tuple[int, str | None]:
        """How many there are from `cursor` on, and where to go on counting: None when they are all. Where nothing has
        to be looked at, all at once. `looked` is told how many were looked at."""
        if not filters.choose and filters.deleted and cursor is None:
            return await self._store.size(tenant, user=user, kind=self._kind, span=filters.span), None
        async with self._walk(tenant):
            return await self._count(tenant, user, filters, cursor, looked)

    async def _count(
        self, tenant: TenantId, user: UserId | None, filters: Filters, cursor: str | None, told: Looked
    ) -> tuple[int, str | None]:
        count = 0
        for _ in range(COUNTED // _AT_ONCE):
            if filters.updated != EVER:
                records = await self._store.list(
                    tenant,
                    user=user,
                    cursor=cursor,
                    limit=_AT_ONCE,
                    kind=self._kind,
                    span=filters.span,
                    where=filters.glance,
                )
                count, cursor = count + sum(map(filters.has, records.items)), records.next_cursor
                told(_AT_ONCE if cursor is not None else len(records.items))
            else:
                glances = await self._store.glances(
                    tenant, user=user, cursor=cursor, limit=_AT_ONCE, kind=self._kind, span=filters.span
                )
                count, cursor = count + sum(map(filters.glance, glances.items)), glances.next_cursor
                told(len(glances.items))
            if cursor is None:
                break
        return count, cursor

    def _walk(self, tenant: TenantId) -> anyio.Semaphore:
        """The turn of one that looks at more than it answers."""
        return self._walks.setdefault(tenant, anyio.Semaphore(_WALKS))


def _within(moment: datetime, span: Span) -> bool:
    return (span.since is None or moment >= span.since) and (span.until is None or moment < span.until)
