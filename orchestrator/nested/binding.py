"""How a dormant runtime is bound: both sides prove, on one connection, that they hold its init key.

An address may have been given to another container, or a port taken over, between any two connections. So the proof and
what is told after it travel on the same one, which is made once (`connection.py`): a client library would silently make
another. The init key itself never travels. Nothing that is worth anything is sent to a peer that has not
proved itself on that very connection; docs/adr/0018-init-on-one-connection.md has the whole of it.
"""

import hashlib
import hmac
import importlib.metadata
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import anyio

from orchestrator.domain.errors import RuntimeUnreachable
from orchestrator.domain.secrets import SecretText
from orchestrator.nested.connection import Connection, NotConnected, TooLarge, Unanswered
from orchestrator.nested.refusals import Impostor, NotDormant, VersionSkew, parsed, refusal

PATH = "/api/init"
TRIES = 3
SECONDS = 30.0
_LONGEST_ANSWER = 64 * 1024
_LONGEST_CHALLENGE = 256
#: What this orchestrator needs of a runtime, by the names that runtimes give it. A runtime that says nothing is older
#: than the question, and can do all of it.
NEEDED = frozenset({"bind_by_proof_v1", "configure_in_three_calls_v1", "fence_v1", "tell_events_v1"})
#: and of one whose callers' commands are given variables of their own
COMMAND_VARIABLES = "command_variables_v1"
OWN_VERSION = importlib.metadata.version("nestor")
_VERSION = re.compile(r"[0-9A-Za-z.+_-]{1,40}")


class ConnectionLost(RuntimeUnreachable):
    """The connection ended before its answer was read."""


