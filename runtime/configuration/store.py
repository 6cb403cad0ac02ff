"""The settings of this runtime's user, kept in settings.json.

The settings routes change them, conversations read them. Profiles do not exist here, so nothing else is consulted.
"""

from collections.abc import Callable
from pathlib import Path

from runtime.configuration.record import SettingsRecord
from runtime.store.cipher import Cipher
from runtime.store.sealed import SealedRecord


class SettingsStore:
    """Reads are cheap and never fail; with nothing stored they return the defaults."""

    def __init__(self, directory: Path, cipher: Cipher) -> None:
        self._record = SealedRecord(SettingsRecord, directory / "settings.json", cipher)

    @property
    def stored(self) -> bool:
        """Whether settings were ever stored; the older conversation body is refused before that."""
        return self._record.stored

    @property
    def readable(self) -> bool:
        """Whether everything that is stored can be opened."""
        return self._record.readable

    def read(self) -> SettingsRecord:
        """The settings now, secrets open as SecretStr. Treat the record as frozen."""
        return self._record.read()

    def change(self, make: Callable[[SettingsRecord], SettingsRecord]) -> SettingsRecord:
        """Replace the settings under the store's lock. Raises StoreUnreadable, OSError, and what `make` raises."""
        return self._record.change(make)
