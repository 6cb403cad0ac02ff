"""An event of the agent server's log in the words of V0. Pure: two tables and the code that reads them.

Every event of the log becomes exactly one of V0, so that the numbers stay dense: `id` is the event's sequence, and 0 is
the beginning, which is in no log. What V0 has no word for is a `null` observation that names its kind.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from orchestrator.facades.statuses import AGENT_STATES
from orchestrator.services.events import GAP_KIND
from orchestrator.services.transcript import status_told
from orchestrator.state.base import StoredEvent

Event = Mapping[str, Any]
Part = Mapping[str, Any]
_EDITS = ("path", "command", "file_text", "old_str", "new_str", "insert_line", "view_range")


def beginning(*, timestamp: str, working: bool) -> dict[str, Any]:
    """Event 0: the agent is there, and waits for its user, or has something to work on already."""
    return {"id": 0, "timestamp": timestamp, **_state("loading" if working else "awaiting_user_input")}


def spoken(stored: StoredEvent, known: Mapping[str, int], *, low: int, high: int) -> Iterator[dict[str, Any]]:
    """One event of the log; of a gap, one for each number between `low` and `high` that will never come. `known` are
    the numbers of events near it by their ids: what an observation answers is told by its number."""
    event: Event = json.loads(stored.payload)
    head = {"timestamp": event.get("timestamp"), "source": _source(event)}
    if event.get("kind") == GAP_KIND or stored.is_gap:
        for number in range(max(stored.first, low), min(stored.sequence, high) + 1):
            yield {"id": number, **head, **_nothing("this event was lost", kind=GAP_KIND)}
        return
    cause = known.get(str(event.get("action_id")))
    words = _KINDS.get(str(event.get("kind")), _unknown)(event)
    yield {"id": stored.sequence, **head, **({} if cause is None else {"cause": cause}), **words}


def _source(event: Event) -> str:
    source = event.get("source")
    return source if source in ("user", "agent", "environment") else "environment"


# -- kinds of events


def _message(event: Event) -> dict[str, Any]:
    sent = event.get("llm_message")
    said = sent.get("content") if isinstance(sent, Mapping) else None
    content = text_of(said)
    listed = [part.get("image_urls") for part in _parts(said)]
    images = [url for urls in listed if isinstance(urls, list) for url in urls if isinstance(url, str)]
    waits = event.get("source") == "agent"
    return _action("message", content, content=content, image_urls=images, file_urls=[], wait_for_response=waits)


def _acted(event: Event) -> dict[str, Any]:
    action = event.get("action")
    if not isinstance(action, Mapping):  # its arguments were not valid: the error comes next
        return _action("null", f"The call of {event.get('tool_name')} was not valid")
    return _ACTIONS.get(str(action.get("kind")), _called)(event, action)


def _observed(event: Event) -> dict[str, Any]:
    seen = event.get("observation")
    seen = seen if isinstance(seen, Mapping) else {}
    return _OBSERVATIONS.get(str(seen.get("kind")), _answered)(event, seen)


def _updated(event: Event) -> dict[str, Any]:
    status = status_told(dict(event))
    if status is None:
        return _nothing("", kind="ConversationStateUpdateEvent", key=event.get("key"))
    return _state(AGENT_STATES.get(status, status))


def _went_wrong(event: Event) -> dict[str, Any]:
    text = str(event.get("error") or event.get("detail") or "")
    return _observation("error", text, content=text, error_id=str(event.get("code") or ""))


def _declined(event: Event) -> dict[str, Any]:
    text = str(event.get("rejection_reason") or "")
    return _observation("user_rejected", text, content=text)


def _system(event: Event) -> dict[str, Any]:
    prompt = event.get("system_prompt")
    content = str(prompt.get("text", "")) if isinstance(prompt, Mapping) else ""
    return _action("system", "", content=content, tools=event.get("tools") or [])


def _condensed(event: Event) -> dict[str, Any]:
    summary = str(event.get("summary") or "")
    return _action("condensation", summary, summary=summary, summary_offset=event.get("summary_offset"))


def _held(event: Event) -> dict[str, Any]:
    return _action("change_agent_state", "The user held the agent", agent_state="paused", thought="")


def _unknown(event: Event) -> dict[str, Any]:
    return _nothing("", kind=str(event.get("kind")))


_KINDS: Mapping[str, Callable[[Event], dict[str, Any]]] = {
    "MessageEvent": _message,
    "ActionEvent": _acted,
    "ObservationEvent": _observed,
    "ConversationStateUpdateEvent": _updated,
    "AgentErrorEvent": _went_wrong,
    "ConversationErrorEvent": _went_wrong,
    "UserRejectObservation": _declined,
    "SystemPromptEvent": _system,
    "Condensation": _condensed,
    "PauseEvent": _held,
    "InterruptEvent": _held,
}


# -- what an agent does


def _ran(event: Event, action: Part) -> dict[str, Any]:
    command = str(action.get("command") or "")
    return _action(
        "run",
        f"Running command: {command}",
        command=command,
        is_input=bool(action.get("is_input")),
        blocking=False,
        hidden=False,
        confirmation_state="confirmed",
        thought=_thought(event),
    )


def _touched(event: Event, action: Part) -> dict[str, Any]:
    path = str(action.get("path") or "")
    fields = {name: action[name] for name in _EDITS if name in action}
    if action.get("command") == "view":
        return _action("read", f"Reading file: {path}", **fields, thought=_thought(event))
    return _action("edit", f"Editing file: {path}", **fields, thought=_thought(event))


def _mused(event: Event, action: Part) -> dict[str, Any]:
    thought = str(action.get("thought") or "")
    return _action("think", thought, thought=thought)


def _finished(event: Event, action: Part) -> dict[str, Any]:
    last = str(action.get("message") or "")
    return _action("finish", last, final_thought=last, outputs={}, thought=_thought(event))


def _planned(event: Event, action: Part) -> dict[str, Any]:
    tasks = action.get("task_list") or []
    command = action.get("command")
    return _action("task_tracking", "", command=command, task_list=tasks, thought=_thought(event))


def _called(event: Event, action: Part) -> dict[str, Any]:
    arguments = action.get("data", {name: value for name, value in action.items() if name != "kind"})
    name = str(event.get("tool_name") or action.get("kind"))
    return _action("call_tool_mcp", f"Calling {name}", name=name, arguments=arguments, thought=_thought(event))


_ACTIONS: Mapping[str, Callable[[Event, Part], dict[str, Any]]] = {
    "TerminalAction": _ran,
    "FileEditorAction": _touched,
    "ThinkAction": _mused,
    "FinishAction": _finished,
    "TaskTrackerAction": _planned,
}


# -- what came of it


def _printed(event: Event, seen: Part) -> dict[str, Any]:
    command = str(seen.get("command") or "")
    metadata = seen.get("metadata")
    metadata = {**(metadata if isinstance(metadata, Mapping) else {}), "exit_code": seen.get("exit_code")}
    return _observation(
        "run", f"Command ran: {command}", content=_said(seen), command=command, metadata=metadata, hidden=False
    )


def _edited(event: Event, seen: Part) -> dict[str, Any]:
    path = str(seen.get("path") or "")
    name = "read" if seen.get("command") == "view" else "edit"
    extras = {key: seen.get(key) for key in ("prev_exist", "old_content", "new_content")} if name == "edit" else {}
    return _observation(name, f"{name.capitalize()} of {path}", content=_said(seen), path=path, **extras)


def _noted(event: Event, seen: Part) -> dict[str, Any]:
    return _observation("think", "", content=_said(seen))


def _tracked(event: Event, seen: Part) -> dict[str, Any]:
    tasks = seen.get("task_list") or []
    return _observation("task_tracking", "", content=_said(seen), command=seen.get("command"), task_list=tasks)


def _done(event: Event, seen: Part) -> dict[str, Any]:
    return _nothing(_said(seen), kind="FinishObservation")


def _answered(event: Event, seen: Part) -> dict[str, Any]:
    name = "error" if seen.get("is_error") else "mcp"
    return _observation(name, "", content=_said(seen), name=event.get("tool_name"), arguments={})


_OBSERVATIONS: Mapping[str, Callable[[Event, Part], dict[str, Any]]] = {
    "TerminalObservation": _printed,
    "FileEditorObservation": _edited,
    "ThinkObservation": _noted,
    "TaskTrackerObservation": _tracked,
    "FinishObservation": _done,
}


# -- shapes


def _action(name: str, message: str, /, **args: Any) -> dict[str, Any]:
    return {"message": message, "action": name, "args": args}


def _observation(name: str, message: str, /, *, content: str, **extras: Any) -> dict[str, Any]:
    return {"message": message, "observation": name, "content": content, "extras": extras}


def _state(name: str) -> dict[str, Any]:
    told = _observation("agent_state_changed", "", content="", agent_state=name, reason="")
    return {"source": "environment", **told}


def _nothing(message: str, /, **extras: Any) -> dict[str, Any]:
    return _observation("null", message, content="", **extras)


def _thought(event: Event) -> str:
    return text_of(event.get("thought"))


def _said(seen: Part) -> str:
    return text_of(seen.get("content"))


def _parts(content: Any) -> list[Part]:
    return [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []


def text_of(content: Any) -> str:
    """The text of a message's parts, one after the other."""
    if isinstance(content, str):
        return content
    return "\n".join(str(part["text"]) for part in _parts(content) if part.get("text"))
