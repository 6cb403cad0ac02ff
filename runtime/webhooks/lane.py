"""What one receiver still has to get of one conversation, and the task that brings it there, one post at a time.

A lane holds numbers, not events: what is to be sent is read when it can be sent, so an outage of hours costs nothing.
It knows when something is due (enough events, enough time, the end of a run) and when a failed post may be tried again;
the receiver knows whether anything can be sent at all. Single event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from random import random
from typing import TypeAlias

import structlog

from runtime.webhooks.batch import Batch, events_parcel
from runtime.webhooks.configuration import Webhook
from runtime.webhooks.outcome import Outcome, Verdict, delay
from runtime.webhooks.sender import Parcel
from runtime.webhooks.source import Source, Vanished

log = structlog.get_logger()

Make: TypeAlias = Callable[[], Awaitable[Parcel]]
#: sends what `Make` makes as soon as the receiver may be asked; raises what that raises
Deliver: TypeAlias = Callable[[Make], Awaitable[Outcome]]
#: of kinds that are not stored, each in its latest form
_MOST_LIVE = 16


@dataclass
class Channel:
    """One of the two things that a lane sends, with its own failures: a receiver may take the one and not the other."""

    name: str
    make: Make
    take: Callable[[], None]  #: remembers that what was made last has been acknowledged
    failures: int = 0
    not_before: float = 0.0


@dataclass
class Sending:
    """What is under way."""

    batch: Batch | None = None
    live: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    digest: str = ""
    changes: int = 0


class Lane:
    """Made by the receiver; `open` lets it send."""

    def __init__(
        self,
        source: Source,
        webhook: Webhook,
        *,
        events: int,
        deliver: Deliver,
        headers: Mapping[str, str],
        after: Lane | None = None,
    ) -> None:
        """`events` is how many the log has; `after` is a lane that must be empty before this one begins."""
        self._source = source
        self._webhook = webhook
        self._deliver = deliver
        self._headers = headers
        self._after = after
        self._position = source.position(webhook.key)
        self._events = events
        self._flush_to = 0  # what comes after it is held back
        self._held_bytes = 0
        self._live: dict[str, tuple[int, bytes]] = {}
        self._live_due = False
        self._changes = 0
        self._state_due = False
        self._most_events = webhook.max_queue_size
        self._sending = Sending()
        self._channels = (
            Channel("events", self._make_events, self._take_events),
            Channel("conversations", self._make_state, self._take_state),
        )
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._opened = False
        self._stopping = False
        self.empty = asyncio.Event()
        self._check_position()

    # -- what is there to send

    @property
    def acknowledged(self) -> int:
        return self._position.now.acknowledged

    @property
    def state(self) -> str:
        """The digest of the conversation as the receiver took it last; empty when it never did."""
        return self._position.now.state

    def stored(self, *, events: int, size: int) -> None:
        """The log has that many events; those that are new have that many bytes."""
        self._events = max(self._events, events)
        self._held_bytes += size
        self._consider()

    def live(self, name: str, event: bytes, *, events: int) -> None:
        """An event that is not stored. A newer one of the same name takes the place of one that was not sent yet."""
        self._live.pop(name, None)
        while len(self._live) >= _MOST_LIVE:
            del self._live[next(iter(self._live))]
        self._live[name] = (events, event)
        self._consider()

    def changed(self) -> None:
        """The conversation as a whole is to be sent, in the form that it has then."""
        self._changes += 1
        self._state_due = True
        self._go()

    def flush(self) -> None:
        """Hold nothing back that is there now."""
        self._forget_timer()
        self._flush_to, self._held_bytes = self._events, 0
        self._live_due = bool(self._live)
        self._go()

    def _consider(self) -> None:
        held = self._events - max(self.acknowledged, self._flush_to) + (0 if self._live_due else len(self._live))
        if held >= self._webhook.event_buffer_size or self._held_bytes >= self._webhook.batch_bytes:
            self.flush()
        elif held > 0 and self._timer is None and not self._stopping:
            self._timer = asyncio.get_running_loop().call_later(self._webhook.flush_delay, self.flush)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_position(self) -> None:
        if self.acknowledged > self._events:
            log.error("webhook.position_beyond_log", conversation=str(self._source.conversation), events=self._events)
            self._position.change(acknowledged=self._events, sending=self._events)

    # -- life

    def open(self) -> None:
        """From now on it sends. Idempotent."""
        self._opened = True
        self._go()

    async def close(self, *, seconds: float = 0.0) -> None:
        """Send what is there if that can be done in this time, then nothing more. Idempotent."""
        self._stopping = True
        if seconds and self._opened:
            self.flush()
            self._wake.set()
            if self._task is not None:
                await asyncio.wait({self._task}, timeout=seconds)
        self._opened = False
        self._forget_timer()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _go(self) -> None:
        if not self._opened:
            return
        if self._due() is None:
            if self._task is None:
                self.empty.set()
        elif self._task is None:
            self.empty.clear()
            self._task = asyncio.create_task(self._run(), name=f"webhook {self._source.conversation}")
        else:
            self._wake.set()

    async def _run(self) -> None:
        try:
            if self._after is not None:
                await self._after.empty.wait()
                self._after = None
            self._position.refresh()
            while (channel := self._due()) is not None:
                wait = channel.not_before - asyncio.get_running_loop().time()
                if wait <= 0:
                    if not await self._send(channel):
                        return
                elif self._stopping:
                    return
                else:
                    await self._sleep(wait)
            self.empty.set()
        finally:
            self._task = None

    async def _sleep(self, seconds: float) -> None:
        """Or until something else has become due."""
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    def _due(self) -> Channel | None:
        """What to send next: what can go at once before what has to wait, and what happened before what came of it."""
        events, state = self._channels
        begun = bool(self.state)
        order = (events, state) if begun or self._source.closing else (state, events)
        due = [channel for channel in order if self._is_due(channel)]
        now = asyncio.get_running_loop().time()
        return min(due, key=lambda channel: max(channel.not_before, now), default=None)

    def _is_due(self, channel: Channel) -> bool:
        if channel is self._channels[0]:
            return self.acknowledged < self._flush_to or self._live_due
        return self._state_due

    # -- one post

    async def _send(self, channel: Channel) -> bool:
        """False when there is nothing more to be done here for now."""
        try:
            outcome = await self._deliver(channel.make)
        except Vanished:
            self.empty.set()
            return False
        except Exception as error:  # the edge of a delivery: what failed here must not end the deliveries to come
            log.error("webhook.not_made", conversation=str(self._source.conversation), what=channel.name, exc_info=True)
            outcome = Outcome(Verdict.FAILED, type(error).__name__)
        match outcome.verdict:
            case Verdict.DELIVERED:
                channel.failures = 0
                channel.take()
            case Verdict.GONE:
                return False
            case Verdict.TOO_LARGE if self._smaller(channel):
                pass
            case _:
                self._failed(channel, outcome)
        return not (self._stopping and outcome.verdict is not Verdict.DELIVERED)

    def _failed(self, channel: Channel, outcome: Outcome) -> None:
        """Wait before the next try, also when it is the receiver that cannot take anything: else one conversation that
        it never takes would hold up the others again and again."""
        refused = outcome.verdict in (Verdict.REFUSED, Verdict.TOO_LARGE)
        channel.failures += 1
        told = {"receiver": self._webhook.origin, "conversation": str(self._source.conversation), "what": channel.name}
        if refused and self._source.is_overdue:
            log.error("webhook.given_up", **told, reason=outcome.told)
            channel.take()
            return
        retries = self._webhook.num_retries
        seconds = delay(
            channel.failures + (retries if refused else 0),
            retries=retries,
            first=self._webhook.retry_delay,
            chance=random(),  # noqa: S311 - spreads tries, hides nothing
        )
        seconds = max(seconds, outcome.wish or 0.0)
        channel.not_before = asyncio.get_running_loop().time() + seconds
        if outcome.verdict is Verdict.UNREACHABLE:
            return  # the receiver has said so, once for all its lanes
        event = "webhook.refused" if refused else "webhook.failed"
        log.warning(event, **told, reason=outcome.told, failures=channel.failures, again_in=round(seconds, 1))

    def _smaller(self, channel: Channel) -> bool:
        """Whether a batch that was too large can be halved; then it will be."""
        batch = self._sending.batch
        if channel is not self._channels[0] or batch is None or len(batch.events) < 2:
            return False
        self._most_events = len(batch.events) // 2
        self._position.change(sending=self.acknowledged)
        return True

    async def _make_events(self) -> Parcel:
        now = self._position.now
        # A batch that may have arrived is repeated as it was, so that what comes twice comes as a whole.
        through = now.sending if now.acknowledged < now.sending <= self._events else self._events
        most_bytes = self._webhook.batch_bytes
        batch = await self._source.batch(
            now.acknowledged, through, most_events=self._most_events, most_bytes=most_bytes
        )
        if batch.last <= now.acknowledged and not self._live:
            log.error("webhook.events_missing", conversation=str(self._source.conversation), events=self._events)
            self._events = self._flush_to = now.acknowledged
            raise Vanished
        live = {name: item for name, item in self._live.items() if item[0] <= batch.last or batch.last >= self._events}
        self._position.change(sending=batch.last)
        self._sending = Sending(batch=batch, live=live)
        return events_parcel(self._source.conversation.hex, batch, list(live.values()), self._told(self._events))

    def _take_events(self) -> None:
        sent, self._sending = self._sending, Sending()
        assert sent.batch is not None  # noqa: S101 - made before it was sent
        self._position.change(acknowledged=sent.batch.last)
        for name, item in sent.live.items():
            if self._live.get(name) is item:
                del self._live[name]
        self._live_due = self._live_due and bool(self._live)

    async def _make_state(self) -> Parcel:
        changes = self._changes
        state = await self._source.state()
        self._sending = Sending(digest=state.digest, changes=changes)
        return Parcel("/conversations", state.body, self._told(state.events))

    def _take_state(self) -> None:
        self._position.change(state=self._sending.digest)
        self._state_due = self._state_due and self._changes != self._sending.changes

    def _told(self, events: int) -> dict[str, str]:
        return {**self._headers, "x-nestor-log-events": str(events)}
