"""What a place for segments has to do: hold named pieces in folders, each whole or not at all."""

from collections.abc import Sequence
from typing import Protocol

from orchestrator.domain.errors import StoreUnavailable


class EventsUnavailable(StoreUnavailable):
    """The archive of events cannot be used now."""

    code = "event_archive_unavailable"


class Missing(Exception):
    """There is no such piece (any more)."""


class Place(Protocol):
    """Names are relative, with slashes. All methods raise `EventsUnavailable`."""

    async def put(self, name: str, content: bytes) -> None:
        """There for good when this returns, and never in part. One that is there is replaced."""
        ...

    async def put_new(self, name: str, content: bytes) -> None:
        """The same; one that is there stays."""
        ...

    async def get(self, name: str, *, offset: int, length: int) -> bytes:
        """Some bytes of it; a negative `offset` counts from the end, as far as there are so many. Raises `Missing`."""
        ...

    async def names(self, folder: str) -> Sequence[str]:
        """The names of the pieces right in a folder; of one that is not there, none."""
        ...

    async def below(self) -> Sequence[str]:
        """The names of all pieces, wherever they are."""
        ...

    async def remove(self, name: str) -> None:
        """One that is gone is fine."""
        ...

    async def remove_folder(self, folder: str) -> None:
        """All that is in it and below. One that is gone is fine."""
        ...

    async def room(self) -> int | None:
        """Bytes that are left; None where that has no end."""
        ...

    async def close(self) -> None: ...
