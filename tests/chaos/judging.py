"""What there is when a storm is over: wait until all has settled, then read everything that `checker.py` looks at.

First as the clients left it; then whatever can run is started, so that waiting messages reach their agents, and the
logs are compared. Nothing here raises for what it finds: that is the checker's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from chaos.checker import RESTS, RUNS, End, Events, is_waiting, owners
from chaos.faulty_fleet import FaultyFleet
from orchestrator.domain.ids import ConversationId, message_event_id

SETTLES_WITHIN = 60.0
Keys = Mapping[str, str]  #: by tenant
Begun = Sequence[tuple[str, str]]  #: tenant and id


async def settled(fleet: FaultyFleet, keys: Keys, begun: Begun) -> None:
    """Until all rests where it is wanted, or the time is over."""
    await _until(lambda: _rest(fleet, keys, begun))


async def gathered(
    fleet: FaultyFleet, keys: Keys, begun: Begun, operations: Mapping[str, str], streams: Mapping[str, Events]
) -> End:
    """Everything, of two moments: records and the engine as they were left, logs when all has run again."""
    records = {id: await fleet.phase(keys[tenant], id) for tenant, id in begun}
    listed = {tenant: await _listed(fleet, key) for tenant, key in keys.items()}
    census = await fleet.census()
    await _until(lambda: _ended(fleet, keys, operations))
    states = {id: await _state(fleet, keys[tenant], id) for id, tenant in operations.items()}
    here = [(tenant, id) for tenant, id in begun if records[id] is not None]
    await asyncio.gather(*(fleet.ask("POST", f"{_path(id)}/start", keys[tenant]) for tenant, id in here))
    await _until(lambda: _quiet(fleet, keys, here, streams))
    inner = await fleet.engine_call("memory")
    return End(
        records=records,
        listed=listed,
        receipts={id: await _pages(fleet, keys[tenant], f"{_path(id)}/messages") for tenant, id in here},
        outer={id: await _events(fleet, keys[tenant], id) for tenant, id in here},
        streamed={id: list(told) for id, told in streams.items()},
        inner={id: [event["id"] for event in inner.get(id, [])] for _, id in here},
        operations=states,
        census=census,
        handed=await fleet.engine_call("handed"),
        secrets={tenant: f"value-of-{tenant}" for tenant in keys},
    )


async def ended_by(fleet: FaultyFleet) -> list[str]:
    """What was done to it, for whoever reads of a violation."""
    return [f"faults: {fleet.faults} {await fleet.done()}"]


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SETTLES_WITHIN):
            while not await condition():
                await asyncio.sleep(0.5)


async def _rest(fleet: FaultyFleet, keys: Keys, begun: Begun) -> bool:
    records = [await fleet.phase(keys[tenant], id) for tenant, id in begun]
    wanted = {
        "running": ("ready", "failed"),
        "paused": ("paused", "failed", "stopped"),
        "stopped": ("stopped", "failed"),
    }
    if not all(record is None or record["phase"] in wanted.get(record["desired"], RESTS) for record in records):
        return False
    run = {id for (_, id), record in zip(begun, records, strict=True) if record and record["phase"] in RUNS}
    census = await fleet.census()
    found = owners({id: record for (_, id), record in zip(begun, records, strict=True)}, census)
    return run == set(found.values()) - {None} and all(
        one is not None or is_waiting(name, census) for name, one in found.items()
    )


async def _ended(fleet: FaultyFleet, keys: Keys, operations: Mapping[str, str]) -> bool:
    return all([await _state(fleet, keys[tenant], id) in ("succeeded", "failed") for id, tenant in operations.items()])


async def _state(fleet: FaultyFleet, key: str, operation: str) -> str:
    answer = (await fleet.ask("GET", f"/api/v2/operations/{operation}", key)).json()
    return str(answer.get("state", answer.get("code")))


async def _quiet(fleet: FaultyFleet, keys: Keys, here: Begun, streams: Mapping[str, Events]) -> bool:
    """Every message is where its agent is, and everything that was said came out."""
    inner = await fleet.engine_call("memory")
    for tenant, id in here:
        events = [event["id"] for event in inner.get(id, [])]
        receipts = await _pages(fleet, keys[tenant], f"{_path(id)}/messages")
        if not all(str(message_event_id(ConversationId(id), one["id"])) in events for one in receipts):
            return False
        if len(await _events(fleet, keys[tenant], id)) < len(events) or len(streams.get(id, events)) < len(events):
            return False
    return True


async def _listed(fleet: FaultyFleet, key: str) -> list[str]:
    return [item["id"] for item in await _pages(fleet, key, "/api/v2/conversations", cursor="page_id")]


async def _events(fleet: FaultyFleet, key: str, id: str) -> list[tuple[int, str]]:
    return [(item["sequence"], item["event"]["id"]) for item in await _pages(fleet, key, f"{_path(id)}/events")]


async def _pages(fleet: FaultyFleet, key: str, path: str, *, cursor: str = "after") -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    query = "?limit=100"
    while True:
        page = (await fleet.ask("GET", path + query, key)).json()
        items += page["items"]
        if page["next_page_id"] is None:
            return items
        query = f"?limit=100&{cursor}={page['next_page_id']}"


def _path(id: str) -> str:
    return f"/api/v2/conversations/{id}"
