"""The limits of a tenant: what it may choose, and which rules a start has to pass."""

from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from orchestrator.domain.admission import (
    TENANT_ONLY,
    Allowance,
    Meter,
    Policy,
    Rule,
    Scope,
    first_full,
    policy_of,
)
from orchestrator.domain.ids import KeyId, UserId

NAMES = sorted(TENANT_ONLY - {"when_full"})
numbers = st.integers(min_value=0, max_value=50)
anything = st.one_of(numbers, st.integers(), st.none(), st.sampled_from(["", "5", True, 2.5]))


@given(st.fixed_dictionaries(dict.fromkeys(NAMES, numbers)), st.dictionaries(st.sampled_from(NAMES), anything))
def test_nobody_raises_the_operators_limit(operator: dict[str, int], own: dict[str, Any]) -> None:
    lowered = vars(Allowance(**operator).lowered(own))
    for name, limit in operator.items():
        assert lowered[name] <= limit or limit == 0
        assert lowered[name] > 0 or limit == 0, "nobody takes a limit away"
        assert lowered[name] >= 0


@given(st.fixed_dictionaries(dict.fromkeys(NAMES, numbers)))
def test_only_limits_that_are_set_and_concern_the_start_are_rules(chosen: dict[str, int]) -> None:
    allowance = Allowance(**chosen)
    everything = allowance.rules(user=UserId("u"), key=KeyId("k"))
    assert len(everything) == sum(limit > 0 for limit in chosen.values())
    alone = allowance.rules(user=None, key=None)
    assert {rule.scope for rule in alone} <= {Scope.TENANT}
    assert set(alone) <= set(everything)


@given(st.lists(st.tuples(numbers, numbers)))
def test_the_first_rule_without_room_refuses(pairs: list[tuple[int, int]]) -> None:
    meters = [Meter(Rule(Scope.TENANT, limit), current) for limit, current in pairs]
    full = first_full(meters)
    if full is None:
        assert all(meter.current < meter.rule.limit for meter in meters)
    else:
        assert not any(meter.full for meter in meters[: meters.index(full)])


@given(anything)
def test_a_policy_that_is_none_is_the_operators(chosen: Any) -> None:
    found = policy_of({"when_full": chosen}, Policy.QUEUE)
    assert found is (Policy(chosen) if chosen in list(Policy) else Policy.QUEUE)
