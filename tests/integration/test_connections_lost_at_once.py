"""A connection that is lost in the moment in which it is made is an unreachable peer, also under uvloop: there its
socket is None by then, and httpx's lower layers let the `AttributeError` of that through."""

import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import httpcore
import httpx
import pytest
import uvloop
from httpcore._backends.anyio import AnyIOBackend

from orchestrator.domain.errors import RuntimeUnreachable
from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.docker_events import hints
from orchestrator.nested.client import RuntimeClients
from orchestrator.security.connecting import Transport
from orchestrator.security.outbound import Guard
from orchestrator.security.outbound_http import Outbound
from runtime.secrets.sources import LookupFailed, _fetch
from runtime.webhooks.configuration import Webhook
from runtime.webhooks.sender import Parcel, Sender, Verdict

Run = Callable[[Callable[[str], Awaitable[object]]], None]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs an act under uvloop, with the address of a listener whose connections are lost as soon as they are made."""
    connect = AnyIOBackend.connect_tcp

    async def lost(*given: Any, **more: Any) -> httpcore.AsyncNetworkStream:
        stream = await connect(*given, **more)
        stream._stream._transport.abort()  # type: ignore[attr-defined]
        await anyio.sleep(0.01)
        return stream

    monkeypatch.setattr(AnyIOBackend, "connect_tcp", lost)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield lambda act: uvloop.run(act(f"http://127.0.0.1:{listener.getsockname()[1]}"))  # type: ignore[arg-type]


def test_httpx_itself_lets_it_through(run: Run) -> None:
    """Else none of this would be needed."""

    async def act(url: str) -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            with pytest.raises(AttributeError):
                await client.get(url)

    run(act)


def test_a_transport_of_ours_says_what_it_is(run: Run) -> None:
    async def act(url: str) -> None:
        async with httpx.AsyncClient(transport=Transport()) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(url)

    run(act)


def test_a_runtime_is_unreachable(run: Run) -> None:
    async def act(url: str) -> None:
        async with RuntimeClients().open(url, SecretText("key")) as client:
            assert not await client.alive()
            with pytest.raises(RuntimeUnreachable):
                await client.post_settings({})
            with pytest.raises(RuntimeUnreachable):
                await client.init(SecretText("init key"), {})
            assert not await client.is_dormant()

    run(act)


def test_a_receiver_of_a_tenants_webhooks_is_not_reached(run: Run) -> None:
    async def act(url: str) -> None:
        answer = await Outbound(Guard(frozenset({"127.0.0.1"})), seconds=5).post(url, b"{}", {})
        assert answer.status is None
        assert not answer.refused

    run(act)


def test_hints_of_an_engine_are_asked_for_again(run: Run) -> None:
    async def act(url: str) -> None:
        with anyio.move_on_after(0.3) as over:
            async for _ in hints(url.replace("http", "tcp")):
                raise AssertionError
        assert over.cancelled_caught

    run(act)


def test_a_receiver_of_a_runtimes_events_is_unreachable(run: Run) -> None:
    async def act(url: str) -> None:
        outcome = await Sender(Webhook(base_url=url), session_key=None).post(Parcel("/events", b"[]"))
        assert outcome.verdict is Verdict.UNREACHABLE

    run(act)


def test_a_secret_cannot_be_looked_up(run: Run) -> None:
    async def act(url: str) -> None:
        with pytest.raises(LookupFailed):
            await _fetch(url, {})

    run(act)
