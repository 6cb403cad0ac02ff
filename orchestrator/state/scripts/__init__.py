"""The Lua scripts by name, run by `funnel.py`.

Each file says on top which KEYS and ARGV it wants and what it answers. First lines `-- include: <file>` put those files
before the script: Redis knows no modules.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_INCLUDE = "-- include: "


@dataclass(frozen=True)
class Script:
    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """The script in `<name>.lua`. Raises FileNotFoundError."""
    text = _whole(f"{name}.lua")
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _whole(file_name: str) -> str:
    """The file after what it includes, which may include others."""
    text = _read(file_name)
    included = [line.removeprefix(_INCLUDE).strip() for line in text.splitlines() if line.startswith(_INCLUDE)]
    return "\n".join([*map(_whole, included), text])


def _read(file_name: str) -> str:
    return (files(__package__) / file_name).read_text(encoding="utf-8")
