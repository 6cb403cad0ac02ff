"""A value is found in every spelling that the module names, and innocent text is left alone."""

import base64
import json
import shlex
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from runtime.secrets.masking import HIDDEN, Mask, MaskedStream

VALUE = "ghp_aB3/+=xyz with spaces&ümlaut'\""
around = st.binary(max_size=40)
values = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=6)


def mask_of(*known: str) -> Mask:
    mask = Mask()
    mask.add(map(SecretStr, known))
    return mask


@pytest.mark.parametrize(
    "spelling",
    [
        VALUE,
        json.dumps(VALUE)[1:-1],
        shlex.quote(VALUE),
        urllib.parse.quote(VALUE),
        urllib.parse.quote(VALUE, safe=""),
        urllib.parse.quote_plus(VALUE),
        urllib.parse.quote(VALUE, safe="").replace("%2F", "%2f").replace("%2B", "%2b").replace("%3D", "%3d"),
        base64.b64encode(VALUE.encode()).decode(),
        base64.urlsafe_b64encode(VALUE.encode()).decode(),
    ],
)
def test_each_spelling_is_hidden(spelling: str) -> None:
    masked = mask_of(VALUE).text(f"before {spelling} after")
    assert HIDDEN in masked
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert "aB3" not in masked
    assert base64.b64encode(VALUE.encode()).decode()[4:-4] not in masked


@given(value=values, before=around, after=around, wrap=st.sampled_from([0, 20, 76]))
def test_base64_of_any_text_around_it_holds_nothing_of_it(value: str, before: bytes, after: bytes, wrap: int) -> None:
    encoded = base64.b64encode(before + value.encode() + after).decode()
    if wrap:
        encoded = "\n".join(encoded[at : at + wrap] for at in range(0, len(encoded), wrap))
    masked = mask_of(value).text(encoded)
    assert HIDDEN in masked
    kept = "".join(masked.split(HIDDEN)).replace("\n", "")
    whole = encoded.replace("\n", "")
    hidden = len(whole) - len(kept)
    assert hidden >= len(value.encode()) * 8 // 6 - 3, "all of its letters but those that it shares with its neighbours"


@given(st.text())
def test_what_holds_no_value_is_left_alone(text: str) -> None:
    mask = mask_of("a-value-that-hypothesis-does-not-make")
    assert mask.text(text) == text


def test_a_short_value_is_not_looked_for_in_base64() -> None:
    mask = mask_of("abc")
    innocent = base64.b64encode(b"abc").decode()
    assert mask.text(innocent) == innocent
    assert mask.text("abc") == HIDDEN


def test_the_longest_match_bounds_every_spelling() -> None:
    mask = mask_of(VALUE)
    broken = "\r\n".join(base64.b64encode(VALUE.encode()).decode().rstrip("="))
    assert mask.text(broken) != broken
    assert mask.longest >= len(broken)


@given(value=values, before=st.text(max_size=20), after=st.text(max_size=20), data=st.data())
def test_a_value_torn_over_pieces_is_hidden(value: str, before: str, after: str, data: st.DataObject) -> None:
    whole = before + value + after
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    stream = MaskedStream(mask_of(value))
    shown = "".join([*map(stream.feed, pieces), stream.rest()])
    assert value not in shown
    assert HIDDEN in shown


def test_what_cannot_be_a_value_is_shown_at_once() -> None:
    stream = MaskedStream(mask_of("secret-value"))
    assert [stream.feed(piece) for piece in ("hello ", "wor", "ld s")] == ["hello ", "wor", "ld "]
    assert (stream.feed("un"), stream.rest()) == ("sun", "")
