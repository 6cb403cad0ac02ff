"""What the state server still holds of conversations when all of them are purged: nothing, in the end.

Operations and answers under idempotency keys stay for their time; what has no time must be somebody's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

from redis import Redis

from chaos.fleet import Violation

GONE_WITHIN = 60.0
_OF_RUNTIMES = "x:runtime:"
_INDEXES = (":slots", ":queue", ":evictions", ":due", "x:queue", "x:{spares}:bound")


async def nothing_stored(redis: Path, conversations: Collection[str]) -> None:
    """Raises `Violation` for what is left after a minute."""
    left: list[str] = []
    for _ in range(int(GONE_WITHIN)):
        left = await asyncio.to_thread(_left, redis, conversations)
        if not left:
            return
        await asyncio.sleep(1)
    raise Violation(f"the state server still holds {len(left)} keys of what was purged: {left[:10]}")


def _left(redis: Path, conversations: Collection[str]) -> list[str]:
    with Redis.from_url(f"unix://{redis}", decode_responses=True) as client:
        lasting = [name for name in client.scan_iter(count=1000) if client.ttl(name) == -1]
    return sorted(
        name
        for name in lasting
        if name.startswith(_OF_RUNTIMES) or name.endswith(_INDEXES) or any(id in name for id in conversations)
    )
