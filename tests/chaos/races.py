"""Racing starts of one conversation over several replicas, which are killed and stopped meanwhile.

At most one runtime of a conversation may ever be alive, counted by the engine; every conversation ends ready or failed
with a reason; afterwards the engine runs what the records say and nothing else.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

from chaos.fleet import Fleet, Violation

REQUESTS_A_RACE = 4
ENDS_WITHIN = 90.0
ENDED = ("ready", "failed", "stopped")


async def run(fleet: Fleet, *, races: int, at_once: int = 16, harm_every: float = 3.0) -> dict[str, Any]:
    """Run that many races; answers the ledger. Raises `Violation`."""
    key = await fleet.tenant("racers")
    ledger = {"races": 0, "ready": 0, "failed": 0}
    async with fleet.harmed(every=harm_every, freeze_seconds=5.0):
        while ledger["races"] < races:
            batch = [str(uuid.UUID(int=fleet.random.getrandbits(128), version=4)) for _ in range(at_once)]
            records = await asyncio.gather(*(_race(fleet, key, id) for id in batch[: races - ledger["races"]]))
            for record in records:
                ledger["races"] += 1
                ledger["ready" if record["phase"] == "ready" else "failed"] += 1
                if record["phase"] != "ready" and not record.get("reason"):
                    raise Violation(f"conversation {record['id']} is {record['phase']} without a reason")
            await raise_doubles(fleet)
            await asyncio.gather(*(_remove(fleet, key, record["id"]) for record in records))
    await nothing_left(fleet)
    census = await fleet.census()
    return {**ledger, "engine_starts": census["starts"], "doubles": len(census["doubles"]), "faults": fleet.faults}


async def _race(fleet: Fleet, key: str, id: str) -> dict[str, Any]:
    """All ask for the same conversation at once; each must be told of one and the same runtime."""
    answers = await asyncio.gather(
        *(fleet.ask("POST", "/api/v2/conversations", key, json={"id": id}) for _ in range(REQUESTS_A_RACE))
    )
    _raise_refusals(answers)
    operations = {answer.json()["operation"] for answer in answers}
    if len(operations) != 1:
        raise Violation(f"the race for {id} led to the operations {operations}")
    return await fleet.until(key, id, *ENDED, seconds=ENDS_WITHIN)


def _raise_refusals(answers: Sequence[Any]) -> None:
    for answer in answers:
        if answer.status_code not in (200, 202):
            raise Violation(f"a start was answered {answer.status_code}: {answer.text[:300]}")


async def _remove(fleet: Fleet, key: str, id: str) -> None:
    await fleet.ask("DELETE", f"/api/v2/conversations/{id}?purge=true", key)


async def raise_doubles(fleet: Fleet) -> None:
    """Raises `Violation` when two runtimes of one conversation were ever alive at once."""
    doubles = (await fleet.census())["doubles"]
    if doubles:
        raise Violation(f"alive at once: {doubles}")


def _spares(census: dict[str, Any]) -> set[str]:
    """The runtimes that wait for somebody: nobody's, and never told anything."""
    named = (one for one in census["runtimes"] if one.startswith("nestor-spare-"))
    return {one for one in named if not census["configured"].get(one) and not census["serves"].get(one)}


async def nothing_left(fleet: Fleet, seconds: float = 90.0) -> None:
    """Everything was deleted: within a minute and a half the engine has neither runtimes nor volumes."""
    census: dict[str, Any] = {}
    try:
        async with asyncio.timeout(seconds):
            while True:
                census = await fleet.census()
                spares = _spares(census)
                runtimes = [one for one in census["runtimes"] if one not in spares]
                volumes = [one for one in census["volumes"] if f"nestor-spare-{one}" not in spares]
                if not runtimes and not volumes and len(spares) <= fleet.spares:
                    return
                await asyncio.sleep(0.5)
    except TimeoutError:
        left = f"{census['runtimes']} and the volumes {census['volumes']}"
        raise Violation(f"after {seconds} seconds these are left: {left}") from None
