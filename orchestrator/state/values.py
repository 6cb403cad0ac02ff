"""What the stores take and answer beside the values of `domain/`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from orchestrator.domain.conversation import Desired, Phase
from orchestrator.domain.spending import Spent

T = TypeVar("T")
Sealed = str  #: text of `security/envelope.py`, never a value in the clear
OPERATION_TTL_MS = 24 * 3600 * 1000  #: how long an operation can be read after it ended


@dataclass(frozen=True)
class Page(Generic[T]):
    items: Sequence[T]
    next_cursor: str | None


@dataclass(frozen=True)
class Span:
    """At `since` or later, before `until`. Of creation, parts of a millisecond are not looked at. None: no bound."""

    since: datetime | None = None
    until: datetime | None = None


EVER = Span()


@dataclass(frozen=True)
class Glance:
    """What a list may choose by without reading a record whole."""

    phase: Phase
    desired: Desired
    title: str | None
    labels: Mapping[str, str]


@dataclass(frozen=True)
class StoredSecret:
    name: str
    description: str | None
    sealed: Sealed
    version: int


@dataclass(frozen=True)
class StoredProvider:
    name: str
    host: str | None
    user_id: str | None
    sealed: Sealed
    version: int


@dataclass(frozen=True)
class Message:
    """One entry of a conversation's inbox. `sequence` counts from 1 in the inbox."""

    sequence: int
    client_id: str
    content: str  #: JSON text
    delivered: bool  #: the runtime has it on its disk
    accepted: int | None = None  #: the number that it has in the event log, once it is there
    undeliverable: bool = False  #: its conversation was archived before it could be delivered


#: How the id of the mark of a gap begins. With its space it can be no runtime's event.
GAP = "gap "


@dataclass(frozen=True)
class StoredEvent:
    """One event of the conversation: `sequence` = 1 + its index in the runtime's own log; `payload` is JSON text. Or
    the mark of a gap, which stands for the numbers from `first` to `sequence` that will never come; for an event
    they are the same."""

    sequence: int
    id: str
    payload: str
    is_message: bool = field(default=False, compare=False)  #: of the user; said when it is appended, and not kept
    #: what it says that the conversation has used so far, as `is_message`
    spent: Spent | None = field(default=None, compare=False)
    first: int = 0  #: filled in

    def __post_init__(self) -> None:
        if not self.first:
            object.__setattr__(self, "first", self.sequence)

    @property
    def is_gap(self) -> bool:
        return self.first < self.sequence or self.id.startswith(GAP)


@dataclass(frozen=True)
class HeldEvents:
    """How much of a log the state server holds: the end of it, without a hole; nothing, where all is archived."""

    events: int
    size: int  #: bytes of their payloads
    last: int  #: the last sequence of the log, 0 for none
    archived: int | None  #: up to where the archive reached when this server last heard; None when it never did


@dataclass(frozen=True)
class Replay:
    """The stored answer of an earlier request with the same idempotency key."""

    request_digest: str
    status: int
    body: str  #: JSON text; empty while the first request is still being served
