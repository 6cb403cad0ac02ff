"""Finds the shell's own marks in what a terminal shows (see shell.bash): a command was taken, a command ended.

Used by the shell. A mark carries the shell's token, so that another shell's is not taken for it. Marks
may come in pieces; what may be the beginning of one is held back until it is clear. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_MARK = re.compile(rb"\x1b\]7771;([0-9a-f]+);(begin|end);(-?\d*);([^\x07]*)\x07")
_START = b"\x1b]7771;"
_LONGEST = 8192


@dataclass(frozen=True, slots=True)
class Mark:
    """`ended` is false for the mark that a command's files were read; then the rest means nothing."""

    ended: bool
    exit_code: int = 0
    directory: str = ""


class MarkReader:
    """Splits output into text and marks, in order."""

    def __init__(self, token: str, *, on_text: Callable[[bytes], None], on_mark: Callable[[Mark], None]) -> None:
        self._token = token.encode()
        self._on_text = on_text
        self._on_mark = on_mark
        self._pending = b""

    def feed(self, output: bytes) -> None:
        """Pass on what is clear by now."""
        self._pending += output
        while (found := _MARK.search(self._pending)) is not None:
            self._on_text(self._pending[: found.start()])
            self._pending = self._pending[found.end() :]
            if found[1] == self._token:
                self._on_mark(_mark(found))
        clear = self._clear()
        self._on_text(self._pending[:clear])
        self._pending = self._pending[clear:]

    def _clear(self) -> int:
        """How much of what is pending cannot be a part of a mark."""
        start = self._pending.find(_START)
        if start >= 0:
            return start if len(self._pending) - start <= _LONGEST else len(self._pending)
        for length in range(min(len(_START) - 1, len(self._pending)), 0, -1):
            if self._pending.endswith(_START[:length]):
                return len(self._pending) - length
        return len(self._pending)


def _mark(found: re.Match[bytes]) -> Mark:
    if found[2] == b"begin":
        return Mark(ended=False)
    return Mark(ended=True, exit_code=int(found[3] or b"0"), directory=found[4].decode(errors="replace"))
