"""Where a text that is not at its end may have broken off in the middle of a value.

Every place near the end is looked at from which on the text is the beginning of a spelling. All spellings are sorted,
so that the one that could go on is found in a few steps, however many there are. Pure.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from runtime.secrets.spellings import Spelling, Writing

_ESCAPE = re.compile(r"%[0-9a-fA-F]{0,2}")
LINE_END = re.compile(r"\r?\n|\r\Z")
#: compared first; few texts that are no beginning come further
_SHORT = 8


class Beginnings:
    """Of these spellings."""

    def __init__(self, spellings: Iterable[Spelling]) -> None:
        texts: dict[Writing, set[str]] = {writing: set() for writing in Writing}
        for spelling in spellings:
            texts[spelling.writing].add(spelling.text)
        self._sorted = {writing: sorted(found) for writing, found in texts.items() if found}

    def where(self, text: str, *, within: int) -> Iterator[int]:
        """The places, in order, from which on the text may be a value that is not whole yet; in its last `within`
        characters."""
        start = max(0, len(text) - within)
        found: set[int] = set()
        for writing, spellings in self._sorted.items():
            written, places = _written(text[start:], writing)
            found.update(start + places[at] for at in _open(written, spellings))
        return iter(sorted(found))


def _written(text: str, writing: Writing) -> tuple[str, Sequence[int]]:
    """The text in the one way of writing that is compared, and where its characters stood."""
    if writing is Writing.AS_IS:
        return text, range(len(text))
    if writing is Writing.ESCAPES_OF_EITHER_CASE:
        return in_one_case(text), range(len(text))
    places: list[int] = []
    after = 0
    for match in LINE_END.finditer(text):
        places += range(after, match.start())
        after = match.end()
    places += range(after, len(text))
    return LINE_END.sub("", text), places


def in_one_case(text: str) -> str:
    """The text with the digits of percent-encoding in capitals; as long as before."""
    return _ESCAPE.sub(lambda match: match[0].upper(), text)


def _open(text: str, spellings: Sequence[str]) -> Iterator[int]:
    for at in range(len(text)):
        short = text[at : at + _SHORT]
        first = bisect_left(spellings, short)
        if first == len(spellings) or not spellings[first].startswith(short):
            continue
        rest = text[at:]
        found = bisect_left(spellings, rest)
        # What is whole is open too where a longer one begins with it.
        if found < len(spellings) and spellings[found] == rest:
            found += 1
        if found < len(spellings) and spellings[found].startswith(rest):
            yield at
