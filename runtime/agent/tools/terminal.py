"""The terminal tool: runs the agent's commands in the conversation's one persistent shell.

Gives a command the secrets that it names, waits at most its timeout, and reports what came out, masked and cut to a
length that an event and a model can take; the whole text goes to a file beside the conversation's log.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import structlog

from runtime.agent.terminal.keys import keys_for
from runtime.agent.terminal.screen import Taken, clean
from runtime.agent.terminal.shell import Busy, Outcome, Shell, ShellBroken
from runtime.events.actions import Observation, TerminalAction, TerminalMetadata, TerminalObservation
from runtime.events.content import Closed, TextContent
from runtime.events.models import ToolAnnotations
from runtime.machine import account
from runtime.secrets.masking import Mask
from runtime.store.files import private_directory

log = structlog.get_logger()

DEFAULT_SECONDS = 120.0
_MOST_SECONDS = 3600.0
_INPUT_SECONDS = 30.0
_QUIET_SECONDS = 1.0
_INTERRUPT_SECONDS = 0.25
_MOST_CHARACTERS = 30_000


class CommandSecrets(Protocol):
    """Who knows the conversation's secrets."""

    mask: Mask

    async def named_in(self, command: str) -> Mapping[str, str]:
        """Values of the secrets whose names are in the command; from then on they are masked."""


