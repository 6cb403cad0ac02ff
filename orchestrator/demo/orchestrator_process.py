"""An orchestrator as a child process: started the way a person starts it, ended by a signal, its last words kept.

`stage.py` uses it when no address of a running one was given. It reads the one JSON line that `nestor up --json`
prints and knows nothing else of the inside.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import anyio
from anyio.abc import ByteReceiveStream, Process
from anyio.streams.buffered import BufferedByteReceiveStream
from pydantic import BaseModel, SecretStr, ValidationError

from orchestrator.demo.options import DemoFailed
from orchestrator.domain.secrets import SecretText
from orchestrator.settings import child_environment

_START_SECONDS = 60
_STOP_SECONDS = 45
_LINE_LIMIT_BYTES = 64 * 1024
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


class _Ready(BaseModel):
    url: str
    operator_key: SecretStr | None


@dataclass(frozen=True)
class RunningOrchestrator:
    """Where it listens, and the key that makes tenants."""

    url: str
    operator_key: SecretText


@contextlib.asynccontextmanager
async def orchestrator_process(
    data_dir: Path, *, driver: str, settings: Mapping[str, str] = NO_SETTINGS
) -> AsyncIterator[RunningOrchestrator]:
    """An orchestrator on a free port for the length of the block; its log is `orchestrator.log` in `data_dir`, and
    `settings` are variables of its own.

    Raises DemoFailed, with the end of that log, when it does not start, or does not end well when asked to.
    """
    log = data_dir / "orchestrator.log"
    command = [sys.executable, "-m", "orchestrator", "up", "--json", "--port", "0"]
    command += ["--data-dir", str(data_dir), "--driver", driver]
    environment = child_environment() | {"NESTOR_VERIFY_GIT_TOKENS": "0", "NESTOR_EPHEMERAL": "1", **settings}
    with _appended(log) as sink:
        # A session of its own: Ctrl-C reaches the demo alone, which then ends its parts in order.
        process = await anyio.open_process(
            command, stdin=subprocess.DEVNULL, stderr=sink, env=environment, start_new_session=True
        )
    drain: asyncio.Task[None] | None = None
    try:
        if process.stdout is None:
            raise DemoFailed("the orchestrator was started without a pipe")
        ready = await _ready(process, process.stdout, log)
        drain = asyncio.create_task(_drain(process.stdout), name="orchestrator-stdout")
        yield RunningOrchestrator(ready.url, _shown_key(ready, data_dir))
    finally:
        with anyio.CancelScope(shield=True):
            if drain is not None:
                drain.cancel()
                await asyncio.wait([drain])
            status = await _stop(process)
    if status != 0:
        raise DemoFailed(f"the orchestrator ended with status {status}; the end of its log:\n{_tail(log)}")


def _appended(log: Path) -> BinaryIO:
    """The log, open for appending and readable by its owner only."""
    return open(log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600))


async def _ready(process: Process, stdout: ByteReceiveStream, log: Path) -> _Ready:
    try:
        with anyio.fail_after(_START_SECONDS):
            line = await BufferedByteReceiveStream(stdout).receive_until(b"\n", _LINE_LIMIT_BYTES)
        return _Ready.model_validate_json(line)
    except (anyio.EndOfStream, anyio.IncompleteRead):
        status = await process.wait()
        raise DemoFailed(f"the orchestrator did not start (status {status}); its log says:\n{_tail(log)}") from None
    except TimeoutError:
        raise DemoFailed(f"the orchestrator did not start in {_START_SECONDS} s; its log says:\n{_tail(log)}") from None
    except (ValidationError, anyio.DelimiterNotFound):
        raise DemoFailed("the orchestrator's first line is not its address and key as JSON") from None


def _shown_key(ready: _Ready, data_dir: Path) -> SecretText:
    """A data folder shows its operator key at its very first start only."""
    if ready.operator_key is None:
        raise DemoFailed(
            f"{data_dir} was used before and does not show its operator key again: take an empty folder, or start "
            "`nestor up` on it and give the demo its address and key"
        )
    return SecretText(ready.operator_key.get_secret_value())


async def _drain(stdout: ByteReceiveStream) -> None:
    """Keep its standard output from filling up; the log has all that matters."""
    async for _ in stdout:
        continue


async def _stop(process: Process) -> int | None:
    """SIGTERM, then after a while SIGKILL to all of its session; the exit status."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with anyio.move_on_after(_STOP_SECONDS):
            await process.wait()
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    with anyio.move_on_after(5):
        await process.wait()
    status = process.returncode
    await process.aclose()
    return status


def _tail(log: Path, lines: int = 15) -> str:
    with contextlib.suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    return "(no log)"
