"""Turns the bytes of a terminal into the text that the model reads, within bounds of memory.

Used by the shell. `Transcript` keeps the beginning and the end of an output of any length; `clean` takes the control
sequences out. Knows nothing of commands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SEQUENCES = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # operating system commands, such as a window's title
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # colours, cursor movements
    r"|\x1b[PX^_][^\x1b]*\x1b\\"  # device control strings
    r"|\x1b[ -/]*[0-~]"  # other two-character sequences
    r"|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]"  # control characters but tab, line end, carriage return, escape
)
_OVERWRITTEN = re.compile(r"[^\n]*\r(?=[^\n])")


def clean(text: str) -> str:
    """Readable text: no control sequences, line ends as one character, overwritten parts of a line left out."""
    text = text.replace("\r\n", "\n")
    text = _apply_backspaces(_SEQUENCES.sub(_keep_backspace, text))
    text = _OVERWRITTEN.sub("", text)
    return text.replace("\r", "")


def _keep_backspace(match: re.Match[str]) -> str:
    return "\b" if match.group() == "\b" else ""


def _apply_backspaces(text: str) -> str:
    """One pass over the lines that have any: a hostile output must not cost more than its length."""
    if "\b" not in text:
        return text
    return "\n".join(_backspaced(line) if "\b" in line else line for line in text.split("\n"))


def _backspaced(line: str) -> str:
    kept: list[str] = []
    for letter in line:
        if letter != "\b":
            kept.append(letter)
        elif kept:
            kept.pop()
    return "".join(kept)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a transcript held; `end` is empty unless bytes between beginning and end were dropped."""

    beginning: str
    end: str = ""
    dropped_bytes: int = 0


class Transcript:
    """Output so far: the first and the last half of `limit_bytes`, and how much between them was dropped."""

    def __init__(self, limit_bytes: int) -> None:
        self._half = limit_bytes // 2
        self._head = bytearray()
        self._tail = bytearray()
        self.dropped_bytes = 0

    def add(self, output: bytes) -> None:
        room = self._half - len(self._head)
        self._head += output[:room]
        self._tail += output[room:] if room > 0 else output
        excess = len(self._tail) - self._half
        if excess > self._half:  # trimmed rarely, so that each byte is moved about once
            del self._tail[:excess]
            self.dropped_bytes += excess

    def take(self) -> Taken:
        """All of it as text; the transcript starts anew."""
        head, tail, dropped = self._head, self._tail, self.dropped_bytes
        self._head, self._tail, self.dropped_bytes = bytearray(), bytearray(), 0
        if not dropped:
            return Taken((head + tail).decode(errors="replace"))
        return Taken(head.decode(errors="replace"), tail.decode(errors="replace"), dropped)

    def __len__(self) -> int:
        return len(self._head) + len(self._tail)
