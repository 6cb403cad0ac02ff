"""Whether a conversation can be worked with here (contract 4.5, `runtime`): told alone, and in ConversationInfo.

This server is the runtime of all its conversations: it is there as long as it answers. What can be missing is the
working directory, and the right to the conversation, which another server over the same folder may have.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

ELSEWHERE = "Another server owns this conversation. Ask that one, or try again when it has ended."
AVAILABLE: Mapping[str, Any] = {"runtime_status": "available", "can_resume": True, "runtime_error": None}
OWNED_ELSEWHERE: Mapping[str, Any] = {
    "runtime_status": "ownership_lost",
    "can_resume": False,
    "runtime_error": {"code": "ownership_lost", "message": ELSEWHERE},
}


def of_directory(directory: Path) -> Mapping[str, Any]:
    """Of a conversation that is ours and works there. Asks the disk, once."""
    if directory.is_dir():
        return AVAILABLE
    error = {"code": "missing", "message": f"The working directory {directory} is gone: reprovision makes an empty one"}
    return {"runtime_status": "missing", "can_resume": True, "runtime_error": error}
