"""Which provider a repository belongs to, where it is cloned from, and who may be asked for a token.

Pure: used by the clone of the older conversation body and by the credential service. A token is matched by scheme, host
with port, and (where the provider is limited to some) repository, never by a name alone.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from runtime.secrets.providers import PUBLIC_HOSTS, GitProvider

_OWNER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.~-]*(/[A-Za-z0-9_][A-Za-z0-9_.~-]*)+")
_USERNAMES = {"github": "x-access-token", "gitlab": "oauth2", "bitbucket": "x-token-auth"}


class InvalidRepository(ValueError):
    """The repository cannot be cloned as named; the text says what to give instead and holds no credential."""


class AmbiguousProvider(InvalidRepository):
    """Several providers are configured and none was chosen."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"several git providers are configured: set git_provider to one of {', '.join(sorted(names))}")


@dataclass(frozen=True)
class Remote:
    """A repository's URL, without credentials, and the directory name of its clone."""

    url: str
    name: str


def origin_of(provider: GitProvider) -> str:
    """`https://host[:port]` of the provider, or the http origin that it was configured with."""
    host = provider.host or PUBLIC_HOSTS.get(provider.name, provider.name)
    return host if "://" in host else f"https://{host}"


def username_for(provider: GitProvider) -> str:
    return _USERNAMES.get(provider.name) or provider.user_id or "git"


def is_plain_http_allowed(host: str, allowed: Sequence[str]) -> bool:
    """Whether http may be spoken to this host (port or not): on loopback, or where the operator says so."""
    try:
        bare = urlsplit(f"http://{host}").hostname or ""
    except ValueError:
        return False
    if host in allowed or bare in allowed or bare == "localhost":
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


def remote_for(
    repository: str, *, chosen: str | None, providers: Mapping[str, GitProvider], http_hosts: Sequence[str]
) -> Remote:
    """Where to clone `repository` (owner/name or a URL) from. Raises InvalidRepository, AmbiguousProvider."""
    if "://" in repository:
        return _remote_of_url(repository, http_hosts)
    path = repository.removesuffix(".git")
    if not _OWNER_NAME.fullmatch(path) or ".." in path:
        raise InvalidRepository("repository must be owner/name or an https URL")
    return _remote_of_url(f"{origin_of(_choose(chosen, providers))}/{path}.git", http_hosts)


def _choose(chosen: str | None, providers: Mapping[str, GitProvider]) -> GitProvider:
    if chosen is not None:
        return providers.get(chosen) or GitProvider(chosen, None, None, None)
    asked = {name: provider for name, provider in providers.items() if provider.has_host}
    if len(asked) > 1:
        raise AmbiguousProvider(list(asked))
    return next(iter(asked.values()), GitProvider("github", None, None, None))


def _remote_of_url(url: str, http_hosts: Sequence[str]) -> Remote:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for what is no number
    except ValueError:
        raise InvalidRepository("a repository URL must be well-formed") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidRepository("repository must be owner/name or an https URL")
    if parts.username is not None or parts.password is not None:
        raise InvalidRepository("a repository URL must not hold credentials: configure a git provider instead")
    if parts.query or parts.fragment or any(ord(letter) <= 32 for letter in url):
        raise InvalidRepository("a repository URL must be a plain path on a host")
    if parts.scheme == "http" and not is_plain_http_allowed(parts.netloc, http_hosts):
        raise InvalidRepository("plain http is only spoken to loopback or allow_http_hosts: use https")
    name = parts.path.rstrip("/").rpartition("/")[2].removesuffix(".git")
    if not name or name.startswith((".", "-")):
        raise InvalidRepository("a repository URL must end in the repository's name")
    return Remote(url=url, name=name)


def provider_for(
    attributes: Mapping[str, str], providers: Mapping[str, GitProvider], http_hosts: Sequence[str]
) -> GitProvider | None:
    """The provider whose token git may have for this protocol, host and path; None when it is nobody's."""
    protocol, host = attributes.get("protocol", ""), attributes.get("host", "").lower()
    if protocol != "https" and not (protocol == "http" and is_plain_http_allowed(host, http_hosts)):
        return None
    for provider in providers.values():
        if provider.token is None:
            continue
        origin = urlsplit(origin_of(provider))
        if origin.scheme == protocol and origin.netloc.lower() == host and _covers(provider, attributes):
            return provider
    return None


def _covers(provider: GitProvider, attributes: Mapping[str, str]) -> bool:
    if not provider.repositories:
        return True
    # useHttpPath makes git send the path; a service suffix may follow the repository.
    path = re.sub(r"/(info/.*|git-[a-z-]+)$", "", attributes.get("path", "")).strip("/").removesuffix(".git")
    return path.lower() in {repository.strip("/").removesuffix(".git").lower() for repository in provider.repositories}
