"""Where the value of a conversation's secret comes from: given with it (static), or fetched when it is needed (lookup).

`Lookup` resolves both. A lookup whose URL is this very runtime is answered from the secret store in-process, because a
call to ourselves would wait on ourselves; other hosts are fetched within limits of time, size and host, since the URL
came from outside. Knows nothing of commands or shells.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import structlog
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from runtime.secrets.providers import GitProviderStore
from runtime.secrets.store import SecretStore
from runtime.settings import RuntimeSettings
from runtime.store.exposure import OptionalSecret, SecretMap

log = structlog.get_logger()

LOOKUP_SECONDS = 30.0
LOOKUP_BYTES = 64 * 1024
_OWN_PATH = "/settings/secrets/"
_RESOLVE_SECONDS = 5.0

#: of getaddrinfo
Found = tuple[int, int, int, str, Any]
Resolve = Callable[[str, int], Awaitable[Sequence[Found]]]


class SourceRecord(BaseModel):
    """Unknown fields are dropped: the two kinds share one wire map and newer clients send more."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)
    omitted_when_null: ClassVar[frozenset[str]] = frozenset()


class StaticSecret(SourceRecord):
    description: str | None = None
    value: OptionalSecret = None
    kind: Literal["StaticSecret"] = "StaticSecret"


class LookupSecret(SourceRecord):
    description: str | None = None
    url: Annotated[str, Field(min_length=1, max_length=2048)]
    headers: SecretMap = {}
    kind: Literal["LookupSecret"] = "LookupSecret"


SecretSource = Annotated[StaticSecret | LookupSecret, Field(discriminator="kind")]


class LookupFailed(Exception):
    """The secret could not be fetched; the text says why and holds neither value nor headers."""


class Lookup:
    """Resolves sources for this runtime."""

    def __init__(
        self,
        settings: RuntimeSettings,
        secret_store: SecretStore,
        providers: GitProviderStore | None = None,
        *,
        resolve: Resolve | None = None,
    ) -> None:
        self._resolve = resolve or _resolve
        self._settings = settings
        self._store = secret_store
        self._providers = providers
        self._own = {origin for url in settings.public_urls if (origin := _origin(urlsplit(url)))}
        internal = _origin(urlsplit(settings.internal_server_url))
        if internal:
            self._own.add(internal)

    async def value(self, name: str, source: StaticSecret | LookupSecret) -> SecretStr | None:
        """The secret's value; None when it has none or cannot be had, which is logged without the value."""
        if isinstance(source, StaticSecret):
            return source.value
        try:
            return await self._look_up(source)
        except LookupFailed as failure:
            log.warning("secret.lookup_failed", secret=name, reason=str(failure))
            return None

    async def _look_up(self, source: LookupSecret) -> SecretStr:
        parts = _split(self._settings.internal_server_url, source.url)
        if await self._is_own(parts):
            return self._from_store(parts)
        self._check_host(parts)
        return await _fetch(parts.geturl(), source.headers)

    async def _is_own(self, parts: SplitResult) -> bool:
        """However it is spelt: by a name given to us, or by any address of this machine with the port we listen on."""
        if _origin(parts) in self._own:
            return True
        port = parts.port or 80
        if port != self._settings.listen_port or parts.scheme != "http":
            return False
        host = unquote(parts.hostname or "").rstrip(".")
        return any(map(is_here, await self._addresses(host, port)))

    async def _addresses(self, host: str, port: int) -> Sequence[str]:
        """None of a name that nobody knows: a request will find that out too."""
        try:
            found = await self._resolve(host, port)
        except (OSError, UnicodeError):
            return []
        return [str(address[4][0]) for address in found]

    def _from_store(self, parts: SplitResult) -> SecretStr:
        _, found, name = parts.path.rpartition(_OWN_PATH)
        if not found:
            raise LookupFailed("the url is this runtime's own but names no stored secret")
        value = self._store.get(unquote(name)) or self._token(unquote(name))
        if value is None:
            raise LookupFailed("no stored secret has this name")
        return value

    def _token(self, name: str) -> SecretStr | None:
        """Of the git provider whose token clients call so: `github_token`. A secret of that name goes before it."""
        provider, found, _ = name.rpartition("_token")
        known = self._providers.all().get(provider) if found and self._providers is not None else None
        return None if known is None else known.token

    def _check_host(self, parts: SplitResult) -> None:
        """Only hosts that were named may be asked: a URL is a way to reach what only we can reach."""
        if not any(_names(host.lower(), parts) for host in self._settings.lookup_secret_hosts):
            raise LookupFailed("the url's host is not in lookup_secret_hosts")


def _names(allowed: str, parts: SplitResult) -> bool:
    """Whether a host, or a host:port, is that of the URL; `*.` at its beginning stands for everything below it."""
    host = parts.hostname or ""
    bracketed = f"[{host}]" if ":" in host else host
    port = parts.port or (443 if parts.scheme == "https" else 80)
    spellings = (host, bracketed, f"{bracketed}:{port}")
    if allowed.startswith("*."):
        return any(spelling.endswith(allowed[1:]) for spelling in spellings)
    return allowed in spellings


def _split(base: str, url: str) -> SplitResult:
    try:
        parts = urlsplit(urljoin(base, url))
        _ = parts.port  # raises for what is no number
    except ValueError:
        raise LookupFailed("the url is malformed") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise LookupFailed("the url must be http or https")
    return parts


def _origin(parts: SplitResult) -> str | None:
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{parts.hostname}:{port}"


async def _resolve(host: str, port: int) -> Sequence[Found]:
    async with asyncio.timeout(_RESOLVE_SECONDS):
        return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


def is_here(address: str) -> bool:
    """Whether the address is one of this machine: only such can be bound."""
    plain = address.partition("%")[0]
    try:
        found = ipaddress.ip_address(plain)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if found.is_loopback or found.is_unspecified:
        return True
    family = socket.AF_INET if found.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as trial:
            trial.bind((str(found), 0))
    except OSError:
        return False
    return True


async def _fetch(url: str, headers: Mapping[str, SecretStr]) -> SecretStr:
    # Few runtimes ever fetch, so the client is imported here, and in a thread because it takes its time.
    await asyncio.to_thread(import_module, "httpx")
    import httpx

    given = {name: value.get_secret_value() for name, value in headers.items()}
    plain = {"Accept-Encoding": "identity", **given}
    body = bytearray()
    try:
        async with (
            asyncio.timeout(LOOKUP_SECONDS),
            # Where a forward proxy is the way out it is in the environment, and nothing is reached past it.
            httpx.AsyncClient(timeout=LOOKUP_SECONDS, follow_redirects=False, trust_env=True) as client,
            client.stream("GET", url, headers=plain) as answer,
        ):
            if not answer.is_success:
                raise LookupFailed(f"the answer was status {answer.status_code}")
            if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise LookupFailed("the answer is compressed, and how large it is cannot be told before")
            async for part in answer.aiter_raw():
                body += part
                if len(body) > LOOKUP_BYTES:
                    raise LookupFailed(f"the answer is larger than {LOOKUP_BYTES} bytes")
    except httpx.ProxyError as error:
        raise LookupFailed("the forward proxy did not let it through, or was not reached") from error
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, UnicodeError) as error:
        raise LookupFailed(type(error).__name__) from error
    except AttributeError as error:
        # Under uvloop the socket of a connection that was reset as it was made is None when httpx looks at it.
        if error.obj is not None:
            raise
        raise LookupFailed("ConnectError") from error
    try:
        return SecretStr(body.decode())
    except UnicodeDecodeError:
        raise LookupFailed("the answer is not UTF-8 text") from None
