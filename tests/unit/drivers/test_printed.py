"""What is shown of what a runtime printed, and that two looks at a long log have lines in common."""

from orchestrator.drivers.printed import CUT, LINE_CHARACTERS, last_lines
from orchestrator.services.log_following import news


def test_the_last_lines_of_a_whole_text_each_up_to_a_readable_length() -> None:
    text = b"one\n" + b"x" * (LINE_CHARACTERS + 1) + b"\n\xff\x1b[31m\r\n"
    assert last_lines(text, 9, is_whole=True) == ["one", "x" * (LINE_CHARACTERS - 1) + CUT, "\ufffd\x1b[31m"]
    assert list(last_lines(text, 1, is_whole=True)) == ["\ufffd\x1b[31m"]
    assert list(last_lines(text, 0, is_whole=True)) == []


def test_what_is_left_of_a_line_is_not_told_so_that_nothing_is_told_twice() -> None:
    log = b"".join(b"line %d, of a log that is longer than one look\n" % number for number in range(100))
    first = last_lines(log[-1000:], 1000, is_whole=False)
    later = last_lines((log + b"new\n")[-1000:], 1000, is_whole=False)
    assert first[0].startswith("line ")
    assert news(first, later) == (["new"], False)


def test_one_line_that_is_longer_than_a_look_is_told_as_that() -> None:
    assert list(last_lines(b"x" * 1000, 5, is_whole=False)) == ["(a line of more than 1000 bytes)"]
