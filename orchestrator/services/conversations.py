"""The use cases about conversations: ask for one, look at it, talk to it, pause it, stop it, delete it.

What is asked for is stored before the answer goes out; the work itself is done by `workers.py`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial

from orchestrator.domain.admission import Ask, Decision, Report
from orchestrator.domain.clock import Clock
from orchestrator.domain.conditions import ALWAYS, Condition
from orchestrator.domain.conversation import (
    Conversation,
    Desired,
    Kind,
    Phase,
    RuntimeRecord,
)
from orchestrator.domain.errors import Conflict, InvalidRequest, LimitReached, NotFound
from orchestrator.domain.ids import ConversationId, KeyId, OperationId, TenantId, UserId
from orchestrator.domain.operation import Operation
from orchestrator.services.admission import Admission, Starter
from orchestrator.services.beside import beside
from orchestrator.services.changing import TRIES, Changing
from orchestrator.services.conversation_lists import ConversationLists, Filters
from orchestrator.services.drafting import Drafts, Wanted
from orchestrator.services.effective import Effective
from orchestrator.services.events import EventLog
from orchestrator.services.images import NO_IMAGES, Images
from orchestrator.services.overrides import OverrideSeal
from orchestrator.services.resting import brought_back, can_return, may_wake, no_runtime, resumed, started
from orchestrator.state.base import Page, Store, StoredEvent

MOST_LABELS = 64
_ROUTE_MS = 2 * 24 * 3600 * 1000  # longer than a start may wait for its turn; its worker makes the route last
_PAUSABLE = frozenset({Phase.READY, Phase.PAUSING, Phase.PAUSED, Phase.RESUMING})


class ConversationService(Changing):
    """Every method works on the conversations of one tenant, and of one user where the caller is a user; or on its bare
    runtimes (`kind`). To each of the two the other's ids are unknown."""

    def __init__(
        self,
        store: Store,
        effective: Effective,
        overrides: OverrideSeal,
        events: EventLog,
        admission: Admission,
        clock: Clock,
        *,
        wake: Callable[[], None],
        gone: Callable[[Conversation], None],
        undelete_seconds: float,
        images: Images | None,
        sizes: Collection[int] = (1,),
        stages: Callable[[], Sequence[str]],
        kind: Kind = Kind.CONVERSATION,
    ) -> None:
        super().__init__(store, clock, kind, wake=wake)
        self._start_stages = stages
        self.lists = ConversationLists(store.conversations, kind)
        self._drafts = Drafts(store.tenants, effective, overrides, images, clock, sizes=sizes, kind=kind)
        self._events = events
        self._admission = admission
        self._gone = gone
        self._undelete_seconds = undelete_seconds
        self._images = images

    async def create(
        self, tenant: TenantId, user: UserId | None, wanted: Wanted, *, key: KeyId | None = None
    ) -> Conversation:
        """Accept one; a known id, or the name of one that is not deleted, answers the stored one: a repeat joins the
        start under way. Raises `LimitReached` and `CapacityReached` where the tenant's policy is to refuse; then
        nothing was made."""
        return (await self._made(tenant, user, wanted, key))[0]

    async def put(
        self,
        tenant: TenantId,
        user: UserId | None,
        wanted: Wanted,
        *,
        key: KeyId | None = None,
        condition: Condition = ALWAYS,
    ) -> tuple[Conversation, bool]:
        """The one that has the caller's id: made, as `create`, unless it is there; and whether it was made. Raises
        `Conflict` where one is there that was asked for with something else, `PreconditionFailed`."""
        present = await self._present(tenant, user, wanted)
        self._check(condition, present)
        there, made = (present, False) if present is not None else await self._made(tenant, user, wanted, key)
        if not made:  # somebody else may have been faster
            self._check(condition, there)
        if not await self._drafts.are(there, wanted):
            raise self._other()
        return there, made

    async def _made(
        self, tenant: TenantId, user: UserId | None, wanted: Wanted, key: KeyId | None
    ) -> tuple[Conversation, bool]:
        """The one that is there now, and whether it was made here."""
        if (present := await self._present(tenant, user, wanted)) is not None:
            return present, False
        conversation = await self._drafts.draft(tenant, user, key, wanted)
        who = Starter(tenant, conversation.id, user, key)
        stored = await self._admission.admit(who, lambda ask: self._put(conversation, ask))
        self._wake()
        return self._visible(stored, user), stored.operation == conversation.operation

    async def try_put(
        self,
        tenant: TenantId,
        user: UserId | None,
        wanted: Wanted,
        *,
        key: KeyId | None,
        condition: Condition = ALWAYS,
    ) -> Report:
        """What `put` would do now. Changes nothing. Raises as it would."""
        present = await self._present(tenant, user, wanted)
        self._check(condition, present)
        if present is not None and not await self._drafts.are(present, wanted):
            raise self._other()
        return await self.try_out(tenant, user, wanted, key=key)

    async def try_out(self, tenant: TenantId, user: UserId | None, wanted: Wanted, *, key: KeyId | None) -> Report:
        """What `create` would do now, checked as it would be. Changes nothing."""
        known = await self._present(tenant, user, wanted) is not None
        if not known:
            await self._drafts.draft(tenant, user, key, wanted)
        report = await self._admission.report(Starter(tenant, None, user, key))
        return replace(report, decision=Decision.JOIN, would_pause=()) if known else report

    async def try_start(
        self,
        tenant: TenantId,
        user: UserId | None,
        id: ConversationId,
        *,
        key: KeyId | None,
        condition: Condition = ALWAYS,
    ) -> Report:
        """What `start` would do now. Changes nothing. Raises `Conflict` and `PreconditionFailed` where it would."""
        present = await self.get(tenant, user, id)
        self._check(condition, present)
        joins = await self._joins(present)
        if not joins:
            brought_back(present)
        report = await self._admission.report(Starter(tenant, id, present.user, key or present.key))
        return replace(report, decision=Decision.JOIN, would_pause=()) if joins else report

    async def _present(self, tenant: TenantId, user: UserId | None, wanted: Wanted) -> Conversation | None:
        id = wanted.id
        present = await self._store.conversations.get(tenant, id) if id is not None else None
        if present is None:
            return await self.named(tenant, user, wanted.name) if wanted.name else None
        if present.kind is not self._kind:
            raise Conflict(f"this id belongs to a {present.kind}", hint="use another one")
        if self._visible(present, user).desired is Desired.DELETED:
            raise Conflict(
                f"a deleted {self._kind} has this id",
                hint=f"POST /api/v2/{self._kind}s/{id}/undelete, or DELETE it with ?purge=true first",
            )
        return present

    async def named(self, tenant: TenantId, user: UserId | None, name: str) -> Conversation | None:
        """The bare runtime of this name that is not deleted: the tenant's own, or this user's own."""
        found = await self._store.conversations.named(tenant, user, name)
        return None if found is None or found.desired is Desired.DELETED else found

    async def _put(self, conversation: Conversation, ask: Ask) -> Conversation:
        """The record with all that points to it. Refused: nothing of it is left."""
        conversations = self._store.conversations
        if conversation.runtime is None:
            raise ValueError("the record of a conversation names its runtime from the start")
        route = partial(conversations.put_route, ttl_ms=_ROUTE_MS)
        await beside(
            partial(route, conversation.runtime.id, conversation.tenant, conversation.id),
            partial(self._begin, conversation, "start", self._start_stages()),
        )
        try:
            stored = await conversations.create(conversation, ask=ask)
        except LimitReached:
            await self._withdraw(conversation, conversation.runtime)
            raise
        if stored.operation != conversation.operation:  # somebody else was faster with this id
            await self._withdraw(conversation, conversation.runtime)
        return stored

    async def _withdraw(self, conversation: Conversation, runtime: RuntimeRecord) -> None:
        await self._store.conversations.drop_route(runtime.id)
        await self._forget(conversation)

    async def list(
        self, tenant: TenantId, user: UserId | None, *, cursor: str | None, limit: int, deleted: bool = False
    ) -> Page[Conversation]:
        """Newest first; with `deleted` also those that can still be brought back."""
        return await self.lists.page(tenant, user, Filters(deleted=deleted), cursor=cursor, limit=limit)

    async def start(
        self,
        tenant: TenantId,
        user: UserId | None,
        id: ConversationId,
        *,
        key: KeyId | None = None,
        wait_ms: int | None = None,
        condition: Condition = ALWAYS,
    ) -> Conversation:
        """Bring a stopped, failed or paused conversation back; one that runs or is on its way is answered as it is.
        Raises `LimitReached` and `CapacityReached` where the tenant's policy is to refuse, unless it is to wait."""
        present = await self.get(tenant, user, id)
        self._check(condition, present)
        if await self._joins(present):
            return present
        who = Starter(tenant, id, present.user, key or present.key)
        change = partial(self._change, tenant, user, id, condition=condition)

        async def reserve(ask: Ask) -> Conversation:
            if present.phase in (Phase.STOPPED, Phase.FAILED):
                return await change(started, "start", self._start_stages(), ask, who.key)
            return await change(resumed, "resume", (), ask, who.key)

        return await self._admission.admit(who, reserve, wait_ms=wait_ms)

    async def pause(
        self, tenant: TenantId, user: UserId | None, id: ConversationId, *, condition: Condition = ALWAYS
    ) -> Conversation:
        """Freeze the runtime until somebody resumes it. Paused already: nothing to do, but a pause by policy becomes
        one that stays. Raises `Conflict` where there is nothing to pause."""

        def change(present: Conversation) -> Conversation | None:
            if present.desired is Desired.PAUSED:
                return None
            if present.desired is not Desired.RUNNING or present.phase not in _PAUSABLE:
                raise no_runtime(present, "", hint="only one that is ready can be paused")
            return replace(present, desired=Desired.PAUSED)

        return await self._change(tenant, user, id, change, "pause", (), condition=condition)

    async def resume(
        self,
        tenant: TenantId,
        user: UserId | None,
        id: ConversationId,
        *,
        key: KeyId | None = None,
        condition: Condition = ALWAYS,
    ) -> Conversation:
        """Bring a paused conversation back, whoever paused it; else as `start`."""
        return await self.start(tenant, user, id, key=key, condition=condition)

    async def wake(self, tenant: TenantId, id: ConversationId, *, wait_ms: int | None = None) -> None:
        """For a use of it that arrived: resume what policy put to rest. What a caller paused or stopped stays so.
        Raises as `start`."""
        present = await self.get(tenant, None, id)
        if may_wake(present) and not await self.is_starting(present):
            with suppress(Conflict):  # it changes by itself, quickly
                await self.start(tenant, None, id, wait_ms=wait_ms)

    async def stop(
        self, tenant: TenantId, user: UserId | None, id: ConversationId, *, condition: Condition = ALWAYS
    ) -> Conversation:
        """Remove the runtime, keep workspace and log. Stopped or failed already: nothing to do, unless a start was
        asked for since, or a use would wake it."""
        starting = await self.is_starting(await self.get(tenant, user, id))

        def change(present: Conversation) -> Conversation | None:
            rests = present.phase in (Phase.STOPPED, Phase.FAILED) and not starting and not may_wake(present)
            if present.desired in (Desired.STOPPED, Desired.DELETED) or rests:
                return None
            return replace(present, desired=Desired.STOPPED)

        return await self._change(tenant, user, id, change, "stop", (), condition=condition)

    async def delete(
        self,
        tenant: TenantId,
        user: UserId | None,
        id: ConversationId,
        *,
        purge: bool = False,
        condition: Condition = ALWAYS,
    ) -> Conversation:
        """In every phase. It can be undone for some minutes, unless `purge`; repeated meanwhile nothing changes.
        Raises `NotFound` after that."""
        now = self._clock.now()
        by = now if purge else now + timedelta(seconds=self._undelete_seconds)

        def change(present: Conversation) -> Conversation | None:
            if present.desired is not Desired.DELETED:
                return replace(present, desired=Desired.DELETED, purge_at=by)
            if purge and present.purge_at is not None and present.purge_at > now:
                return replace(present, purge_at=now)
            return None

        deleted = await self._change(tenant, user, id, change, "delete", (), deleted=True, condition=condition)
        self._gone(deleted)
        return deleted

    async def undelete(
        self, tenant: TenantId, user: UserId | None, id: ConversationId, *, condition: Condition = ALWAYS
    ) -> Conversation:
        """Bring a deleted one back, stopped, with its workspace. Not deleted: nothing to do. Raises `NotFound` when it
        is gone, or on its way there; `Conflict` where another one has its name by now."""

        def change(present: Conversation) -> Conversation | None:
            if present.desired is not Desired.DELETED:
                return None
            if not can_return(present, self._clock.now()):
                raise self._unknown()
            return replace(present, desired=Desired.STOPPED, purge_at=None)

        return await self._change(tenant, user, id, change, "undelete", (), deleted=True, condition=condition)

    async def describe(
        self,
        tenant: TenantId,
        user: UserId | None,
        id: ConversationId,
        *,
        title: str | None = None,
        untitled: bool = False,
        labels: Mapping[str, str | None] | None = None,
        relabel: bool = False,
        condition: Condition = ALWAYS,
    ) -> Conversation:
        """Give it another title (None: it stays, `untitled`: none), or further labels, in every phase; a label of None
        is removed, and with `relabel` each that is not given. Nothing else changes: a start that goes on goes on.
        Raises `NotFound`, `Conflict`, `PreconditionFailed`, `InvalidRequest` for too many labels."""
        for _ in range(TRIES):
            present = await self.get(tenant, user, id)
            self._check(condition, present)
            merged = {**({} if relabel else present.labels), **(labels or {})}
            kept = {name: value for name, value in merged.items() if value is not None}
            if len(kept) > MOST_LABELS:
                raise InvalidRequest(f"more than {MOST_LABELS} labels", field="labels", hint="remove some by null")
            changed = replace(present, title=None if untitled else title or present.title, labels=kept)
            if changed == present:
                return present
            changed = replace(changed, updated_at=self._clock.now())
            if await self._store.conversations.request(changed, expected_version=present.version):
                return await self._after(changed)
        raise Conflict(f"the {self._kind} is changing quickly", hint="try again")

    async def upgrade(
        self,
        tenant: TenantId,
        user: UserId | None,
        id: ConversationId,
        *,
        image: str | None,
        condition: Condition = ALWAYS,
    ) -> Conversation:
        """Put one that rests on another image, for its next starts: on the named one, or on what a new conversation
        would get. On it already: nothing changes. Raises `Conflict` where it does not rest, `ImageRefused`,
        `InvalidRequest` where runtimes have no images, `ImageUnavailable`, `DriverUnavailable`."""
        for _ in range(TRIES):
            present = await self.get(tenant, user, id)
            self._check(condition, present)
            if self._images is None:
                raise InvalidRequest(NO_IMAGES, field="image", hint="what runs is what is installed beside Nestor")
            if present.phase not in (Phase.STOPPED, Phase.FAILED) or await self.is_starting(present):
                raise Conflict(f"the {self._kind} is {present.phase}", hint="stop it, change its image, then start it")
            pin = await self._images.pin_now(tenant, image, id)
            changed = replace(present, image=pin)
            if changed == present or await self._request(changed, present, None):
                return await self._after(changed)
        raise Conflict(f"the {self._kind} is changing quickly", hint="try again")

    async def amend(
        self,
        tenant: TenantId,
        user: UserId | None,
        id: ConversationId,
        change: Callable[[Conversation], Conversation],
    ) -> Conversation:
        """Compare-and-set a change of what callers own of it, which asks for no work. Raises what `change` raises,
        `NotFound`, `Conflict`."""
        for _ in range(TRIES):
            present = await self.get(tenant, user, id)
            changed = change(present)
            if await self._store.conversations.request(changed, expected_version=present.version):
                return await self._after(changed)
        raise Conflict(f"the {self._kind} is changing quickly", hint="try again")

    async def events(
        self, tenant: TenantId, user: UserId | None, id: ConversationId, *, after: int, limit: int
    ) -> Sequence[StoredEvent]:
        """Events above `after`, oldest first, whether or not the runtime is there."""
        return await self._events.read(await self.get(tenant, user, id), after=after, limit=limit)

    async def events_of(
        self, tenant: TenantId, user: UserId | None, id: ConversationId, sequences: Sequence[int]
    ) -> Sequence[StoredEvent | None]:
        """The events of these numbers, in that order; None for what the log has not. The runtime is asked for new ones
        once."""
        return await self._events.numbered(await self.get(tenant, user, id), sequences)

    async def event_count(self, tenant: TenantId, user: UserId | None, id: ConversationId) -> int:
        """How many the log has now, which is the number of the last one."""
        return await self._events.count(await self.get(tenant, user, id))

    async def operation(self, tenant: TenantId, user: UserId | None, id: OperationId) -> Operation:
        """Of either kind. Raises `NotFound`."""
        found = await self._store.operations.get(tenant, id)
        if found is None:
            raise NotFound("there is no such operation")
        if user is not None:
            of = await self._store.conversations.get(tenant, found.conversation)
            if of is not None and of.user != user:
                raise NotFound(f"there is no such {of.kind}")
        return found

    def _other(self) -> Conflict:
        return Conflict(
            f"a {self._kind} has this id that was asked for with something else", hint="use another id, or GET this one"
        )
