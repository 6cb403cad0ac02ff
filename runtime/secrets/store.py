"""The user's named secrets, kept in secrets.json in the order in which they came.

Both secret surfaces (`/api/settings/secrets` and the older `/api/secrets`) write here, and a conversation reads from
here what a command names. Checking names and values is the caller's part (`runtime.secrets.names`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, SecretStr

from runtime.store.cipher import Cipher
from runtime.store.exposure import OptionalSecret
from runtime.store.sealed import SealedRecord


class StoredSecret(BaseModel):
    """One entry of the file. A secret that the current key cannot open has no value here."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    name: str
    secret: OptionalSecret = None
    description: str | None = None


class SecretsFile(BaseModel):
    """The file's layout, which is the contract's (3.4)."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    custom_secrets: dict[str, StoredSecret] = {}


SecretsChange = Callable[[Mapping[str, StoredSecret]], dict[str, StoredSecret]]


@dataclass(frozen=True)
class SecretEntry:
    """What may be listed of a secret."""

    name: str
    description: str | None


class NameTaken(Exception):
    """A secret of this name exists already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Secret {name} already exists")
        self.name = name


class SecretNotFound(Exception):
    """No secret has this name."""


class SecretStore:
    """Reads look at memory. Changes raise StoreUnreadable or OSError beside what they name, and then change nothing."""

    def __init__(self, directory: Path, cipher: Cipher) -> None:
        self._record = SealedRecord(SecretsFile, directory / "secrets.json", cipher)

    @property
    def readable(self) -> bool:
        """Whether everything that is stored can be opened."""
        return self._record.readable

    def get(self, name: str) -> SecretStr | None:
        """The value, or None when there is no such secret or the current key cannot open it."""
        found = self._record.read().custom_secrets.get(name)
        return found.secret if found is not None else None

    def entries(self) -> Sequence[SecretEntry]:
        """Every secret in insertion order, without values."""
        return [SecretEntry(found.name, found.description) for found in self._record.read().custom_secrets.values()]

    def put(self, name: str, value: SecretStr, *, description: str | None) -> None:
        """Create or replace; a replaced secret keeps its place in the order."""
        self._change(lambda secrets: {**secrets, name: StoredSecret(name=name, secret=value, description=description)})

    def create(self, name: str, value: SecretStr, *, description: str | None) -> None:
        """Create. Raises NameTaken."""

        def add(secrets: Mapping[str, StoredSecret]) -> dict[str, StoredSecret]:
            if name in secrets:
                raise NameTaken(name)
            return {**secrets, name: StoredSecret(name=name, secret=value, description=description)}

        self._change(add)

    def create_all(self, values: Mapping[str, SecretStr]) -> tuple[list[str], list[str]]:
        """Create those that are missing, all or none: returns (created, existing). Idempotent.

        Raises NameTaken for the first name that is stored with another value.
        """
        created: list[str] = []

        def add(secrets: Mapping[str, StoredSecret]) -> dict[str, StoredSecret]:
            for name in values:
                if name in secrets and secrets[name].secret != values[name]:
                    raise NameTaken(name)
            created.extend(name for name in values if name not in secrets)
            return {**secrets, **{name: StoredSecret(name=name, secret=values[name]) for name in created}}

        self._change(add)
        return created, [name for name in values if name not in created]

    def describe(self, name: str, *, new_name: str, description: str | None) -> None:
        """Rename and describe in place, value untouched. Raises SecretNotFound, NameTaken."""

        def rename(secrets: Mapping[str, StoredSecret]) -> dict[str, StoredSecret]:
            if name not in secrets:
                raise SecretNotFound
            if new_name != name and new_name in secrets:
                raise NameTaken(new_name)
            changed = StoredSecret(name=new_name, secret=secrets[name].secret, description=description)
            return {(new_name if key == name else key): changed if key == name else secrets[key] for key in secrets}

        self._change(rename)

    def delete(self, name: str) -> None:
        """Remove. Raises SecretNotFound."""

        def remove(secrets: Mapping[str, StoredSecret]) -> dict[str, StoredSecret]:
            if name not in secrets:
                raise SecretNotFound
            return {key: secret for key, secret in secrets.items() if key != name}

        self._change(remove)

    def _change(self, make: SecretsChange) -> None:
        self._record.change(lambda file: SecretsFile(custom_secrets=make(file.custom_secrets)))
