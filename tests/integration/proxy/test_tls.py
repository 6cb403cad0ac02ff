"""The same door behind TLS: other transports of the loop, the same promises."""

import asyncio
import datetime
import ipaddress
import json
import ssl
from pathlib import Path

import httpx
import pytest
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from orchestrator.proxy.protocol import front_protocol

pytestmark = pytest.mark.anyio


def certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "pair.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + built.public_bytes(serialization.Encoding.PEM))
    return pem


@pytest.fixture
async def tls(rig, tmp_path):
    pem = certificate(tmp_path)
    server, port = await rig.serve(None, http=front_protocol(rig.context), grace=2, ssl_certfile=pem)
    trust = ssl.create_default_context(cafile=str(pem))
    return server, port, trust


async def test_requests_bodies_and_refusals(rig, recorder, tls):
    _, port, trust = tls

    async def serve(reader, writer):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
            body = await reader.readexactly(size)
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for start in range(0, size, 100_000):
                piece = body[start : start + 100_000]
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
            writer.write(b"0\r\n\r\n")

    route, small = rig.publish(await rig.raw(serve)), rig.publish(recorder["port"])
    body = bytes(range(256)) * 20_000
    async with httpx.AsyncClient(trust_env=False, verify=trust, timeout=30) as client:
        origin = f"https://127.0.0.1:{port}/runtimes"
        key = {"X-Session-API-Key": rig.session_key}
        assert (await client.get(f"{origin}/{small.runtime}/x", headers=key)).text == "ok"
        assert (await client.post(f"{origin}/{route.runtime}/x", headers=key, content=body)).content == body
        assert (await client.post(f"{origin}/{route.runtime}/x", content=body)).status_code == 401
        assert (await client.get(f"{origin}/{small.runtime}/x", headers={"X-A": "a" * 17_000})).status_code == 431


async def test_long_answers_of_known_length(rig, tls):
    _, port, trust = tls

    async def serve(reader, writer):
        number = int((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1][1:])
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\n" + bytes([number]) * 2_000_000)
        await writer.drain()

    route = rig.publish(await rig.raw(serve))
    async with httpx.AsyncClient(trust_env=False, verify=trust, timeout=60) as client:
        origin, key = f"https://127.0.0.1:{port}/runtimes/{route.runtime}", {"X-Session-API-Key": rig.session_key}
        found = await asyncio.gather(*(client.get(f"{origin}/{number}", headers=key) for number in range(5)))
    for number, answer in enumerate(found):
        assert answer.content == bytes([number]) * 2_000_000


async def test_a_socket_by_first_frame_and_the_end_of_the_server(rig, tls):
    server, port, trust = tls

    async def talk(websocket):
        await websocket.accept()
        while True:
            await websocket.send_text(await websocket.receive_text())

    _, upstream = await rig.serve(Starlette(routes=[WebSocketRoute("/s", talk)]))
    route = rig.publish(upstream)
    address = f"wss://127.0.0.1:{port}/runtimes/{route.runtime}/s"
    socket = await websockets.connect(address, proxy=None, ssl=trust, max_size=None)
    await socket.send(json.dumps({"type": "auth", "session_api_key": rig.session_key}))
    await socket.send("x" * 300_000)
    assert await socket.recv() == "x" * 300_000
    server.should_exit = True
    with pytest.raises(websockets.ConnectionClosed) as closed:
        await asyncio.wait_for(socket.recv(), 20)
    assert closed.value.rcvd.code == 1012
