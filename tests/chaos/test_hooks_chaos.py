"""Customer webhooks while replicas are killed and the receiver fails: none lost, order kept, repeats known."""

import asyncio
import itertools
import time
from typing import Any

import pytest
from support.receivers import Answer, Post, webhook_receiver

from chaos.fleet import fleet
from orchestrator.domain.conversation import TRANSITIONS, Phase

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.anyio]
CONVERSATIONS, KILLS = 24, 6


async def test_no_event_is_lost_and_order_holds_while_senders_are_killed() -> None:
    def decide(path: str, number: int) -> Answer:
        return Answer(503) if number % 7 == 3 else Answer()

    variables = {
        "NESTOR_ALLOW_HOOK_HOSTS": "127.0.0.1",
        "NESTOR_HOOK_BACKOFF_SECONDS": "0.05",
        "NESTOR_HOOK_SECONDS": "1",
    }
    with webhook_receiver(decide) as receiver:
        async with fleet(seed=15, **variables) as members:
            key = await members.tenant("hooked")
            await members.ask("POST", "/api/v2/webhooks", key, json={"url": receiver.url})
            ids = []
            for number in range(CONVERSATIONS):
                made = await members.ask(
                    "POST", "/api/v2/conversations", key, json={}, headers={"Idempotency-Key": str(number)}
                )
                ids.append(made.json()["id"])
                if number % (CONVERSATIONS // KILLS) == 1:
                    victim = members.random.choice(members.replicas)
                    victim.crash()
                    await asyncio.to_thread(victim.begin)
            for id in ids:
                await members.until(key, id, "ready", seconds=90)
            deadline = time.monotonic() + 60
            while not _complete(taken := _taken(receiver.posts), ids):
                assert time.monotonic() < deadline, [len(_of(taken, id)) for id in ids]
                await asyncio.sleep(0.2)
    numbers = sorted(body["sequence"] for body in taken)
    assert numbers == list(range(1, len(numbers) + 1)), "an event was lost"
    for id in ids:
        own = _of(taken, id)
        assert [body["sequence"] for body in own] == sorted(body["sequence"] for body in own)
        phases = [Phase(body["data"]["phase"]) for body in own if "phase" in body["data"]]
        assert all(after in TRANSITIONS[before] for before, after in itertools.pairwise(phases)), phases


def _taken(posts: list[Post]) -> list[dict[str, Any]]:
    """What was taken, in the order in which it first came."""
    return list({post.body["id"]: post.body for post in list(posts) if post.answered < 300}.values())


def _of(bodies: list[dict[str, Any]], id: str) -> list[dict[str, Any]]:
    return [body for body in bodies if body["data"].get("conversation_id") == id]


def _complete(bodies: list[dict[str, Any]], ids: list[str]) -> bool:
    return all("runtime.ready" in [body["type"] for body in _of(bodies, id)] for id in ids)
