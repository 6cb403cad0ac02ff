"""What the settings say of tokens: where their keys are, what a token has to say, and which claims are read.

A file has to be there at the start and hold keys. An address only has to be one that may be called: an issuer that is
away keeps no orchestrator from starting, and API keys go on.
"""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import anyio

from orchestrator.domain.errors import KeysUnavailable, Misconfigured
from orchestrator.domain.git import LOOPBACK
from orchestrator.domain.tenancy import Scope
from orchestrator.security.outbound import Guard, TargetRefused, parse
from orchestrator.security.outbound_http import Outbound
from orchestrator.security.token_keys import TokenKeys
from orchestrator.security.tokens import Expected, Tokens
from orchestrator.services.token_callers import Reading
from orchestrator.settings import OrchestratorSettings

FETCH_SECONDS = 3.0  #: the longest that a request waits for keys
MAXIMUM_BYTES = 256 * 1024


class Source(Protocol):
    """Where keys are."""

    async def fetch(self) -> bytes:
        """Raises `KeysUnavailable`."""


class File:
    def __init__(self, path: Path) -> None:
        self._path = path

    async def fetch(self) -> bytes:
        try:
            with anyio.fail_after(FETCH_SECONDS):
                async with await anyio.open_file(self._path, "rb") as file:
                    text = await file.read(MAXIMUM_BYTES + 1)
        except TimeoutError:
            raise KeysUnavailable(f"{self._path} was not read within {FETCH_SECONDS:g} seconds") from None
        except OSError as exc:
            raise KeysUnavailable(f"{self._path} cannot be read ({exc.strerror})") from None
        if len(text) > MAXIMUM_BYTES:
            raise KeysUnavailable(f"{self._path} is longer than {MAXIMUM_BYTES} bytes")
        return text


class Address:
    def __init__(self, url: str, outbound: Outbound) -> None:
        self._url = url
        self._outbound = outbound

    async def fetch(self) -> bytes:
        answer = await self._outbound.get(self._url, limit_bytes=MAXIMUM_BYTES)
        if answer.status != 200:
            raise KeysUnavailable(f"the key set was not fetched: {answer.problem or f'it answered {answer.status}'}")
        return answer.body


def source_of(settings: OrchestratorSettings, stack: AsyncExitStack) -> Source | None:
    """None where no tokens are taken. Raises `Misconfigured`."""
    place = settings.jwt_keys
    if place is None:
        return None
    if "://" not in place:
        return File(Path(place).expanduser())
    try:
        target = parse(place)
        # The operator names this one address, which no caller can: with https it may be inside of the house.
        trusted = {target.host} if target.scheme == "https" else LOOPBACK | settings.http_hosts
        guard = Guard(frozenset(trusted))
        guard.read(place)
    except TargetRefused as exc:
        raise Misconfigured(
            f"NESTOR_JWT_KEYS: {exc.message}",
            hint="use https, or a file; plain http only on loopback and to hosts in NESTOR_ALLOW_HTTP_HOSTS",
        ) from None
    outbound = Outbound(guard, seconds=FETCH_SECONDS)
    stack.push_async_callback(outbound.close)
    return Address(place, outbound)


def keys_of(settings: OrchestratorSettings, source: Source) -> TokenKeys:
    return TokenKeys(source.fetch, fresh=settings.jwt_keys_seconds, kept=settings.jwt_keys_kept_seconds)


async def tokens_of(settings: OrchestratorSettings, stack: AsyncExitStack) -> Tokens | None:
    """None where no tokens are taken. Raises `Misconfigured`."""
    source = source_of(settings, stack)
    if source is None or settings.jwt_issuer is None or settings.jwt_audience is None:
        return None
    keys = keys_of(settings, source)
    if isinstance(source, File):
        try:
            found = await keys.ask()
        except KeysUnavailable as exc:
            raise Misconfigured(f"NESTOR_JWT_KEYS: {exc.message}", hint="name a file with a JWKS") from None
        if not found.keys:
            raise Misconfigured(
                "NESTOR_JWT_KEYS: no key in the file can verify a token",
                hint="it takes public keys: RSA of 2048 bits or more, P-256, P-384, P-521, Ed25519",
            )
    expected = Expected(
        settings.jwt_issuer, settings.jwt_audience, settings.jwt_leeway_seconds, settings.jwt_longest_seconds
    )
    return Tokens(keys, expected)


def reading(settings: OrchestratorSettings) -> Reading:
    return Reading(
        settings.jwt_tenant_claim,
        settings.jwt_user_claim,
        settings.jwt_scopes_claim,
        frozenset(scope for scope in Scope if scope in settings.jwt_scopes),
        settings.jwt_makes_users,
    )
