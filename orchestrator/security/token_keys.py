"""The public keys of whoever signs tokens: fetched, kept for a time, and fetched again when one is not known.

A forged name of a key costs the other side at most one call in ten seconds from each replica. When the keys cannot be
fetched the last ones go on being good for a bounded time, and whoever asks meanwhile waits no longer than one fetch may
take. What fetches, and how long that may take, is given (`app/tokens.py`).
"""

import time
from collections.abc import Awaitable, Callable

import anyio
import structlog

from orchestrator.domain.errors import KeysUnavailable
from orchestrator.security import jwks
from orchestrator.security.jwks import KeySet, PublicKey

log = structlog.get_logger(__name__)
BETWEEN_SECONDS = 10.0  #: two fetches, at least
BETWEEN_WITHOUT_SECONDS = 2.0  #: the same while there are no keys at all

Fetch = Callable[[], Awaitable[bytes]]  #: the key set as text; raises `KeysUnavailable`


class TokenKeys:
    """Of one replica. Times in seconds: `fresh` until they are fetched again, and `kept` beyond that while they cannot
    be."""

    def __init__(self, fetch: Fetch, *, fresh: float, kept: float, now: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._fresh = fresh
        self._kept = kept
        self._now = now
        self._set: KeySet | None = None
        self._at = 0.0  #: when they were asked for
        self._tried: float | None = None
        self._attempts = 0
        self._asking = anyio.Lock()

    async def find(self, id: str | None, algorithm: str) -> PublicKey | None:
        """The key that a token means; None when there is none. Raises `KeysUnavailable` when no keys are known."""
        held = self._held()
        if held is None or (self._now() - self._at > self._fresh and not self._asking.locked()):
            await self._ask()
            held = self._held()
        if held is not None and not held.knows(id):
            await self._ask()
            held = self._held()
        if held is None:
            raise KeysUnavailable(
                "the keys that tokens are checked by cannot be fetched now",
                hint="try again, or send an API key; the operator sees why in the log, and by `nestor doctor`",
                retry_after=BETWEEN_WITHOUT_SECONDS,
            )
        return held.find(id, algorithm)

    async def ask(self) -> KeySet:
        """Fetch them now. Raises `KeysUnavailable`."""
        began, text = self._now(), await self._fetch()
        try:
            self._set = jwks.read(text)
        except ValueError as exc:
            raise KeysUnavailable(f"what came is no key set: {exc}") from None
        self._at = began
        return self._set

    def _held(self) -> KeySet | None:
        return self._set if self._now() - self._at <= self._fresh + self._kept else None

    async def _ask(self) -> None:
        """Once for all who want it now, and not too often."""
        attempts = self._attempts
        async with self._asking:
            between = BETWEEN_SECONDS if self._held() is not None else BETWEEN_WITHOUT_SECONDS
            lately = self._tried is not None and self._now() - self._tried < between
            if attempts != self._attempts or lately:
                return
            self._attempts += 1
            self._tried = self._now()
            try:
                await self.ask()
            except KeysUnavailable as exc:
                log.warning("token_keys.not_fetched", problem=exc.message, last_ones_are_good=self._held() is not None)
