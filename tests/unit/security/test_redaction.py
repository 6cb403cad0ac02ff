"""Nothing secret passes the redactor, and nothing else is changed by it."""

import base64
import io
import json
import logging
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.secrets import REDACTED, SecretText
from orchestrator.security.redaction import MINIMUM_LENGTH, Redactor
from orchestrator.telemetry.logging import configure

VALUE = 'p/ä"ss+wör d\n1'


@pytest.fixture
def redactor() -> Redactor:
    made = Redactor()
    made.add([SecretText(VALUE)])
    return made


@pytest.mark.parametrize(
    "form",
    [
        VALUE,
        quote(VALUE),
        quote(VALUE, safe=""),
        json.dumps(VALUE),
        json.dumps(VALUE, ensure_ascii=False),
        repr(VALUE),
        repr(VALUE.encode()),
    ],
)
def test_a_known_value_is_found_in_every_form(redactor: Redactor, form: str) -> None:
    told = redactor.text(f"before {form} after {form}")
    assert told.startswith("before ")
    assert " after " in told
    assert told.count(REDACTED) == 2
    assert "ss" not in told


@pytest.mark.parametrize("before", ["", "u", "us", "user:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_known_value_is_found_inside_of_base64(redactor: Redactor, before: str, encode) -> None:
    told = redactor.text(encode(f"{before}{VALUE}".encode()).decode())
    assert REDACTED in told
    assert len(told) <= len(REDACTED) + 4 * len(before) + 4


@given(st.text(min_size=MINIMUM_LENGTH, max_size=40), st.text(max_size=10), st.text(max_size=10))
def test_no_known_value_survives_wherever_it_stands(value: str, before: str, after: str) -> None:
    redactor = Redactor()
    redactor.add([SecretText(value)])
    assert value not in redactor.text(before + value + after).replace(REDACTED, "") or value in REDACTED


def test_the_longest_of_two_values_goes_whole(redactor: Redactor) -> None:
    redactor.add([SecretText("abcdef"), SecretText("abcdefghij")])
    assert redactor.text("-abcdefghij-abcdef-") == f"-{REDACTED}-{REDACTED}-"


def test_short_values_are_left_alone() -> None:
    redactor = Redactor()
    redactor.add([SecretText("on"), SecretText("")])
    assert redactor.text("turned on") == "turned on"


def test_a_value_is_known_until_it_is_removed_as_often_as_it_was_added(redactor: Redactor) -> None:
    other, value = SecretText("another-value"), SecretText(VALUE)
    redactor.add([value, other])
    redactor.remove([value])
    assert redactor.text(VALUE) == REDACTED
    redactor.remove([value, SecretText("never-added")])
    assert redactor.text(VALUE) == VALUE
    assert redactor.text("another-value") == REDACTED


@pytest.mark.parametrize(
    "token",
    [
        "nst_tenant_0123456789abcdef0123456789abcdef_" + "x" * 43,
        "ghp_" + "a" * 36,
        "github_pat_" + "a" * 40,
        "glpat-" + "a" * 20,
        "sk-proj-" + "a" * 40,
        "gAAAAABm" + "a" * 60 + "==",
    ],
)
def test_tokens_are_known_by_their_shape(token: str) -> None:
    assert Redactor().text(f'x="{token}", y') == f'x="{REDACTED}", y'


def test_passwords_in_addresses_and_bearer_headers_are_found() -> None:
    assert Redactor().text("git clone https://me:hunter2@host/x") == f"git clone https://{REDACTED}@host/x"
    assert Redactor().text("Authorization: Bearer abcdefghijklmnop") == f"Authorization: Bearer {REDACTED}"


def test_ordinary_text_is_unchanged(redactor: Redactor) -> None:
    text = "task-list 12:30 http://host:80/a@b sk-ip the bearer of news; user:name, nst_x, 0123456789abcdef"
    assert redactor.text(text) == text


def test_fields_are_hidden_by_name_and_counts_are_not() -> None:
    fields = {
        "api_key": "a",
        "X-Session-API-Key": "b",
        "password": "c",
        "Authorization": "d",
        "token": "e",
        "access_token": "f",
        "nested": [{"client_secret": "g"}],
        "secret_name": "NAME",
        "key_id": "id",
        "prompt_tokens": 12,
        "token_count": "13",
        "monkey": "h",
        "wrapped": SecretText("i"),
    }
    assert Redactor().value(fields) == {
        **dict.fromkeys(
            ("api_key", "X-Session-API-Key", "password", "Authorization", "token", "access_token"), REDACTED
        ),
        "nested": [{"client_secret": REDACTED}],
        "secret_name": "NAME",
        "key_id": "id",
        "prompt_tokens": 12,
        "token_count": "13",
        "monkey": "h",
        "wrapped": REDACTED,
    }


def test_foreign_objects_are_told_by_their_redacted_repr(redactor: Redactor) -> None:
    class Foreign:
        def __repr__(self) -> str:
            return f"Foreign({VALUE})"

    deep: object = VALUE
    for _ in range(50):
        deep = [deep]
    told = redactor.value({"a": Foreign(), "b": {VALUE}, "c": VALUE.encode(), "d": deep})
    assert told["a"] == f"Foreign({REDACTED})"
    assert told["b"] == [REDACTED]
    assert "ss+w" not in str(told)


@pytest.fixture
def logged(redactor: Redactor) -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure(redactor, stream=stream)
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_logs_are_redacted_json_lines_whoever_writes_them(logged: io.StringIO) -> None:
    log = structlog.get_logger("nestor.test")
    log.info("runtime.ready", conversation="c", key=SecretText("hidden"), note=VALUE, seconds=1.5)
    logging.getLogger("uvicorn.error").warning("answered %s", VALUE)
    logging.getLogger("uvicorn.access").info("GET /")
    logging.getLogger("httpx").info("HTTP Request: GET http://x")
    try:
        raise ValueError(VALUE)
    except ValueError:
        log.exception("failed")
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["runtime.ready", f"answered {REDACTED}", "GET /", "failed"]
    assert (lines[0]["note"], lines[0]["key"], lines[0]["seconds"]) == (REDACTED, REDACTED, 1.5)
    assert lines[0]["level"] == "info"
    assert lines[0]["logger"] == "nestor.test"
    assert "ValueError" in lines[3]["exception"]
    assert "ss+w" not in logged.getvalue()


def test_logs_for_a_person_are_redacted_as_well(redactor: Redactor, logged: io.StringIO) -> None:
    configure(redactor, json_lines=False, stream=logged)
    try:
        raise ValueError(VALUE)
    except ValueError:
        structlog.get_logger("nestor.test").exception("failed", note=VALUE)
    assert "failed" in logged.getvalue()
    assert "ss+w" not in logged.getvalue()


def test_the_beginning_of_a_value_at_the_end_of_a_text_that_was_cut_is_taken_out() -> None:
    redactor = Redactor()
    redactor.add([SecretText("first-secret-value"), SecretText("x" * 4000)])
    assert redactor.text("said first-secr", is_cut=True) == f"said {REDACTED}"
    assert redactor.text("said first-secret-value and first-", is_cut=True) == f"said {REDACTED} and {REDACTED}"
    assert redactor.text("said " + "x" * 1000, is_cut=True) == f"said {REDACTED}"
    assert redactor.text("said firs", is_cut=True) == "said firs"  # shorter than what is looked for
    assert redactor.text("said first-secr") == "said first-secr"  # it ends there


def test_a_value_of_several_lines_is_found_line_by_line() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQDL\nshort\n"
    redactor = Redactor()
    redactor.add([SecretText(key)])
    shown = [redactor.text(f"> {line}") for line in key.splitlines()]
    assert shown == [f"> {REDACTED}"] * 3 + ["> short"]
    redactor.remove([SecretText(key)])
    assert redactor.text(key) == key
