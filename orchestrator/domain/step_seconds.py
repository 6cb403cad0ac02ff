"""How long each step of each saga may take, in seconds: the one table. `docs/states.md` shows it.

Each is many times what the step takes on a busy machine, so that what runs into it hangs and is not merely slow. The
whole start has a limit of its own beside it (NESTOR_START_TIMEOUT). An operator changes single ones by
NESTOR_STEP_SECONDS.
"""

from collections.abc import Mapping
from types import MappingProxyType

STEP_SECONDS: Mapping[str, float] = MappingProxyType(
    {
        "claim": 30.0,  #: a journal's write, and ten seconds for the spare to take its keys
        "volume": 30.0,
        "create": 60.0,
        "start": 120.0,  #: where many start at once, it waits for its turn
        "alive": 70.0,  #: waits for sixty by itself, to tell a runtime's silence from an engine's
        "init": 40.0,  #: a call to a runtime has thirty of its own, here and below
        "settings": 70.0,
        "providers": 40.0,
        "secrets": 70.0,
        "converse": 160.0,  #: clones the repository
        "publish": 30.0,
        "freeze": 30.0,  #: of a pause
        "thaw": 30.0,  #: of a resume
        "remove volume": 60.0,  #: of archiving and purging: a workspace may have many files
    }
)
UNDO_SECONDS = 25.0  #: one undo, and the removal of a runtime by a stop, a deletion or after its death
UNWIND_SECONDS = 30.0  #: all undos of a start that failed; what is left is stuck, and tried again
_LONGEST = 3600.0


def step_seconds(text: str) -> Mapping[str, float]:
    """The table with what an operator changed: comma list of step=seconds. Raises ValueError that says what is wrong
    with it."""
    chosen = dict(STEP_SECONDS)
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = (part.strip() for part in item.partition("="))
        if name not in STEP_SECONDS:
            raise ValueError(f"there is no step {name[:40]!r}: steps are {', '.join(STEP_SECONDS)}")
        try:
            seconds = float(number)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds <= _LONGEST:
            raise ValueError(f"{name}={number[:20]} is no time: seconds above 0, at most {_LONGEST:g}")
        chosen[name] = seconds
    return chosen
