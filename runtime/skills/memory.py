"""What an agent has noted for later work, in files that it keeps itself (`agent_context.load_memory`).

`MEMORY.md` in `.openhands/memory` of the user's home and of the working directory, told with the system prompt. Notes
are appended, so of what is too long the end counts. Other files of the folder are for the agent to read. Blocking.
"""

from __future__ import annotations

from pathlib import Path

from runtime.skills.loader import text_below

PLACE = ".openhands/memory/MEMORY.md"
MOST_CHARACTERS = 6000
_CUT = "[earlier notes are left out]\n"


def notes(home: Path, directory: Path) -> str | None:
    """The user's, then the project's; None where there are none."""
    found = [(title, text) for title, root in _places(home, directory) if (text := _read(root))]
    most = MOST_CHARACTERS // max(1, len(found))
    return "\n\n".join(f"{title}\n{_end(text, most)}" for title, text in found) or None


def _places(home: Path, directory: Path) -> list[tuple[str, Path]]:
    user, project = (f"# User memory (~/{PLACE})", home), (f"# Project memory ({PLACE})", directory)
    return [project] if home == directory else [user, project]


def _read(root: Path) -> str:
    return (text_below(root / PLACE, root) or "").strip()


def _end(text: str, most: int) -> str:
    """Its last lines, as many as fit; a line that is longer than all is cut itself."""
    if len(text) <= most:
        return text
    kept = text[-(most - len(_CUT)) :]
    return _CUT + (kept.partition("\n")[2] or kept)
