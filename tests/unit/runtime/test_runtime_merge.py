"""The merge of a partial change into a settings record, as properties."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from runtime.configuration.merge import SettingsInvalid, merged, merged_map
from runtime.configuration.record import AgentSettings, Exposure, LlmSettings, McpServer, render
from runtime.store.cipher import Cipher

CIPHER = Cipher(SecretStr("key"))
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=4)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=8,
)
MAPS = st.dictionaries(st.text("ab", max_size=2), JSON, max_size=4)


def holds_null(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and any(holds_null(item) for item in value.values()))


@given(MAPS, MAPS)
def test_a_change_to_a_free_map_is_idempotent(current: dict[str, Any], change: dict[str, Any]) -> None:
    once = merged_map(current, change)
    assert merged_map(once, change) == once


@given(MAPS, MAPS)
def test_what_a_change_does_not_name_stays(current: dict[str, Any], change: dict[str, Any]) -> None:
    result = merged_map(current, change)
    assert {name: result[name] for name in current if name not in change} == {
        name: current[name] for name in current if name not in change
    }


@given(MAPS)
def test_no_null_enters_a_free_map(change: dict[str, Any]) -> None:
    assert not holds_null(merged_map({}, change))


@given(MAPS, MAPS)
def test_a_merge_leaves_its_arguments_alone(current: dict[str, Any], change: dict[str, Any]) -> None:
    before = repr((current, change))
    merged_map(current, change)
    assert repr((current, change)) == before


def test_an_empty_change_is_no_change() -> None:
    record = AgentSettings(
        llm=LlmSettings(api_key=SecretStr("sk")),
        mcp_config={"s": McpServer(url="http://x/", headers={"H": SecretStr("h")})},
    )
    assert merged(record, {}, CIPHER) == record


@pytest.mark.parametrize("exposure", [Exposure.REDACTED, Exposure.PLAINTEXT, Exposure.ENCRYPTED])
def test_a_record_sent_back_in_any_form_is_no_change(exposure: Exposure) -> None:
    record = AgentSettings(
        llm=LlmSettings(api_key=SecretStr("sk"), extra_headers={"A": SecretStr("a")}),
        mcp_config={"s": McpServer(command="c", env={"E": SecretStr("e")})},
        agent_context=AgentSettings().agent_context.model_copy(update={"secrets": {"S": SecretStr("s")}}),
        meta_profile_llms={"cheap": LlmSettings(api_key=SecretStr("sk2"))},
    )
    assert merged(record, render(record, exposure, CIPHER), CIPHER) == record


def test_a_problem_names_the_field_and_not_the_value() -> None:
    with pytest.raises(SettingsInvalid) as caught:
        merged(AgentSettings(), {"llm": {"temperature": "hidden", "num_retries": -987654}}, CIPHER)
    told = repr(caught.value.problems) + str(caught.value)
    assert [problem["loc"] for problem in caught.value.problems] == [["llm", "num_retries"], ["llm", "temperature"]]
    assert "hidden" not in told
    assert "987654" not in told


@given(st.dictionaries(st.sampled_from([*AgentSettings.model_fields, "other"]), JSON, max_size=4))
def test_any_json_is_merged_or_refused_and_never_crashes(change: dict[str, Any]) -> None:
    with contextlib.suppress(SettingsInvalid):
        result = merged(AgentSettings(), change, CIPHER)
        assert render(result, Exposure.REDACTED, CIPHER).keys() == AgentSettings.model_fields.keys()
