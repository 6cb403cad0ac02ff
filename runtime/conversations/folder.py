"""A conversation's folder on disk: its record, its events, the outputs too long for an event.

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


class Folders:
    """All conversations' folders below one directory."""

    def __init__(self, directory: Path, cipher: Cipher) -> None:
        self._directory = directory
        self._cipher = cipher

    def path(self, conversation_id: UUID) -> Path:
        return self._directory / conversation_id.hex

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
        write_atomic(self.path(record.id) / _RECORD, content.encode())

    def read(self, conversation_id: UUID) -> ConversationRecord | None:
        """The record, with what the key cannot open as unset; None when it is missing or damaged, which is logged."""
        try:
            content = json.loads((self.path(conversation_id) / _RECORD).read_bytes())
            opening = Opening(self._cipher, stored=True)
            record = ConversationRecord.model_validate(content, context=opening)
        except (OSError, ValueError) as error:
            log.error("conversation.unreadable", conversation=str(conversation_id), error=type(error).__name__)
            return None
        if opening.unreadable:
            log.error("conversation.secrets_unreadable", conversation=str(conversation_id), values=opening.unreadable)
        return record

    def is_behind(self, record: ConversationRecord) -> bool:
        """Whether the log has something that the record does not know: a crash came between the two."""
        try:
            return (self.path(record.id) / LOG_NAME).stat().st_size != record.log_bytes
        except FileNotFoundError:
            return False

    def remove(self, conversation_id: UUID) -> None:
        """Remove all of it; the record first, so that half a removal is not found again. Raises OSError. Idempotent."""
        folder = self.path(conversation_id)
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
