"""Conversations in Redis: records, lists and routes. See `base.Conversations`; the lease is in `leases.py`."""

from orchestrator.domain.conversation import Conversation, Phase
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId, UserId
from orchestrator.state import cursor as cursors
from orchestrator.state import due, keys, records
from orchestrator.state.base import OPERATION_TTL_MS, UNCOUNTED_PHASES, Lease, Page
from orchestrator.state.funnel import command, run
from orchestrator.state.keys import TenantKeys
from orchestrator.state.leases import RedisLeases
from orchestrator.state.refusals import changed_meanwhile, lease_lost, limit_reached


class RedisConversations(RedisLeases):
    async def create(self, conversation: Conversation, *, live_limit: int | None) -> Conversation:
        t = TenantKeys(conversation.tenant)
        index: tuple[str, ...] = (t.conversations,)
        if conversation.user is not None:
            index += (t.user_conversations(conversation.user),)
        parts = records.conversation_parts(conversation)
        call = run(
            "conversation_create",
            (t.conversation(conversation.id), t.due, t.live, *index),
            conversation.id,
            -1 if live_limit is None else live_limit,
            _live(conversation.phase),
            cursors.member(conversation.created_at, conversation.id),
            conversation.user or "",
            *(parts[part] for part in records.PARTS),
        )
        outcome, *rest = await due.waking(self._funnel, conversation.tenant, call, durable=True)
        if outcome == "limit":
            raise limit_reached(int(rest[0]), live_limit or 0)
        return records.conversation_from(rest) if outcome == "exists" else conversation

    async def get(self, tenant: TenantId, id: ConversationId) -> Conversation | None:
        parts = await self._funnel.one(command("HMGET", TenantKeys(tenant).conversation(id), *records.PARTS))
        return None if parts[0] is None else records.conversation_from(parts)

    async def list(
        self, tenant: TenantId, *, user: UserId | None, cursor: str | None, limit: int
    ) -> Page[Conversation]:
        t = TenantKeys(tenant)
        index = t.conversations if user is None else t.user_conversations(user)
        start = "+" if cursor is None else f"({cursors.decode(cursor)}"
        entries = await self._funnel.one(command("ZREVRANGEBYLEX", index, start, "-", "LIMIT", 0, limit + 1))
        page = [ConversationId(cursors.member_id(entry)) for entry in entries[:limit]]
        found = await self._funnel.batch(*(command("HMGET", t.conversation(id), *records.PARTS) for id in page))
        # One that was removed since the index was read is not there any more.
        items = [records.conversation_from(parts) for parts in found if parts[0] is not None]
        return Page(items, cursors.encode(entries[limit - 1]) if len(entries) > limit else None)

    async def request(self, conversation: Conversation, *, expected_version: int) -> bool:
        t = TenantKeys(conversation.tenant)
        parts = records.conversation_parts(conversation)
        call = run(
            "conversation_request",
            (t.conversation(conversation.id), t.due),
            conversation.id,
            expected_version,
            parts["intent"],
            parts["record"],
        )
        return bool(await due.waking(self._funnel, conversation.tenant, call, durable=True))

    async def save(self, lease: Lease, conversation: Conversation, *, expected_version: int) -> Conversation:
        t = TenantKeys(lease.tenant)
        parts = records.conversation_parts(conversation)
        answer = await self._funnel.one(
            run(
                "conversation_save",
                (t.conversation(lease.conversation), t.live),
                lease.conversation,
                lease.owner,
                lease.fence,
                expected_version,
                parts["phase"],
                parts["runtime"],
                parts["record"],
                _live(conversation.phase),
            )
        )
        if answer == "lost":
            raise lease_lost(lease)
        if answer == "stale":
            raise changed_meanwhile()
        return records.conversation_from(answer)

    async def remove(self, lease: Lease) -> None:
        t, id = TenantKeys(lease.tenant), lease.conversation
        own = (t.inbox(id), t.waiting(id), t.events(id), t.saga(id), t.running_operations(id))
        call = run(
            "conversation_remove",
            (t.conversation(id), t.due, t.live, t.conversations, *own, t.user_prefix, t.operation_prefix),
            id,
            lease.owner,
            lease.fence,
            OPERATION_TTL_MS,
        )
        if not await self._funnel.one(call, durable=True):
            raise lease_lost(lease)

    async def touch(self, tenant: TenantId, id: ConversationId) -> None:
        await self._funnel.one(run("conversation_touch", (TenantKeys(tenant).conversation(id),)))

    async def unused_ms(self, tenant: TenantId, id: ConversationId) -> int | None:
        unused = await self._funnel.one(run("conversation_unused", (TenantKeys(tenant).conversation(id),)))
        return None if unused < 0 else int(unused)

    async def put_route(self, runtime: RuntimeId, tenant: TenantId, conversation: ConversationId) -> None:
        await self._funnel.one(
            command("HSET", keys.route(runtime), "tenant", tenant, "conversation", conversation), durable=True
        )

    async def route(self, runtime: RuntimeId) -> tuple[TenantId, ConversationId] | None:
        tenant, conversation = await self._funnel.one(command("HMGET", keys.route(runtime), "tenant", "conversation"))
        return None if tenant is None else (TenantId(tenant), ConversationId(conversation))

    async def drop_route(self, runtime: RuntimeId) -> None:
        await self._funnel.one(command("DEL", keys.route(runtime)))


def _live(phase: Phase) -> int:
    return 0 if phase in UNCOUNTED_PHASES else 1
