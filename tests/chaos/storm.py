"""Clients of two tenants live through everything at once: faults on every road, and replicas killed and frozen.

Each conversation has one client that creates it, talks to it, pauses, resumes, stops, starts, deletes and undeletes it
as chance has it, repeats whatever was not answered under the same Idempotency-Key, and now and then asks two replicas
at once. Then all faults end, everything settles, and `checker.py` judges what was answered, told and run.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections import Counter
from typing import Any

from chaos.checker import violations
from chaos.faulty_fleet import RATES, FaultyFleet
from chaos.fleet import _GONE, Violation
from chaos.history import History, Invocation, Outcome
from chaos.judging import ended_by, gathered, settled
from chaos.leftovers import nothing_stored
from chaos.races import nothing_left
from chaos.subscriber import follow

TENANTS = ("acme", "globex")
STEPS = (6, 16)  #: how many things a client does, at least and at most
SUBSCRIBERS = 12  #: of a round: one conversation each
ANSWERED_WITHIN = 120.0  #: seconds until a call that is repeated has a definite answer
#: What a client does next, and how often.
CHANCES = {
    "message": 36,
    "events": 12,
    "pause": 10,
    "resume": 10,
    "get": 8,
    "list": 6,
    "delete": 5,
    "stop": 4,
    "start": 4,
    "peek": 3,
    "crash": 2,
}


class Storm:
    """One round: its own two tenants, and its own history."""

    def __init__(self, fleet: FaultyFleet, keys: dict[str, str]) -> None:
        self.fleet = fleet
        self.keys = keys
        self.history = History()
        self.operations: dict[str, str] = {}  #: whose each is
        self.begun: list[tuple[str, str]] = []  #: tenant and id of every conversation
        self.streams: dict[str, list[tuple[int, str]]] = {}  #: what subscribers were told
        self._subscribers: list[asyncio.Task[None]] = []

    async def call(
        self, tenant: str, kind: str, id: str, method: str, path: str, key: str | None = None, **more: Any
    ) -> Invocation:
        """Ask until there is a definite answer, each time any replica; every try is in the history."""
        deadline = time.monotonic() + ANSWERED_WITHIN
        while time.monotonic() < deadline:
            up = [replica for replica in self.fleet.replicas if replica.up]
            if up:
                url = self.fleet.random.choice(up).url + path
                one = await self._try(tenant, kind, id, method, url, key, more)
                if one.outcome is not Outcome.UNKNOWN:
                    return one
            await asyncio.sleep(0.1)
        raise Violation(f"{kind} of {id} had no answer in {ANSWERED_WITHIN:g} seconds; last was {one.status}")

    async def _try(
        self, tenant: str, kind: str, id: str, method: str, url: str, key: str | None, more: dict[str, Any]
    ) -> Invocation:
        headers = {"Authorization": f"Bearer {self.keys[tenant]}"} | ({} if key is None else {"Idempotency-Key": key})
        one = self.history.begin(tenant, kind, id, key)
        with contextlib.suppress(*_GONE):
            answer = await self.fleet.http.request(method, url, headers=headers, **more)
            one.status = answer.status_code
            if answer.status_code >= 500 or answer.status_code == 429:
                return one
            body = answer.json() if answer.content else {}  # a deletion that is done is 204
            if answer.status_code == 409 and body.get("code") == "idempotency_running":
                return one
            if answer.is_success:
                if body.get("operation"):
                    self.operations[body["operation"]] = tenant
                self.history.end(one, answer.status_code, Outcome.DONE, _kept(kind, body))
            else:
                self.history.end(one, answer.status_code, Outcome.REFUSED, {"code": body.get("code")})
        return one

    async def life(self, tenant: str, seed: int, steps: tuple[int, int]) -> None:
        """Of one conversation."""
        chance = random.Random(seed)
        client = _Client(self, tenant, str(uuid.UUID(int=chance.getrandbits(128), version=4)), chance)
        self.begun.append((tenant, client.id))
        if len(self.streams) < SUBSCRIBERS:
            told = self.streams.setdefault(client.id, [])
            self._subscribers.append(asyncio.create_task(follow(self.fleet, self.keys[tenant], client.id, told)))
        await client.create()
        for _ in range(chance.randint(*steps)):
            await client.step(chance.choices(list(CHANCES), weights=list(CHANCES.values()))[0])
            await asyncio.sleep(chance.uniform(0, 0.4))

    async def unsubscribe(self) -> None:
        """End every subscriber. Raises what ended one before."""
        for task in self._subscribers:
            task.cancel()
        for found in await asyncio.gather(*self._subscribers, return_exceptions=True):
            if isinstance(found, Exception):
                raise found


class _Client:
    """The one that asks for changes of one conversation."""

    def __init__(self, storm: Storm, tenant: str, id: str, chance: random.Random) -> None:
        self.storm, self.tenant, self.id, self.chance = storm, tenant, id, chance
        self._path = f"/api/v2/conversations/{id}"
        self._calls = 0
        self._seen = 0  #: events

    async def create(self) -> None:
        await self._change("create", "POST", "/api/v2/conversations", json={"id": self.id})

    async def step(self, kind: str) -> None:
        match kind:
            case "message":
                client_id = f"{self.id}-{self._calls}"
                body = {"client_id": client_id, "content": f"SAY:{self.chance.randint(1, 5)}"}
                await self._change("message", "POST", f"{self._path}/messages", json=body)
            case "pause" | "resume" | "stop" | "start":
                await self._change(kind, "POST", f"{self._path}/{kind}")
            case "delete":
                await self._delete()
            case "get":
                await self._read("get", self._path)
            case "list":
                await self._read("list", "/api/v2/conversations?limit=100")
            case "events":
                found = await self._read("events", f"{self._path}/events?after={self._seen}&limit=100")
                self._seen = found.answer.get("last", self._seen)
            case "peek":
                others = [id for tenant, id in self.storm.begun if tenant != self.tenant]
                if others:
                    id = self.chance.choice(others)
                    await self.storm.call(self.tenant, "peek", id, "GET", f"/api/v2/conversations/{id}")
            case "crash":
                await self._crash()

    async def _delete(self) -> None:
        """Deleted, looked for, and mostly brought back."""
        await self._change("delete", "DELETE", self._path)
        await self._read("get", self._path)
        if self.chance.random() < 0.7:
            await self._change("undelete", "POST", f"{self._path}/undelete")
            await self._read("get", self._path)
            await self._change("start", "POST", f"{self._path}/start")

    async def _crash(self) -> None:
        """Its runtime is killed from outside."""
        runtime = (await self._read("get", self._path)).answer.get("runtime")
        if runtime is not None:
            await self.storm.fleet.engine_call("crash", name=runtime)
            self.storm.fleet.faults["runtime crash"] = self.storm.fleet.faults.get("runtime crash", 0) + 1

    async def _read(self, kind: str, path: str) -> Invocation:
        return await self.storm.call(self.tenant, kind, self.id, "GET", path)

    async def _change(self, kind: str, method: str, path: str, **more: Any) -> None:
        """Under a key of its own; sometimes twice at once."""
        self._calls += 1
        key = f"{self.id}-{self._calls}"
        times = 2 if self.chance.random() < 0.15 else 1
        asked = (self.storm.call(self.tenant, kind, self.id, method, path, key, **more) for _ in range(times))
        await asyncio.gather(*asked)


def _kept(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """What the checker reads of an answer."""
    if not body:
        return {}
    match kind:
        case "list":
            return {"ids": [item["id"] for item in body["items"]]}
        case "events":
            events = [(item["sequence"], item["event"]["id"]) for item in body["items"]]
            return {"events": events} | ({"last": events[-1][0]} if events else {})
        case "message":
            return {"id": body["id"], "sequence": body["sequence"]}
    runtime = body.get("runtime") or {}
    name = f"nestor-{runtime['id']}-g{runtime['generation']}" if runtime.get("url") else None
    return {"id": body["id"], "phase": body["phase"], "session_key": runtime.get("session_key"), "runtime": name}


async def run(
    fleet: FaultyFleet,
    *,
    conversations: int,
    at_once: int = 12,
    round_of: int = 48,
    harm_every: float = 4.0,
    steps: tuple[int, int] = STEPS,
) -> dict[str, Any]:
    """So many conversations, in rounds, after each of which all is judged; answers the ledger. Raises `Violation`."""
    ledger: Counter[str] = Counter()
    settling: list[float] = []
    while ledger["conversations"] < conversations:
        count = min(round_of, conversations - ledger["conversations"])
        storm = await _round(fleet, count, at_once, harm_every, steps)
        began = time.monotonic()
        await settled(storm.fleet, storm.keys, storm.begun)
        settling.append(time.monotonic() - began)
        end = await gathered(storm.fleet, storm.keys, storm.begun, storm.operations, storm.streams)
        await storm.unsubscribe()
        if found := violations(storm.history, end):
            raise Violation("\n".join([f"{len(found)} violations", *found[:20], *(await ended_by(fleet))]))
        await _cleared(storm)
        outcomes = Counter(one.outcome.value for one in storm.history.invocations)
        ledger.update({f"tries {name}": number for name, number in outcomes.items()})
        ledger.update(Counter(f"done {call.kind}" for call in storm.history.of(*CHANCES, "create", "undelete")))
        ledger["events told to subscribers"] += sum(map(len, end.streamed.values()))
        ledger.update({"rounds": 1, "conversations": count, "events": sum(map(len, end.outer.values()))})
        ledger.update(Counter(f"rested {record['phase']}" for record in end.records.values() if record))
    census = await fleet.census()
    return {
        **ledger,
        "engine_starts": census["starts"],
        "settled_max": round(max(settling), 1),
        "faults": {**fleet.faults, **await fleet.done()},
    }


async def _round(fleet: FaultyFleet, count: int, at_once: int, harm_every: float, steps: tuple[int, int]) -> Storm:
    """All lives of one round; faults are over when it answers."""
    keys = {name: await fleet.tenant(name) for name in TENANTS}
    for name, key in keys.items():
        await fleet.ask("PUT", "/api/v2/secrets/TOKEN", key, json={"value": f"value-of-{name}"})
    storm, room = Storm(fleet, keys), asyncio.Semaphore(at_once)

    async def live(number: int, seed: int) -> None:
        async with room:
            await storm.life(TENANTS[number % len(TENANTS)], seed, steps)

    await fleet.rates(RATES)
    await fleet.calm(False)
    try:
        async with fleet.harmed(every=harm_every, freeze_seconds=5.0), asyncio.TaskGroup() as lives:
            for number in range(count):
                lives.create_task(live(number, fleet.random.getrandbits(64)))
    except* Violation as group:
        raise group.exceptions[0] from None
    finally:
        await fleet.calm(True)
    return storm


async def _cleared(storm: Storm) -> None:
    """All of it is purged: nothing is left, neither at the engine nor in the state server."""
    for tenant, id in storm.begun:
        await storm.fleet.ask("DELETE", f"/api/v2/conversations/{id}?purge=true", storm.keys[tenant])
    await nothing_left(storm.fleet)
    await nothing_stored(storm.fleet.redis, [id for _, id in storm.begun])
