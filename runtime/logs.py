"""Where log lines go: standard error, one event a line, with fields; JSON when LOG_JSON asks for it.

Called once at start. Lines of libraries that use the standard logging pass through the same output.
"""

import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import structlog

_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


@contextmanager
def quiet() -> Iterator[None]:
    """What this task and what it starts logs meanwhile goes nowhere: for what happens to nobody."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def unless_quiet(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The processor that keeps it."""
    if _quiet.get():
        raise structlog.DropEvent
    return event


def configure(*, json_lines: bool) -> None:
    """Send structlog and standard logging to standard error."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Frames without the values of their variables: those hold secrets.
        structlog.processors.format_exc_info,
    ]
    last = structlog.processors.JSONRenderer() if json_lines else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[unless_quiet, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [output]
    root.setLevel(logging.INFO)
    for noisy in ("httpx", "httpcore", "uvicorn"):  # httpx logs urls, uvicorn logs what runtime.ready says already
        logging.getLogger(noisy).setLevel(logging.WARNING)
