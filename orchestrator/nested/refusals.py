"""What a runtime says when it does not do what it is told, and who it may turn out to be."""

import json
from typing import Any

from orchestrator.domain.errors import PermanentError


class Refused(PermanentError):
    """The runtime answered a call of ours with a failure."""

    code = "runtime_refused"

    def __init__(self, call: str, status: int, message_id: str | None, said: str, fence: int | None = None) -> None:
        super().__init__(f"{call} was answered {status}")
        self.fence = fence  #: the highest that the runtime has seen, where it refused a lower one
        self.call = call
        self.status = status
        self.message_id = message_id
        self.said = said


class Impostor(PermanentError):
    """Whoever listens at the runtime's address does not know its init key."""

    code = "version_skew"


class VersionSkew(Impostor):
    """The runtime says that it cannot do what this orchestrator needs."""


class NotDormant(Impostor):
    """Whoever listens there says that it has been told its keys before, and not by this caller."""


def parsed(body: bytes) -> Any:
    """The JSON in it; None when it is none."""
    try:
        return json.loads(body) if body else None
    except (ValueError, RecursionError):
        return None


def refusal(call: str, status: int, body: bytes) -> Refused:
    """What an answer of failure says, in bounded and printable words."""
    answer = parsed(body[:4096])
    fields = answer if isinstance(answer, dict) else {}
    said = next((fields[name] for name in ("message", "error", "detail") if isinstance(fields.get(name), str)), "")
    message_id = fields.get("msg_id")
    words = "".join(letter if letter.isprintable() else " " for letter in said[:300])
    fence = fields.get("fence") if status == 409 else None
    return Refused(
        call,
        status,
        message_id if isinstance(message_id, str) else None,
        words,
        fence if isinstance(fence, int) and not isinstance(fence, bool) and 0 <= fence < 2**53 else None,
    )
