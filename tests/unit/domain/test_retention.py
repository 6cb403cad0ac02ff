"""The clock: times that are chosen below caps, and what it will do to a conversation in each phase."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from orchestrator.domain.conversation import Conversation, Phase, Reason, RuntimeRecord, StartRequest, Why
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.domain.retention import Act, Span, Spans, Times, plan

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BORN = NOW - timedelta(seconds=50)
TIMES = Times(idle_pause=30, max_life=100, stop_paused=40, archive=60, delete=200)
RECORD = Conversation(
    id=ConversationId("c"),
    tenant=TenantId("t"),
    user=None,
    request=StartRequest(),
    created_at=NOW,
    updated_at=NOW,
    phase_since=NOW,
    why=Why(Reason.IDLE, "unused"),
    runtime=RuntimeRecord(RuntimeId("r"), 1, started_at=BORN),
)
seconds = st.floats(min_value=0, max_value=1e6)
anything = st.one_of(seconds, st.sampled_from([None, -1, "x", float("inf")]))


@given(st.builds(Span, seconds, seconds), st.one_of(st.none(), seconds))
def test_nobody_chooses_a_longer_time_than_the_cap(span: Span, asked: float | None) -> None:
    chosen = span.seconds(asked)
    if span.cap:
        assert 0 < chosen <= span.cap
    else:
        assert chosen == (span.default if asked is None else asked)


@given(st.dictionaries(st.sampled_from(sorted(Spans.__dataclass_fields__)), anything))
def test_what_is_no_time_is_not_chosen(limits: dict[str, Any]) -> None:
    times = Spans(idle_pause_seconds=Span(7.0)).times(limits)
    asked = limits.get("idle_pause_seconds")
    assert times.idle_pause == (asked if isinstance(asked, float) else 7.0)


def steps(phase: Phase, **changes: Any) -> list[tuple[Act, Reason, float]]:
    found = plan(replace(RECORD, phase=phase, **changes), TIMES, unused_since=NOW)
    return [(one.act, one.reason, (one.at - NOW).total_seconds()) for one in found]


def test_what_the_clock_does_in_each_phase() -> None:
    assert steps(Phase.READY) == [(Act.PAUSE, Reason.IDLE, 30), (Act.STOP, Reason.EXPIRED, 50)]
    assert steps(Phase.PAUSED) == [(Act.STOP, Reason.IDLE, 40), (Act.STOP, Reason.IDLE, 50)]
    assert steps(Phase.STOPPED) == [(Act.ARCHIVE, Reason.EXPIRED, 60), (Act.DELETE, Reason.EXPIRED, 200)]
    assert steps(Phase.FAILED, archived_at=NOW) == [(Act.DELETE, Reason.EXPIRED, 200)]
    assert steps(Phase.PENDING) == []
    assert steps(Phase.PENDING, restart_at=NOW) == [(Act.RESTART, Reason.IDLE, 0)]
    assert steps(Phase.DELETING, purge_at=NOW) == [(Act.PURGE, Reason.REQUESTED, 0)]


@given(st.sampled_from(Phase), st.builds(Times, *[seconds] * 5))
def test_the_next_comes_first_and_nothing_that_is_never(phase: Phase, times: Times) -> None:
    found = plan(replace(RECORD, phase=phase), times, unused_since=NOW)
    assert [one.at for one in found] == sorted(one.at for one in found)
    assert plan(replace(RECORD, phase=phase), Times(), unused_since=NOW) == ()
