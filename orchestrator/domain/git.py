"""Git providers: their names and public hosts, and the rule for a host that a caller sends."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.secrets import SecretText

PUBLIC_HOSTS = {
    "github": "github.com",
    "gitlab": "gitlab.com",
    "bitbucket": "bitbucket.org",
    "azure_devops": "dev.azure.com",
    "forgejo": "codeberg.org",
}
#: those without a public host: git gets their tokens only where a `host` is stored with them
PROVIDERS = (*PUBLIC_HOSTS, "bitbucket_data_center", "enterprise_sso")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?(:[0-9]{1,5})?")
_REPOSITORY = re.compile(r"(https?://[^\s/]+/)?[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)+/?")
_BRANCH = re.compile(r"[^\s~^:?*\[\\-][^\s~^:?*\[\\]*")
_CREDENTIALS = re.compile(r"://[^/]*@")  # the record is not sealed, and is shown
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]", "::1"})


@dataclass(frozen=True)
class GitProvider:
    """A provider with its token. `host` None means the provider's public host."""

    name: str
    token: SecretText
    host: str | None = None
    user_id: str | None = None

    @property
    def has_host(self) -> bool:
        """Whether there are repositories that it could be asked for."""
        return self.host is not None or self.name in PUBLIC_HOSTS


def check_provider_name(name: str) -> str:
    """`name` if it is a known provider; raises `InvalidRequest` that lists them."""
    if name not in PROVIDERS:
        raise InvalidRequest(
            f"{name[:40]!r} is no git provider", field="provider", hint=f"one of {', '.join(PROVIDERS)}"
        )
    return name


def check_token(text: str) -> SecretText:
    """`text` without blanks around it. Raises `InvalidRequest` for one that no git could be given."""
    token = text.strip()
    if not (token.isascii() and token.isprintable()):
        raise InvalidRequest(
            "the token has line ends, or other characters that no token has",
            field="token",
            hint="send the token alone, as the provider shows it",
        )
    return SecretText(token)


def check_repository(repository: str | None, branch: str | None) -> None:
    """Raises `InvalidRequest` for what is no repository or no branch, and for a branch without a repository."""
    if branch is not None and repository is None:
        raise InvalidRequest("branch is given without a repository", field="branch")
    if repository is not None and _CREDENTIALS.search(repository):
        raise InvalidRequest(
            "repository holds credentials", field="repository", hint="store them with PUT /api/v2/git-providers/{name}"
        )
    if branch is not None and not _BRANCH.fullmatch(branch):
        raise InvalidRequest(f"{branch[:80]!r} is no branch", field="branch")
    if repository is not None and not _REPOSITORY.fullmatch(repository):
        raise InvalidRequest(
            f"{repository[:80]!r} is no repository",
            field="repository",
            hint="send owner/name, or https://host/owner/name",
        )


def check_host(host: str | None, *, allow_http_hosts: frozenset[str]) -> str | None:
    """`host` as it is stored: a bare host, host:port, or an origin. Raises `InvalidRequest`.

    Plain http is accepted for loopback and for the hosts in `allow_http_hosts` only: a token travels in it.
    """
    if host is None or not host.strip():
        return None
    text = host.strip().rstrip("/")
    if "://" not in text:
        if not _HOST.fullmatch(text):
            raise InvalidRequest(
                f"{text[:80]!r} is not a host",
                field="host",
                hint="send git.example.org, git.example.org:8443 or https://git.example.org",
            )
        return text.lower()
    return _check_origin(text, allow_http_hosts)


def _check_origin(text: str, allow_http_hosts: frozenset[str]) -> str:
    try:
        parts = urlsplit(text)
    except ValueError:  # a bracket without its other one, or letters that are not what they look like
        parts = urlsplit("")
    if parts.scheme not in ("https", "http") or not parts.hostname or not _HOST.fullmatch(parts.netloc):
        raise InvalidRequest(
            "host is not an origin", field="host", hint="send https://git.example.org without a path or credentials"
        )
    if parts.path or parts.query or parts.fragment:
        raise InvalidRequest(
            "host has a path", field="host", hint="send the origin alone, such as https://git.example.org"
        )
    if parts.scheme == "http" and parts.hostname not in LOOPBACK | allow_http_hosts:
        raise InvalidRequest(
            "plain http would send the token in the clear",
            field="host",
            hint="use https, or let the operator name the host in NESTOR_ALLOW_HTTP_HOSTS",
        )
    return f"{parts.scheme}://{parts.netloc.lower()}"
