"""Receivers of webhooks from the environment, the file and both, and what is refused without being shown."""

import json
from pathlib import Path
from typing import Any

import pytest

from runtime.settings import InvalidConfiguration, RuntimeSettings, load
from runtime.webhooks.configuration import Webhook

URL = "http://receiver.example.org/hook"


def loaded(directory: Path, environment: dict[str, str], file: Any = None) -> list[dict[str, Any]]:
    if file is not None:
        path = directory / "workspace/openhands_agent_server_config.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"webhooks": file}))
    found = load({f"OH_WEBHOOKS{name}": value for name, value in environment.items()}, directory=directory).webhooks
    return [shown(one) for one in found]


def shown(webhook: Webhook) -> dict[str, Any]:
    """What was said, headers opened."""
    said = webhook.model_dump(exclude_unset=True)
    if "headers" in said:
        said["headers"] = {name: value.get_secret_value() for name, value in webhook.headers.items()}
    return said


@pytest.mark.parametrize(
    ("environment", "file", "expected"),
    [
        ({}, None, []),
        ({}, [{"base_url": f"{URL}/"}], [{"base_url": URL}]),
        ({"_0_BASE_URL": URL}, None, [{"base_url": URL}]),
        ({"_0_WEBHOOK_URL": URL, "_0_METHOD": "post"}, None, [{"base_url": URL, "method": "POST"}]),
        ({"": json.dumps([{"base_url": URL}])}, [{"base_url": "http://file/"}], [{"base_url": URL}]),
        ({"_0": json.dumps({"base_url": URL})}, None, [{"base_url": URL}]),
        ({"_IS_NONE": "1"}, [{"base_url": URL}], []),
        ({"_0_BASE_URL": URL, "_0_FLUSH_DELAY_IS_NONE": "1"}, None, [{"base_url": URL}]),
        ({"_0_EVENT_BUFFER_SIZE": " "}, [{"base_url": URL}], [{"base_url": URL}]),
        (
            {"_0_BASE_URL": URL, "_0_EVENT_BUFFER_SIZE": "9", "_0_HEADERS": '{"Authorization": "Bearer t"}',
             "_1_BASE_URL": "https://b"},
            [{"base_url": "http://of-the-file/"}],
            [
                {"base_url": URL, "event_buffer_size": 9, "headers": {"Authorization": "Bearer t"}},
                {"base_url": "https://b"},
            ],
        ),
        ({"_0_BASE_URL": URL, "_0_SEND_SESSION_KEY": "true", "_0_NAME": "outer"}, None,
         [{"base_url": URL, "send_session_key": True, "name": "outer"}]),
    ],
)  # fmt: skip
def test_receivers_come_from_the_environment_over_the_file(
    environment: dict[str, str], file: Any, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert loaded(tmp_path, environment, file) == expected


def test_the_defaults_are_the_contracts(tmp_path: Path) -> None:
    found = RuntimeSettings.model_validate({"webhooks": [{"base_url": URL}]}).webhooks[0]
    assert found.model_dump() == {
        "base_url": URL,
        "name": None,
        "headers": {},
        "method": "POST",
        "send_session_key": False,
        "event_buffer_size": 5,
        "flush_delay": 30.0,
        "num_retries": 3,
        "retry_delay": 5.0,
        "max_queue_size": 1000,
        "max_batch_bytes": 5 * 1024 * 1024,
        "max_queue_bytes": 50 * 1024 * 1024,
    }


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({}, "base_url"),
        ({"base_url": " "}, "base_url"),
        ({"base_url": "hidden"}, "base_url"),
        ({"base_url": "file:///hidden"}, "base_url"),
        ({"base_url": "http://user:hidden@host"}, "base_url"),
        ({"base_url": "http://host/?token=hidden"}, "base_url"),
        ({"base_url": "http://host:hidden/"}, "base_url"),
        ({"base_url": "http://host/a hidden"}, "base_url"),
        ({"base_url": "http://host/\r\nhidden"}, "base_url"),
        ({"base_url": URL, "webhook_url": "http://hidden"}, "webhook_url"),
        ({"base_url": URL, "method": "GET"}, "method"),
        ({"base_url": URL, "method": "hidden"}, "method"),
        ({"base_url": URL, "heders": {}}, "heders"),
        ({"base_url": URL, "headers": {"A": "hidden\r\nB: c"}}, "headers"),
        ({"base_url": URL, "headers": {"A B": "hidden"}}, "headers"),
        ({"base_url": URL, "headers": {"Content-Length": "hidden"}}, "headers"),
        ({"base_url": URL, "headers": {"X-Nestor-Sequence-First": "hidden"}}, "headers"),
        ({"base_url": URL, "headers": {"A": "hidden", "a": "hidden"}}, "headers"),
        ({"base_url": URL, "headers": ["hidden"]}, "headers"),
        ({"base_url": URL, "name": "HIDDEN hidden"}, "name"),
        ({"base_url": URL, "event_buffer_size": 0}, "event_buffer_size"),
        ({"base_url": URL, "flush_delay": -1}, "flush_delay"),
        ({"base_url": URL, "flush_delay": "nan"}, "flush_delay"),
        ({"base_url": URL, "num_retries": "hidden"}, "num_retries"),
        ({"base_url": URL, "max_batch_bytes": 0}, "max_batch_bytes"),
        ("hidden", "webhooks.0"),
    ],
)
def test_what_is_wrong_is_named_and_not_shown(entry: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        loaded(tmp_path, {}, [entry])
    assert told in str(refused.value)
    assert "webhooks" in str(refused.value)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    "environment",
    [
        {"": "hidden"},
        {"": "{}"},
        {"_0": "[]"},
        {"_0_BASE_URL": URL, "_0_HEADERS": "hidden"},
        {"_0_BASE_URL": URL, "_0_HEADERS": "[]"},
        {"_0_BASE_URL": URL, "_1_BASE_URL": f"{URL}/"},
        {f"_{number}_BASE_URL": f"{URL}/{number}" for number in range(17)},
    ],
)
def test_a_wrong_variable_is_named_and_not_shown(environment: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        loaded(tmp_path, environment)
    assert "webhooks" in str(refused.value).lower()
    assert "hidden" not in str(refused.value)


def test_headers_are_hidden_wherever_settings_are_shown() -> None:
    settings = RuntimeSettings.model_validate({"webhooks": [{"base_url": URL, "headers": {"A": "hidden"}}]})
    assert "hidden" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_a_path_is_no_part_of_what_a_log_says() -> None:
    webhook = Webhook.model_validate({"base_url": "https://host:8443/path/with-a-token"})
    assert webhook.origin == "https://host:8443"


def test_memory_is_bounded_by_what_is_under_way() -> None:
    def bounds(**more: int) -> tuple[int, int]:
        webhook = Webhook.model_validate({"base_url": URL, **more})
        return webhook.at_once, webhook.batch_bytes

    assert bounds() == (8, 5 << 20)
    assert bounds(max_batch_bytes=1000, max_queue_bytes=2500) == (2, 1000)
    assert bounds(max_batch_bytes=5000, max_queue_bytes=1000) == (1, 1000)
