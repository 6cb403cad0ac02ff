"""The identifiers of everything Nestor keeps, and the one way to read one that came from outside.

All ids are random UUIDs, lower case with dashes; callers may send them without dashes (api-conventions.md 1).
"""

import re
import uuid
from datetime import timedelta
from typing import NewType

from orchestrator.domain.errors import InvalidRequest

TenantId = NewType("TenantId", str)
UserId = NewType("UserId", str)
KeyId = NewType("KeyId", str)
ConversationId = NewType("ConversationId", str)
RuntimeId = NewType("RuntimeId", str)
OperationId = NewType("OperationId", str)
MessageId = NewType("MessageId", str)
HookId = NewType("HookId", str)
#: an `Idempotency-Key`, and the id that follows from it, mean their first request for so long (api-conventions.md 3)
REPEATABLE_FOR = timedelta(hours=24)
_DIGITS = re.compile(r"[0-9a-fA-F]{32}")


def new_uuid() -> str:
    """A fresh random id in the canonical form."""
    return str(uuid.uuid4())


def parse_uuid(text: str, what: str = "id") -> str:
    """The canonical form of an id that a caller sent, with or without dashes, in either case.

    Raises `InvalidRequest` naming `what`.
    """
    compact = text.replace("-", "")
    if not _DIGITS.fullmatch(compact) or len(text) not in (32, 36):
        raise InvalidRequest(
            f"{what} is not a UUID", field=what, hint="send 32 hexadecimal digits, with or without dashes"
        )
    return str(uuid.UUID(hex=compact))


def message_event_id(conversation: ConversationId, client_id: str) -> str:
    """The event id under which a message enters the runtime's log: the same message always has the same id."""
    return str(uuid.uuid5(uuid.UUID(conversation), client_id))
