"""What is hidden, where values come from, and which host a lookup may reach."""

import json
from pathlib import Path

import pytest
from pydantic import SecretStr

from runtime.events.actions import FileEditorAction, TerminalAction
from runtime.secrets.masking import HIDDEN, Mask
from runtime.secrets.sources import Lookup, LookupSecret, StaticSecret
from runtime.secrets.store import SecretStore
from runtime.settings import RuntimeSettings
from runtime.store.cipher import Cipher

VALUE = 'pa"ss\\wo\nrd \u00e9'


def mask_of(*values: str) -> Mask:
    mask = Mask()
    mask.add(map(SecretStr, values))
    return mask


def test_a_value_is_hidden_in_every_form_it_takes() -> None:
    mask = mask_of(VALUE, "abc", "abcdef", "  ")
    for form in (VALUE, json.dumps(VALUE), json.dumps(VALUE, ensure_ascii=False), f"x{VALUE.strip()}y"):
        assert HIDDEN in mask.text(form)
        assert "ss" not in mask.text(form)
    assert mask.text("abcdefabc") == HIDDEN + HIDDEN
    assert mask.text("a b") == "a b"


def test_nothing_is_hidden_before_there_is_a_value() -> None:
    assert Mask().text("text") == "text"


def test_words_of_a_closed_set_stay_what_they_are() -> None:
    mask = mask_of("create", "FileEditorAction", "/tmp/x")
    masked = mask.model(FileEditorAction(command="create", path="/tmp/x", file_text="create"))
    assert (masked.command, masked.kind) == ("create", "FileEditorAction")
    assert (masked.path, masked.file_text) == (HIDDEN, HIDDEN)
    assert mask.model(TerminalAction(command="create")).command == HIDDEN


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    made = SecretStore(tmp_path, Cipher(SecretStr("k")))
    made.put("NAME", SecretStr("stored"), description=None)
    return made


def lookup(store: SecretStore, **settings: object) -> Lookup:
    chosen = {"internal_server_url": "http://internal:8000/base", "listen_port": 8123, **settings}
    return Lookup(RuntimeSettings.model_validate(chosen), store)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8123/api/settings/secrets/NAME",
        "http://localhost:8123/api/settings/secrets/NAME?x=1",
        "http://[::1]:8123/api/settings/secrets/NAME",
        "http://internal:8000/api/settings/secrets/NAME",
        "/api/settings/secrets/NAME",
        "https://abc.example.org/settings/secrets/NAME",
        "https://abc.example.org:443/runtimes/abc/api/settings/secrets/NAME",
    ],
)
async def test_a_url_of_this_runtime_is_answered_without_a_call(store: SecretStore, url: str) -> None:
    own = lookup(store, public_urls=["https://abc.example.org"])
    value = await own.value("N", LookupSecret(url=url))
    assert value is not None
    assert value.get_secret_value() == "stored"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8123/api/settings/secrets/OTHER",
        "http://127.0.0.1:8123/api/settings",
        "http://169.254.169.254/latest/meta-data",
        "http://abc.example.org/api/settings/secrets/NAME",
        "http://127.0.0.1:9/api/settings/secrets/NAME",
        "file:///etc/passwd",
        "gopher://127.0.0.1:8123/settings/secrets/NAME",
        "http://127.0.0.1:99999/settings/secrets/NAME",
        "http://[::1/settings/secrets/NAME",
    ],
)
async def test_other_urls_are_not_reached_under_an_orchestrator(store: SecretStore, url: str) -> None:
    assert await lookup(store, public_urls=["https://abc.example.org"]).value("N", LookupSecret(url=url)) is None


@pytest.mark.anyio
async def test_a_static_secret_is_its_value(store: SecretStore) -> None:
    value = await lookup(store).value("N", StaticSecret(value=SecretStr("v")))
    assert value == SecretStr("v")
    assert await lookup(store).value("N", StaticSecret()) is None
