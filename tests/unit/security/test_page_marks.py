"""Marks of places in lists: what was signed for one list is read for that one alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.security.master_keys import MasterKeys
from orchestrator.security.page_marks import PageMarks

OLD, NEW = b"o" * 32, b"n" * 32
LIST = ("/api/v2/conversations", "", "tenant", "", "label", "a:b")
marks = PageMarks(MasterKeys([OLD]))


@given(place=st.text(min_size=1), of=st.lists(st.text(), max_size=6))
def test_a_place_is_read_back_for_its_list(place: str, of: list[str]) -> None:
    mark = marks.sign(place, of)
    assert marks.read(mark, of) == place
    assert mark.isascii()
    assert marks.read(mark, [*of, ""]) is None


@pytest.mark.parametrize(
    "of",
    [
        ("/api/v2/runtimes", "", "tenant", "", "label", "a:b"),
        ("/api/v2/conversations", "", "other", "", "label", "a:b"),
        ("/api/v2/conversations", "", "tenant", "user", "label", "a:b"),
        ("/api/v2/conversations", "", "tenant", "", "label", "a:c"),
        ("/api/v2/conversations", "", "tenant", "", "label"),
        ("/api/v2/conversations", "", "tenant", "", "labela:b"),
        (),
    ],
)
def test_it_is_nothing_in_another_list(of: tuple[str, ...]) -> None:
    assert marks.read(marks.sign("0000000000001:id", LIST), of) is None


def test_no_changed_or_invented_mark_is_read() -> None:
    good = marks.sign("0000000000001:id", LIST)
    for place in range(len(good) - 1):  # the last character has spare bits
        other = "A" if good[place] != "A" else "B"
        assert marks.read(good[:place] + other + good[place + 1 :], LIST) is None
    for text in ("", "A", "é", "!", "AAAA", good[:10], good + "AAAA", "0000000000001:id", "A" * 5000):
        assert marks.read(text, LIST) is None


def test_one_of_an_older_master_key_is_good_while_that_is_loaded() -> None:
    before = marks.sign("place", LIST)
    rotated = PageMarks(MasterKeys([NEW, OLD]))
    assert rotated.read(before, LIST) == "place"
    assert rotated.sign("place", LIST) != before
    assert PageMarks(MasterKeys([NEW])).read(before, LIST) is None
    assert PageMarks(MasterKeys([OLD])).sign("place", LIST) == before


def test_the_key_is_of_this_purpose_alone() -> None:
    master = MasterKeys([OLD])
    assert master.derived("page marks 1") != master.derived("page marks 2")
    assert OLD not in (*master.derived("page marks 1"),)
    assert OLD.decode() not in repr(master)
