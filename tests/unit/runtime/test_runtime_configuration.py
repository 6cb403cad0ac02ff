"""The operator's configuration: variables, file, fallbacks and what is refused."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from runtime.environment import BadVariable, merged
from runtime.environment import fields as environment_fields
from runtime.settings import InvalidConfiguration, RuntimeSettings, load


def opened(settings: RuntimeSettings) -> list[str]:
    return [key.get_secret_value() for key in settings.session_api_keys]


def with_file(directory: Path, content: Any) -> None:
    path = directory / "workspace/openhands_agent_server_config.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize(
    ("environment", "keys"),
    [
        ({}, []),
        ({"OH_SESSION_API_KEYS_0": "a", "OH_SESSION_API_KEYS_1": "b"}, ["a", "b"]),
        ({"OH_SESSION_API_KEYS_0": "a", "OH_SESSION_API_KEYS_2": "c", "OH_SESSION_API_KEYS_10": "k"}, ["a", "c", "k"]),
        ({"OH_SESSION_API_KEYS": '["a", "b"]'}, ["a", "b"]),
        ({"SESSION_API_KEY": "one"}, ["one"]),
        ({"SESSION_API_KEY": "one", "OH_SESSION_API_KEYS_0": "a"}, ["a"]),
        ({"OH_SESSION_API_KEYS_0": "  ", "OH_SESSION_API_KEYS_1": "b"}, ["b"]),
        ({"SESSION_API_KEY": " "}, []),
        ({"SESSION_API_KEY": "one", "OH_SESSION_API_KEYS_0": " "}, ["one"]),
        ({"SESSION_API_KEY": "one", "OH_SESSION_API_KEYS": "[]"}, ["one"]),
    ],
)
def test_session_keys_come_from_the_environment(environment: dict[str, str], keys: list[str], tmp_path: Path) -> None:
    assert opened(load(environment, directory=tmp_path)) == keys


@pytest.mark.parametrize(
    ("environment", "key"),
    [
        ({"OH_SECRET_KEY": "s", "SESSION_API_KEY": "one"}, "s"),
        ({"SESSION_API_KEY": "one", "OH_SESSION_API_KEYS_0": "a"}, "one"),
        ({"OH_SESSION_API_KEYS_0": "a"}, "a"),
        ({"OH_SECRET_KEY": "  ", "OH_SESSION_API_KEYS_0": "a"}, "a"),
        ({}, None),
    ],
)
def test_the_secret_key_falls_back_to_the_session_keys(
    environment: dict[str, str], key: str | None, tmp_path: Path
) -> None:
    found = load(environment, directory=tmp_path).secret_key
    assert (found.get_secret_value() if found is not None else None) == key


def test_the_environment_wins_over_the_file_field_by_field(tmp_path: Path) -> None:
    with_file(tmp_path, {"session_api_keys": ["file"], "max_concurrent_runs": 3, "web_url": "http://x/", "later": 1})
    settings = load({"OH_MAX_CONCURRENT_RUNS": "5", "OH_WEB_URL_IS_NONE": "1"}, directory=tmp_path)
    assert (opened(settings), settings.max_concurrent_runs, settings.web_url) == (["file"], 5, None)


def test_the_file_may_be_elsewhere_and_use_the_older_name_of_the_key(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"session_api_key": "older"}')
    environment = {"OPENHANDS_AGENT_SERVER_CONFIG_PATH": str(tmp_path / "other.json")}
    assert opened(load(environment, directory=tmp_path)) == ["older"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[1]", "must hold a JSON object"),
        ("{", "is not JSON"),
        ('{"max_concurrent_runs": "hidden"}', "max_concurrent_runs"),
    ],
)
def test_a_wrong_file_is_refused_without_its_values(tmp_path: Path, content: str, told: str) -> None:
    with_file(tmp_path, content)
    with pytest.raises(InvalidConfiguration, match=told) as caught:
        load({}, directory=tmp_path)
    assert "hidden" not in str(caught.value)


def test_other_variables_are_read_too(tmp_path: Path) -> None:
    settings = load(
        {
            "OH_PERSISTENCE_DIR": "/state",
            "OH_GENERATION": "7",
            "OH_PUBLIC_URLS_0": "https://one.example.org",
            "ALLOW_SET_CONVERSATION_ID": "1",
            "OH_LOOKUP_SECRET_HOSTS_0": "secrets.internal",
            "OH_ENABLE_VSCODE": "1",
        },
        directory=tmp_path,
    )
    assert settings.persistence_dir == Path("/state")
    assert (settings.generation, settings.allow_set_conversation_id) == (7, True)
    assert (settings.public_urls, settings.lookup_secret_hosts) == (("https://one.example.org",), ("secrets.internal",))


#: every field of the contract's table that this runtime has: its default, a variable, and what that makes of it
FIELDS: list[tuple[str, Any, dict[str, str], Any]] = [
    ("previous_secret_keys", [], {"OH_PREVIOUS_SECRET_KEYS_0": "a", "OH_PREVIOUS_SECRET_KEYS_1": "b"}, ["a", "b"]),
    ("allow_cors_origins", [], {"OH_ALLOW_CORS_ORIGINS_0": "http://a"}, ["http://a"]),
    ("allow_cors_origin_regex", None, {"OH_ALLOW_CORS_ORIGIN_REGEX": "http://.*"}, "http://.*"),
    ("docker_host_address", None, {"DOCKER_HOST_ADDR": "host.internal"}, "host.internal"),
    ("conversations_path", "workspace/conversations", {"OH_CONVERSATIONS_PATH": "/c"}, "/c"),
    ("workspace_path", "workspace/project", {"OH_WORKSPACE_PATH": "/p"}, "/p"),
    ("bash_events_dir", "workspace/bash_events", {"OH_BASH_EVENTS_DIR": "/b"}, "/b"),
    ("bash_events_retention_seconds", None, {"OH_BASH_EVENTS_RETENTION_SECONDS": "60"}, 60.0),
    (
        "conversation_worktree_root",
        str(Path(tempfile.gettempdir()) / "agent-server-worktrees"),
        {"OH_CONVERSATION_WORKTREE_ROOT": "/w"},
        "/w",
    ),
    ("static_files_path", None, {"OH_STATIC_FILES_PATH": "/s"}, "/s"),
    ("max_concurrent_runs", 10, {"OH_MAX_CONCURRENT_RUNS": "3"}, 3),
    ("conversation_idle_ttl_seconds", 1200.0, {"OH_CONVERSATION_IDLE_TTL_SECONDS": "5"}, 5.0),
    ("lease_ttl_seconds", 45.0, {"OH_LEASE_TTL_SECONDS": "0"}, 0.0),
    ("web_url", None, {"OH_WEB_URL": "https://h/p"}, "https://h/p"),
    ("deferred_init", False, {"OH_DEFERRED_INIT": "1"}, True),
    ("trust_forwarded_headers", False, {"OH_TRUST_FORWARDED_HEADERS": "true"}, True),
    ("conversation_runtime", "local", {"OH_CONVERSATION_RUNTIME": "local"}, "local"),
    ("persistence_dir", str(Path.home() / ".openhands"), {"OH_PERSISTENCE_DIR": "/o"}, "/o"),
    ("internal_server_url", "http://127.0.0.1:8000", {"OH_INTERNAL_SERVER_URL": "http://i"}, "http://i"),
    ("version_megabytes", 256, {"NESTOR_RUNTIME_VERSION_MEGABYTES": "0"}, 0),
    ("log_json", False, {"LOG_JSON": "1"}, True),
]


def plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return (
        value.get_secret_value() if isinstance(value, SecretStr) else str(value) if isinstance(value, Path) else value
    )


@pytest.mark.parametrize(("field", "default", "variables", "value"), FIELDS, ids=[row[0] for row in FIELDS])
def test_each_field_has_its_default_its_variable_and_its_place_in_the_file(
    field: str, default: Any, variables: dict[str, str], value: Any, tmp_path: Path
) -> None:
    assert plain(getattr(load({}, directory=tmp_path), field)) == default
    assert plain(getattr(load(variables, directory=tmp_path), field)) == value
    with_file(tmp_path, {field: value})
    assert plain(getattr(load({}, directory=tmp_path), field)) == value
    with_file(tmp_path, {field: default})
    assert plain(getattr(load(variables, directory=tmp_path), field)) == value, "the environment wins over the file"


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        *((field, "hidden") for field in ("max_concurrent_runs", "lease_ttl_seconds", "deferred_init", "log_json")),
        *(("conversation_idle_ttl_seconds", wrong) for wrong in ("0", "-1", "nan", "inf")),
        ("bash_events_retention_seconds", "hidden"),
        ("max_concurrent_runs", "0"),
        ("lease_ttl_seconds", "-1"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_its_field(field: str, wrong: str, tmp_path: Path) -> None:
    variable = "LOG_JSON" if field == "log_json" else f"OH_{field.upper()}"
    with pytest.raises(InvalidConfiguration, match=f"^{field}: ") as caught:
        load({variable: wrong}, directory=tmp_path)
    assert "hidden" not in str(caught.value)
    with_file(tmp_path, {field: wrong})
    with pytest.raises(InvalidConfiguration, match=f"^{field}: "):
        load({}, directory=tmp_path)


def test_variables_of_what_is_not_here_are_no_error(tmp_path: Path) -> None:
    names = "ENABLE_VSCODE VSCODE_PORT VSCODE_BASE_PATH PRELOAD_TOOLS ENABLE_BROWSER CONVERSATION_IMAGE TELEMETRY_MODE"
    assert load({f"OH_{name}": "x" for name in names.split()}, directory=tmp_path) == load({}, directory=tmp_path)


def test_a_blank_key_in_the_file_leaves_the_place_to_the_single_variable(tmp_path: Path) -> None:
    for blank in ([], [" "], ["", "\t"]):
        with_file(tmp_path, {"session_api_keys": blank})
        assert opened(load({"SESSION_API_KEY": "one"}, directory=tmp_path)) == ["one"]
    with_file(tmp_path, {"session_api_keys": ["of-the-file"]})
    assert opened(load({"SESSION_API_KEY": "one"}, directory=tmp_path)) == ["of-the-file"]


def test_the_file_of_the_older_documentation_is_understood(tmp_path: Path) -> None:
    receiver = {
        "webhook_url": "https://your-webhook-endpoint.com/events",
        "method": "POST",
        "event_buffer_size": 10,
        "num_retries": 3,
        "retry_delay": 5,
        "headers": {"Authorization": "Bearer your-webhook-token"},
    }
    content = {
        "session_api_key": "your-secret-api-key",
        "allow_cors_origins": ["https://your-frontend.com"],
        "conversations_path": "workspace/conversations",
        "webhooks": [receiver],
    }
    with_file(tmp_path, content)
    settings = load({}, directory=tmp_path)
    assert opened(settings) == ["your-secret-api-key"]
    (webhook,) = settings.webhooks
    assert (webhook.base_url, webhook.event_buffer_size) == ("https://your-webhook-endpoint.com/events", 10)
    for method in ("PUT", "patch"):
        with_file(tmp_path, {**content, "webhooks": [{**receiver, "method": method}]})
        (webhook,) = load({}, directory=tmp_path).webhooks
        assert webhook.method == method.upper()


class Hook(BaseModel):
    base_url: str
    headers: dict[str, str] = {}
    wait: float | None = 1.0


class Inner(BaseModel):
    deep_name: str = ""
    hook: Hook | None = None


class Whole(BaseModel):
    hooks: list[Hook] = []
    inner: Inner | None = None
    flags: tuple[bool, ...] = ()
    limit: int | None = 3
    on: bool = False


def read(environment: dict[str, str]) -> dict[str, Any]:
    names = {name: f"OH_{name.upper()}" for name in Whole.model_fields}
    return Whole.model_validate(environment_fields(Whole, environment, names)).model_dump(exclude_unset=True)


@pytest.mark.parametrize(
    ("environment", "values"),
    [
        ({}, {}),
        ({"OH_LIMIT": " "}, {}),
        ({"OH_LIMIT": "5"}, {"limit": 5}),
        ({"OH_LIMIT_IS_NONE": "1"}, {"limit": None}),
        ({"OH_LIMIT": "5", "OH_LIMIT_IS_NONE": "true"}, {"limit": None}),
        ({"OH_LIMIT": "5", "OH_LIMIT_IS_NONE": "0"}, {"limit": 5}),
        *(({"OH_ON": text}, {"on": value}) for text, value in (("1", True), ("true", True), ("0", False))),
        ({"OH_ON": "False"}, {"on": False}),
        ({"OH_FLAGS_0": "1", "OH_FLAGS_3": "0"}, {"flags": (True, False)}),
        ({"OH_FLAGS": "[true]"}, {"flags": (True,)}),
        ({"OH_HOOKS_0_BASE_URL": "http://a/"}, {"hooks": [{"base_url": "http://a/"}]}),
        (
            {"OH_HOOKS_1_BASE_URL": "http://b/", "OH_HOOKS_0": '{"base_url": "http://a/", "headers": {"A": "1"}}'},
            {"hooks": [{"base_url": "http://a/", "headers": {"A": "1"}}, {"base_url": "http://b/"}]},
        ),
        (
            {"OH_HOOKS_0": '{"base_url": "http://a/", "wait": 2}', "OH_HOOKS_0_WAIT_IS_NONE": "1"},
            {"hooks": [{"base_url": "http://a/", "wait": None}]},
        ),
        ({"OH_HOOKS": '[{"base_url": "http://a/"}]'}, {"hooks": [{"base_url": "http://a/"}]}),
        (
            {"OH_INNER_HOOK_BASE_URL": "http://a/", "OH_INNER_DEEP_NAME": "x"},
            {"inner": {"deep_name": "x", "hook": {"base_url": "http://a/"}}},
        ),
        (
            {"OH_INNER": '{"deep_name": "whole"}', "OH_INNER_DEEP_NAME": "part"},
            {"inner": {"deep_name": "part"}},
        ),
        ({"OH_INNER_IS_NONE": "1", "OH_INNER_DEEP_NAME": "x"}, {"inner": None}),
    ],
)
def test_variables_nest_and_count(environment: dict[str, str], values: dict[str, Any]) -> None:
    assert read(environment) == values


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"OH_HOOKS": "hidden"}, "OH_HOOKS must be a JSON list, or use OH_HOOKS_0"),
        ({"OH_HOOKS": "[" * 100_000}, "OH_HOOKS must be a JSON list"),
        ({"OH_HOOKS_0": '["hidden"]'}, "OH_HOOKS_0 must be a JSON object, or use OH_HOOKS_0_<FIELD>"),
        ({"OH_HOOKS_0_HEADERS": "hidden"}, "OH_HOOKS_0_HEADERS must be a JSON object"),
        ({"OH_INNER": "5"}, "OH_INNER must be a JSON object"),
    ],
)
def test_a_wrong_variable_is_named_without_its_value(environment: dict[str, str], told: str) -> None:
    with pytest.raises(BadVariable, match=told) as caught:
        read(environment)
    assert "hidden" not in str(caught.value)


def test_objects_of_file_and_environment_are_merged_and_lists_replaced() -> None:
    below = {"a": {"b": 1, "c": {"d": 2}}, "l": [1, 2], "n": 1}
    assert merged(below, {"a": {"c": {"e": 3}}, "l": [9], "n": None}) == {
        "a": {"b": 1, "c": {"d": 2, "e": 3}},
        "l": [9],
        "n": None,
    }


def test_a_secret_key_that_is_said_to_be_none_is_none(tmp_path: Path) -> None:
    environment = {"OH_SECRET_KEY_IS_NONE": "1", "OH_SESSION_API_KEYS_0": "a"}
    assert load(environment, directory=tmp_path).secret_key is None


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"OH_ALLOW_CORS_ORIGIN_REGEX": "("}, "allow_cors_origin_regex: .*not a regular expression"),
        ({"OH_CONVERSATION_RUNTIME": "docker"}, "conversation_runtime: .*'local'"),
        ({"OH_TRUST_FORWARDED_HEADERS": "hidden"}, "trust_forwarded_headers"),
        ({"OH_SESSION_API_KEYS_IS_NONE": "1"}, "session_api_keys"),
    ],
)
def test_what_cannot_be_served_is_refused_at_the_start(environment: dict[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=told) as caught:
        load(environment, directory=tmp_path)
    assert "hidden" not in str(caught.value)


def test_a_config_file_with_keys_is_told_from_one_without(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    environment = {"OPENHANDS_AGENT_SERVER_CONFIG_PATH": str(file)}
    for text, wanted in (
        ('{"max_concurrent_runs": 3}', None),
        ('{"session_api_keys": []}', None),
        ('{"session_api_key": "a"}', file),
        ('{"secret_key": "a"}', file),
        ('{"key_file": "/etc/passwd"}', None),
    ):
        file.write_text(text)
        assert load(environment, directory=tmp_path).key_file == wanted, text
