"""One event of a conversation as one short line for people. Pure; the watcher calls it for every frame it shows.

It trusts no text in an event: control characters go, long texts are cut.
"""

import re
from collections.abc import Mapping
from typing import Any

_WIDTH = 100
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def one_line(text: str, width: int = _WIDTH) -> str:
    """`text` without line ends and control characters, cut to `width` characters."""
    flat = " ".join(_UNPRINTABLE.sub(" ", text).split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def event_line(event: Mapping[str, Any]) -> str | None:
    """What happened, in a line; None for events that tell a person nothing."""
    match event.get("kind"):
        case "MessageEvent":
            return _message(event)
        case "ActionEvent":
            return _joined(event.get("tool_name"), "→", event.get("summary") or _content(event.get("thought")))
        case "ObservationEvent":
            return _observation(event)
        case "AgentErrorEvent":
            return _joined(event.get("tool_name"), "✗", event.get("error"))
        case "ConversationErrorEvent":
            return _joined("error", event.get("code"), event.get("detail"))
        case "ConversationStateUpdateEvent" if event.get("key") == "execution_status":
            return _joined("status", event.get("value"))
        case "PauseEvent" | "InterruptEvent" as kind:
            return str(kind)
        case _:
            return None


def _joined(*parts: object) -> str:
    return one_line(" ".join(str(part) for part in parts if part))


def _message(event: Mapping[str, Any]) -> str:
    message = event.get("llm_message") or {}
    # A scripted model's instructions are of no interest; what the person asked stands before them.
    text = _content(message.get("content")).partition("SCRIPT:")[0]
    return _joined(event.get("source"), "says:", text)


def _observation(event: Mapping[str, Any]) -> str:
    observation = event.get("observation") or {}
    mark = "✗" if observation.get("is_error") or observation.get("exit_code") not in (None, 0) else "✓"
    status = observation.get("exit_code")
    return _joined(
        event.get("tool_name"),
        mark,
        None if status is None else f"exit {status}",
        _content(observation.get("content")),
    )


def _content(parts: object) -> str:
    if not isinstance(parts, list):
        return ""
    return " ".join(str(part.get("text") or "") for part in parts if isinstance(part, dict))
