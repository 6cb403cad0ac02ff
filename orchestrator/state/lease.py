"""What a holder of a conversation has in its hand. Part of what the stores promise (`base.py`)."""

from dataclasses import dataclass

from orchestrator.domain.ids import ConversationId, TenantId


@dataclass(frozen=True)
class Lease:
    """The right to act on one conversation. `fence` goes into every write."""

    tenant: TenantId
    conversation: ConversationId
    owner: str
    fence: int