class TerminalTool:
    """Starts its shell at the first command, and another one when a command ended it."""

    name: ClassVar[str] = "terminal"
    description: ClassVar[str] = (
        "Run a command in a persistent bash shell: directory, variables and background jobs stay from call to call. "
        "A command that is not done after `timeout` seconds (120 by default) runs on. Then call again with "
        "is_input true: `command` is typed into it, or is a key such as C-c (interrupt), C-d (end of input), C-z; an "
        "empty command just waits for more output. `reset` true starts a new shell when nothing else helps. "
        "Secrets that you were told of are set as environment variables for a command whose text has their name, "
        "and their values never show in its output."
    )
    properties: ClassVar[Mapping[str, Any]] = {
        "command": {"type": "string", "description": "Shell command, or input when is_input is true."},
        "is_input": {"type": "boolean", "description": "Whether the command is input of the running program."},
        "timeout": {"type": "number", "minimum": 0, "description": "Seconds to wait for the command's end."},
        "reset": {"type": "boolean", "description": "Start a new shell; all that runs in the old one ends."},
    }
    required: ClassVar[Sequence[str]] = ("command",)
    kind: ClassVar[str] = "Terminal"
    action_class: ClassVar[type[Closed]] = TerminalAction
    annotations: ClassVar[ToolAnnotations] = ToolAnnotations(
        title="terminal", readOnlyHint=False, destructiveHint=True, idempotentHint=False, openWorldHint=True
    )

    def __init__(
        self, *, directory: Path, environment: Mapping[str, str], secrets: CommandSecrets, output_directory: Path
    ) -> None:
        self._directory = directory
        self._environment = environment
        self._secrets = secrets
        self._output_directory = output_directory
        self._shell: Shell | None = None
        self._held = ""  #: of the running command's output: what may be the beginning of a value
        self._closed = False

    async def run(self, action: TerminalAction) -> Observation:
        try:
            outcome, note = await self._do(action)
        except Busy:
            return self._failed(
                action, "Another command still runs. Send it input with is_input, C-c to interrupt it, or use reset."
            )
        except (ShellBroken, OSError) as error:
            return self._failed(action, f"The shell cannot run this: {error}")
        return await account.in_thread(self._observe, action, outcome, note)

    async def interrupt(self) -> None:
        """C-c to the command that runs. One that ignores it runs on, and the next call is told so."""
        shell = self._shell
        if shell is None or not shell.running or shell.ended:
            return
        try:
            await shell.send(keys_for("C-c"))
            await shell.wait(timeout=_INTERRUPT_SECONDS)
        except (ShellBroken, OSError):
            log.info("terminal.interrupt_not_taken")

    @property
    def at_work(self) -> bool:
        """Whether a program runs in the shell, also in its background."""
        return self._shell is not None and not self._shell.ended and self._shell.at_work

    async def close(self) -> None:
        self._closed = True
        if self._shell is not None:
            await self._shell.close()

    async def _do(self, action: TerminalAction) -> tuple[Outcome, str]:
        if action.reset and self._shell is not None:
            await self._shell.close()
            self._shell = None
        shell = await self._open()
        seconds = min(action.timeout if action.timeout is not None else DEFAULT_SECONDS, _MOST_SECONDS)
        if action.is_input:
            if not shell.running:
                raise ShellBroken("no command is running that could take input")
            await shell.send(keys_for(action.command))
            wait = seconds if action.timeout is not None else _INPUT_SECONDS
            outcome = await shell.wait(timeout=wait, quiet=_QUIET_SECONDS)
        elif action.reset and not action.command.strip():
            return Outcome(Taken("A new shell was started."), 0, shell.directory), ""
        else:
            named = await self._secrets.named_in(action.command)
            outcome = await shell.run(action.command, secrets=named, timeout=seconds)
        return outcome, _note(outcome, seconds, waited_for_input=action.is_input)

    async def _open(self) -> Shell:
        if self._closed:
            raise ShellBroken("the conversation is closed")
        if self._shell is not None and self._shell.ended:
            await self._shell.close()
            self._shell = None
        if self._shell is None:
            shell = Shell(directory=self._directory, environment=self._environment)
            await shell.start()
            self._shell, self._held = shell, ""
        return self._shell

    def _observe(self, action: TerminalAction, outcome: Outcome, note: str) -> TerminalObservation:
        text = self._presentable(outcome.output, more=outcome.exit_code is None and not outcome.ended)
        exit_code = -1 if outcome.exit_code is None else outcome.exit_code
        return TerminalObservation(
            content=[TextContent(text=text)],
            is_error=False,
            command=action.command,
            exit_code=exit_code,
            timeout=outcome.exit_code is None,
            metadata=self._metadata(exit_code, outcome.directory, note),
            full_output_save_dir=str(self._output_directory),
        )

    def _metadata(self, exit_code: int, directory: str, note: str) -> TerminalMetadata:
        return TerminalMetadata(
            exit_code=exit_code,
            username=self._environment.get("USER") or getpass.getuser(),
            hostname=socket.gethostname(),
            working_dir=directory,
            py_interpreter_path=shutil.which("python3", path=self._environment.get("PATH")),
            suffix=note,
        )

    def _failed(self, action: TerminalAction, text: str) -> TerminalObservation:
        directory = self._shell.directory if self._shell is not None else str(self._directory)
        return TerminalObservation(
            content=[TextContent(text=self._secrets.mask.text(text))],
            is_error=True,
            command=action.command,
            exit_code=-1,
            metadata=self._metadata(-1, directory, ""),
            full_output_save_dir=str(self._output_directory),
        )

    def _presentable(self, output: Taken, *, more: bool) -> str:
        """Cleaned, masked, then cut: a value that the cut went through could not be masked any more. While `more` may
        come, what may be the beginning of a value waits for it."""
        mask = self._secrets.mask
        beginning, end = self._held + clean(output.beginning), clean(output.end)
        text, self._held = mask.released(end if output.dropped_bytes else beginning)
        if not more:
            text, self._held = text + mask.text(self._held), ""
        if output.dropped_bytes:
            # What stands next to the gap may be a part of a value: it is left out, after masking, lest that cut one.
            margin = mask.longest
            beginning = mask.text(beginning)
            beginning = beginning[: max(0, len(beginning) - margin)]
            text = f"{beginning}\n[... {output.dropped_bytes} bytes were not kept ...]\n{text[margin:]}"
        text = text.rstrip("\n").lstrip("\n") if text.strip("\n") else ""
        if len(text) <= _MOST_CHARACTERS:
            return text
        kept = self._keep(text)
        half = _MOST_CHARACTERS // 2
        left_out = f"[... {len(text) - 2 * half} characters left out; all of it is in {kept} ...]"
        return f"{text[:half]}\n{left_out}\n{text[-half:]}"

    def _keep(self, text: str) -> Path:
        directory = private_directory(self._output_directory)
        path = directory / f"terminal-{os.urandom(8).hex()}.txt"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        return path


def _note(outcome: Outcome, seconds: float, *, waited_for_input: bool) -> str:
    if outcome.ended:
        return f"\n[The shell ended with exit code {outcome.exit_code}; the next command gets a new one.]"
    if outcome.exit_code is not None:
        return f"\n[The command completed with exit code {outcome.exit_code}.]"
    if waited_for_input:
        return "\n[The command is still running. Wait with an empty is_input, send more, or C-c to interrupt it.]"
    return (
        f"\n[The command has run for {seconds:g} seconds and is still running. Call again with is_input true: an empty "
        "command waits for more output, C-c interrupts it.]"
    )
