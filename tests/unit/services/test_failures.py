"""What is told of a start that failed: who could not be asked has refused nothing."""

import pytest

from orchestrator.domain.conversation import Reason
from orchestrator.domain.errors import DriverUnavailable, RuntimeUnreachable
from orchestrator.drivers.errors import StartRefused
from orchestrator.services.failures import explain
from orchestrator.services.warm_start import ALL_STEPS

STEPS = [step.name for step in ALL_STEPS]


@pytest.mark.parametrize("step", STEPS)
def test_an_engine_that_is_away_is_the_engines_failure_at_every_step(step: str) -> None:
    why = explain(step, DriverUnavailable("the engine does not answer"))
    assert (why.reason, why.retryable, why.step) == (Reason.ENGINE_ERROR, True, step)
    assert "the engine does not answer" in why.message


@pytest.mark.parametrize("step", ["alive", "init", "settings", "providers", "secrets", "converse"])
def test_a_runtime_that_does_not_answer_has_refused_nothing(step: str) -> None:
    why = explain(step, RuntimeUnreachable("POST /api/x: the runtime did not answer"))
    assert (why.reason, why.retryable, why.step) == (Reason.HEALTH_TIMEOUT, True, step)
    assert "refused" not in why.message


def test_a_runtime_that_ended_at_once_did_not_start() -> None:
    assert explain("start", StartRefused("it ended")).reason is Reason.IMAGE_START
