"""The user's git providers: which hosts, and the tokens for them, kept in git_providers.json.

The older configuration call writes them, git's credential helper and the older conversation body read them. Nothing
here talks to a provider.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr

from runtime.store.cipher import Cipher
from runtime.store.exposure import OptionalSecret
from runtime.store.sealed import SealedRecord

#: provider name -> its public host, which a provider without a host means
PUBLIC_HOSTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "github": "github.com",
        "gitlab": "gitlab.com",
        "bitbucket": "bitbucket.org",
        "azure_devops": "dev.azure.com",
        "forgejo": "codeberg.org",
    }
)
#: those without a public host: without one of their own they have no repositories
PROVIDERS: Final = (*PUBLIC_HOSTS, "bitbucket_data_center", "enterprise_sso")
_HOST = re.compile(r"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


class InvalidHost(ValueError):
    """The host of a git provider is not a host, host:port or http(s) origin without a path or a user name."""

    def __init__(self) -> None:
        super().__init__("host must be a host name, host:port, or an http(s) origin without path or user name")


def check_host(host: str) -> str:
    """The host without a trailing slash. Raises InvalidHost."""
    text = host.strip().removesuffix("/")
    authority = text
    if "://" in text:
        parts = urlsplit(text)
        if parts.scheme not in {"http", "https"} or f"{parts.scheme}://{parts.netloc}" != text:
            raise InvalidHost
        authority = parts.netloc
    if not _HOST.fullmatch(authority):
        raise InvalidHost
    return text


@dataclass(frozen=True)
class GitProvider:
    """One provider. `host` is a bare host, host:port or an origin (https when it names none); None is the public host.

    `repositories` is the list that the caller asked to be limited to; empty means no limit.
    """

    name: str
    token: SecretStr | None
    host: str | None
    user_id: str | None
    repositories: tuple[str, ...] = ()

    @property
    def has_host(self) -> bool:
        """Whether there are repositories that it could be asked for."""
        return self.host is not None or self.name in PUBLIC_HOSTS


class StoredProvider(BaseModel):
    """One entry of the file."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    token: OptionalSecret = None
    host: str | None = None
    user_id: str | None = None
    repositories: list[str] = []


class ProvidersFile(BaseModel):
    """The file's layout."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    git_providers: dict[str, StoredProvider] = {}


class GitProviderStore:
    """Reads look at memory. Changes raise StoreUnreadable or OSError and then change nothing."""

    def __init__(self, directory: Path, cipher: Cipher) -> None:
        self._record = SealedRecord(ProvidersFile, directory / "git_providers.json", cipher)

    @property
    def readable(self) -> bool:
        """Whether everything that is stored can be opened."""
        return self._record.readable

    def all(self) -> Mapping[str, GitProvider]:
        """Every stored provider by name."""
        return {name: _opened(name, found) for name, found in self._record.read().git_providers.items()}

    def replace(self, providers: Sequence[GitProvider], *, keep_others: bool = False) -> None:
        """Make these the stored providers: one without a token keeps the stored token, one not named is dropped unless
        `keep_others`."""

        def merge(file: ProvidersFile) -> ProvidersFile:
            kept = {name: found.token for name, found in file.git_providers.items()}
            merged = [replace(item, token=item.token or kept.get(item.name)) for item in providers]
            others = file.git_providers if keep_others else {}
            return ProvidersFile(git_providers={**others, **{item.name: _stored(item) for item in merged}})

        self._record.change(merge)

    def clear(self) -> None:
        """Forget every provider. Idempotent."""
        self._record.change(lambda _: ProvidersFile())


def _opened(name: str, found: StoredProvider) -> GitProvider:
    return GitProvider(name, found.token, found.host, found.user_id, tuple(found.repositories))


def _stored(item: GitProvider) -> StoredProvider:
    return StoredProvider(token=item.token, host=item.host, user_id=item.user_id, repositories=list(item.repositories))
