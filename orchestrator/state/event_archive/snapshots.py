"""Snapshots beside the event log of their conversation: the stream of a copy in pieces, and a manifest that names them.

They are in the folder of all that has the conversation's id, so they go with its log. A snapshot is there when its
manifest is, which is written last and removed first. What a broken-off one left is found by the mark that was written
before its first piece. The bytes are a runtime's own (`/api/conversations/{id}/copy/archive`); nothing is read in them.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import anyio
import structlog
from pydantic import TypeAdapter, ValidationError

from orchestrator.domain.errors import TooLarge
from orchestrator.domain.snapshots import Snapshot, SnapshotId
from orchestrator.state.event_archive.places import EventsUnavailable, Missing, Place

log = structlog.get_logger(__name__)
PIECE_BYTES = 4 * 1024 * 1024
ABANDONED = timedelta(days=1)  #: a snapshot that was begun so long ago and is not there will never be
KEPT_FREE_BYTES = 500_000_000  #: of the disk, for the logs that have to be archived there
_MANIFEST, _BEGUN = ".json", ".begun"
_LONGEST_MANIFEST = 8 * 1024 * 1024


@dataclass(frozen=True)
class _Piece:
    size: int
    digest: str


@dataclass(frozen=True)
class _Manifest:
    snapshot: Snapshot
    pieces: tuple[_Piece, ...]


_manifest = TypeAdapter(_Manifest)


class DamagedSnapshot(EventsUnavailable):
    """A piece of a snapshot is damaged or gone."""

    code = "snapshot_damaged"


class NoRoom(EventsUnavailable):
    """The disk of the archive is nearly full: what is left of it is for event logs."""

    code = "snapshot_no_room"
    default_retry_after = 60.0


class SnapshotArchive:
    """`home` is the folder of the conversation's log (`archive.Log.home`). All methods raise `EventsUnavailable`."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def begin(self, home: str, id: SnapshotId, now: datetime) -> None:
        """Before its first piece; what others left that broke off long ago is removed."""
        for name in await self._place.names(_folder(home)):
            if name.endswith(_BEGUN):
                await self._sweep(home, SnapshotId(name.removesuffix(_BEGUN)), now)
        await self._write(f"{_folder(home)}/{id}{_BEGUN}", now.isoformat().encode())

    async def write(
        self, home: str, id: SnapshotId, pieces: AsyncIterator[bytes], *, limit_bytes: int
    ) -> Sequence[_Piece]:
        """All of `pieces`, for `finish`. Raises `TooLarge` beyond `limit_bytes`, `NoRoom`, and what `pieces` raises;
        then what was written is to be removed with `remove`."""
        written: list[_Piece] = []
        gathered, size = bytearray(), 0
        async for piece in pieces:
            gathered += piece
            size += len(piece)
            if size > limit_bytes:
                raise TooLarge(
                    f"log and workspace together are larger than a snapshot may be ({limit_bytes} bytes)",
                    hint="remove from the workspace what can be made again",
                )
            while len(gathered) >= PIECE_BYTES:
                await self._put(home, id, written, bytes(gathered[:PIECE_BYTES]))
                del gathered[:PIECE_BYTES]
        if gathered:
            await self._put(home, id, written, bytes(gathered))
        return written

    async def finish(self, home: str, snapshot: Snapshot, pieces: Sequence[_Piece]) -> None:
        """From now on it is there."""
        content = _manifest.dump_json(_Manifest(snapshot, tuple(pieces)))
        await self._write(f"{_folder(home)}/{snapshot.id}{_MANIFEST}", content)
        await self._place.remove(f"{_folder(home)}/{snapshot.id}{_BEGUN}")

    async def present(self, home: str) -> Sequence[Snapshot]:
        """Those that are there, the oldest first. One whose manifest cannot be read is left out, and named in the
        log."""
        found = []
        for name in await self._place.names(_folder(home)):
            if name.endswith(_MANIFEST) and "/" not in name:
                manifest = await self._read(home, SnapshotId(name.removesuffix(_MANIFEST)))
                found += [] if manifest is None else [manifest.snapshot]
        return sorted(found, key=lambda one: (one.created_at, one.id))

    async def pieces(self, home: str, id: SnapshotId) -> AsyncIterator[bytes]:
        """What was written. Raises `Missing` before the first piece where there is no such snapshot, and
        `DamagedSnapshot`."""
        manifest = await self._read(home, id)
        if manifest is None:
            raise Missing
        for number, piece in enumerate(manifest.pieces):
            name = _name(home, id, number)
            try:
                content = await self._place.get(name, offset=0, length=piece.size + 1)
            except Missing:
                content = b""
            if len(content) != piece.size or hashlib.sha256(content).hexdigest() != piece.digest:
                log.error("snapshot.damaged", place=name, hint="bring it back from a copy, or remove the snapshot")
                raise DamagedSnapshot("a part of this snapshot is damaged", hint="use another one, and remove it")
            yield content

    async def remove(self, home: str, id: SnapshotId) -> bool:
        """Whatever there is of it; whether it was there."""
        folder = _folder(home)
        there = f"{id}{_MANIFEST}" in await self._place.names(folder)
        await self._place.remove(f"{folder}/{id}{_MANIFEST}")
        await self._place.remove_folder(f"{folder}/{id}")
        await self._place.remove(f"{folder}/{id}{_BEGUN}")
        return there

    async def remove_all(self, home: str) -> None:
        """None there: fine."""
        await self._place.remove_folder(_folder(home))

    async def _put(self, home: str, id: SnapshotId, written: list[_Piece], content: bytes) -> None:
        room = await self._place.room()
        if room is not None and room < KEPT_FREE_BYTES + len(content):
            raise NoRoom("no room is left where snapshots are kept", hint="remove some, or tell the operator")
        await self._write(_name(home, id, len(written)), content)
        written.append(_Piece(len(content), hashlib.sha256(content).hexdigest()))

    async def _write(self, name: str, content: bytes) -> None:
        """To its end, also when it is cancelled: its thread goes on by itself, and would write behind the removal."""
        with anyio.CancelScope(shield=True):
            await self._place.put(name, content)

    async def _read(self, home: str, id: SnapshotId) -> _Manifest | None:
        try:
            name = f"{_folder(home)}/{id}{_MANIFEST}"
            return _manifest.validate_json(await self._place.get(name, offset=0, length=_LONGEST_MANIFEST))
        except Missing:
            return None
        except ValidationError:
            log.error("snapshot.unreadable", place=f"{_folder(home)}/{id}", hint="remove it, or bring it back")
            return None

    async def _sweep(self, home: str, id: SnapshotId, now: datetime) -> None:
        try:
            begun = (await self._place.get(f"{_folder(home)}/{id}{_BEGUN}", offset=0, length=64)).decode("ascii")
            if now - datetime.fromisoformat(begun) < ABANDONED:
                return
        except (Missing, ValueError, TypeError):
            return
        if await self._read(home, id) is None:
            await self.remove(home, id)


def _folder(home: str) -> str:
    return f"{home}/snapshots"


def _name(home: str, id: SnapshotId, number: int) -> str:
    return f"{_folder(home)}/{id}/{number:06}"
