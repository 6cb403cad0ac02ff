"""Layers of settings: how a change is applied and how layers become what a conversation runs with."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.secrets import REDACTED, SecretText
from orchestrator.domain.settings import apply_change, merge, wrap_secrets

leaves = st.one_of(st.integers(), st.booleans(), st.text(max_size=5))
documents = st.recursive(
    st.dictionaries(st.sampled_from("abc"), leaves, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), st.one_of(leaves, inner), max_size=3),
    max_leaves=12,
)


def test_null_removes_and_absent_stays() -> None:
    stored = {"llm": {"model": "m", "api_key": SecretText("k")}, "x": 1}
    assert apply_change(stored, {"llm": {"api_key": None}}) == {"llm": {"model": "m"}, "x": 1}


def test_the_mark_of_a_hidden_value_means_unchanged() -> None:
    stored = {"llm": {"api_key": SecretText("k")}}
    echoed = wrap_secrets({"llm": {"api_key": REDACTED, "model": "m"}})
    assert apply_change(stored, echoed) == {"llm": {"api_key": SecretText("k"), "model": "m"}}


@given(documents)
def test_a_change_that_repeats_the_document_changes_nothing(document: dict[str, object]) -> None:
    assert apply_change(document, document) == document


@given(documents, documents)
def test_the_stronger_layer_wins_and_is_named(weak: dict[str, object], strong: dict[str, object]) -> None:
    effective, origin = merge([("tenant", weak), ("user", strong)])
    for path, layer in origin.items():
        value: object = effective
        for part in path.split("."):
            assert isinstance(value, dict)
            value = value[part]
        assert layer in ("tenant", "user")
        assert not isinstance(value, dict)
    for name, value in strong.items():
        if not isinstance(value, dict):
            assert effective[name] == value
            assert origin[name] == "user"


def test_secret_fields_are_wrapped_wherever_they_are() -> None:
    wrapped = wrap_secrets({"mcp_config": {"svc": {"headers": {"X-A": "a"}, "url": "u"}}, "llm": {"api_key": "k"}})
    assert wrapped["mcp_config"]["svc"] == {"headers": {"X-A": SecretText("a")}, "url": "u"}
    assert wrapped["llm"]["api_key"] == SecretText("k")
