"""Restarts: bounded within the window, each later than the one before, never more than the operator allows."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from orchestrator.domain.conversation import (
    FAILURES_KEPT,
    Conversation,
    Failure,
    Phase,
    Reason,
    StartRequest,
    Why,
    fail,
    noted,
)
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.domain.restarts import RestartPolicy, Restarts

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WHY = Why(Reason.OOM, "the runtime ran out of memory")
ALWAYS = Restarts(RestartPolicy.ON_FAILURE)
operators = st.builds(
    Restarts,
    st.sampled_from(RestartPolicy),
    st.integers(min_value=0, max_value=10),
    st.floats(min_value=1, max_value=1000),
    st.floats(min_value=0.1, max_value=60),
)
choices = st.fixed_dictionaries(
    {},
    optional={
        "restart": st.sampled_from(["never", "on_failure", "", 5, None]),
        "restart_max": st.sampled_from([0, 1, 5, 1000, -1, None, "x"]),
        "restart_window_seconds": st.sampled_from([0, 1, 10_000, -5, None, "x"]),
    },
)


def died(seconds_ago: float, *, restarted: bool = True) -> Failure:
    return Failure(NOW - timedelta(seconds=seconds_ago), WHY, 1, 1, restarted)


@given(operators, choices)
def test_a_choice_never_gives_more_restarts(operator: Restarts, own: dict[str, Any]) -> None:
    chosen = operator.chosen(own)
    assert chosen.maximum <= operator.maximum
    assert chosen.window_seconds >= operator.window_seconds
    assert chosen.backoff_seconds == operator.backoff_seconds


@given(operators, st.lists(st.builds(died, st.floats(min_value=0, max_value=2000), restarted=st.booleans())))
def test_restarts_within_the_window_are_bounded(operator: Restarts, failures: list[Failure]) -> None:
    delay = operator.delay(failures, NOW)
    done = operator.done(failures, NOW)
    if operator.policy is RestartPolicy.NEVER or done >= operator.maximum:
        assert delay is None
    elif done < FAILURES_KEPT:
        assert delay is not None
        assert 0 < delay <= 60
        again = operator.delay([*failures, died(0)], NOW)
        assert again is None or again >= delay


def test_each_wait_is_twice_as_long_and_old_deaths_are_forgotten() -> None:
    assert [ALWAYS.delay([died(1)] * done, NOW) for done in range(4)] == [1.0, 2.0, 4.0, None]
    assert ALWAYS.delay([died(601)] * 3, NOW) == 1.0
    assert ALWAYS.delay([died(1, restarted=False)] * 3, NOW) == 1.0
    assert Restarts().delay([], NOW) is None


def test_the_last_failures_are_kept_and_what_a_runtime_said_is_bounded() -> None:
    conversation = Conversation(
        id=ConversationId("c"),
        tenant=TenantId("t"),
        user=None,
        request=StartRequest(),
        created_at=NOW,
        updated_at=NOW,
        phase_since=NOW,
        phase=Phase.READY,
        attempt=2,
    )
    loud = replace(WHY, log_tail=("x" * 100_000,) * 100)
    for number in range(FAILURES_KEPT + 5):
        conversation = noted(conversation, replace(loud, message=str(number)), now=NOW, restarted=True)
    failed = fail(replace(conversation, restart_at=NOW), loud, now=NOW)
    assert (failed.phase, failed.why, failed.restart_at) == (Phase.FAILED, loud, None)
    assert [failure.why.message for failure in failed.failures][-2:] == ["14", WHY.message]
    assert len(failed.failures) == FAILURES_KEPT
    assert failed.failures[-1].attempt == 2
    assert sum(len(line) for failure in failed.failures for line in failure.why.log_tail) <= FAILURES_KEPT * 10_000
