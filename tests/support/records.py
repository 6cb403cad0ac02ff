"""Records that many tests start from."""

from datetime import UTC, datetime

from orchestrator.domain.conversation import Conversation, RuntimeRecord, StartRequest
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId, new_uuid
from orchestrator.state.base import Lease, Store

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def a_conversation(tenant: str = "") -> Conversation:
    """A pending conversation of a tenant of its own."""
    return Conversation(
        id=ConversationId(new_uuid()),
        tenant=TenantId(tenant or new_uuid()),
        user=None,
        request=StartRequest(),
        created_at=NOW,
        updated_at=NOW,
        phase_since=NOW,
        runtime=RuntimeRecord(RuntimeId(new_uuid()), generation=0),
    )


async def claimed(store: Store, *, lease_ms: int = 60_000) -> Lease:
    """The lease of a conversation that was made for it."""
    conversation = await store.conversations.create(a_conversation())
    taken = await store.conversations.claim(conversation.tenant, conversation.id, "a test", lease_ms=lease_ms)
    assert taken is not None
    return taken[0]
