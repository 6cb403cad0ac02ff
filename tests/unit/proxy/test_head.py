"""Heads that the parser lets through and two readers could read differently."""

import pytest

from orchestrator.proxy.head import BadHead, read_head


def test_a_length_that_not_every_reader_can_count_is_refused() -> None:
    """The parser takes whatever fits 64 bits."""
    assert read_head(b"PUT", b"/", "1.1", [(b"host", b"h"), (b"content-length", b"9" * 18)]).has_body
    with pytest.raises(BadHead, match="too large"):
        read_head(b"PUT", b"/", "1.1", [(b"host", b"h"), (b"content-length", b"1844674473709551619")])


@pytest.mark.parametrize("first", [b"x", b"100-continue"])
def test_two_expectations_are_refused(first: bytes) -> None:
    """One reader takes the first, another the last: then one waits for an interim answer that nobody sends."""
    with pytest.raises(BadHead, match="expect is there twice"):
        read_head(b"PUT", b"/", "1.1", [(b"host", b"h"), (b"expect", first), (b"expect", b"100-continue")])
