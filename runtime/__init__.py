"""The inner half: one agent server for one container or process. `python -m runtime` starts it.

structlog looks for rich when it is imported, which costs a start a tenth of its time and four megabytes, to paint what
this server logs plainly. It is told that there is none; who imports rich afterwards gets it. The HTTP client would
bring its command line, and with it click, pygments and rich, and HTTP/2, which nobody here speaks: five megabytes in
each idle runtime. It is told for good that there is neither.
"""

import sys

_LEFT_OUT = ("httpx._main", "h2")


def _import_structlog_alone() -> None:
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment] # the import system's way to say: not there
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]


_import_structlog_alone()
for _name in _LEFT_OUT:
    sys.modules.setdefault(_name, None)  # type: ignore[arg-type] # the same
