"""A conversation's folder on disk: its record, its events, versions of its workspace, outputs too long for an event.

The record is one sealed JSON file, replaced whole; without a secret key its secrets are left out of the file and live
in memory only. Blocking: call it in a thread. Knows no conversation in memory.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from uuid import UUID

import structlog

from runtime.conversations.record import ConversationRecord
from runtime.events.log import LOG_NAME
from runtime.store.cipher import Cipher
from runtime.store.exposure import Exposure, Opening, render
from runtime.store.files import private_directory, sync_directory, write_atomic

log = structlog.get_logger()

_RECORD = "conversation.json"
VERSIONS = "versions"
#: kept of a record whose secrets the key could not open, when it had to be written
_SEALED_OTHERWISE = ".sealed-with-another-key"


class Folders:
    """All conversations' folders below one directory."""

    def __init__(self, directory: Path, cipher: Cipher) -> None:
        self._directory = directory
        self._cipher = cipher
        #: each record's file as it was when we read or wrote it last, to see what others write
        self._known: dict[UUID, tuple[int, int] | None] = {}
        self._writing: set[UUID] = set()
        #: records with values that the key could not open, and records that the current key should seal anew
        self._unreadable: set[UUID] = set()
        self._stale: set[UUID] = set()
        #: the former, and those that were written since, so that what they held lies beside them
        self._sealed_otherwise: set[UUID] = set()

    @property
    def sealed_otherwise(self) -> int:
        """How many conversations have values that another key sealed, which read as unset and are kept."""
        return len(self._sealed_otherwise)

    def path(self, conversation_id: UUID) -> Path:
        return self._directory / conversation_id.hex

    def versions(self, conversation_id: UUID) -> Path:
        """Where versions of its workspace are kept (`versions.py`); not there before there is one."""
        return self.path(conversation_id) / VERSIONS

    def make(self, conversation_id: UUID) -> Path:
        """The conversation's folder, made when missing. Raises OSError."""
        private_directory(self._directory)
        return private_directory(self.path(conversation_id))

    def begin(self, record: ConversationRecord) -> None:
        """The folder of a new conversation, with its record. Raises OSError."""
        self.make(record.id)
        self.write(record)

    def ids(self) -> list[UUID]:
        """Every conversation that has a record."""
        if not self._directory.is_dir():
            return []
        found = [entry.name for entry in self._directory.iterdir() if (entry / _RECORD).is_file()]
        return [UUID(hex=name) for name in found if _is_hex_id(name)]

    def write(self, record: ConversationRecord) -> None:
        """Replace the record. Raises OSError; then the old one stands."""
        exposure = Exposure.ENCRYPTED if self._cipher.available else Exposure.WITHHELD
        content = json.dumps(render(record, exposure, self._cipher), ensure_ascii=False)
        self._writing.add(record.id)
        try:
            path = self.path(record.id) / _RECORD
            if record.id in self._unreadable:
                # What another key sealed would be gone with this write: it stays beside the new record, as it was.
                write_atomic(self._kept(record.id), path.read_bytes())
                self._unreadable.discard(record.id)
            write_atomic(path, content.encode())
            self._stale.discard(record.id)
            self._known[record.id] = self._stamp(record.id)
        finally:
            self._writing.discard(record.id)

    def is_stale(self, conversation_id: UUID) -> bool:
        """Whether the current key should seal it anew, so that an earlier one can be dropped."""
        return conversation_id in self._stale

    def is_changed(self, conversation_id: UUID) -> bool:
        """Whether somebody else wrote or removed the record since we did."""
        if conversation_id in self._writing:
            return False
        return self._stamp(conversation_id) != self._known.get(conversation_id)

    def forget(self, conversation_id: UUID) -> None:
        """Count the record as changed, whatever is in its file."""
        self._known[conversation_id] = (0, 0)

    def _stamp(self, conversation_id: UUID) -> tuple[int, int] | None:
        try:
            found = (self.path(conversation_id) / _RECORD).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def read(self, conversation_id: UUID) -> ConversationRecord | None:
        """The record, with what the key cannot open as unset; None when it is missing, or damaged, which is logged."""
        stamp = self._stamp(conversation_id)
        if stamp is None:
            self._known.pop(conversation_id, None)
        else:
            self._known[conversation_id] = stamp
        try:
            content = json.loads((self.path(conversation_id) / _RECORD).read_bytes())
            opening = Opening(self._cipher, stored=True)
            record = ConversationRecord.model_validate(content, context=opening)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.error("conversation.unreadable", conversation=str(conversation_id), error=type(error).__name__)
            return None
        if opening.unreadable or self._kept(conversation_id).exists():
            self._sealed_otherwise.add(conversation_id)
        else:
            self._sealed_otherwise.discard(conversation_id)
        if opening.unreadable:
            self._unreadable.add(conversation_id)
            log.error("conversation.secrets_unreadable", conversation=str(conversation_id), values=opening.unreadable)
        elif opening.stale and self._cipher.available:
            self._stale.add(conversation_id)
        return record

    def _kept(self, conversation_id: UUID) -> Path:
        return (self.path(conversation_id) / _RECORD).with_suffix(_SEALED_OTHERWISE)

    def is_behind(self, record: ConversationRecord) -> bool:
        """Whether the log has something that the record does not know: a crash came between the two."""
        try:
            return (self.path(record.id) / LOG_NAME).stat().st_size != record.log_bytes
        except FileNotFoundError:
            return False

    def remove(self, conversation_id: UUID) -> None:
        """Remove all of it; the record first, so that half a removal is not found again. Raises OSError. Idempotent."""
        folder = self.path(conversation_id)
        self._known.pop(conversation_id, None)
        self._sealed_otherwise.discard(conversation_id)
        if not folder.is_dir():
            return
        (folder / _RECORD).unlink(missing_ok=True)
        sync_directory(folder)
        shutil.rmtree(folder)


def _is_hex_id(name: str) -> bool:
    try:
        return UUID(hex=name).hex == name
    except ValueError:
        return False
