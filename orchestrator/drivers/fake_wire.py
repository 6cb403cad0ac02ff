"""What a fake engine in a process of its own and its drivers say to each other: one JSON line each way.

`fake_server.py` and `fake_remote.py` use it and nothing else does. The socket is its owner's alone, and what goes over
it (init keys of runtimes that hold nothing) is worth nothing elsewhere.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from orchestrator.domain import errors
from orchestrator.domain.errors import DriverUnavailable, NestorError, PermanentError, TransientError
from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.errors import ClaimTaken, ImageUnavailable, StaleFence, StartRefused

LINE_LIMIT_BYTES = 64 * 1024 * 1024
#: By name, so that a driver raises what the engine raised.
_ERRORS: Mapping[str, type[NestorError]] = {
    kind.__name__: kind
    for kind in (
        *(value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, NestorError)),
        ClaimTaken,
        ImageUnavailable,
        StaleFence,
        StartRefused,
    )
}


def line(value: Any) -> bytes:
    """One message."""
    return json.dumps(value, default=_plain).encode() + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, SecretText):
        return value.open()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(type(value).__name__)


def told(error: NestorError) -> dict[str, Any]:
    """An error as it is sent."""
    return {"error": type(error).__name__, "message": error.message, "hint": error.hint, "details": dict(error.details)}


def raised(answer: Mapping[str, Any]) -> NestorError:
    """The error that was sent."""
    kind = _ERRORS.get(str(answer.get("error")), PermanentError)
    if not issubclass(kind, TransientError | PermanentError):  # others take other arguments
        return kind(str(answer.get("message")), hint=answer.get("hint"))
    return kind(str(answer.get("message")), hint=answer.get("hint"), **(answer.get("details") or {}))


async def connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Raises `DriverUnavailable`."""
    try:
        return await asyncio.open_unix_connection(path, limit=LINE_LIMIT_BYTES)
    except OSError as exc:
        raise DriverUnavailable(f"the fake engine at {path} does not answer ({exc.strerror})") from None


async def call(path: Path, verb: str, **arguments: Any) -> Any:
    """Ask the engine once, on a connection of its own. Raises what the engine raised, and `DriverUnavailable`: then
    nothing is known of what it did."""
    reader, writer = await connect(path)
    try:
        writer.write(line({"verb": verb, **arguments}))
        await writer.drain()
        answer = json.loads(await reader.readline() or "null")
    except (OSError, ValueError, asyncio.IncompleteReadError) as exc:
        raise DriverUnavailable(f"the fake engine at {path} broke off") from exc
    finally:
        writer.close()
    if not isinstance(answer, dict):
        raise DriverUnavailable(f"the fake engine at {path} broke off")
    if "error" in answer:
        raise raised(answer)
    return answer["answer"]
