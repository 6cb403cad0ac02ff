"""Logs: events with fields, as JSON lines or for a person, on standard error, redacted.

`configure` is called once by `app.py` (and by nothing that is imported); every other module takes its logger by
`structlog.get_logger()`. Records of the standard library, uvicorn's and redis's among them, go the same way. The
redactor is the last processor before the renderer, so nothing reaches the stream without having passed it.
"""

import logging
import sys
from typing import TextIO

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from orchestrator.domain import tracing
from orchestrator.security.redaction import Redactor

_ROUTED = ("uvicorn", "uvicorn.error", "uvicorn.access", "fastapi", "redis")
_TALKATIVE = ("httpx", "httpcore", "asyncio", "websockets", "urllib3", "docker")


def configure(
    redactor: Redactor, *, level: str = "INFO", json_lines: bool = True, stream: TextIO | None = None
) -> None:
    """Send everything that is logged in this process to `stream` (standard error), from `level` on.

    Idempotent; the last call decides. Raises ValueError for an unknown level.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _with_trace,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                redactor,
                _renderer(json_lines, colors=(stream or sys.stderr).isatty()),
            ],
        )
    )
    _route(handler, level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _with_trace(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """The id of the trace that the present request or operation belongs to."""
    if (trace := tracing.current()) is not None:
        event.setdefault("trace", trace.id)
    return event


def _renderer(json_lines: bool, *, colors: bool) -> Processor:
    if json_lines:
        return structlog.processors.JSONRenderer(sort_keys=False)
    return structlog.dev.ConsoleRenderer(colors=colors)


def _route(handler: logging.Handler, level: str) -> None:
    root = logging.getLogger()
    root.setLevel(level)
    root.handlers[:] = [handler]
    for name in _ROUTED:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in _TALKATIVE:
        # Their records below this level tell of every request, with its address.
        logging.getLogger(name).setLevel(logging.WARNING)
