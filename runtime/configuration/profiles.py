"""Named models of this runtime's user, kept sealed in profiles.json.

The profile routes change them, the settings and a conversation can take one over. Names are checked where they enter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from runtime.configuration.record import LlmSettings
from runtime.store.cipher import Cipher
from runtime.store.sealed import SealedRecord


class ProfileNotFound(Exception):
    """No profile has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Profile '{name}' not found")


class ProfileExists(Exception):
    """Another profile has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Profile '{name}' already exists")


class ProfilesRecord(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    profiles: dict[str, LlmSettings] = {}


class ProfileStore:
    """Reads never fail; changes raise StoreUnreadable and OSError."""

    def __init__(self, directory: Path, cipher: Cipher) -> None:
        self._record = SealedRecord(ProfilesRecord, directory / "profiles.json", cipher)

    @property
    def readable(self) -> bool:
        """Whether everything that is stored can be opened."""
        return self._record.readable

    def all(self) -> Mapping[str, LlmSettings]:
        """By name, in the order in which they were first saved."""
        return self._record.read().profiles

    def get(self, name: str) -> LlmSettings:
        """Raises ProfileNotFound."""
        try:
            return self._record.read().profiles[name]
        except KeyError:
            raise ProfileNotFound(name) from None

    def put(self, name: str, llm: LlmSettings) -> None:
        """Save it, or replace the one of that name."""
        self._change(lambda profiles: {**profiles, name: llm})

    def delete(self, name: str) -> None:
        """Raises ProfileNotFound."""

        def without(profiles: dict[str, LlmSettings]) -> dict[str, LlmSettings]:
            if name not in profiles:
                raise ProfileNotFound(name)
            return {key: llm for key, llm in profiles.items() if key != name}

        self._change(without)

    def rename(self, name: str, new_name: str) -> None:
        """Raises ProfileNotFound, ProfileExists. The same name: nothing happens."""

        def renamed(profiles: dict[str, LlmSettings]) -> dict[str, LlmSettings]:
            if name not in profiles:
                raise ProfileNotFound(name)
            if new_name in profiles and new_name != name:
                raise ProfileExists(new_name)
            return {new_name if key == name else key: llm for key, llm in profiles.items()}

        self._change(renamed)

    def _change(self, make: Callable[[dict[str, LlmSettings]], dict[str, LlmSettings]]) -> None:
        self._record.change(lambda record: ProfilesRecord(profiles=make(record.profiles)))
