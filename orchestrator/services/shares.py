"""Which runtimes this replica looks at: each is one replica's, without anybody who hands them out.

Every replica says from time to time that it is there and hears of the others; whose a runtime is follows from its name
and who is there (rendezvous hashing), so that one who comes or goes moves no share but its own. Nothing is at stake:
what two replicas look at is looked at twice (and removed once), and what nobody looks at waits until the one that died
is forgotten.
Used by the reconciler, which renews it, by the engine's hints and by the disk watch.
"""

import hashlib
import time
from collections.abc import Sequence
from contextlib import suppress

from orchestrator.domain.errors import StoreUnavailable
from orchestrator.state.base import Presence

_REMOVAL_MS = 60_000  # an engine may take as long
TTL_SECONDS = 25.0  #: a replica that says nothing for so long is gone; the reconciler speaks every ten


class Shares:
    """Of one replica. Without `presence` it is the only one, and everything is its own."""

    def __init__(
        self, presence: Presence | None, replica: str, *, ttl: float = TTL_SECONDS, settles: float | None = None
    ) -> None:
        """For the first `settles` seconds (by default `ttl`) everything is its own: who died just now may be this one's
        former life, whose share nobody looks at yet."""
        self._presence = presence
        self._replica = replica
        self._ttl_ms = int(ttl * 1000)
        self._settled = time.monotonic() + (ttl if settles is None else settles)
        self._replicas: Sequence[str] = (replica,)

    async def renew(self) -> None:
        """Say that it is there, and hear of the others. Raises `StoreUnavailable`; then all stays as it was."""
        if self._presence is not None:
            self._replicas = await self._presence.renew(self._replica, ttl_ms=self._ttl_ms)

    def is_mine(self, runtime: str) -> bool:
        """Whether this replica looks at the runtime of that name."""
        if len(self._replicas) < 2 or time.monotonic() < self._settled:
            return True
        return max(self._replicas, key=lambda replica: (_weight(replica, runtime), replica)) == self._replica

    async def may_remove(self, runtime: str) -> bool:
        """Whether this replica is the one that removes it, where two look at the same: each is removed by one call. Who
        dies over it is followed by another one a minute later. Raises `StoreUnavailable`."""
        if self._presence is None or len(self._replicas) < 2:
            return True
        return await self._presence.take(f"remove:{runtime}", ttl_ms=_REMOVAL_MS)

    async def leave(self) -> None:
        """This replica ends: others take its share with their next round."""
        if self._presence is not None:
            with suppress(StoreUnavailable):  # it is forgotten later
                await self._presence.leave(self._replica)


def _weight(replica: str, runtime: str) -> bytes:
    return hashlib.blake2b(f"{replica}|{runtime}".encode(), digest_size=8).digest()
