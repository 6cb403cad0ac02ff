"""The conversation's event log outside of its runtime: pulled from the runtime's own log, numbered as it is there.

Runtimes push their events; a pull repairs. It takes everything after the last event that is kept; what is there already
is dropped, and a gap cannot arise, since the runtime's log is read in order from a known event on. So a pull that is
repeated, or made by two replicas at once, changes nothing. What a runtime says is lost for good gets a mark.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import anyio
import structlog

from orchestrator.domain.clock import Clock
from orchestrator.domain.conversation import Conversation, Kind, Phase
from orchestrator.domain.errors import RuntimeUnreachable
from orchestrator.domain.ids import ConversationId
from orchestrator.domain.spending import reported
from orchestrator.nested.client import EventPage, RuntimeClient, RuntimeClients, is_event_id
from orchestrator.nested.refusals import Refused
from orchestrator.services.event_archiving import EventArchiving
from orchestrator.services.keys import KeyRing
from orchestrator.state.base import GAP, Events, StoredEvent
from orchestrator.state.event_archive.places import EventsUnavailable

log = structlog.get_logger(__name__)
_FRESH_SECONDS = 10.0  # for which a reader waits for what is new
#: The contract keeps events below a socket's frame of 1 MiB; of what is larger only the fact is kept.
MAXIMUM_EVENT_CHARACTERS = 1024 * 1024
#: The kind of the mark that stands for events which will never come: from `first` to `last`, under the number `last`.
GAP_KIND = "NestorGapEvent"
#: Why a log could not be read, or not be kept: what is missing stays with the runtime, and comes later.
NOT_PULLED = (RuntimeUnreachable, Refused, EventsUnavailable)
_PUSHES_FOR_SECONDS = 30.0
_KNOWN_PUSHES = 10_000
_NO_SUCH_PAGE = frozenset({400, 404, 422})
_MERGE_PAGE = 1000
_NEIGHBOURS = 10  # read with one that is asked for by its number
_PAGES_A_PULL = 200  # 20,000 events: what is left comes with the next pull


class EventLog:
    """Reads, and pulls before it reads where the runtime is there to be asked."""

    def __init__(
        self, events: Events, archiving: EventArchiving, clients: RuntimeClients, keys: KeyRing, clock: Clock
    ) -> None:
        self._events = events
        self._archiving = archiving
        self._clients = clients
        self._keys = keys
        self._clock = clock
        self._pushed: OrderedDict[ConversationId, float] = OrderedDict()
        self.pulls = 0  #: how often a runtime's log was read

    async def read(
        self, conversation: Conversation, *, after: int, limit: int, ask: bool = True
    ) -> Sequence[StoredEvent]:
        """Up to `limit` events with a sequence above `after`; `ask` the runtime first for what is new there. One that
        cannot be reached costs freshness only."""
        if ask:
            await self.freshen(conversation)
        return await self._archiving.read(conversation, after=after, limit=limit)

    async def freshen(self, conversation: Conversation) -> None:
        """Take over what is new in the runtime, where there is one. One that cannot be reached costs freshness only."""
        if conversation.phase is not Phase.READY:
            return
        try:
            with anyio.move_on_after(_FRESH_SECONDS):
                await self.pull(conversation)
        except NOT_PULLED as exc:
            log.warning("events.pull_failed", conversation=conversation.id, problem=exc.message)

    async def numbered(self, conversation: Conversation, sequences: Sequence[int]) -> Sequence[StoredEvent | None]:
        """The events of these numbers, in that order; None for what the log has not. The runtime is asked for new ones
        once."""
        await self.freshen(conversation)
        found: dict[int, StoredEvent] = {}
        for sequence in sorted(set(sequences)):
            if sequence not in found and sequence > 0:  # those behind it are often asked for as well
                for one in await self.read(conversation, after=sequence - 1, limit=_NEIGHBOURS, ask=False):
                    found[one.sequence] = one
        return [found.get(sequence) for sequence in sequences]

    async def count(self, conversation: Conversation) -> int:
        """How many the log has now, which is the number of the last one."""
        await self.freshen(conversation)
        return await self.length(conversation)

    async def take(self, conversation: Conversation, first: int, events: Sequence[Mapping[str, Any]]) -> bool:
        """Keep what the runtime sent by itself, numbered as in its own log; what is there already is dropped. False
        when events before them are missing, and then nothing is kept. Durable when it returns. Raises
        `StoreUnavailable`, `RuntimeUnreachable` for what is no event."""
        if not all(is_event_id(item.get("id")) for item in events):
            raise RuntimeUnreachable("the runtime sent something that is no event")
        batch = [_stored(conversation, sequence, item) for sequence, item in enumerate(events, start=first)]
        last = await self._append(conversation, batch)
        await self._archiving.settled(conversation)
        whole = last >= first + len(events) - 1
        if whole:
            self._pushed[conversation.id] = anyio.current_time()
            self._pushed.move_to_end(conversation.id)
            while len(self._pushed) > _KNOWN_PUSHES:
                self._pushed.popitem(last=False)
        return whole

    async def refresh(self, conversation: Conversation) -> None:
        """Pull, unless the runtime pushed just now: then what is new comes by itself. Raises as `pull`."""
        if anyio.current_time() - self._pushed.get(conversation.id, float("-inf")) > _PUSHES_FOR_SECONDS:
            await self.pull(conversation)

    async def pull(self, conversation: Conversation) -> int:
        """Take over what the runtime has and we have not; answers the last sequence kept. A bare runtime has no log.
        Raises `RuntimeUnreachable`, `Refused`."""
        if conversation.kind is Kind.RUNTIME:
            return 0
        self.pulls += 1
        runtime, key = conversation.runtime, await self._keys.inner_key(conversation)
        if runtime is None or key is None or not runtime.address:
            return 0
        async with self._clients.open(f"http://{runtime.address}", key) as client:
            return await self._pull(conversation, client)

    async def lost(self, conversation: Conversation, first: int, last: int) -> None:
        """The runtime says that it will never send the events from `first` to `last`. What its log still has of them is
        read; for what it has not the log gets a mark, and goes on behind it. Durable when it returns. Raises
        `StoreUnavailable`."""
        if await self.length(conversation) >= last:
            return
        with suppress(RuntimeUnreachable, Refused):
            await self.pull(conversation)
        have = await self.length(conversation)
        if have < last:
            log.warning("events.gap", conversation=conversation.id, first=have + 1, last=last, told=first)
            await self._append(conversation, [self._mark(have + 1, last)])
            await self._archiving.settled(conversation)

    async def length(self, conversation: Conversation) -> int:
        """The last sequence that is kept. Raises `StoreUnavailable`, `NotFound`."""
        return (await self._archiving.known(conversation)).last

    async def _pull(self, conversation: Conversation, client: RuntimeClient) -> int:
        last = await self._archiving.last(conversation)
        if last is None or last.is_gap:  # a mark is ours: the runtime's log is read from its beginning
            page = await client.events(conversation.id, page_id=None)
            return await self._follow(conversation, client, page, sequence=0, known=set())
        try:
            page = await client.events(conversation.id, page_id=last.id)
        except Refused as exc:
            if exc.status not in _NO_SUCH_PAGE:
                raise
            page = EventPage([], None)
        if page.items and page.items[0]["id"] == last.id:
            return await self._follow(conversation, client, page, sequence=last.sequence, known={last.id})
        return await self._merged(conversation, client, last.sequence)

    async def _merged(self, conversation: Conversation, client: RuntimeClient, sequence: int) -> int:
        """The log does not hold the last event that it gave: of another agent server, which may lose its end or put
        events in between. What we have not under its id comes next; nothing that was numbered changes."""
        log.warning("events.log_differs", conversation=conversation.id, sequence=sequence)
        known: set[str] = set()
        after = 0
        while some := await self._archiving.read(conversation, after=after, limit=_MERGE_PAGE):
            known.update(event.id for event in some)
            after = some[-1].sequence
        page = await client.events(conversation.id, page_id=None)
        return await self._follow(conversation, client, page, sequence=max(sequence, after), known=known)

    async def _follow(
        self, conversation: Conversation, client: RuntimeClient, page: EventPage, *, sequence: int, known: set[str]
    ) -> int:
        """Take over what is on `page` and behind it, but for ids that are known, numbered from `sequence` on by the
        place in the runtime's log: another pull may be ahead in ours."""
        for left in range(_PAGES_A_PULL, 0, -1):
            batch = []
            for item in page.items:
                if item["id"] not in known:
                    known.add(item["id"])
                    sequence += 1
                    batch.append(_stored(conversation, sequence, item))
            if batch:
                await self._append(conversation, batch)
            if page.next_page_id is None or left == 1:
                break
            page = await client.events(conversation.id, page_id=page.next_page_id)
        return sequence

    def _mark(self, first: int, last: int) -> StoredEvent:
        event = {
            "id": f"{GAP}{first}-{last}",
            "timestamp": self._clock.now().isoformat(),
            "source": "environment",
            "kind": GAP_KIND,
            "first": first,
            "last": last,
        }
        return StoredEvent(last, str(event["id"]), json.dumps(event), first=first)

    async def _append(self, conversation: Conversation, batch: Sequence[StoredEvent]) -> int:
        await self._archiving.make_room(conversation)
        return await self._events.append(conversation.tenant, conversation.id, batch, at=self._clock.now())


def _stored(conversation: Conversation, sequence: int, item: Mapping[str, Any]) -> StoredEvent:
    """What the log of a fork has from its source says what that one used: it is not the fork's, whose counts from
    nothing."""
    fork = conversation.request.fork_of
    own = fork is None or sequence > fork.events
    return StoredEvent(
        sequence, str(item["id"]), _payload(item), _is_message(item), spent=reported(item) if own else None
    )


def _is_message(item: Mapping[str, Any]) -> bool:
    return item.get("kind") == "MessageEvent" and item.get("source") == "user"


def _payload(item: Mapping[str, Any]) -> str:
    """The event as it is kept: what no client could be told (half of a character) is replaced; numbers that JSON does
    not have make it no event at all (`RuntimeUnreachable`)."""
    try:
        text = json.dumps(item, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        raise RuntimeUnreachable("the runtime answered its event log with something else") from None
    if len(text) > MAXIMUM_EVENT_CHARACTERS:
        kept = {name: str(item.get(name, ""))[:100] for name in ("id", "timestamp", "source", "kind")}
        return json.dumps(kept | {"omitted_characters": len(text)})
    return text.encode(errors="replace").decode()
