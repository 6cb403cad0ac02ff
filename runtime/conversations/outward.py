"""Who beyond the sockets hears of a conversation: the seam to webhooks. Nobody, unless some are configured."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from runtime.events.models import Event
from runtime.secrets.masking import Mask


class Outward(Protocol):
    """Told after the fact, in the event loop; never waits, never raises."""

    @property
    def hears(self) -> bool:
        """Whether anybody listens, so that nothing need be made for nobody."""
        ...

    def stored(self, conversation_id: UUID, *, events: int, size: int) -> None:
        """The log has `events` events now; those that are new have `size` bytes."""
        ...

    def live(self, conversation_id: UUID, event: Event, *, events: int, mask: Mask) -> None:
        """An event that is not stored, not masked yet, after the first `events` of the log."""
        ...

    def changed(self, conversation_id: UUID, *, events: int, flush: bool) -> None:
        """The conversation is not what it was. With `flush`, nothing of it is held back any longer."""
        ...

    async def leaving(self, conversation_id: UUID) -> None:
        """The conversation is about to be removed: keep what somebody still waits for. Its log is still open."""
        ...

    def left(self, conversation_id: UUID) -> None:
        """It has been removed."""
        ...


class Nobody:
    """No webhooks."""

    hears = False

    def stored(self, conversation_id: UUID, *, events: int, size: int) -> None:
        return

    def live(self, conversation_id: UUID, event: Event, *, events: int, mask: Mask) -> None:
        return

    def changed(self, conversation_id: UUID, *, events: int, flush: bool) -> None:
        return

    async def leaving(self, conversation_id: UUID) -> None:
        return

    def left(self, conversation_id: UUID) -> None:
        return
