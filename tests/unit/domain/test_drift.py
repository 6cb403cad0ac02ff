"""When a drift is repaired: at once, then each time in a row later, and at once again after a quiet time."""

from datetime import UTC, datetime, timedelta

from orchestrator.domain.drift import Drift, Part, Seen, is_due, repaired, seen

T0 = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def test_each_repair_in_a_row_waits_longer_up_to_an_hour_and_a_quiet_time_ends_the_row() -> None:
    drift: Drift | None = None
    repairs: list[int] = []
    for minute in range(6 * 60):  # somebody changes it again at once, after every repair; it is looked at each minute
        now = T0 + minute * MINUTE
        drift = seen(drift, (Part.SECRETS,), now=now)
        if is_due(drift, now=now):
            drift = repaired(drift, now=now)
            repairs.append(minute)
    assert repairs == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303]
    assert drift is not None
    assert drift.repairs == len(repairs)
    later = T0 + timedelta(hours=9)
    calm = seen(repaired(drift, now=T0 + timedelta(hours=6)), (Part.SETTINGS,), now=later)
    assert is_due(calm, now=later)
    assert repaired(calm, now=later).repair_at == later + MINUTE


def test_one_that_is_there_keeps_the_time_at_which_it_came() -> None:
    first = seen(None, (Part.SETTINGS,), now=T0)
    assert is_due(first, now=T0)
    more = seen(first, (Part.SETTINGS, Part.SECRETS), now=T0 + MINUTE)
    assert (more.seen_at, more.parts, more.repaired_at) == (T0, (Part.SETTINGS, Part.SECRETS), None)
    assert not is_due(repaired(more, now=T0), now=T0)


def test_parts_are_named_that_are_others_now() -> None:
    before = Seen("a", "b", "c")
    assert before.differs(before) == ()
    assert before.differs(Seen("x", "b", "y")) == (Part.SETTINGS, Part.SECRETS)
