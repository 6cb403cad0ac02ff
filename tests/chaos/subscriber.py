"""A subscriber of one conversation's events: server-sent, from whatever replica is there, from where it was."""

from __future__ import annotations

import asyncio
import contextlib
import json

import httpx

from chaos.fleet import _GONE, Fleet, Violation

#: A stream gives a sign of life every few seconds: silence means that its replica is frozen.
_PATIENCE = httpx.Timeout(10.0)
#: the conversation is deleted, which can be undone; this replica cannot serve just now
_NOT_NOW = (404, 410, 502, 503, 504)


async def follow(fleet: Fleet, key: str, id: str, told: list[tuple[int, str]]) -> None:
    """Until cancelled: `told` grows by the number and id of each event, as they come."""
    while True:
        up = [replica for replica in fleet.replicas if replica.up]
        if up:
            with contextlib.suppress(*_GONE):
                await _read(fleet, fleet.random.choice(up).url, key, id, told)
        await asyncio.sleep(0.2)


async def _read(fleet: Fleet, url: str, key: str, id: str, told: list[tuple[int, str]]) -> None:
    headers = {"Authorization": f"Bearer {key}"} | ({"Last-Event-ID": str(told[-1][0])} if told else {})
    path = f"{url}/api/v2/conversations/{id}/events/stream"
    async with fleet.http.stream("GET", path, headers=headers, timeout=_PATIENCE) as answer:
        if answer.status_code in _NOT_NOW:
            return
        if answer.status_code != 200:
            raise Violation(f"a subscriber of {id} was answered {answer.status_code}")
        kind = ""
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: ") and kind == "event":
                found = json.loads(line.removeprefix("data: "))
                told.append((found["sequence"], found["event"]["id"]))
