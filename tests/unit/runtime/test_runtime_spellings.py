"""A value is found in every spelling that the module names, and innocent text is left alone."""

import base64
import json
import re
import shlex
import time
import urllib.parse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from runtime.secrets.masking import HIDDEN, Mask, MaskedStream
from runtime.secrets.spellings import spellings

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
    mask = mask_of("abcd")
    innocent = base64.b64encode(b"abcd").decode()
    assert mask.text(innocent) == innocent
    assert mask.text("abcd") == HIDDEN


def test_what_is_too_short_to_be_hidden_spoils_no_text() -> None:
    mask = mask_of("a", " abc ", "1")
    assert mask.text("abc 1") == "abc 1"
    assert mask.released("a") == ("a", "")


def test_the_longest_match_bounds_every_spelling() -> None:
    mask = mask_of(VALUE)
    broken = "\r\n".join(base64.b64encode(VALUE.encode()).decode().rstrip("="))
    assert mask.text(broken) != broken
    assert mask.longest >= len(broken)


def written(value: str, how: str, *, shift: int, wrap: int, end: str) -> str:
    """The value in one of the spellings that are looked for."""
    if how == "plain":
        return value
    if how == "json":
        return json.dumps(value)[1:-1]
    if how == "shell":
        return shlex.quote(value)
    if how == "url":
        return urllib.parse.quote(value, safe="")
    if how == "url in small letters":
        return re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), urllib.parse.quote(value, safe=""))
    encode = base64.urlsafe_b64encode if how == "base64 of urls" else base64.b64encode
    encoded = encode(b"x" * shift + value.encode() + b"y" * (shift and 2)).decode()
    return end.join(encoded[at : at + wrap] for at in range(0, len(encoded), wrap)) if wrap else encoded


HOW = ["plain", "json", "shell", "url", "url in small letters", "base64", "base64 of urls"]


@pytest.mark.parametrize("how", HOW)
@settings(max_examples=30)
@given(
    value=values,
    others=st.lists(values, max_size=2),
    before=st.text(max_size=12),
    after=st.text(max_size=12),
    shift=st.integers(0, 2),
    wrap=st.sampled_from([0, 1, 4, 20, 76]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_a_value_torn_anywhere_is_hidden_as_if_it_were_whole(
    how: str, value: str, others: list[str], before: str, after: str, shift: int, wrap: int, end: str
) -> None:
    whole = before + written(value, how, shift=shift, wrap=wrap, end=end) + after
    mask = mask_of(value, *others, value[:7])
    expected = mask.text(whole)
    assert HIDDEN in expected
    for cut in range(len(whole) + 1):
        stream = MaskedStream(mask)
        assert stream.feed(whole[:cut]) + stream.feed(whole[cut:]) + stream.rest() == expected, cut
    stream = MaskedStream(mask)
    assert "".join([*map(stream.feed, whole), stream.rest()]) == expected, "letter by letter"


KEY = (
    "-----BEGIN KEY-----\n"
    + "\n".join(f"{n:02d}+/{'MIIEvQIBADANBgkqhki' * 3}%" for n in range(30))
    + "\n-----END KEY-----"
)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(("shift", "wrap", "end"), [(0, 0, "\n"), (1, 76, "\n"), (2, 64, "\r\n")])
def test_a_long_value_is_hidden_in_every_spelling_and_however_it_is_torn(
    how: str, shift: int, wrap: int, end: str
) -> None:
    whole = f"before {written(KEY, how, shift=shift, wrap=wrap, end=end)} and a-short-value after"
    mask = mask_of(KEY, "a-short-value")
    expected = mask.text(whole)
    kept = expected.replace(HIDDEN, "").replace("before ", "").replace(" and  after", "")
    assert expected.count(HIDDEN) == 2
    assert len(kept) <= 8, "quotes, or letters that it shares with its neighbours"
    for cut in range(0, len(whole), 53):
        stream = MaskedStream(mask)
        assert stream.feed(whole[:cut]) + stream.feed(whole[cut:]) + stream.rest() == expected, cut
    assert mask.text(f"x{KEY[:-1]}x") == f"x{KEY[:-1]}x", "a part of it is not it"
    assert mask.text(KEY + KEY) == HIDDEN * 2


def test_a_long_value_has_no_expression() -> None:
    """One would take a second of the server to make for each thousand letters, for everybody."""
    assert {one.pattern for one in spellings(KEY)} == {""}
    assert sum(len(one.pattern) for one in spellings("x" * 200)) < 60_000


@given(value=values, data=st.data())
def test_a_value_torn_more_than_once_is_hidden(value: str, data: st.DataObject) -> None:
    whole = f"{value} {base64.b64encode(value.encode()).decode()}{value}"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    mask = mask_of(value)
    stream = MaskedStream(mask)
    assert "".join([*map(stream.feed, pieces), stream.rest()]) == mask.text(whole)


def test_a_longer_value_that_begins_like_a_shorter_one_is_waited_for() -> None:
    stream = MaskedStream(mask_of("abcdef", "abcdefghijkl"))
    assert [stream.feed(piece) for piece in ("say abcdef", "ghi", "jkl", ".")] == ["say ", "", HIDDEN, "."]
    assert (stream.feed("abcdef"), stream.feed("!"), stream.rest()) == ("", f"{HIDDEN}!", "")


def test_looking_for_beginnings_costs_little() -> None:
    """A private key and forty tokens, and an answer that comes in four thousand pieces."""
    mask = mask_of("-----BEGIN KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0B" * 130, *(f"token-{n:040d}" for n in range(40)))
    stream = MaskedStream(mask)
    began = time.process_time()
    for _ in range(4000):
        stream.feed("and so on ")
    assert time.process_time() - began < 8


def test_what_cannot_be_a_value_is_shown_at_once() -> None:
    stream = MaskedStream(mask_of("secret-value"))
    assert [stream.feed(piece) for piece in ("hello ", "wor", "ld s")] == ["hello ", "wor", "ld "]
    assert (stream.feed("un"), stream.rest()) == ("sun", "")
