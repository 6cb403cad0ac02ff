"""Marks in a terminal's output, whole, torn and forged."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from runtime.agent.terminal.marks import Mark, MarkReader

OUTPUT = (
    b"one\x1b]7771;ab;begin;;\x07two\x1b[0m\x1b]7771;cd;end;9;/forged\x07\x1b]7771;ab;end;3;/w\xc3\xb6\x07three\x1b]77"
)


def read(pieces: list[bytes]) -> list[bytes | Mark]:
    seen: list[bytes | Mark] = []
    reader = MarkReader("ab", on_text=seen.append, on_mark=seen.append)
    for piece in pieces:
        reader.feed(piece)
    joined: list[bytes | Mark] = []
    for item in seen:
        if isinstance(item, bytes) and joined and isinstance(joined[-1], bytes):
            joined[-1] += item
        else:
            joined.append(item)
    return joined


@given(st.lists(st.integers(0, len(OUTPUT)), max_size=6))
def test_marks_are_found_however_the_output_is_torn(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(OUTPUT)]
    pieces = [OUTPUT[start:end] for start, end in itertools.pairwise(places)]
    mark = Mark(ended=True, exit_code=3, directory="/w\u00f6")
    assert read(pieces) == [b"one", Mark(ended=False), b"two\x1b[0m", mark, b"three"]


def test_what_never_becomes_a_mark_is_text_in_the_end() -> None:
    assert read([b"\x1b]7771;" + b"x" * 9000]) == [b"\x1b]7771;" + b"x" * 9000]
