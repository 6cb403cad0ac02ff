"""Conversations in memory: records, lists, the due index and the fenced lease. See `base.Conversations`."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from orchestrator.domain import hooks
from orchestrator.domain.admission import Ask
from orchestrator.domain.conversation import Conversation, Desired, Kind, name_of, slot_of
from orchestrator.domain.ids import ConversationId, OperationId, RuntimeId, TenantId, UserId
from orchestrator.domain.operation import OperationState
from orchestrator.state import cursor as cursors
from orchestrator.state.base import EVER, OPERATION_TTL_MS, Glance, Lease, Page, Span
from orchestrator.state.memory import ledger
from orchestrator.state.memory.shelf import Place, Shelf
from orchestrator.state.memory.slots import raise_refused
from orchestrator.state.refusals import changed_meanwhile, name_taken


class MemoryConversations:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._sleepers: set[RuntimeId] = set()
        self._named: dict[tuple[TenantId, str], ConversationId] = {}
        self._routes: dict[RuntimeId, tuple[TenantId, ConversationId, int | None]] = {}  #: with when each goes

    async def create(self, conversation: Conversation, *, ask: Ask | None = None) -> Conversation:
        key = (conversation.tenant, conversation.id)
        if key in self._shelf.places:
            return self._shelf.places[key].conversation
        namesake = self._namesake(conversation)
        if namesake is not None:
            return namesake
        place = Place(conversation, due_ms=self._shelf.now_ms(), archived=0)
        if ask is not None:
            raise_refused(ledger.ask_for(self._shelf, conversation.tenant, conversation.id, place, ask))
            place.slot.asked = True
        elif slot_of(conversation.phase) == "hold":
            place.slot.count_in(conversation.user, conversation.key, self._shelf.now_ms())
        self._shelf.places[key] = place
        self._names(conversation)
        self._shelf.note_conversation(conversation)
        self._shelf.publish(conversation.tenant, conversation.id, hooks.created(conversation))
        return conversation

    async def get(self, tenant: TenantId, id: ConversationId) -> Conversation | None:
        place = self._shelf.places.get((tenant, id))
        return None if place is None else place.conversation

    async def list(
        self,
        tenant: TenantId,
        *,
        user: UserId | None,
        cursor: str | None,
        limit: int,
        kind: Kind | None = None,
        span: Span = EVER,
        oldest_first: bool = False,
        where: Callable[[Glance], bool] | None = None,
    ) -> Page[Conversation]:
        listed = self._listed(tenant, user, kind)
        bounds = cursors.bounds(cursor, span.since, span.until, oldest_first=oldest_first)
        names, following = cursors.page(listed, bounds, limit, oldest_first=oldest_first)
        items = [listed[name] for name in names if kind is None or listed[name].kind is kind]
        return Page([one for one in items if where is None or where(_glance(one))], following)

    async def many(self, tenant: TenantId, ids: Sequence[ConversationId]) -> Sequence[Conversation | None]:
        return [await self.get(tenant, id) for id in ids]

    async def glances(
        self,
        tenant: TenantId,
        *,
        user: UserId | None,
        cursor: str | None,
        limit: int,
        kind: Kind,
        span: Span = EVER,
    ) -> Page[Glance]:
        page = await self.list(tenant, user=user, cursor=cursor, limit=limit, kind=kind, span=span)
        return Page([_glance(one) for one in page.items], page.next_cursor)

    async def size(self, tenant: TenantId, *, user: UserId | None, kind: Kind, span: Span = EVER) -> int:
        bounds = cursors.bounds(None, span.since, span.until)
        listed = self._listed(tenant, user, kind)
        names, _ = cursors.page(listed, bounds, len(listed), oldest_first=True)
        return sum(1 for name in names if listed[name].kind is kind)

    async def named(self, tenant: TenantId, user: UserId | None, name: str) -> Conversation | None:
        id = self._named.get((tenant, f"{user or ''}/{name}"))
        return None if id is None else await self.get(tenant, id)

    async def request(
        self,
        conversation: Conversation,
        *,
        expected_version: int,
        ask: Ask | None = None,
        replaces: OperationId | None = None,
    ) -> bool:
        place = self._shelf.places.get((conversation.tenant, conversation.id))
        if place is None or place.conversation.version != expected_version:
            return False
        if self._namesake(conversation) is not None:
            raise name_taken(conversation.name)
        self._names(conversation)
        if ask is not None:
            raise_refused(ledger.ask_for(self._shelf, conversation.tenant, conversation.id, place, ask))
            place.slot.asked = True
        elif conversation.desired is not Desired.RUNNING:
            place.slot.asked = False
        stored = place.conversation
        place.conversation = replace(
            conversation,
            phase=stored.phase,
            runtime=stored.runtime,
            fence=stored.fence,
            version=expected_version + 1,
        )
        self._shelf.note_conversation(place.conversation)
        if replaces is not None:
            self._shelf.end_operation(conversation.tenant, replaces, OperationState.FAILED, None)
        place.poke(self._shelf.now_ms())
        self._shelf.tell(conversation.id)
        return True

    async def claim_due(self, owner: str, *, lease_ms: int, limit: int) -> Sequence[tuple[Lease, Conversation]]:
        now = self._shelf.now_ms()
        due = [place for place in self._shelf.places.values() if place.due_ms is not None and place.due_ms <= now]
        free = [place for place in due if place.until_ms <= now]
        return [self._grant(place, owner, lease_ms) for place in sorted(free, key=lambda p: p.due_ms or 0)[:limit]]

    async def claim(
        self, tenant: TenantId, id: ConversationId, owner: str, *, lease_ms: int
    ) -> tuple[Lease, Conversation] | None:
        place = self._shelf.places.get((tenant, id))
        if place is None or place.until_ms > self._shelf.now_ms():
            return None
        return self._grant(place, owner, lease_ms)

    async def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> Sequence[bool | None]:
        return [self._renewed(lease, lease_ms) for lease in leases]

    def _renewed(self, lease: Lease, lease_ms: int) -> bool:
        place = self._shelf.places.get((lease.tenant, lease.conversation))
        if place is None or not place.holds(lease):
            return False
        place.until_ms = place.due_ms = self._shelf.now_ms() + lease_ms
        return True

    async def save(self, lease: Lease, conversation: Conversation, *, expected_version: int) -> Conversation:
        place = self._shelf.held(lease)
        stored = place.conversation
        if stored.version != expected_version:
            raise changed_meanwhile()
        place.conversation = replace(
            conversation,
            desired=stored.desired,
            labels=stored.labels,
            title=stored.title,
            links=stored.links,
            fence=stored.fence,
            version=expected_version + 1,
        )
        is_archived = conversation.archived_at is not None  # that its workspace is gone, nothing else tells
        if is_archived or (stored.phase, stored.runtime) != (conversation.phase, conversation.runtime):
            self._shelf.note_conversation(place.conversation)
        if stored.phase != conversation.phase:
            self._shelf.publish(lease.tenant, lease.conversation, hooks.moved(conversation))
        slot = slot_of(conversation.phase)
        if slot == "hold" and place.slot.used_ms is None:
            place.slot.count_in(conversation.user, conversation.key, self._shelf.now_ms())
        elif slot == "free" and not place.slot.asked:
            place.slot.drop()
        self._shelf.tell(conversation.id)
        return place.conversation

    async def settle(self, lease: Lease, *, due_in_ms: int | None) -> None:
        place = self._shelf.places.get((lease.tenant, lease.conversation))
        if place is None or not place.holds(lease):
            return
        now = self._shelf.now_ms()
        if place.poked:
            due_in_ms = 0
        place.owner, place.until_ms, place.poked = None, 0, False
        place.due_ms = None if due_in_ms is None else now + due_in_ms

    async def remove(self, lease: Lease) -> None:
        place = self._shelf.held(lease)
        goes = self._shelf.now_ms() + OPERATION_TTL_MS
        for id in place.running_operations:
            operation, _ = self._shelf.operations[lease.tenant, id]
            self._shelf.operations[lease.tenant, id] = (operation, goes)
        del self._shelf.places[lease.tenant, lease.conversation]
        key = (lease.tenant, name_of(place.conversation))
        if self._named.get(key) == lease.conversation:
            del self._named[key]
        self._shelf.note(lease.tenant, "conversation", lease.conversation, None)
        self._shelf.tell(lease.conversation)

    async def next_due_ms(self) -> int | None:
        times = [place.due_ms for place in self._shelf.places.values() if place.due_ms is not None]
        return max(0, min(times) - self._shelf.now_ms()) if times else None

    async def poke(self, tenant: TenantId, id: ConversationId) -> None:
        place = self._shelf.places.get((tenant, id))
        if place is not None:
            place.poke(self._shelf.now_ms())

    async def touch(self, tenant: TenantId, id: ConversationId) -> int:
        place = self._shelf.places.get((tenant, id))
        if place is None:
            return 0
        place.used_ms = self._shelf.now_ms()
        if place.slot.used_ms is not None:
            place.slot.used_ms = place.used_ms
        return place.conversation.version

    async def unused_ms(self, tenant: TenantId, id: ConversationId) -> int | None:
        place = self._shelf.places.get((tenant, id))
        return None if place is None or place.used_ms is None else max(0, self._shelf.now_ms() - place.used_ms)

    async def put_route(
        self, runtime: RuntimeId, tenant: TenantId, conversation: ConversationId, *, ttl_ms: int | None = None
    ) -> None:
        goes = None if ttl_ms is None else self._shelf.now_ms() + ttl_ms
        self._routes[runtime] = (tenant, conversation, goes)

    async def route(self, runtime: RuntimeId) -> tuple[TenantId, ConversationId] | None:
        tenant, conversation, goes = self._routes.get(runtime, (TenantId(""), ConversationId(""), 0))
        if goes is not None and goes <= self._shelf.now_ms():
            self._routes.pop(runtime, None)
            return None
        return tenant, conversation

    async def drop_route(self, runtime: RuntimeId) -> None:
        self._routes.pop(runtime, None)
        self._sleepers.discard(runtime)

    async def add_sleeper(self, runtime: RuntimeId) -> None:
        self._sleepers.add(runtime)

    async def sleepers(self) -> Sequence[RuntimeId]:
        return list(self._sleepers)

    async def drop_sleeper(self, runtime: RuntimeId) -> None:
        self._sleepers.discard(runtime)

    async def unclaimed(self) -> frozenset[str]:
        return frozenset()  # nothing outlives this store, so nothing is ever found

    def _names(self, conversation: Conversation) -> None:
        if name_of(conversation) and conversation.desired is not Desired.DELETED:
            self._named[conversation.tenant, name_of(conversation)] = conversation.id

    def _namesake(self, conversation: Conversation) -> Conversation | None:
        """Another one that has the name of this one, which is to have it."""
        id = self._named.get((conversation.tenant, name_of(conversation)))
        place = self._shelf.places.get((conversation.tenant, id)) if id is not None else None
        if (
            place is None
            or id == conversation.id
            or Desired.DELETED in (conversation.desired, place.conversation.desired)
        ):
            return None
        return place.conversation

    def _listed(self, tenant: TenantId, user: UserId | None, kind: Kind | None) -> "dict[str, Conversation]":
        """A list by its entries; that of conversations has the bare runtimes in it."""
        return {
            cursors.member(place.conversation.created_at, place.conversation.id): place.conversation
            for place in self._of(tenant)
            if user is None or place.conversation.user == user
            if kind is not Kind.RUNTIME or place.conversation.kind is kind
        }

    def _of(self, tenant: TenantId) -> "Sequence[Place]":
        return [place for (owner, _), place in self._shelf.places.items() if owner == tenant]

    def _grant(self, place: Place, owner: str, lease_ms: int) -> tuple[Lease, Conversation]:
        place.conversation = replace(place.conversation, fence=place.conversation.fence + 1)
        place.owner, place.poked = owner, False
        place.until_ms = place.due_ms = self._shelf.now_ms() + lease_ms
        conversation = place.conversation
        return Lease(conversation.tenant, conversation.id, owner, conversation.fence), conversation


def _glance(conversation: Conversation) -> Glance:
    return Glance(conversation.phase, conversation.desired, conversation.title, conversation.labels)
