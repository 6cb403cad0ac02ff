"""What answers mean, and how long is waited."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.webhooks.outcome import LONGEST_DELAY, LONGEST_WISH, Verdict, delay, of_answer

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        *((status, Verdict.DELIVERED) for status in (200, 201, 202, 204, 299)),
        *((status, Verdict.REFUSED) for status in (301, 302, 307, 308, 400, 401, 403, 404, 405, 422)),
        *((status, Verdict.UNREACHABLE) for status in (408, 425, 429, 502, 503, 504)),
        *((status, Verdict.FAILED) for status in (500, 501, 507)),
        (410, Verdict.GONE),
        (413, Verdict.TOO_LARGE),
    ],
)
def test_a_status_decides(status: int, verdict: Verdict) -> None:
    assert of_answer(status, {}).verdict is verdict


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("Thu, 26 Nov 2026 12:00:30 GMT", 30.0),
        ("Thu, 26 Nov 2026 11:00:00 GMT", 0.0),
        ("999999999", LONGEST_WISH),
        ("Fri, 26 Nov 2027 12:00:00 GMT", LONGEST_WISH),
        ("soon", None),
        ("-3", None),
        ("7.5", None),
        ("", None),
        ("٧", None),
        ("Thu, 99 Nov 2026 12:00:30 GMT", None),
    ],
)
def test_the_wish_of_a_receiver_is_understood_and_bounded(text: str, seconds: float | None) -> None:
    assert of_answer(503, {"retry-after": text}, now=NOW).wish == seconds


def test_the_first_tries_are_the_contracts_and_then_the_distance_grows() -> None:
    found = [delay(failures, retries=3, first=5, chance=0) for failures in range(1, 12)]
    assert found == [5, 5, 5, 10, 20, 40, 80, 160, 300, 300, 300]


@given(st.integers(1, 10_000), st.integers(0, 20), st.floats(0, 400), st.floats(0, 1))
def test_a_delay_is_never_much_shorter_or_longer_than_it_should_be(
    failures: int, retries: int, first: float, chance: float
) -> None:
    found = delay(failures, retries=retries, first=first, chance=chance)
    assert first <= found <= max(LONGEST_DELAY, first * 1.25)
