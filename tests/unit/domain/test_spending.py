"""What a runtime's words on its use are taken for, and the months of a ledger."""

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from orchestrator.domain.hooks import threshold_frame
from orchestrator.domain.ids import TenantId
from orchestrator.domain.spending import MOST, NOTHING, Month, Spent, month_of, reported


def stats(**usages: Any) -> dict[str, Any]:
    return {"kind": "ConversationStateUpdateEvent", "key": "stats", "value": {"usage_to_metrics": usages}}


def metrics(cost: Any, prompt: Any = 0, completion: Any = 0) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    return {"accumulated_cost": cost, "accumulated_token_usage": usage}


def test_all_usages_together_are_what_a_conversation_used() -> None:
    event = stats(agent=metrics(0.1, 10, 2), title=metrics(0.2, 5, 1))
    assert reported(event) == Spent(300_000, 15, 3)
    whole = {**event, "key": "full_state", "value": {"stats": event["value"], "id": "x"}}
    assert reported(whole) == Spent(300_000, 15, 3)
    assert reported(stats()) == NOTHING


@pytest.mark.parametrize(
    "event",
    [
        {"kind": "MessageEvent", "key": "stats", "value": stats(agent=metrics(1))["value"]},
        {"kind": "ConversationStateUpdateEvent", "key": "execution_status", "value": "running"},
        {"kind": "ConversationStateUpdateEvent", "key": "full_state", "value": {"id": "x"}},
        {"kind": "ConversationStateUpdateEvent", "key": "stats", "value": None},
        {"kind": "ConversationStateUpdateEvent", "key": "stats", "value": {"usage_to_metrics": [1]}},
        {},
    ],
)
def test_what_says_nothing_of_use_is_none(event: dict[str, Any]) -> None:
    assert reported(event) is None


@pytest.mark.parametrize("bad", [None, "1", True, [], {}, -1, -0.5, math.nan, math.inf, -math.inf])
def test_nonsense_counts_as_nothing(bad: Any) -> None:
    assert reported(stats(agent=metrics(bad, bad, bad), other=metrics(0.5, 1, 1))) == Spent(500_000, 1, 1)
    assert reported(stats(agent=bad, other={"accumulated_token_usage": bad})) == NOTHING


@given(st.lists(st.one_of(st.floats(), st.integers(), st.none(), st.text()), min_size=3, max_size=3))
def test_nothing_that_is_told_is_below_nothing_or_beyond_all_belief(told: list[Any]) -> None:
    found = reported(stats(a=metrics(*told), b=metrics(*told)))
    assert found is not None
    for number in (found.micros, found.prompt_tokens, found.completion_tokens):
        assert isinstance(number, int)
        assert 0 <= number <= MOST


@given(st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_each_moment_is_in_one_month(at: datetime) -> None:
    month = month_of(at)
    assert month.begins <= at < month.ends
    assert month.later(1).begins == month.ends
    assert month.later(-13).later(13) == month
    assert month_of(at.astimezone(timezone(timedelta(hours=14)))) == month


def test_months_have_names() -> None:
    assert Month(2026, 1).later(-1).name == "2025-12"
    assert Month(2026, 12).ends == datetime(2027, 1, 1, tzinfo=UTC)


def test_what_hooks_are_told_is_whole_with_what_is_put_into_its_frame() -> None:
    head, neck, tail = threshold_frame(TenantId("t"), datetime(2026, 3, 4, tzinfo=UTC))
    body = json.loads(f'{head}evt_1{neck}{{"a":1}}{tail}')
    assert (body["id"], body["type"], body["data"]) == ("evt_1", "budget.threshold_reached", {"a": 1})
