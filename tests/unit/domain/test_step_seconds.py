"""The table of the steps' limits: complete, and changed by an operator only in ways that make sense."""

import pytest

from orchestrator.domain.step_seconds import STEP_SECONDS, step_seconds
from orchestrator.services.warm_start import ALL_STEPS


def test_each_step_of_a_start_has_its_own_limit() -> None:
    assert {step.name for step in ALL_STEPS} <= set(STEP_SECONDS)


def test_an_operator_changes_single_ones() -> None:
    changed = step_seconds(" create = 120, converse=300,")
    assert (changed["create"], changed["converse"], changed["start"]) == (120, 300, STEP_SECONDS["start"])


@pytest.mark.parametrize(
    ("text", "words"),
    [("creat=5", "no step .creat."), ("create", "no time"), ("create=0", "no time"), ("create=inf", "no time")],
)
def test_what_makes_no_sense_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        step_seconds(text)
