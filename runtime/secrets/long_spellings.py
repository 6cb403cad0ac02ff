"""Where long values stand in a text: found as they are, without an expression.

An expression for a spelling takes time for each of its letters when it is made: for a private key that is a good part
of a second, in which the server would answer nobody. A long spelling is looked for in the text's one way of writing
instead (`runtime.secrets.torn` compares the same), and its place is counted back. Pure.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from runtime.secrets.spellings import LONG, Spelling, Writing
from runtime.secrets.torn import LINE_END, in_one_case

_PADDING = re.compile(r"={0,2}")
Span = tuple[int, int]


class LongSpellings:
    """Those of these spellings that are long."""

    def __init__(self, spellings: Iterable[Spelling]) -> None:
        texts: dict[Writing, set[str]] = {}
        for spelling in spellings:
            if len(spelling.text) > LONG:
                texts.setdefault(spelling.writing, set()).add(
                    spelling.text.rstrip("=") if _in_lines(spelling) else spelling.text
                )
        self._texts = {writing: sorted(found) for writing, found in texts.items()}

    def spans(self, text: str) -> list[Span]:
        """Every place where one stands, in no order; they may overlap."""
        if len(text) <= LONG - 2:  # a long one may be without its padding
            return []
        found: list[Span] = []
        for writing, spellings in self._texts.items():
            if writing is Writing.BROKEN_INTO_LINES:
                written = _Unbroken(text)
                for start, end in _places(written.text, spellings):
                    padded = _PADDING.match(written.text, end)
                    found.append(written.span(start, padded.end() if padded else end))
            else:
                found += _places(text if writing is Writing.AS_IS else in_one_case(text), spellings)
        return found


def merged(spans: Iterable[Span]) -> list[Span]:
    """In order, and those that overlap as one."""
    result: list[Span] = []
    for start, end in sorted(spans):
        if result and start < result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


class _Unbroken:
    """A text without its line ends, and where its letters stood."""

    def __init__(self, text: str) -> None:
        pieces: list[str] = []
        self._here, self._there = [0], [0]  #: where each piece begins, without line ends and with them
        after = length = 0
        for match in LINE_END.finditer(text):
            pieces.append(text[after : match.start()])
            length += match.start() - after
            after = match.end()
            self._here.append(length)
            self._there.append(after)
        self.text = "".join((*pieces, text[after:])) if pieces else text

    def span(self, start: int, end: int) -> Span:
        return self._place(start), self._place(end - 1) + 1

    def _place(self, at: int) -> int:
        piece = bisect_right(self._here, at) - 1
        return self._there[piece] + at - self._here[piece]


def _in_lines(spelling: Spelling) -> bool:
    return spelling.writing is Writing.BROKEN_INTO_LINES


def _places(text: str, spellings: Sequence[str]) -> Iterable[Span]:
    for spelling in spellings:
        at = text.find(spelling)
        while at >= 0:
            yield at, at + len(spelling)
            at = text.find(spelling, at + 1)
