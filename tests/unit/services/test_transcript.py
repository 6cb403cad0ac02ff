"""What an agent does now, read from the end of its log."""

import json
from collections.abc import Sequence
from typing import Any, cast

import pytest
from support.records import a_conversation

from orchestrator.services.events import EventLog
from orchestrator.services.transcript import Transcript
from orchestrator.state.base import StoredEvent
from orchestrator.state.event_archive.places import EventsUnavailable

pytestmark = pytest.mark.anyio


class Log:
    """A log in memory, which counts what is read of it."""

    def __init__(self, events: Sequence[dict[str, Any]]) -> None:
        self._events = [StoredEvent(n, f"e{n}", json.dumps(event)) for n, event in enumerate(events, start=1)]
        self.read_events = 0

    async def length(self, conversation: object) -> int:
        return len(self._events)

    async def read(self, conversation: object, *, after: int, limit: int, ask: bool) -> list[StoredEvent]:
        found = self._events[after : after + limit]
        self.read_events += len(found)
        return found


def told(status: Any, key: str = "execution_status") -> dict[str, Any]:
    return {"kind": "ConversationStateUpdateEvent", "key": key, "value": status}


STATS, DID = told({}, "stats"), {"kind": "ActionEvent"}
SAID = {"kind": "MessageEvent", "source": "user"}


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([], "idle"),
        ([SAID], "idle"),
        ([SAID, told("running")], "running"),
        ([SAID, told("running"), DID, told("finished"), STATS], "finished"),
        ([told("running"), told({"execution_status": "stuck"}, "full_state")], "stuck"),
        ([told("finished"), SAID], "finished"),
        ([told("finished"), SAID, told("running"), DID, STATS, STATS], "running"),
        ([told("paused"), *[STATS] * 90], "paused"),
        ([told("finished"), *[SAID] * 200], "running"),
    ],
)
async def test_the_last_word_counts(events: list[dict[str, Any]], status: str) -> None:
    transcript = Transcript(cast(EventLog, Log(events)))
    assert await transcript.execution_status(a_conversation()) == status


async def test_an_agent_at_work_is_known_by_the_last_that_it_did() -> None:
    log = Log([told("running"), *[DID] * 5_000])
    assert await Transcript(cast(EventLog, log)).execution_status(a_conversation()) == "running"
    assert log.read_events <= 4


async def test_a_log_that_cannot_be_read_keeps_nobody_from_knowing_the_rest() -> None:
    class Away(Log):
        async def length(self, conversation: object) -> int:
            raise EventsUnavailable("the archive is away")

    assert await Transcript(cast(EventLog, Away([]))).execution_status(a_conversation()) is None


async def test_a_log_is_read_from_either_end() -> None:
    transcript = Transcript(cast(EventLog, Log([{}] * 250)))
    one = a_conversation()
    assert [event.sequence async for event in transcript.forward(one, after=240)] == list(range(241, 251))
    assert [event.sequence async for event in transcript.backward(one, before=251)] == list(range(250, 0, -1))
    assert [event.sequence async for event in transcript.backward(one, before=3)] == [2, 1]
    assert [event async for event in transcript.backward(one, before=1)] == []
