"""What is hidden, where values come from, and which host a lookup may reach."""

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from runtime.events.actions import FileEditorAction, TerminalAction
from runtime.secrets import sources
from runtime.secrets.masking import HIDDEN, Mask
from runtime.secrets.sources import Lookup, LookupFailed, LookupSecret, StaticSecret
from runtime.secrets.store import SecretStore
from runtime.settings import RuntimeSettings
from runtime.store.cipher import Cipher

VALUE = 'pa"ss\\wo\nrd \u00e9'


def mask_of(*values: str) -> Mask:
    mask = Mask()
    mask.add(map(SecretStr, values))
    return mask


def test_a_value_is_hidden_in_every_form_it_takes() -> None:
    mask = mask_of(VALUE, "abcd", "abcdef", "  ")
    for form in (VALUE, json.dumps(VALUE), json.dumps(VALUE, ensure_ascii=False), f"x{VALUE.strip()}y"):
        assert HIDDEN in mask.text(form)
        assert "ss" not in mask.text(form)
    assert mask.text("abcdefabcd") == HIDDEN + HIDDEN
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
@pytest.mark.parametrize(
    "host",
    [
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "2130706433",
        "017700000001",
        "127.1",
        "127.255.255.254",
        "0.0.0.0",
        "0",
        "localhost.",
        "LocalHost",
        "127.0.0.1.",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "someone@127.0.0.1",
        "%31%32%37.0.0.1",
        "\uff11\uff12\uff17.0.0.1",
        "innocent.example",
    ],
)
@pytest.mark.parametrize("public_urls", [[], ["https://abc.example.org"]])
async def test_however_it_is_spelt_this_runtime_is_not_called(
    store: SecretStore, host: str, public_urls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(name: str, port: int) -> Any:
        if name == "innocent.example":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.53", port))]
        return await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)

    calls: list[str] = []

    async def fetch(url: str, headers: object) -> SecretStr:
        calls.append(url)
        raise LookupFailed("called")

    monkeypatch.setattr(sources, "_fetch", fetch)
    settings = RuntimeSettings.model_validate({"listen_port": 8123, "public_urls": public_urls})
    own = Lookup(settings, store, resolve=resolve)
    value = await own.value("N", LookupSecret(url=f"http://{host}:8123/api/settings/secrets/NAME"))
    assert value is not None, calls
    assert value.get_secret_value() == "stored"
    assert calls == []


@pytest.mark.anyio
async def test_an_address_of_a_network_card_is_this_machine_too() -> None:
    assert sources.is_here("127.0.0.1")
    assert not sources.is_here("192.0.2.1")
    assert not sources.is_here("2001:db8::1")
    assert not sources.is_here("nobody")
    for _, _, _, _, address in socket.getaddrinfo(socket.gethostname(), 1, type=socket.SOCK_STREAM):
        assert sources.is_here(str(address[0]))


@pytest.mark.anyio
async def test_where_hosts_are_named_only_those_are_asked(store: SecretStore) -> None:
    with pytest.raises(LookupFailed, match="lookup_secret_hosts"):
        await lookup(store, lookup_secret_hosts=["vault.example"])._look_up(LookupSecret(url="http://other.example/x"))


@pytest.mark.parametrize(
    ("named", "url", "may"),
    [
        ("vault.example", "https://vault.example:8443/x", True),
        ("vault.example:443", "https://vault.example/x", True),
        ("vault.example:443", "http://vault.example/x", False),
        ("Vault.Example:443", "https://VAULT.example/x", True),
        ("*.example:443", "https://deep.vault.example/x", True),
        ("*.example:443", "https://deep.vault.example:8443/x", False),
        ("*.example", "https://example/x", False),
        ("*.example:443", "https://badexample/x", False),
        ("[::5]:80", "http://[::5]/x", True),
        ("*.", "https://vault.example/x", False),
        ("", "https://vault.example/x", False),
    ],
)
@pytest.mark.anyio
async def test_a_named_host_is_that_of_the_url_with_or_without_its_port(
    store: SecretStore, named: str, url: str, may: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fetch(url: str, headers: object) -> SecretStr:
        return SecretStr("fetched")

    monkeypatch.setattr(sources, "_fetch", fetch)
    value = await lookup(store, lookup_secret_hosts=[named]).value("N", LookupSecret(url=url))
    assert (value is not None) == may


@pytest.mark.anyio
async def test_where_a_forward_proxy_is_the_way_out_it_is_asked(
    store: SecretStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode().splitlines()[0])
        refused = asked[-1].startswith("CONNECT")
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: 4\r\n\r\nkept" % (b"403 Forbidden" if refused else b"200 OK"))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(proxy, "127.0.0.1", 0) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, address)
            monkeypatch.setenv(name.lower(), address)
        asking = lookup(store, lookup_secret_hosts=["vault.example"])
        value = await asking._look_up(LookupSecret(url="http://vault.example/x"))
        with pytest.raises(LookupFailed, match="forward proxy"):
            await asking._look_up(LookupSecret(url="https://vault.example/x"))
    assert value.get_secret_value() == "kept"
    assert asked == ["GET http://vault.example/x HTTP/1.1", "CONNECT vault.example:443 HTTP/1.1"]


@pytest.mark.anyio
async def test_a_static_secret_is_its_value(store: SecretStore) -> None:
    value = await lookup(store).value("N", StaticSecret(value=SecretStr("v")))
    assert value == SecretStr("v")
    assert await lookup(store).value("N", StaticSecret()) is None
