"""The agent server's events (the contract's own samples) in the words of V0."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.facades.v0.vocabulary import spoken
from orchestrator.services.events import GAP_KIND
from orchestrator.state.base import StoredEvent

SAMPLES = Path(__file__).parents[2] / "contract" / "runtime" / "samples"
WORDS = {
    "ActionEvent-FileEditorAction": ("action", "edit"),
    "ActionEvent-FinishAction": ("action", "finish"),
    "ActionEvent-TaskTrackerAction": ("action", "task_tracking"),
    "ActionEvent-TerminalAction": ("action", "run"),
    "ActionEvent-ThinkAction": ("action", "think"),
    "ActionEvent-invalid-args": ("action", "null"),
    "AgentErrorEvent": ("observation", "error"),
    "Condensation": ("action", "condensation"),
    "CondensationRequest": ("observation", "null"),
    "ConversationErrorEvent": ("observation", "error"),
    "ConversationStateUpdateEvent-execution_status": ("observation", "agent_state_changed"),
    "ConversationStateUpdateEvent-last_user_message_id": ("observation", "null"),
    "ConversationStateUpdateEvent-stats": ("observation", "null"),
    "HookExecutionEvent": ("observation", "null"),
    "InterruptEvent": ("action", "change_agent_state"),
    "MessageEvent": ("action", "message"),
    "ObservationEvent-FileEditorObservation": ("observation", "edit"),
    "ObservationEvent-FinishObservation": ("observation", "null"),
    "ObservationEvent-TaskTrackerObservation": ("observation", "task_tracking"),
    "ObservationEvent-TerminalObservation": ("observation", "run"),
    "ObservationEvent-ThinkObservation": ("observation", "think"),
    "PauseEvent": ("action", "change_agent_state"),
    "SystemPromptEvent": ("action", "system"),
    "UserRejectObservation": ("observation", "user_rejected"),
    "UserRejectObservation-hook": ("observation", "user_rejected"),
    "client-tool-ActionEvent": ("action", "call_tool_mcp"),
    "client-tool-ObservationEvent": ("observation", "mcp"),
}


def sample(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((SAMPLES / f"05-event-{name}.json").read_text())
    return event


def told(event: dict[str, Any], **known: int) -> dict[str, Any]:
    (only,) = spoken(StoredEvent(7, str(event.get("id", "x")), json.dumps(event)), known, low=1, high=99)
    return only


@pytest.mark.parametrize("name", sorted(WORDS))
def test_a_kind_of_event_has_its_word_and_its_whole_shape(name: str) -> None:
    event = told(sample(name))
    form, word = WORDS[name]
    assert event[form] == word
    body = {"args"} if form == "action" else {"content", "extras"}
    assert set(event) == {"id", "timestamp", "source", "message", form, *body}
    assert (event["id"], event["timestamp"]) == (7, sample(name)["timestamp"])
    assert event["source"] in ("user", "agent", "environment")
    assert isinstance(event["message"], str)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("idle", "awaiting_user_input"),
        ("running", "running"),
        ("finished", "finished"),
        ("paused", "paused"),
        ("waiting_for_confirmation", "awaiting_user_confirmation"),
        ("error", "error"),
        ("stuck", "error"),
    ],
)
def test_a_status_is_an_agent_state(status: str, state: str) -> None:
    update = sample("ConversationStateUpdateEvent-execution_status")
    assert told(update | {"value": status})["extras"]["agent_state"] == state
    whole = update | {"key": "full_state", "value": {"execution_status": status}}
    assert told(whole)["extras"]["agent_state"] == state


def test_what_the_agent_ran_and_what_came_of_it_belong_together() -> None:
    action, seen = sample("ActionEvent-TerminalAction"), sample("ObservationEvent-TerminalObservation")
    assert told(action)["args"]["command"] == action["action"]["command"]
    answer = told(seen, **{seen["action_id"]: 6})
    assert (answer["cause"], answer["extras"]["metadata"]["exit_code"]) == (6, 0)
    assert answer["content"] == "tok= plain=<secret-hidden>"
    assert "cause" not in told(seen)


def test_the_last_word_is_a_message_or_the_end() -> None:
    message = sample("MessageEvent") | {"source": "agent"}
    assert told(message)["args"]["wait_for_response"] is True
    assert told(sample("MessageEvent"))["args"]["content"].startswith("SCRIPT:")
    assert told(sample("ActionEvent-FinishAction"))["args"]["final_thought"] == "All done."


def test_a_gap_has_each_of_its_numbers_within_what_is_asked_for() -> None:
    mark = {"id": "gap 3-900000000", "timestamp": "t", "source": "environment", "kind": GAP_KIND}
    gap = StoredEvent(900_000_000, mark["id"], json.dumps(mark), first=3)
    assert [event["id"] for event in spoken(gap, {}, low=5, high=8)] == [5, 6, 7, 8]


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"kind": "MessageEvent"},
        {"kind": "MessageEvent", "llm_message": {"content": [1, {"type": "text"}, {"text": None}]}},
        {"kind": "MessageEvent", "llm_message": "said"},
        {"kind": "MessageEvent", "llm_message": [1]},
        {"kind": "MessageEvent", "llm_message": {"content": [{"image_urls": 1}, {"image_urls": [2]}]}},
        {"kind": "ActionEvent", "action": {"kind": "TerminalAction"}, "thought": "x"},
        {"kind": "ObservationEvent", "observation": {"kind": "TerminalObservation", "metadata": 1, "content": 2}},
        {"kind": "ConversationStateUpdateEvent", "key": "full_state", "value": 1},
        {"kind": "SystemPromptEvent", "system_prompt": []},
        {"kind": 5, "source": 6, "action_id": []},
    ],
)
def test_what_a_strange_runtime_wrote_is_told_all_the_same(event: dict[str, Any]) -> None:
    assert told(event)["id"] == 7
