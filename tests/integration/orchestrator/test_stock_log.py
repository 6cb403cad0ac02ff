"""The log of an agent server that numbers nothing: by position in its search order, and each event id once."""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio.abc
import pytest

from orchestrator.domain.clock import SystemClock
from orchestrator.domain.conversation import Conversation
from orchestrator.nested.client import RuntimeClients
from orchestrator.security.envelope import Envelope
from orchestrator.security.master_keys import MasterKeys
from orchestrator.services.event_archiving import Bounds, EventArchiving
from orchestrator.services.events import EventLog
from orchestrator.services.keys import KeyRing
from orchestrator.state.event_archive.archive import EventArchive
from orchestrator.state.event_archive.files import FilePlace
from orchestrator.state.memory import MemoryStore

from .test_hostile_runtime import reachable, runtime, send

pytestmark = pytest.mark.anyio


class StockServer:
    """Its search: sorted by time, the id of the next page's first event, and an unknown one read from the start."""

    def __init__(self) -> None:
        self.log: list[dict[str, Any]] = []
        self.page = 100
        self.repeats = False  # the last event of a page is the first of the next as well

    def say(self, *ids: str) -> None:
        self.log += [{"id": id, "kind": "MessageEvent", "source": "agent"} for id in ids]

    async def answer(self, target: str, stream: anyio.abc.SocketStream) -> None:
        wanted = parse_qs(urlsplit(target).query).get("page_id", [""])[0]
        first = next((at for at, event in enumerate(self.log) if event["id"] == wanted), 0)
        following = first + self.page - (1 if self.repeats else 0)
        next_id = self.log[following]["id"] if first + self.page < len(self.log) else None
        await send(stream, {"items": self.log[first : first + self.page], "next_page_id": next_id})


class Outer:
    """What is kept outside."""

    def __init__(self, folder: Path) -> None:
        self.store = MemoryStore(SystemClock())
        self.keys = KeyRing(Envelope(MasterKeys([b"k" * 32]), self.store.configuration))
        archiving = EventArchiving(self.store.events, EventArchive(FilePlace(folder)), Bounds(50, 1024 * 1024))
        self.log = EventLog(self.store.events, archiving, RuntimeClients(), self.keys, SystemClock())

    async def ids(self, conversation: Conversation) -> list[str]:
        found = await self.log.read(conversation, after=0, limit=10_000, ask=False)
        assert [event.sequence for event in found] == list(range(1, len(found) + 1))
        return [event.id for event in found]


async def test_events_are_numbered_by_their_place_and_kept_once(tmp_path: Path) -> None:
    server, outer = StockServer(), Outer(tmp_path)
    server.say(*(f"e{number}" for number in range(1, 351)))
    async with runtime(server.answer) as address:
        conversation = await reachable(outer.store, outer.keys, address)
        for _ in range(2):
            await outer.log.pull(conversation)
            assert await outer.ids(conversation) == [f"e{number}" for number in range(1, 351)]
        server.repeats = True
        server.page = 10
        server.say(*(f"e{number}" for number in range(351, 401)))
        await outer.log.pull(conversation)
        assert await outer.ids(conversation) == [f"e{number}" for number in range(1, 401)]


async def test_a_log_whose_end_was_lost_goes_on_under_new_numbers(tmp_path: Path) -> None:
    """It crashed before its last events were on its disk: what was told stays, and nothing is told twice."""
    server, outer = StockServer(), Outer(tmp_path)
    server.say(*(f"e{number}" for number in range(1, 151)))
    async with runtime(server.answer) as address:
        conversation = await reachable(outer.store, outer.keys, address)
        await outer.log.pull(conversation)
        del server.log[148:]
        server.say("after-1", "after-2")
        server.log.insert(10, {"id": "late", "kind": "MessageEvent", "source": "agent"})
        for _ in range(2):
            await outer.log.pull(conversation)
        before = [f"e{number}" for number in range(1, 151)]
        assert await outer.ids(conversation) == [*before, "late", "after-1", "after-2"]
        server.say("after-3")
        await outer.log.pull(conversation)
        assert (await outer.ids(conversation))[-1] == "after-3"
