"""The client for addresses that callers chose, against real servers on loopback, plain and with TLS."""

import asyncio
import datetime
import gc
import ssl
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from orchestrator.security.outbound import Guard
from orchestrator.security.outbound_http import Outbound

pytestmark = pytest.mark.anyio
NAME = "hooks.example"


class Server:
    """Remembers the heads that came and answers with `reply`."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.connections = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.reply = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
        self.endless = False
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head.decode())
            writer.write(self.reply)
            while self.endless:
                writer.write(b"x" * 65536)
                await writer.drain()
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await listener.wait_closed()
        for writer in server.writers:
            writer.transport.abort()  # over TLS a close may wait for a word of the other side for ever
        for writer in server.writers:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(2):
                    await writer.wait_closed()


class Names:
    """A resolver that counts."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.addresses


@asynccontextmanager
async def outbound(
    names: Names, *, trusted: str = NAME, seconds: float = 2, trust: ssl.SSLContext | None = None
) -> AsyncIterator[Outbound]:
    made = Outbound(Guard(frozenset({trusted})), seconds=seconds, resolver=names, trust=trust)
    try:
        yield made
    finally:
        await made.close()


async def test_it_goes_to_the_judged_address_under_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    names = Names("127.0.0.1")
    async with serving() as server, outbound(names) as client:
        answer = await client.post(f"http://{NAME}:{server.port}/a?b=c", b"{}", {"webhook-id": "evt_1"})
        assert (answer.status, answer.taken, answer.problem) == (200, True, "")
        assert names.asked == [NAME]
        assert server.heads[0].startswith("POST /a?b=c HTTP/1.1\r\n")
        assert f"host: {NAME}:{server.port}\r\n" in server.heads[0].lower()
        await client.post(f"http://{NAME}:{server.port}/", b"{}", {})
        assert server.connections == 2, "a connection belongs to one call: another name may have the same address"


async def test_inside_addresses_are_refused_before_anything_is_sent() -> None:
    async with serving() as server, outbound(Names("127.0.0.1"), trusted="other.example") as client:
        answer = await client.post(f"https://{NAME}:{server.port}/", b"{}", {})
        assert answer.refused
        assert not answer.taken
        assert answer.status is None
        answer = await client.post(f"http://127.0.0.1:{server.port}/", b"{}", {})
        assert answer.refused
        assert server.connections == 0


async def test_the_next_address_is_tried_when_one_takes_no_connection() -> None:
    names = Names("127.0.0.2", "127.0.0.1")  # nobody listens on the first
    async with serving() as server, outbound(names) as client:
        assert (await client.post(f"http://{NAME}:{server.port}/", b"{}", {})).taken


async def test_redirects_are_not_followed_and_retry_after_is_read() -> None:
    async with serving() as server, serving() as elsewhere, outbound(Names("127.0.0.1")) as client:
        server.reply = (
            f"HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:{elsewhere.port}/\r\ncontent-length: 0\r\n\r\n".encode()
        )
        answer = await client.post(f"http://{NAME}:{server.port}/", b"{}", {})
        assert (answer.status, answer.taken) == (307, False)
        assert elsewhere.connections == 0
        for text, seconds in (("7", 7.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("-1", 0.0), ("99999999", 86400.0)):
            server.reply = f"HTTP/1.1 429 No\r\nretry-after: {text}\r\ncontent-length: 0\r\n\r\n".encode()
            assert (await client.post(f"http://{NAME}:{server.port}/", b"{}", {})).retry_after == seconds


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (b"", "the receiver broke off"),
        (b"nonsense\r\n\r\n", "the receiver broke off"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000, "the receiver broke off"),
    ],
)
async def test_nonsense_is_told(reply: bytes, problem: str) -> None:
    async with serving() as server, outbound(Names("127.0.0.1")) as client:
        server.reply = reply
        answer = await client.post(f"http://{NAME}:{server.port}/", b"{}", {})
        assert answer.status is None
        assert answer.problem.startswith(problem)


async def test_an_answer_without_end_is_not_read() -> None:
    async with serving() as server, outbound(Names("127.0.0.1"), seconds=60) as client:
        server.reply, server.endless = b"HTTP/1.1 200 OK\r\n\r\n", True
        with anyio.fail_after(30):
            assert (await client.post(f"http://{NAME}:{server.port}/", b"{}", {})).taken


async def test_time_is_bounded_for_look_up_and_answer_together() -> None:
    class Slow(Names):
        async def __call__(self, host: str, port: int) -> Sequence[str]:
            await anyio.sleep_forever()
            raise AssertionError

    async with outbound(Slow(), seconds=0.2) as client:
        assert (await client.post(f"https://{NAME}/", b"{}", {})).problem == "no answer within 0.2 seconds"

    class Unknown(Names):
        async def __call__(self, host: str, port: int) -> Sequence[str]:
            raise OSError("no such name")

    async with outbound(Unknown()) as client:
        assert "resolved" in (await client.post(f"https://{NAME}/", b"{}", {})).problem


async def test_the_certificate_has_to_be_the_names(tmp_path: Path) -> None:
    server_side, trust = _pair(tmp_path, NAME)
    async with serving(server_side) as server:
        async with outbound(Names("127.0.0.1"), trust=trust) as client:
            assert (await client.post(f"https://{NAME}:{server.port}/", b"{}", {})).taken
        async with outbound(Names("127.0.0.1"), trusted="evil.example", trust=trust) as client:
            answer = await client.post(f"https://evil.example:{server.port}/", b"{}", {})
            assert answer.problem == "the receiver's certificate is not valid for its name"
        async with outbound(Names("127.0.0.1")) as client:  # a certificate that the machine does not know
            answer = await client.post(f"https://{NAME}:{server.port}/", b"{}", {})
            assert "certificate" in answer.problem
        assert len(server.heads) == 1
    async with serving() as plain, outbound(Names("127.0.0.1"), trust=trust) as client:
        answer = await client.post(f"https://{NAME}:{plain.port}/", b"{}", {})
        assert answer.status is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # the socket of a handshake that failed is left to the collector by the HTTP library


def _pair(folder: Path, host: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server of that name shows, and what trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = folder / "pair.pem"
    pem.write_bytes(private + built.public_bytes(serialization.Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))
