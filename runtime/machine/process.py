"""One command in a shell of its own, watched from the event loop: its output in pieces, its end, its time limit.

Started with nothing of the server's: no descriptor, no environment. Everything that it starts carries a mark and is
killed with it. Output that a daemon keeps open after the command ended makes nobody wait.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from runtime.agent.terminal.strays import kill_marked
from runtime.machine import account
from runtime.machine.guard import Guard

TIMED_OUT = -1
STOPPED = -signal.SIGTERM
_READ_BYTES = 64 << 10
#: after the command's end, for what is still in its pipes
_DRAIN_SECONDS = 0.2
_GRACE_SECONDS = 2.0
#: of one argument; the kernel takes 128 KiB
_ARGUMENT_BYTES = 100_000

OnText = Callable[[str, str], None]  #: "stdout" or "stderr", and what came


class Command:
    """Started once. Single event loop."""

    def __init__(self, on_text: OnText, guard: Guard) -> None:
        self._on_text = on_text
        self._guard = guard
        self._mark = secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None
        self._decoders: dict[int, tuple[str, codecs.IncrementalDecoder]] = {}
        self._ended = asyncio.Event()
        self._silent = asyncio.Event()  # both pipes are at their end
        self._stopping = False

    async def start(self, command: str, *, directory: Path, environment: Mapping[str, str]) -> None:
        """Raises OSError when it cannot be started: the directory, mostly."""
        process = await asyncio.to_thread(self._spawn, command, directory, environment)
        self._process = process
        loop = asyncio.get_running_loop()
        for name, stream in (("stdout", process.stdout), ("stderr", process.stderr)):
            assert stream is not None  # noqa: S101 - both are pipes
            descriptor = stream.fileno()
            os.set_blocking(descriptor, False)
            self._decoders[descriptor] = (name, codecs.getincrementaldecoder("utf-8")("replace"))
            loop.add_reader(descriptor, self._read, descriptor)
        watch = os.pidfd_open(process.pid)
        loop.add_reader(watch, self._gone, watch)

    async def wait(self, seconds: float) -> int:
        """Its exit status, `TIMED_OUT` after so many seconds (nothing of it runs then), `STOPPED` when it was."""
        status = await self._status(seconds)
        await asyncio.to_thread(self._guard.forget, self._mark)
        return status

    async def _status(self, seconds: float) -> int:
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            await self._kill()
            await self._drained()
            return TIMED_OUT
        await self._drained()
        if self._stopping:
            await asyncio.to_thread(_kill_all, self._mark)
            return STOPPED
        assert self._process is not None  # noqa: S101 - it has ended
        return self._process.returncode

    async def stop(self) -> None:
        """Ask it to end, then kill it. Ended already: fine."""
        if self._process is None or self._ended.is_set():
            return
        self._stopping = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(_GRACE_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            await self._kill()

    async def _kill(self) -> None:
        assert self._process is not None  # noqa: S101 - it was started
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await asyncio.to_thread(_kill_all, self._mark)
        await self._ended.wait()

    def _spawn(self, command: str, directory: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        self._guard.watch(self._mark)
        with _told(command) as (words, descriptors):
            return subprocess.Popen(
                ["/bin/bash", "-c", words],
                cwd=directory,
                env={**environment, "NESTOR_SHELL": self._mark},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                close_fds=True,
                pass_fds=descriptors,
                start_new_session=True,
                **account.owner(),
            )

    def _read(self, descriptor: int) -> None:
        name, decoder = self._decoders[descriptor]
        try:
            piece = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        text = decoder.decode(piece, final=not piece)
        if not piece:
            self._close(descriptor)
        if text:
            self._on_text(name, text)

    def _gone(self, watch: int) -> None:
        asyncio.get_running_loop().remove_reader(watch)
        os.close(watch)
        assert self._process is not None  # noqa: S101 - it is what was watched
        self._process.wait()
        self._ended.set()

    async def _drained(self) -> None:
        """What is in the pipes is read; what a daemon may still write is not waited for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                await self._silent.wait()
        for descriptor in list(self._decoders):
            self._read_rest(descriptor)

    def _read_rest(self, descriptor: int) -> None:
        for _ in range(64):
            if descriptor not in self._decoders:
                return
            before = self._decoders[descriptor]
            try:
                piece = os.read(descriptor, _READ_BYTES)
            except BlockingIOError:
                break
            if not piece:
                break
            if text := before[1].decode(piece):
                self._on_text(before[0], text)
        self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        del self._decoders[descriptor]
        if not self._decoders:
            self._silent.set()
        asyncio.get_running_loop().remove_reader(descriptor)
        assert self._process is not None  # noqa: S101 - its pipes are open
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None and not stream.closed and stream.fileno() == descriptor:
                stream.close()
                return


@contextlib.contextmanager
def _told(command: str) -> Iterator[tuple[str, Sequence[int]]]:
    """What bash is told as an argument, and what it needs open for that: the kernel takes no long arguments, so a long
    command is read from a descriptor, which the command itself no longer has."""
    text = command.encode()
    if len(text) <= _ARGUMENT_BYTES:
        yield command, ()
        return
    with os.fdopen(os.memfd_create("command"), "wb") as file:
        file.write(text)
        file.flush()
        number = file.fileno()
        yield f'eval "exec {number}<&-"$\'\\n\'"$(</dev/fd/{number})"', (number,)


def _kill_all(mark: str) -> None:
    with account.acting():  # the agent's processes can be looked at by nobody else
        kill_marked(mark)
