"""`SecretText` shows itself to `open()` and to nothing else."""

import json
import pickle

import pytest

from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.secrets import REDACTED, SecretText, check_secret_name, check_secret_value, deep_redact

CANARY = "canary-value-5e4a"


def test_no_way_of_printing_shows_the_value() -> None:
    secret = SecretText(CANARY)
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>40}",
        repr([secret]),
        repr({"k": secret}),
    ]
    assert not any(CANARY in text for text in shown)
    assert secret.open() == CANARY


def test_json_and_pickle_refuse_it() -> None:
    with pytest.raises(TypeError):
        json.dumps({"k": SecretText(CANARY)})
    with pytest.raises(TypeError):
        pickle.dumps(SecretText(CANARY))


def test_redaction_reaches_every_depth() -> None:
    assert deep_redact({"a": [{"b": SecretText(CANARY)}], "c": 1}) == {"a": [{"b": REDACTED}], "c": 1}


@pytest.mark.parametrize("name", ["", "1A", "_A", "A-B", "A B", "A" * 65, "A\n", "Ä"])
def test_names_that_no_environment_takes_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        check_secret_name(name)


@pytest.mark.parametrize("value", ["", "  ", REDACTED, "a\0b", "x" * (64 * 1024 + 1)])
def test_values_that_are_none_are_refused_without_being_repeated(value: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_secret_value(value)
    assert "a\0b" not in refused.value.message


def test_a_long_and_a_short_name_are_taken() -> None:
    assert check_secret_name("A") == "A"
    assert check_secret_name("A" * 64) == "A" * 64
