"""One bash on a real terminal, driven from the event loop.

The terminal tool runs commands here. A command's text and the values of its secrets reach bash through private files
that are removed as soon as bash has read them: nothing of either is in an argument list, in the history or on the
screen. The end of a command is told by a mark in the output (see shell.bash), so output and end cannot be confused in
order. Knows nothing of masking or of what the model is shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from runtime.agent.terminal import keeper
from runtime.agent.terminal.marks import Mark, MarkReader
from runtime.agent.terminal.screen import Taken, Transcript
from runtime.agent.terminal.step import remove_step, write_step
from runtime.agent.terminal.strays import has_programs, kill_marked
from runtime.machine import account

log = structlog.get_logger()

START_SECONDS = 20.0
STOP_SECONDS = 6.0
_EXIT_SECONDS = 1.0
#: memory for one command's output; more is dropped from its middle
TRANSCRIPT_BYTES = 4 << 20
_READ_BYTES = 64 << 10
#: pause after a burst of output, so that a flood (`yes`) leaves the event loop to others
_BREATH_SECONDS = 0.005
_ROWS, _COLUMNS = 50, 200


class ShellBroken(Exception):
    """The shell did not start or did not take a command; the text says which."""


class Busy(Exception):
    """A command still runs in the shell; send it input, or interrupt it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a wait saw: the output since the last one, and how the command ended.

    `exit_code` is None while the command runs. `ended` says that the shell itself is gone, with all it had started.
    """

    output: Taken
    exit_code: int | None
    directory: str
    ended: bool = False


class Shell:
    """Started once, closed once; one command at a time. Single event loop."""

    def __init__(self, *, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = str(directory)
        self._environment = dict(environment)
        self._token = secrets.token_hex(16)
        self._files = Path(tempfile.mkdtemp(prefix="nestor-shell-"))  # 0700
        account.give(self._files)
        self._master = -1
        self._slave = -1
        self._modes: list[object] = []
        self._keeper: subprocess.Popen[bytes] | None = None
        self._transcript = Transcript(TRANSCRIPT_BYTES)
        self._marks = MarkReader(self._token, on_text=self._transcript.add, on_mark=self._on_mark)
        self._exit_code: int | None = None
        self._last_exit = 0
        self._running = True  # until the first prompt
        self._ended = False
        self._last_output = time.monotonic()
        self._changed = asyncio.Event()
        self._steps = 0

    @property
    def running(self) -> bool:
        """Whether a command has the shell."""
        return self._running

    @property
    def ended(self) -> bool:
        """Whether the shell is gone; start another one."""
        return self._ended

    @property
    def at_work(self) -> bool:
        """Whether anything runs but the waiting shell: a command, or what an earlier one left in the background."""
        keeper = self._keeper
        return self._running or (keeper is not None and has_programs(keeper.pid))

    # -- life

    async def start(self) -> None:
        """Start bash and wait for its prompt. Raises ShellBroken, OSError; then nothing is left running."""
        try:
            self._open_terminal()
            await self._begin_keeper()
            loop = asyncio.get_running_loop()
            loop.add_reader(self._master, self._on_output)
            loop.add_reader(self._status_descriptor(), self._on_keeper_gone)
            async with asyncio.timeout(START_SECONDS):
                await self._until(lambda: not self._running or self._ended)
        except TimeoutError:
            await self.close()
            raise ShellBroken(f"bash gave no prompt within {START_SECONDS:.0f} seconds") from None
        except BaseException:
            await self.close()
            raise
        if self._ended:
            await self.close()
            raise ShellBroken("bash ended before its first prompt")
        self._transcript.take()

    async def _begin_keeper(self) -> None:
        """Cancelled, however often, it waits for what the thread starts all the same: `close` has to end that."""
        spawning = asyncio.ensure_future(asyncio.to_thread(self._spawn))
        try:
            await asyncio.shield(spawning)
        finally:
            while not spawning.done():
                with contextlib.suppress(asyncio.CancelledError):  # once more; the first one is raised below
                    await asyncio.wait({spawning})
            if not spawning.cancelled() and spawning.exception() is None:
                self._keeper = spawning.result()

    async def close(self) -> None:
        """End the shell and everything that it started. Idempotent."""
        self._ended = True
        self._changed.set()
        loop = asyncio.get_running_loop()
        started = self._keeper
        if started is not None:
            self._keeper = None
            if started.stdout is not None:
                loop.remove_reader(started.stdout.fileno())
            await asyncio.to_thread(_end, started, self._token)
        if self._master >= 0:
            loop.remove_reader(self._master)
            os.close(self._master)
            os.close(self._slave)
            self._master = self._slave = -1
        await asyncio.to_thread(remove_step, self._files)

    def _open_terminal(self) -> None:
        self._master, self._slave = os.openpty()
        account.give(self._slave)
        os.set_blocking(self._master, False)
        self._modes = termios.tcgetattr(self._slave)
        # Output untouched, input not echoed: what is typed is ours, and a secret may be typed into a program.
        self._modes[1] = int(self._modes[1]) & ~termios.OPOST  # type: ignore[call-overload]  # an int by tcgetattr
        self._modes[3] = int(self._modes[3]) & ~(termios.ECHO | termios.ECHONL)  # type: ignore[call-overload]
        self._reset_modes()
        termios.tcsetwinsize(self._slave, (_ROWS, _COLUMNS))

    def _reset_modes(self) -> None:
        """A program that was killed may have left the terminal without lines or with echo."""
        termios.tcsetattr(self._slave, termios.TCSANOW, self._modes)  # type: ignore[arg-type]  # as it came

    def _spawn(self) -> subprocess.Popen[bytes]:
        """In a thread: the keeper with nothing of ours but its lifeline (stdin) and its status pipe (stdout)."""
        start_file = Path(__file__).with_name("shell.bash")
        if account.chosen() is not None:  # whom our own files may be out of reach for
            start_file = Path(shutil.copy(start_file, self._files / "start"))
            account.give(start_file)
        bash = ["bash", "--noprofile", "--rcfile", str(start_file), "--noediting", "-i"]
        keeping = [str(Path(keeper.__file__)), account.text(), os.ttyname(self._slave), str(self._files)]
        return subprocess.Popen(
            [sys.executable, "-I", "-S", *keeping, *bash],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            close_fds=True,
            start_new_session=True,
            cwd=self.directory,
            env={**self._environment, "NESTOR_SHELL": self._token},
        )

    def _status_descriptor(self) -> int:
        if self._keeper is None or self._keeper.stdout is None:
            raise ShellBroken("the shell is not started")
        return self._keeper.stdout.fileno()

    # -- commands

    async def run(self, command: str, *, secrets: Mapping[str, str], timeout: float) -> Outcome:
        """Run a command and wait for its end, at most `timeout` seconds. `secrets` are in its environment only.

        Raises Busy, ShellBroken. A command that is not ended in time runs on; see `wait`.
        """
        if self._running:
            raise Busy
        self._steps += 1
        step = self._files / str(self._steps)
        await asyncio.to_thread(write_step, step, command, secrets)
        self._running, self._exit_code = True, None
        self._reset_modes()
        status = f"(exit {self._last_exit}); " if self._last_exit else ""
        self._type(f". '{step}/run'; {status}eval \"$NESTOR_COMMAND\"\n".encode())
        return await self.wait(timeout=timeout)

    async def send(self, keys: bytes) -> None:
        """Type into the running program. Raises ShellBroken when it does not read."""
        self._type(keys)

    async def wait(self, *, timeout: float, quiet: float | None = None) -> Outcome:
        """Wait until the command ended, the shell did, `timeout` passed, or nothing came for `quiet` seconds."""
        deadline = time.monotonic() + timeout
        self._last_output = time.monotonic()
        while self._running and not self._ended:
            now = time.monotonic()
            until = deadline if quiet is None else min(deadline, self._last_output + quiet)
            if now >= until:
                break
            await self._until(lambda: not self._running or self._ended, seconds=until - now)
        return Outcome(self._transcript.take(), self._exit_code, self.directory, self._ended)

    async def _until(self, reached: Callable[[], bool], seconds: float | None = None) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not reached():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            if seconds is None:
                raise

    def _type(self, keys: bytes) -> None:
        if self._ended:
            raise ShellBroken("the shell has ended")
        try:
            written = os.write(self._master, keys)
        except BlockingIOError:
            written = 0
        if written != len(keys):
            raise ShellBroken("the program in the terminal does not read its input")

    # -- callbacks of the event loop

    def _on_output(self) -> None:
        received = 0
        while received < _READ_BYTES:
            try:
                output = os.read(self._master, _READ_BYTES)
            except BlockingIOError:
                break
            except OSError as error:  # EIO cannot be: we hold the other end. Anything else ends the shell.
                log.error("shell.unreadable", error=error.strerror)
                self._finish()
                return
            received += len(output)
            self._receive(output)
        if received >= _READ_BYTES:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._master)
            loop.call_later(_BREATH_SECONDS, self._resume)

    def _resume(self) -> None:
        if self._master >= 0 and not self._ended:
            asyncio.get_running_loop().add_reader(self._master, self._on_output)

    def _on_keeper_gone(self) -> None:
        """Its last descriptor closed, so it is exiting with the shell's status."""
        started = self._keeper
        if started is None or started.stdout is None:
            return
        asyncio.get_running_loop().remove_reader(started.stdout.fileno())
        try:
            self._exit_code = started.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            log.error("shell.keeper_stuck", pid=started.pid)
        self._drain()
        self._finish()

    def _finish(self) -> None:
        """The shell is of no more use; `close` ends what is left of it."""
        asyncio.get_running_loop().remove_reader(self._master)
        self._running, self._ended = False, True
        self._changed.set()

    def _drain(self) -> None:
        """What the shell wrote before it ended."""
        try:
            while output := os.read(self._master, _READ_BYTES):
                self._receive(output)
        except OSError:
            return

    def _receive(self, output: bytes) -> None:
        self._last_output = time.monotonic()
        self._marks.feed(output)

    def _on_mark(self, mark: Mark) -> None:
        if not mark.ended:
            remove_step(self._files / str(self._steps))
            return
        self.directory = mark.directory or self.directory
        self._last_exit = self._exit_code = mark.exit_code
        self._running = False
        self._changed.set()


def _end(started: subprocess.Popen[bytes], token: str) -> None:
    """In a thread: cut the keeper's lifeline and wait until it has killed everything."""
    if started.stdin is not None:
        started.stdin.close()
    try:
        started.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        log.error("shell.keeper_stuck", pid=started.pid)
        started.kill()
        started.wait()
    if started.stdout is not None:
        started.stdout.close()
    if started.returncode < 0:  # killed, so it could not end the others
        with account.acting():  # whose processes can be looked at by nobody else
            kill_marked(token)
