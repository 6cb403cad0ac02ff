"""How a value may be spelt where it must not be seen: itself, escaped, quoted, URL-encoded, in base64.

`Mask` looks for all of them. Any other encoding (hex, compression, another alphabet, one character a line) is out of
scope: whoever holds a value can always find a spelling that nobody looks for. Pure.
"""

from __future__ import annotations

import base64
import enum
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

#: bytes; a shorter value is not looked for in base64, where its few letters would be found in innocent text
_BASE64_FROM = 6
#: programs break base64 into lines
_BREAK = r"(?:\r?\n)?"
#: characters; what is longer has no expression (`runtime.secrets.long_spellings`)
LONG = 240


class Writing(enum.Enum):
    """In which of its ways of writing a spelling is the same text."""

    AS_IS = enum.auto()
    ESCAPES_OF_EITHER_CASE = enum.auto()  #: of percent-encoding
    BROKEN_INTO_LINES = enum.auto()  #: of base64


@dataclass(frozen=True)
class Spelling:
    """A regular expression for one spelling, empty for a long one, and how many characters it can match at most. `text`
    is what it matches, in the one way of writing that `runtime.secrets.torn` compares."""

    pattern: str
    longest: int
    text: str
    writing: Writing = Writing.AS_IS


def spellings(value: str) -> set[Spelling]:
    """Every spelling of the value that is looked for; none of a blank one."""
    stripped = value.strip()  # output of a terminal lacks the blanks and line ends around it
    if not stripped:
        return set()
    plain = {value, stripped, stripped.replace("\r\n", "\n")}
    forms = set(plain)
    for form in plain:
        forms |= {json.dumps(form)[1:-1], json.dumps(form, ensure_ascii=False)[1:-1]}
        forms |= {shlex.quote(form), form.replace("'", "'\\''")}
    found = {Spelling(_unless_long(form, re.escape(form)), len(form), form) for form in forms}
    for form in plain:
        found |= {
            Spelling(_unless_long(encoded, _any_case(encoded)), len(encoded), encoded, Writing.ESCAPES_OF_EITHER_CASE)
            for encoded in _in_urls(form)
        }
        found |= set(_in_base64(form))
    return found


def _unless_long(text: str, pattern: str) -> str:
    return "" if len(text) > LONG else pattern


def _in_urls(form: str) -> set[str]:
    return {
        quote(form, safe="/", errors="replace"),
        quote(form, safe="", errors="replace"),
        quote_plus(form, errors="replace"),
    }


def _any_case(encoded: str) -> str:
    """The digits of percent-encoding are written in either case."""
    return re.sub(r"%[0-9A-F]{2}", lambda match: f"(?i:{match[0]})", re.escape(encoded))


def _in_base64(form: str) -> Iterator[Spelling]:
    """Wherever the value begins in the encoded text, in both alphabets.

    One for a value that something follows: the letters that are its own; one for a value at the end, padding included.
    """
    raw = form.encode(errors="replace")
    if len(raw) < _BASE64_FROM:
        return
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw).decode()
        first = (0, 2, 3)[before]  # letters before it hold bits of what stands there
        last = (before + len(raw)) * 8 // 6  # letters beyond it hold bits of what follows, or padding
        for letters, end, padding in (
            (encoded[first:last], "", ""),
            (encoded[first:].rstrip("="), f"{_BREAK}={{0,2}}", "=="),
        ):
            for code in {letters, letters.replace("+", "-").replace("/", "_")}:
                text = code + padding
                pattern = "" if len(text) > LONG else _BREAK.join(map(re.escape, code)) + end
                yield Spelling(pattern, 3 * (len(code) + 2), text, Writing.BROKEN_INTO_LINES)