class OneConnection:
    """HTTP/1.1 over one connection to `origin` (http://host:port), made with the first request and never again."""

    def __init__(self, origin: str) -> None:
        self._origin = urlsplit(origin)
        self._connection: Connection | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End it. Idempotent."""
        if self._connection is not None:
            self._connection.close()

    @property
    def is_lost(self) -> bool:
        """Whether the peer is known to have ended it."""
        return self._connection is not None and not self._connection.is_usable

    async def ask(self, method: str, headers: Mapping[str, str], content: bytes = b"") -> tuple[int, bytes]:
        """Status and body of the answer. Raises `ConnectionLost`, or `RuntimeUnreachable` where there never was a
        connection or the answer is too large."""
        call = f"{method} {PATH}"
        try:
            if self._connection is None:
                self._connection = await Connection.to(self._origin.hostname or "", self._origin.port or 80)
            return await self._connection.ask(method, PATH, headers, content, longest=_LONGEST_ANSWER)
        except NotConnected as exc:
            raise RuntimeUnreachable(f"{call}: the runtime did not answer ({exc})") from exc
        except TooLarge as exc:
            raise RuntimeUnreachable(f"{call}: the runtime's answer is larger than 64 KiB") from exc
        except Unanswered as exc:
            raise ConnectionLost(f"{call}: the connection to the runtime was lost ({exc})") from exc


Connect = Callable[[str], OneConnection]
#: returns when the runtime may be told
Permitted = Callable[[], Awaitable[None]]


async def at_once() -> None:
    """Where nothing is waited for."""


async def bind(
    connect: Connect,
    origin: str,
    init_key: SecretText,
    headers: Mapping[str, str],
    body: Mapping[str, Any],
    *,
    permitted: Permitted = at_once,
    met: "Met | None" = None,
) -> None:
    """Tell a dormant runtime its keys, once it has proved itself and `permitted` has returned. `met` is used up.

    A lost connection makes all of the proof begin again on another one, at most `TRIES` times within `SECONDS`. Raises
    `Impostor` for whoever cannot prove itself, `NotDormant` where it says that it was bound before, `Refused`, and
    `RuntimeUnreachable`: then it may have been bound.
    """
    try:
        with anyio.fail_after(SECONDS):
            await _bind(connect, origin, init_key, headers, body, permitted, met)
    except TimeoutError as exc:
        raise RuntimeUnreachable(f"{PATH}: the runtime was not bound within {SECONDS:.0f} seconds") from exc


async def says_dormant(connect: Connect, origin: str) -> bool:
    """Whether whoever listens there says, unproven, that it waits to be bound. Raises `RuntimeUnreachable`."""
    async with connect(origin) as connection:
        status, body = await connection.ask("GET", {})
    answer = parsed(body)
    return status == 200 and isinstance(answer, dict) and answer.get("state") == "dormant"


async def _bind(
    connect: Connect,
    origin: str,
    init_key: SecretText,
    headers: Mapping[str, str],
    body: Mapping[str, Any],
    permitted: Permitted,
    met: "Met | None",
) -> None:
    content = json.dumps(body).encode()
    needed = NEEDED | {COMMAND_VARIABLES} if "command_env" in body else NEEDED
    told = False
    for _ in range(TRIES):
        async with connect(origin) if met is None else met.connection as connection:
            try:
                proved = await _proved(connection, init_key) if met is None else met.proved
                met = None
                _refuse_skew(proved.about, needed)
                await permitted()
                if connection.is_lost:
                    continue
                told = True
                proof = proved.answered(init_key, content)
                sent = {**headers, "Content-Type": "application/json", "X-Init-Proof": proof}
                status, answer = await connection.ask("POST", sent, content)
            except ConnectionLost:
                continue
            except NotDormant:
                if told:  # by us, perhaps, on the connection that was lost
                    raise RuntimeUnreachable("the runtime was told its keys, and its answer was lost") from None
                raise
        if not 200 <= status < 300:
            raise refusal(f"POST {PATH}", status, answer)
        return
    raise RuntimeUnreachable(f"the connection to the runtime was lost {TRIES} times before it was bound")


@dataclass(frozen=True)
class Proved:
    """The runtime has proved itself: to this nonce, with this challenge. `about` is what it says of itself."""

    nonce: str
    challenge: str
    about: Any

    def answered(self, init_key: SecretText, content: bytes) -> str:
        """Our proof over `content`, which is told next on the same connection."""
        return _signed(init_key, f"orchestrator|{self.nonce}|{self.challenge}|{hashlib.sha256(content).hexdigest()}")


@dataclass(frozen=True)
class Met:
    """A runtime that has proved itself and is told nothing yet, on the connection on which it did."""

    connection: OneConnection
    proved: Proved


async def meet(connect: Connect, origin: str, init_key: SecretText) -> Met:
    """Have the runtime prove itself as soon as it answers; for `bind`, or to be closed. Raises `Impostor`,
    `NotDormant`, `Refused`, `RuntimeUnreachable`."""
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(connect(origin))
        proved = await _proved(connection, init_key)
        stack.pop_all()
        return Met(connection, proved)


async def _proved(connection: OneConnection, init_key: SecretText) -> Proved:
    """The nonce is new each time: what was overheard proves nothing."""
    nonce = secrets.token_urlsafe(24)
    status, body = await connection.ask("GET", {"X-Init-Nonce": nonce})
    if not 200 <= status < 300:
        raise refusal(f"GET {PATH}", status, body)
    answer = parsed(body)
    fields = answer if isinstance(answer, dict) else {}
    if fields.get("state", "dormant") != "dormant":
        raise NotDormant("the runtime says that it has been bound before")  # its init key is forgotten by then
    _refuse_skew(fields.get("nestor"), NEEDED)
    challenge, proof = fields.get("challenge"), fields.get("proof")
    if not (isinstance(challenge, str) and challenge.isascii() and len(challenge) <= _LONGEST_CHALLENGE):
        raise Impostor(
            "the process at the runtime's address gave no challenge: it is not the runtime, or one older than this "
            f"orchestrator (Nestor {OWN_VERSION})"
        )
    expected = _signed(init_key, f"runtime|{nonce}|{challenge}")
    if not isinstance(proof, str) or not hmac.compare_digest(proof.encode(errors="replace"), expected.encode()):
        raise Impostor("the process at the runtime's address could not prove that it is the runtime")
    return Proved(nonce, challenge, fields.get("nestor"))


def _refuse_skew(told: Any, needed: frozenset[str]) -> None:
    """What a runtime says of itself is not proven yet, and only makes us stop. Raises `VersionSkew`."""
    if not isinstance(told, dict):
        return
    able = told.get("capabilities")
    lacks = sorted(needed - {name for name in able if isinstance(name, str)}) if isinstance(able, list) else []
    if lacks:
        version = told.get("version")
        known = isinstance(version, str) and _VERSION.fullmatch(version)
        raise VersionSkew(
            f"the runtime (Nestor {version if known else 'of an unknown version'}) lacks {', '.join(lacks)}, which "
            f"this orchestrator (Nestor {OWN_VERSION}) needs",
            hint="use images of one release: build or fetch the runtime's anew, then POST "
            "/api/v2/conversations/{id}/upgrade for those that stay on the old one, and start again",
        )


def _signed(key: SecretText, text: str) -> str:
    return hmac.new(key.open().encode(), text.encode(), "sha256").hexdigest()
