"""Conversations in Redis: records, lists and routes. See `base.Conversations`; the lease is in `leases.py`."""

from collections.abc import Callable, Iterable, Sequence
from typing import cast

from orchestrator.domain import hooks
from orchestrator.domain.admission import Ask
from orchestrator.domain.conversation import Conversation, Desired, Kind, name_of, slot_of
from orchestrator.domain.ids import ConversationId, OperationId, RuntimeId, TenantId, UserId
from orchestrator.state import cursor as cursors
from orchestrator.state import due, keys, records
from orchestrator.state.base import EVER, OPERATION_TTL_MS, Glance, Lease, Page, Span
from orchestrator.state.changes import told
from orchestrator.state.funnel import command, run
from orchestrator.state.hooks import outbox_due
from orchestrator.state.keys import TenantKeys
from orchestrator.state.leases import RedisLeases
from orchestrator.state.refusals import changed_meanwhile, lease_lost, name_taken
from orchestrator.state.slots import ask_text, joining, refused


class RedisConversations(RedisLeases):
    async def create(self, conversation: Conversation, *, ask: Ask | None = None) -> Conversation:
        t = TenantKeys(conversation.tenant)
        lists = [] if conversation.user is None else [t.user_conversations(conversation.user)]
        if conversation.kind is Kind.RUNTIME:
            lists += [t.runtimes, *([] if conversation.user is None else [t.user_runtimes(conversation.user)])]
        parts = records.conversation_parts(conversation)
        call = run(
            "conversation_create",
            (
                t.conversation(conversation.id),
                t.due,
                t.conversations,
                t.slots,
                t.starts,
                t.queue,
                t.evictions,
                t.hooks_wanted,
                t.hook_prefix,
                t.phases,
                t.names,
                t.conversation_prefix,
                *lists,
            ),
            conversation.id,
            ask_text(ask) if ask is not None else "hold" if slot_of(conversation.phase) == "hold" else "",
            cursors.member(conversation.created_at, conversation.id),
            conversation.user or "",
            conversation.key or "",
            *(parts[part] for part in records.PARTS),
            hooks.drafts_text(hooks.created(conversation)),
            name_of(conversation),
            journal=t.journal,
        )
        join = (*joining(conversation.tenant, ask), outbox_due(conversation.tenant))
        outcome, *rest = await due.waking(self._funnel, conversation.tenant, call, around=join, durable=True)
        if outcome == "refused":
            raise refused((outcome, *rest))
        return records.conversation_from(rest) if outcome == "exists" else conversation

    async def get(self, tenant: TenantId, id: ConversationId) -> Conversation | None:
        parts = await self._funnel.one(command("HMGET", TenantKeys(tenant).conversation(id), *records.PARTS))
        return None if parts[0] is None else records.conversation_from(parts)

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
        t = TenantKeys(tenant)
        bounds = cursors.bounds(cursor, span.since, span.until, oldest_first=oldest_first)
        entries, following = await self._entries(_index(t, user, kind), bounds, limit, oldest_first=oldest_first)
        page = [ConversationId(cursors.member_id(entry)) for entry in entries]
        found = _there(await self._funnel.batch(*(command("HMGET", t.conversation(id), *records.PARTS) for id in page)))
        if where is not None:
            glanced = records.readable(lambda parts: (records.glance_from(parts[0], parts[1]), parts), found)
            found = [parts for glance, parts in glanced if where(glance)]
        items = records.readable(records.conversation_from, found)
        return Page([item for item in items if kind is None or item.kind is kind], following)

    async def many(self, tenant: TenantId, ids: Sequence[ConversationId]) -> Sequence[Conversation | None]:
        t = TenantKeys(tenant)
        found = await self._funnel.batch(*(command("HMGET", t.conversation(id), *records.PARTS) for id in ids))
        there = {item.id: item for item in records.readable(records.conversation_from, _there(found))}
        return [there.get(id) for id in ids]

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
        t, others = TenantKeys(tenant), frozenset[str]()
        bounds = cursors.bounds(cursor, span.since, span.until)
        entries, following = await self._entries(_index(t, user, kind), bounds, limit)
        if kind is Kind.CONVERSATION and entries:  # which of them are bare runtimes, the other list knows
            between = (f"[{entries[-1]}", f"[{entries[0]}")
            runtimes = command("ZRANGEBYLEX", _index(t, user, Kind.RUNTIME), *between)
            others = frozenset(await self._funnel.one(runtimes))
        ids = [ConversationId(cursors.member_id(entry)) for entry in entries if entry not in others]
        found = await self._funnel.batch(*(command("HMGET", t.conversation(id), "intent", "phase") for id in ids))
        return Page(records.readable(lambda parts: records.glance_from(*parts), _there(found)), following)

    async def size(self, tenant: TenantId, *, user: UserId | None, kind: Kind, span: Span = EVER) -> int:
        t, bounds = TenantKeys(tenant), cursors.bounds(None, span.since, span.until)
        kinds = (kind,) if kind is Kind.RUNTIME else (kind, Kind.RUNTIME)
        sizes = await self._funnel.batch(*(command("ZLEXCOUNT", _index(t, user, one), *bounds) for one in kinds))
        return int(sizes[0]) - sum(map(int, sizes[1:]))

    async def _entries(
        self, index: str, bounds: tuple[str, str], limit: int, *, oldest_first: bool = False
    ) -> tuple[Sequence[str], str | None]:
        """Up to `limit` entries of a list, and the cursor behind them unless they are the last."""
        low, high = bounds
        query = ("ZRANGEBYLEX", index, low, high) if oldest_first else ("ZREVRANGEBYLEX", index, high, low)
        entries = await self._funnel.one(command(*query, "LIMIT", 0, limit + 1))
        return entries[:limit], cursors.encode(entries[limit - 1]) if len(entries) > limit else None

    async def named(self, tenant: TenantId, user: UserId | None, name: str) -> Conversation | None:
        t = TenantKeys(tenant)
        id = await self._funnel.one(command("HGET", t.names, f"{user or ''}/{name}"))
        return None if id is None else await self.get(tenant, ConversationId(id))

    async def request(
        self,
        conversation: Conversation,
        *,
        expected_version: int,
        ask: Ask | None = None,
        replaces: OperationId | None = None,
    ) -> bool:
        t = TenantKeys(conversation.tenant)
        parts = records.conversation_parts(conversation)
        call = run(
            "conversation_request",
            (
                t.conversation(conversation.id),
                t.due,
                t.slots,
                t.starts,
                t.queue,
                t.evictions,
                t.operation(replaces or OperationId("")),
                t.running_operations(conversation.id),
                t.names,
                t.conversation_prefix,
            ),
            conversation.id,
            expected_version,
            parts["intent"],
            parts["record"],
            ask_text(ask) if ask is not None else "" if conversation.desired is Desired.RUNNING else "drop",
            replaces or "",
            OPERATION_TTL_MS,
            journal=t.journal,
        )
        join = joining(conversation.tenant, ask)
        answer = await due.waking(self._funnel, conversation.tenant, call, around=join, durable=True)
        await self._funnel.one(told(conversation.id))
        if answer[0] == "refused":
            raise refused(answer)
        if answer[0] == "taken":
            raise name_taken(conversation.name)
        return bool(answer[0] == "stored")

    async def save(self, lease: Lease, conversation: Conversation, *, expected_version: int) -> Conversation:
        t = TenantKeys(lease.tenant)
        parts = records.conversation_parts(conversation)
        answer, *_ = await self._funnel.batch(
            run(
                "conversation_save",
                (
                    t.conversation(lease.conversation),
                    t.slots,
                    t.queue,
                    t.evictions,
                    t.hooks_wanted,
                    t.hook_prefix,
                    t.phases,
                ),
                lease.conversation,
                lease.owner,
                lease.fence,
                expected_version,
                parts["phase"],
                parts["runtime"],
                parts["record"],
                slot_of(conversation.phase),
                conversation.user or "",
                conversation.key or "",
                hooks.drafts_text(hooks.moved(conversation)),
                "1" if conversation.archived_at is not None else "",  # that its workspace is gone, nothing else tells
                journal=t.journal,
            ),
            told(lease.conversation),
            outbox_due(lease.tenant),
        )
        if answer == "lost":
            raise lease_lost(lease)
        if answer == "stale":
            raise changed_meanwhile()
        return records.conversation_from(answer)

    async def remove(self, lease: Lease) -> None:
        t, id = TenantKeys(lease.tenant), lease.conversation
        own = (t.inbox(id), t.waiting(id), t.events(id), t.saga(id), t.running_operations(id))
        slots = (t.slots, t.queue, t.evictions)
        rest = (t.user_prefix, t.operation_prefix, t.phases, t.runtimes, t.names)
        call = run(
            "conversation_remove",
            (t.conversation(id), t.due, t.conversations, *own, *slots, *rest),
            id,
            lease.owner,
            lease.fence,
            OPERATION_TTL_MS,
            journal=t.journal,
        )
        if not (await self._funnel.batch(call, told(id), durable=True))[0]:
            raise lease_lost(lease)

    async def poke(self, tenant: TenantId, id: ConversationId) -> None:
        t = TenantKeys(tenant)
        await due.waking(self._funnel, tenant, run("conversation_poke", (t.conversation(id), t.due), id))

    async def touch(self, tenant: TenantId, id: ConversationId) -> int:
        t = TenantKeys(tenant)
        return int(await self._funnel.one(run("conversation_touch", (t.conversation(id), t.slots), id)))

    async def unused_ms(self, tenant: TenantId, id: ConversationId) -> int | None:
        unused = await self._funnel.one(run("conversation_unused", (TenantKeys(tenant).conversation(id),)))
        return None if unused < 0 else int(unused)

    async def put_route(
        self, runtime: RuntimeId, tenant: TenantId, conversation: ConversationId, *, ttl_ms: int | None = None
    ) -> None:
        name = keys.route(runtime)
        await self._funnel.batch(
            command("HSET", name, "tenant", tenant, "conversation", conversation),
            command("PERSIST", name) if ttl_ms is None else command("PEXPIRE", name, ttl_ms),
            durable=True,
        )

    async def route(self, runtime: RuntimeId) -> tuple[TenantId, ConversationId] | None:
        tenant, conversation = await self._funnel.one(command("HMGET", keys.route(runtime), "tenant", "conversation"))
        return None if tenant is None else (TenantId(tenant), ConversationId(conversation))

    async def drop_route(self, runtime: RuntimeId) -> None:
        await self._funnel.batch(command("DEL", keys.route(runtime)), command("SREM", keys.SLEEPERS, runtime))

    async def add_sleeper(self, runtime: RuntimeId) -> None:
        await self._funnel.one(command("SADD", keys.SLEEPERS, runtime))

    async def sleepers(self) -> Sequence[RuntimeId]:
        return [RuntimeId(id) for id in await self._funnel.one(command("SMEMBERS", keys.SLEEPERS))]

    async def drop_sleeper(self, runtime: RuntimeId) -> None:
        await self._funnel.one(command("SREM", keys.SLEEPERS, runtime))

    async def unclaimed(self) -> frozenset[str]:
        return frozenset(await self._funnel.one(command("SMEMBERS", keys.UNCLAIMED)))


def _index(t: TenantKeys, user: UserId | None, kind: Kind | None) -> str:
    """The list of a kind; that of conversations has the bare runtimes in it."""
    if kind is Kind.RUNTIME:
        return t.runtimes if user is None else t.user_runtimes(user)
    return t.conversations if user is None else t.user_conversations(user)


def _there(found: Iterable[Sequence[str | None]]) -> Sequence[Sequence[str]]:
    """Without those that were removed since the index was read."""
    return [cast(Sequence[str], parts) for parts in found if parts[0] is not None]
