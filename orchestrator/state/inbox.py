"""The inbox of a conversation in Redis. See `base.Inbox`."""

from collections.abc import Sequence
from datetime import UTC, datetime

from orchestrator.domain import hooks
from orchestrator.domain.ids import ConversationId, TenantId, message_event_id
from orchestrator.state import due
from orchestrator.state.base import Lease, Message
from orchestrator.state.funnel import Funnel, command, run
from orchestrator.state.hooks import outbox_due
from orchestrator.state.keys import TenantKeys
from orchestrator.state.refusals import inbox_full, lease_lost, no_conversation


class RedisInbox:
    def __init__(self, funnel: Funnel) -> None:
        self._funnel = funnel

    async def put(self, tenant: TenantId, id: ConversationId, *, client_id: str, content: str, limit: int) -> Message:
        t = TenantKeys(tenant)
        keys = (t.conversation(id), t.due, t.inbox(id), t.waiting(id))
        call = run("inbox_put", keys, id, client_id, content, limit, message_event_id(id, client_id), journal=t.journal)
        answer = await due.waking(self._funnel, tenant, call, durable=True)
        if answer[0] == "gone":
            raise no_conversation()
        if answer[0] == "limit":
            raise inbox_full(int(answer[1]), limit)
        sequence, stored, delivered = answer
        return Message(int(sequence), client_id, stored, bool(delivered))

    async def waiting(self, tenant: TenantId, id: ConversationId, *, limit: int) -> Sequence[Message]:
        t = TenantKeys(tenant)
        sequences = await self._funnel.one(command("ZRANGE", t.waiting(id), 0, limit - 1))
        if not sequences:
            return []
        fields = [field for sequence in sequences for field in (f"of:{sequence}", f"content:{sequence}")]
        texts = await self._funnel.one(command("HMGET", t.inbox(id), *fields))
        clients, contents = texts[::2], texts[1::2]
        # None: removed since the list was read.
        return [
            Message(int(sequence), client, content, delivered=False)
            for sequence, client, content in zip(sequences, clients, contents, strict=True)
            if client is not None
        ]

    async def page(self, tenant: TenantId, id: ConversationId, *, after: int, limit: int) -> Sequence[Message]:
        last = await self._funnel.one(command("HGET", TenantKeys(tenant).inbox(id), "#"))
        return await self._read(tenant, id, [*range(after + 1, min(after + limit, int(last or 0)) + 1)])

    async def many(self, tenant: TenantId, id: ConversationId, client_ids: Sequence[str]) -> Sequence[Message | None]:
        if not client_ids:
            return []
        names = [f"client:{client_id}" for client_id in client_ids]
        numbers = await self._funnel.one(command("HMGET", TenantKeys(tenant).inbox(id), *names))
        found = await self._read(tenant, id, sorted({int(number) for number in numbers if number is not None}))
        there = {message.client_id: message for message in found}
        return [there.get(client_id) for client_id in client_ids]

    async def count(self, tenant: TenantId, id: ConversationId) -> int:
        return int(await self._funnel.one(command("HGET", TenantKeys(tenant).inbox(id), "#")) or 0)

    async def find(self, tenant: TenantId, id: ConversationId, client_id: str) -> Message | None:
        sequence = await self._funnel.one(command("HGET", TenantKeys(tenant).inbox(id), f"client:{client_id}"))
        found = await self._read(tenant, id, [int(sequence)] if sequence is not None else [])
        return found[0] if found else None

    async def _read(self, tenant: TenantId, id: ConversationId, sequences: Sequence[int]) -> list[Message]:
        if not sequences:
            return []
        t = TenantKeys(tenant)
        fields = [field for sequence in sequences for field in (f"of:{sequence}", f"content:{sequence}")]
        texts, waiting = await self._funnel.batch(
            command("HMGET", t.inbox(id), *fields),
            command("ZRANGEBYSCORE", t.waiting(id), sequences[0], sequences[-1]),
        )
        kept = [
            (sequence, client, content)
            for sequence, client, content in zip(sequences, texts[::2], texts[1::2], strict=True)
            if client is not None  # the conversation was removed just now
        ]
        if not kept:
            return []
        marks = [f"accepted:{message_event_id(id, client)}" for _, client, _ in kept]
        accepted = await self._funnel.one(command("HMGET", t.inbox(id), *marks))
        return [
            Message(sequence, client, content, str(sequence) not in waiting, None if number is None else int(number))
            for (sequence, client, content), number in zip(kept, accepted, strict=True)
        ]

    async def delivered(self, lease: Lease, sequence: int, *, client_id: str | None = None) -> None:
        t, id = TenantKeys(lease.tenant), lease.conversation
        told = ""
        if client_id is not None:
            told = hooks.drafts_text(
                [hooks.delivered(lease.tenant, id, sequence, datetime.now(UTC), client_id=client_id)]
            )
        keys = (t.conversation(id), t.waiting(id), t.hooks_wanted, t.hook_prefix)
        call = run("inbox_delivered", keys, lease.owner, lease.fence, sequence, id, told, journal=t.journal)
        if not (await self._funnel.batch(call, outbox_due(lease.tenant)))[0]:
            raise lease_lost(lease)
