"""Messages and events while replicas and runtimes are killed.

Every accepted message reaches the agent once, in the order in which its writer sent it; the conversation's log outside
of the runtime is, in the end, the runtime's own.
"""

from __future__ import annotations

import asyncio
from typing import Any

from redis import Redis

from chaos.fleet import Fleet, Violation
from orchestrator.domain.ids import ConversationId, message_event_id

SETTLES_WITHIN = 180.0
PAGE = 100
HELD = 20  #: what the state server holds of each log, so that nearly all of it has to come from the archive
MOST_HELD = 8 * HELD + PAGE


async def run(
    fleet: Fleet, *, messages: int, conversations: int = 8, said: int = 1, harm_every: float = 4.0
) -> dict[str, Any]:
    """Send that many messages, each answered by `said` events, on a fleet that holds `HELD` events of each log; answers
    the ledger. Raises `Violation`."""
    key = await fleet.tenant("writers")
    ids = [await _conversation(fleet, key) for _ in range(conversations)]
    sent: dict[str, list[str]] = {id: [] for id in ids}
    async with fleet.harmed(every=harm_every, freeze_seconds=5.0):
        crashes = asyncio.create_task(_crash(fleet, key, ids, harm_every))
        try:
            share = messages // conversations
            await asyncio.gather(*(_write(fleet, key, id, sent[id], share, said) for id in ids))
        finally:
            crashes.cancel()
            await asyncio.gather(crashes, return_exceptions=True)
    await asyncio.gather(*(_settled(fleet, key, id, len(sent[id])) for id in ids))
    events = sum([await _compared(fleet, key, id, sent[id]) for id in ids])
    pushed = sum((await fleet.engine_call("pushed", name="orchestrator")).values())
    held = await asyncio.to_thread(_held, fleet)
    if events > conversations * MOST_HELD and held > conversations * MOST_HELD:
        raise Violation(f"the state server holds {held} events of {conversations} logs")
    return {
        "messages": sum(map(len, sent.values())),
        "events": events,
        "acknowledged pushes": pushed,
        "archived": events - held,
        "faults": fleet.faults,
    }


def _held(fleet: Fleet) -> int:
    """How many events the state server holds."""
    with Redis.from_url(f"unix://{fleet.redis}") as client:
        return sum(client.xlen(name) for name in client.scan_iter("*:events"))


async def _conversation(fleet: Fleet, key: str) -> str:
    answer = await fleet.ask("POST", "/api/v2/conversations?wait=ready&timeout=60", key, json={})
    id: str = answer.json()["id"]
    await fleet.until(key, id, "ready", seconds=60)
    return id


async def _write(fleet: Fleet, key: str, id: str, sent: list[str], count: int, said: int) -> None:
    """One writer: the next message when the last one was accepted, each asked for again until it was."""
    for number in range(count):
        client_id = f"{id}-{number}"
        body = {"client_id": client_id, "content": f"SAY:{said}"}
        answer = await fleet.ask("POST", f"/api/v2/conversations/{id}/messages", key, json=body, tries=2000)
        while answer.status_code in (409, 429):  # it failed and is to be started, or its inbox is full
            await asyncio.sleep(0.3)
            answer = await fleet.ask("POST", f"/api/v2/conversations/{id}/messages", key, json=body, tries=2000)
        if answer.status_code != 202:
            raise Violation(f"a message was answered {answer.status_code}: {answer.text[:300]}")
        sent.append(client_id)


async def _crash(fleet: Fleet, key: str, ids: list[str], every: float) -> None:
    """Kill a runtime now and then; whoever's was killed is started again, as a client would."""
    while True:
        await asyncio.sleep(every * fleet.random.uniform(0.5, 1.5))
        record = await fleet.phase(key, fleet.random.choice(ids))
        if record is not None and record["phase"] == "ready":
            name = f"nestor-{record['runtime']['id']}-g{record['runtime']['generation']}"
            await fleet.engine_call("crash", name=name)
            fleet.faults["runtime crash"] = fleet.faults.get("runtime crash", 0) + 1
        for id in ids:
            await _start_if_failed(fleet, key, id)


async def _start_if_failed(fleet: Fleet, key: str, id: str) -> None:
    record = await fleet.phase(key, id)
    if record is not None and record["phase"] == "failed":
        await fleet.ask("POST", f"/api/v2/conversations/{id}/start", key)


async def _settled(fleet: Fleet, key: str, id: str, messages: int) -> None:
    """Until the runtime has every message."""
    have = 0
    try:
        async with asyncio.timeout(SETTLES_WITHIN):
            while (have := len(_users(await _inner(fleet, id)))) < messages:
                await _start_if_failed(fleet, key, id)
                await asyncio.sleep(0.3)
    except TimeoutError:
        raise Violation(f"conversation {id} has {have} of {messages} messages") from None


async def _inner(fleet: Fleet, id: str) -> list[dict[str, Any]]:
    return (await fleet.engine_call("memory")).get(id, [])  # type: ignore[no-any-return]


def _users(log: list[dict[str, Any]]) -> list[str]:
    return [event["id"] for event in log if event["source"] == "user"]


async def _compared(fleet: Fleet, key: str, id: str, sent: list[str]) -> int:
    """How many events both logs hold. Raises `Violation` where they differ."""
    inner = await _inner(fleet, id)
    wanted = [message_event_id(ConversationId(id), client_id) for client_id in sent]
    if _users(inner) != [str(one) for one in wanted]:
        raise Violation(f"conversation {id}: messages were lost, doubled or moved")
    outer: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(SETTLES_WITHIN):
            while len(outer) < len(inner):
                path = f"/api/v2/conversations/{id}/events?after={len(outer)}&limit={PAGE}"
                items = (await fleet.ask("GET", path, key)).json()["items"]
                if [item["sequence"] for item in items] != list(range(len(outer) + 1, len(outer) + len(items) + 1)):
                    raise Violation(f"conversation {id}: the outer log has a gap after {len(outer)}")
                outer += items
                if not items:
                    await _start_if_failed(fleet, key, id)  # killed at the very end, it has them and tells nobody
                    await asyncio.sleep(0.3)
    except TimeoutError:
        came = f"{len(outer)} of {len(inner)} events came out"
        raise Violation(f"conversation {id}: {came}; {await fleet.phase(key, id)}") from None
    if [item["event"]["id"] for item in outer] != [event["id"] for event in inner]:
        raise Violation(f"conversation {id}: the outer log differs from the runtime's own")
    return len(inner)
