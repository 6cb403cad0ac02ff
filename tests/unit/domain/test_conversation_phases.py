"""The table of phases: every walk that `advance` allows stays in it, and every other step is refused."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.conversation import (
    LIVE_PHASES,
    REQUESTED,
    STATUS_OF,
    TRANSITIONS,
    Conversation,
    Phase,
    StartRequest,
    advance,
)
from orchestrator.domain.errors import IllegalTransition
from orchestrator.domain.ids import ConversationId, TenantId

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def conversation() -> Conversation:
    return Conversation(ConversationId("c"), TenantId("t"), None, StartRequest(), NOW, NOW, NOW)


@given(st.lists(st.sampled_from(list(Phase)), max_size=40))
def test_a_walk_takes_the_steps_of_the_table_and_no_others(steps: list[Phase]) -> None:
    present = conversation()
    for step in steps:
        if step in TRANSITIONS[present.phase]:
            before = present
            present = advance(present, step, why=REQUESTED, now=NOW)
            assert present.phase is step
            assert present.version == before.version + 1
        else:
            with pytest.raises(IllegalTransition):
                advance(present, step, why=REQUESTED, now=NOW)


def test_the_table_knows_every_phase() -> None:
    assert set(TRANSITIONS) == set(Phase)


def test_deleting_is_reached_from_everywhere_and_left_only_by_an_undelete() -> None:
    assert TRANSITIONS[Phase.DELETING] == {Phase.STOPPED}
    assert [phase for phase in Phase if phase is not Phase.DELETING and Phase.DELETING not in TRANSITIONS[phase]] == []


def test_a_runtime_exists_only_in_live_phases() -> None:
    assert LIVE_PHASES.isdisjoint({Phase.PENDING, Phase.STOPPED, Phase.DELETING, Phase.FAILED})


def test_every_phase_has_one_public_status() -> None:
    assert set(STATUS_OF) == set(Phase)
    assert set(STATUS_OF.values()) == {"starting", "running", "paused", "stopped", "failed"}
