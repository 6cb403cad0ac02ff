"""Hooks: commands of the conversation's owner that are run at certain points and may hold an act back (contract 4.1).

A hook is a shell command in the working directory, with the agent's environment and never the server's. It gets one
JSON object on standard input. Exit status 0 means go on, its output may be a JSON object (`decision`, `reason`,
`additionalContext`, `continue`); status 2 blocks, with the reason on standard error; any other status is a failure
that blocks nothing. Blocking: call `run_hook` in a thread. Knows no conversation.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from runtime.events.models import HookPoint
from runtime.machine import account

_BLOCKED = 2
_MOST_OUTPUT_BYTES = 50_000
_PATTERN_LETTERS = frozenset("|.*+?[]()^$\\")


class HookDefinition(BaseModel):
    """One command. The kinds that ask a model or start an agent are refused by name."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, populate_by_name=True)

    type: Literal["command"] = "command"
    name: str | None = None
    command: str = Field(min_length=1, max_length=100_000)
    timeout: int = Field(default=60, ge=1, le=3600)
    background: bool = Field(default=False, alias="async")

    @field_validator("type", mode="before")
    @classmethod
    def _commands_only(cls, value: Any) -> Any:
        if value in ("prompt", "agent"):
            raise ValueError(f"hooks of type {value!r} are not available here: use a command")
        return value

    @field_validator("command")
    @classmethod
    def _clean(cls, command: str) -> str:
        if "\0" in command:
            raise ValueError("a command cannot hold NUL")
        return command


class HookMatcher(BaseModel):
    """`matcher`: a tool's name, `*` for all, or a regular expression (also between slashes).

    One that is no valid expression is for all: a guard that cannot be read must not let everything pass.
    """

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    matcher: str = Field(default="*", max_length=1000)
    hooks: list[HookDefinition] = Field(default_factory=list, max_length=100)

    def matches(self, tool: str | None) -> bool:
        if self.matcher in ("", "*"):
            return True
        if tool is None:
            return False
        pattern = self.matcher
        if len(pattern) > 2 and pattern.startswith("/") and pattern.endswith("/"):
            pattern = pattern[1:-1]
        elif not _PATTERN_LETTERS & set(pattern):
            return pattern == tool
        try:
            return re.fullmatch(pattern, tool) is not None
        except re.error:
            return True


class HookConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    pre_tool_use: list[HookMatcher] = Field(default_factory=list)
    post_tool_use: list[HookMatcher] = Field(default_factory=list)
    user_prompt_submit: list[HookMatcher] = Field(default_factory=list)
    session_start: list[HookMatcher] = Field(default_factory=list)
    session_end: list[HookMatcher] = Field(default_factory=list)
    stop: list[HookMatcher] = Field(default_factory=list)

    def at(self, point: HookPoint, tool: str | None = None) -> list[HookDefinition]:
        """The hooks to run there, in order."""
        matchers: Iterable[HookMatcher] = getattr(self, _FIELDS[point])
        return [hook for matcher in matchers if matcher.matches(tool) for hook in matcher.hooks]


_FIELDS: Mapping[HookPoint, str] = {
    "PreToolUse": "pre_tool_use",
    "PostToolUse": "post_tool_use",
    "UserPromptSubmit": "user_prompt_submit",
    "SessionStart": "session_start",
    "SessionEnd": "session_end",
    "Stop": "stop",
}


@dataclass(frozen=True)
class HookResult:
    """What came of one hook. `success`: it ended with status 0 in time."""

    success: bool
    blocked: bool
    exit_code: int
    stdout: str = ""
    stderr: str = ""
    reason: str | None = None
    additional_context: str | None = None
    error: str | None = None


def run_hook(
    hook: HookDefinition, *, point: HookPoint, given: Mapping[str, Any], directory: Path, environment: Mapping[str, str]
) -> HookResult:
    """Run it to its end or its time limit. Never raises for what the command does."""
    event = {"event_type": point, "working_dir": str(directory), **given}
    own = {
        "OPENHANDS_PROJECT_DIR": str(directory),
        "OPENHANDS_SESSION_ID": str(given.get("session_id") or ""),
        "OPENHANDS_EVENT_TYPE": point,
    }
    if given.get("tool_name"):
        own["OPENHANDS_TOOL_NAME"] = str(given["tool_name"])
    # Files, not pipes: a background process of the hook that keeps them open makes nobody wait.
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        stdin.write(json.dumps(event).encode())
        stdin.seek(0)
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", hook.command],
                cwd=directory,
                env={**environment, **own},
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                close_fds=True,
                start_new_session=True,
                **account.owner(),
            )
        except OSError as error:
            return HookResult(success=False, blocked=False, exit_code=-1, error=f"not started: {error.strerror}")
        error_text = _waited(process, hook)
        return _judged(process.returncode, _text(stdout), _text(stderr), error_text)


def _waited(process: subprocess.Popen[bytes], hook: HookDefinition) -> str | None:
    try:
        process.wait(hook.timeout)
    except subprocess.TimeoutExpired:
        _kill(process)
        return f"not done after {hook.timeout} seconds"
    return None


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(_MOST_OUTPUT_BYTES).decode(errors="replace")


def _judged(status: int, stdout: str, stderr: str, error: str | None) -> HookResult:
    said = _object(stdout) if error is None else {}
    denied = said.get("decision") == "deny" or said.get("continue") is False
    blocked = error is None and (status == _BLOCKED or (status == 0 and denied))
    reason = said.get("reason") if isinstance(said.get("reason"), str) else None
    context = said.get("additionalContext")
    return HookResult(
        success=error is None and status == 0,
        blocked=blocked,
        exit_code=status,
        stdout=stdout,
        stderr=stderr,
        reason=reason or (stderr.strip() or None if blocked else None),
        additional_context=context if isinstance(context, str) else None,
        error=error,
    )


def _object(text: str) -> dict[str, Any]:
    """The JSON object that the output is, empty for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
