"""`kill -9` of a replica in the middle of starts: at every step of them, and between.

Twenty conversations start at each kill, which is aimed in turn at each step of a start and at the gap behind it
(`aim.py`). Afterwards every one of them is ready, within the lease and five seconds (the 95th percentile over kills),
by one runtime that was given all of its configuration, in order; and the engine runs nothing else.
"""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any

from redis import Redis

from chaos.aim import Watch
from chaos.fleet import Fleet, Violation
from chaos.races import nothing_left, raise_doubles
from orchestrator.services.provisioning import STAGES
from orchestrator.services.warm_start import CLAIM

CONVERSATIONS_A_KILL = 20
PACE_SECONDS = 0.02
ENDS_WITHIN = 90.0
CONFIGURATION = ["/api/init", "/api/settings", "/api/add-git-providers", "/api/secrets", "/api/conversations"]


async def run(fleet: Fleet, *, kills: int, conversations: int = CONVERSATIONS_A_KILL) -> dict[str, Any]:
    """Kill that often; answers the ledger. Raises `Violation`."""
    key = await fleet.tenant("starters")
    await fleet.ask("PUT", "/api/v2/secrets/TOKEN", key, json={"value": "value-of-the-tests"})
    await fleet.ask("PUT", "/api/v2/git-providers/github", key, json={"token": "token-of-the-tests"})
    await fleet.script("slow", PACE_SECONDS)
    cut: Counter[str] = Counter()
    aimed: Counter[str] = Counter()
    recoveries: list[float] = []
    aims: list[str] = []
    for number in range(kills):
        if not aims:
            aims = [place for stage in stages(fleet) for place in (stage, f"after {stage}")]
            fleet.random.shuffle(aims)
        aim = aims.pop()
        with Watch(fleet.redis) as watch:
            aiming = asyncio.create_task(asyncio.to_thread(watch.kill_at, aim, fleet.replicas))
            ids = await _begin(fleet, key, conversations)
            victim = await aiming
            if victim is None:
                victim = fleet.random.choice(fleet.replicas)
                victim.crash()
            aimed[aim if watch.hit else "missed"] += 1
            cut.update(watch.held_by(victim.owner))
        began = time.monotonic()
        again = asyncio.create_task(asyncio.to_thread(victim.begin))
        ended = (fleet.until(key, id, "ready", "failed", seconds=ENDS_WITHIN) for id in ids)
        records = await asyncio.gather(*ended)
        recoveries.append(time.monotonic() - began)
        sys.stderr.write(f"kill {number}, aimed at {aim}: all ready after {recoveries[-1]:.1f} s\n")
        await again
        await raise_doubles(fleet)
        await _raise_unfinished(fleet, records)
        await asyncio.gather(*(fleet.ask("DELETE", f"/api/v2/conversations/{id}?purge=true", key) for id in ids))
    await nothing_left(fleet)
    census = await fleet.census()
    return {
        "kills": kills,
        "conversations": kills * conversations,
        "engine_starts": census["starts"],
        "warm_hits": _hits(fleet),
        "aimed": dict(aimed),
        "cut": dict(cut),
        "recovery_p95": _percentile(recoveries, 0.95),
        "recovery_max": round(max(recoveries), 2),
    }


def stages(fleet: Fleet) -> Sequence[str]:
    """The steps of a start."""
    return (CLAIM.name, *STAGES) if fleet.spares else STAGES


async def _begin(fleet: Fleet, key: str, count: int) -> list[str]:
    ids = [str(uuid.UUID(int=fleet.random.getrandbits(128), version=4)) for _ in range(count)]
    body = {"initial_message": "hello"}
    await asyncio.gather(*(fleet.ask("POST", "/api/v2/conversations", key, json={"id": id, **body}) for id in ids))
    return ids


def _hits(fleet: Fleet) -> int:
    """How many spares of the warm pool were claimed, as the state server counts."""
    with Redis.from_url(f"unix://{fleet.redis}", decode_responses=True) as client:
        return int(str(client.hget("x:{spares}:counts", "hits") or 0))


async def _raise_unfinished(fleet: Fleet, records: list[dict[str, Any]]) -> None:
    """Raises `Violation` for a conversation that is not ready, or ready on a runtime that was not told everything."""
    census = await fleet.census()
    configured = census["configured"]
    for record in records:
        if record["phase"] != "ready":
            raise Violation(f"conversation {record['id']} is {record['phase']}: {record.get('reason')}")
        serving = [one for one in census["alive"] if record["id"] in census["serves"].get(one, [])]
        if len(serving) != 1:
            raise Violation(f"conversation {record['id']} is said to be ready and is served by {serving}")
        name = serving[0]
        told = [path for path in configured.get(name, []) if path in CONFIGURATION]
        if list(dict.fromkeys(told)) != CONFIGURATION:
            raise Violation(f"{name} is said to be ready and was told {told}")


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)
