"""The inner half: one agent server for one container or process. `python -m runtime` starts it.

structlog looks for rich when it is imported, which costs a start a tenth of its time and four megabytes, to paint what
this server logs plainly. It is told that there is none; who imports rich afterwards gets it.
"""

import sys


def _import_structlog_alone() -> None:
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment] # the import system's way to say: not there
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]


_import_structlog_alone()
