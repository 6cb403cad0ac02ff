"""The inbox of a conversation in Redis. See `base.Inbox`."""

from collections.abc import Sequence

from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.state import due
from orchestrator.state.base import Lease, Message
from orchestrator.state.funnel import Funnel, command, run
from orchestrator.state.keys import TenantKeys
from orchestrator.state.refusals import inbox_full, lease_lost, no_conversation


class RedisInbox:
    def __init__(self, funnel: Funnel) -> None:
        self._funnel = funnel

    async def put(self, tenant: TenantId, id: ConversationId, *, client_id: str, content: str, limit: int) -> Message:
        t = TenantKeys(tenant)
        keys = (t.conversation(id), t.due, t.inbox(id), t.waiting(id))
        call = run("inbox_put", keys, id, client_id, content, limit, journal=t.journal)
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

    async def delivered(self, lease: Lease, sequence: int) -> None:
        t = TenantKeys(lease.tenant)
        keys = (t.conversation(lease.conversation), t.waiting(lease.conversation))
        call = run("inbox_delivered", keys, lease.owner, lease.fence, sequence, lease.conversation, journal=t.journal)
        if not await self._funnel.one(call):
            raise lease_lost(lease)
