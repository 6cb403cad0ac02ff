"""The operator's configuration: variables, file, fallbacks and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

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
