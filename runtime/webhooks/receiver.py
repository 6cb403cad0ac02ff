"""One receiver: its lanes, how many posts are under way, and whether it can be asked at all.

While it cannot be reached one post at a time finds out, at growing distances, and every lane waits for what that one is
told. Receivers share nothing, so a slow or dead one holds up nobody else. Single event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from random import random
from uuid import UUID

import structlog

from runtime.webhooks.configuration import Webhook
from runtime.webhooks.lane import Lane, Make
from runtime.webhooks.outcome import Outcome, Verdict, delay
from runtime.webhooks.sender import Sender
from runtime.webhooks.source import DELETED, Source

log = structlog.get_logger()

#: for a lane that must not ask again in this life
_OVER = Outcome(Verdict.GONE)


class Receiver:
    """`open` lets it send, `close` ends it."""

    def __init__(self, webhook: Webhook, sender: Sender, *, headers: Mapping[str, str]) -> None:
        """`headers` go with every post."""
        self.webhook = webhook
        self._sender = sender
        self._headers = headers
        self._lanes: dict[UUID, Lane] = {}
        self._leaving: list[Lane] = []
        self._last_leaving: dict[UUID, Lane] = {}
        self._slots = asyncio.Semaphore(webhook.at_once)
        self._probe = asyncio.Lock()
        self._failures = 0
        self._not_before = 0.0
        self._gone = False
        self._opened = False
        self._stopping = asyncio.Event()

    def lane(self, source: Source, *, events: int) -> Lane:
        """The lane of a conversation that lives, made when there is none; its log has that many events."""
        found = self._lanes.get(source.conversation)
        if found is None:
            found = self._lanes[source.conversation] = self._made(source, events)
            if self._opened:
                found.open()
        return found

    def has_lane(self, conversation: UUID) -> bool:
        return conversation in self._lanes

    async def drop(self, conversation: UUID) -> None:
        """Send nothing more of this conversation; where it got to is kept. Idempotent."""
        lane = self._lanes.pop(conversation, None)
        if lane is not None:
            await lane.close()

    def leaving(self, source: Source, *, events: int) -> Lane:
        """The lane of a conversation that was deleted: what it has goes at once. `empty` is set when all of it went."""
        lane = self._made(source, events)
        self._leaving.append(lane)
        self._last_leaving[source.conversation] = lane
        if lane.state != DELETED:
            lane.changed()
        lane.flush()
        if self._opened:
            lane.open()
        return lane

    def _made(self, source: Source, events: int) -> Lane:
        """A conversation whose id was used before comes after the one that had it."""
        return Lane(
            source,
            self.webhook,
            events=events,
            deliver=self._deliver,
            headers=self._headers,
            after=self._last_leaving.get(source.conversation),
        )

    def forget(self, lane: Lane) -> None:
        """A lane of a deleted conversation that is empty."""
        self._leaving.remove(lane)
        for conversation, last in list(self._last_leaving.items()):
            if last is lane:
                del self._last_leaving[conversation]

    # -- life

    def open(self) -> None:
        """Every lane may send from now on."""
        self._opened = True
        for lane in [*self._leaving, *self._lanes.values()]:
            lane.open()

    async def close(self, *, seconds: float) -> None:
        """Send what can be sent in this time; the rest is sent after the next start. Idempotent."""
        if not self._opened or self._failures or self._gone:
            seconds = 0.0
        self._opened = False
        self._stopping.set()
        lanes = [*self._leaving, *self._lanes.values()]
        await asyncio.gather(*(lane.close(seconds=seconds) for lane in lanes))
        await self._sender.close()

    # -- posts

    async def _deliver(self, make: Make) -> Outcome:
        async with self._slots:
            if self._gone:
                return _OVER
            if self._failures:
                async with self._probe:
                    if self._failures:  # still, after what another one was told
                        return await self._try_again(make)
            return await self._try(make)

    async def _try_again(self, make: Make) -> Outcome:
        wait = self._not_before - asyncio.get_running_loop().time()
        if wait > 0:
            try:
                async with asyncio.timeout(wait):
                    await self._stopping.wait()
            except TimeoutError:
                pass
        return _OVER if self._stopping.is_set() else await self._try(make)

    async def _try(self, make: Make) -> Outcome:
        outcome = await self._sender.post(await make())
        match outcome.verdict:
            case Verdict.UNREACHABLE:
                self._unreachable(outcome)
            case Verdict.GONE:
                if not self._gone:
                    log.error("webhook.gone", receiver=self.webhook.origin, effect="nothing is sent until a restart")
                self._gone = True
            case _ if self._failures:
                log.info("webhook.reachable_again", receiver=self.webhook.origin, failures=self._failures)
                self._failures = 0
        return outcome

    def _unreachable(self, outcome: Outcome) -> None:
        """Several posts that were under way together are one failure."""
        now = asyncio.get_running_loop().time()
        if self._failures and now < self._not_before:
            return
        self._failures += 1
        seconds = delay(
            self._failures,
            retries=self.webhook.num_retries,
            first=self.webhook.retry_delay,
            chance=random(),  # noqa: S311 - spreads tries, hides nothing
        )
        seconds = max(seconds, outcome.wish or 0.0)
        self._not_before = now + seconds
        log.warning(
            "webhook.unreachable",
            receiver=self.webhook.origin,
            reason=outcome.told,
            failures=self._failures,
            again_in=round(seconds, 1),
        )
