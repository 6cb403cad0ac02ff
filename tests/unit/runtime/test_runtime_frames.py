"""Encoded frames, and the whole state kept below what a client takes."""

import json
from typing import Any

import pytest
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from runtime.conversations.bounds import bounded
from runtime.events import frames


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_a_frame_is_one_whole_text_message(size: int) -> None:
    payload = b"x" * size
    reader = StreamReader()
    reader.feed_data(frames.text_frame(payload))
    reader.feed_eof()
    parsing = Frame.parse(reader.read_exact, mask=False)
    with pytest.raises(StopIteration) as parsed:
        next(parsing)
    frame = parsed.value.value
    assert (frame.opcode, frame.fin, bytes(frame.data)) == (Opcode.TEXT, True, payload)


def test_envelopes_leave_nulls_out_and_events_as_they_are() -> None:
    assert json.loads(frames.sync(from_seq=None, through_seq=None)) == {"type": "sync"}
    assert json.loads(frames.sync(from_seq=-1, through_seq=4)) == {"type": "sync", "from_seq": -1, "through_seq": 4}
    line = '{"id":"\u00fc","value":null}'.encode()
    assert frames.durable(3, line) == b'{"type":"durable","seq":3,"event":' + line + b"}"
    assert json.loads(frames.transient(line))["event"] == {"id": "\u00fc", "value": None}


def whole(entries: int = 0, context: int = 0) -> dict[str, Any]:
    usage = {"model_name": "m", "accumulated_cost": 1.0, "costs": [{"cost": 0.1}] * entries}
    usage |= {"response_latencies": [{"latency": 1}] * entries, "token_usages": [{"prompt_tokens": 1}] * entries}
    agent = {"kind": "Agent", "llm": {"model": "m", "usage_id": "agent"}, "agent_context": {"suffix": "x" * context}}
    return {
        "id": "1",
        "execution_status": "finished",
        "confirmation_policy": {"kind": "NeverConfirm"},
        "workspace": {"working_dir": "w"},
        "persistence_dir": "p",
        "agent": agent,
        "stats": {"usage_to_metrics": {"agent": usage}},
        "tags": {},
    }


def size(state: dict[str, Any]) -> int:
    return len(json.dumps(state))


def test_a_state_that_fits_is_left_alone() -> None:
    state = whole(entries=5, context=100)
    assert bounded(state, limit=5000) is state


def test_the_oldest_statistics_go_first_and_totals_stay() -> None:
    state = bounded(whole(entries=5000), limit=20_000)
    usage = state["stats"]["usage_to_metrics"]["agent"]
    assert size(state) <= 20_000
    assert (usage["accumulated_cost"], len(usage["costs"])) == (1.0, 100)
    assert state["agent"]["agent_context"] == {"suffix": ""}


@pytest.mark.parametrize(("context", "tags"), [(50_000, 0), (50_000, 50_000)])
def test_what_a_client_needs_is_there_whatever_else_is_large(context: int, tags: int) -> None:
    given = {**whole(entries=500, context=context), "tags": {"t": "x" * tags}}
    state = bounded(given, limit=20_000)
    assert size(state) <= 20_000
    for name in ("execution_status", "confirmation_policy", "workspace", "persistence_dir"):
        assert state[name] == given[name]
    assert state["agent"]["kind"] == "Agent"
    assert state["stats"]["usage_to_metrics"]["agent"]["accumulated_cost"] == 1.0
