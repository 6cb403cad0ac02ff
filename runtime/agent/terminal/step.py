"""The files through which one command reaches bash: its text, the values of its secrets, and what reads them.

Written by the shell into its private folder, read by bash at once, removed when bash says that it has. Values are read
from files instead of being assigned in a script, because a shell that traces itself prints assignments.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from runtime.machine import account


def write_step(folder: Path, command: str, secrets: Mapping[str, str]) -> None:
    """Make the folder with `run`, which sets NESTOR_COMMAND and exports the secrets. Raises OSError. Blocks."""
    with account.acting():  # the folder above is the agent's: never follow with rights that it has not
        _write_all(folder, command, secrets)


def _write_all(folder: Path, command: str, secrets: Mapping[str, str]) -> None:
    folder.mkdir(mode=0o700)
    _write(folder / "command", command)
    script = [f"IFS= read -r -d '' NESTOR_COMMAND < '{folder}/command'"]
    for name, value in secrets.items():
        _write(folder / f"secret-{name}", value)
        script.append(f"IFS= read -r -d '' {name} < '{folder}/secret-{name}'; export {name}")
    if secrets:
        script.append(f"NESTOR_NAMES='{' '.join(secrets)}'")
    script.append(r"""printf '\033]7771;%s;begin;;\007' "$NESTOR_SHELL" """)
    _write(folder / "run", "\n".join(script) + "\n")


def remove_step(folder: Path) -> None:
    """Idempotent."""
    with account.acting():
        shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
        file.write(text)
