"""WebSocket conformance: what a runtime sees of a client, and what the client is answered, is the same through the
front as without it. The cases follow the chapters of the usual conformance suite; the runtime is a server of the
websockets library, once asked directly and once through the front.
"""

import asyncio
import json
import zlib

import pytest
from support.socket_frames import BINARY, CLOSE, CONTINUED, PING, PONG, TEXT, closing, frame, next_frame, opened
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

pytestmark = pytest.mark.anyio

LARGEST = 1 << 20
SIZES = (0, 1, 125, 126, 127, 128, 65535, 65536, 200_000)
WORDS = (
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5", b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80",
    b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf", b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd",
)  # fmt: skip
NO_WORDS = (
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xf7\xbf\xbf\xbf", b"\xf4\x90\x80\x80", b"\x80", b"\xbf", b"\x80\xbf\x80", b"\xc0 \xc1 ", b"\xe0 \xef ", b"\xf0 ",
    b"\xfe", b"\xff", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xed\xa0\x80",
    b"\xed\xbf\xbf", b"\xed\xa0\x80\xed\xb0\x80", b"\xce", b"\xe1\xbd", b"\xf0\x90\x80",
)  # fmt: skip
GOOD_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
BAD_CODES = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
OFFERS = (
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; client_max_window_bits=10; server_max_window_bits=9",
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    "permessage-deflate; server_max_window_bits=8",
    "permessage-deflate; server_max_window_bits=99, permessage-deflate",
    "permessage-deflate; unknown=1",
    "x-unknown, permessage-deflate",
    "x-webkit-deflate-frame",
)


def pieces(opcode: int, payload: bytes, size: int, between: bytes = b"") -> bytes:
    """One message in frames of `size`, with `between` after each but the last."""
    parts = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
    wire = b""
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        wire += frame(CONTINUED if number else opcode, part, final=last) + (b"" if last else between)
    return wire


#: What a client sends, and after how many frames of answer it closes; None: it goes on until it is closed.
Sent = tuple[bytes, int | None]


def cases() -> dict[str, Sent]:
    found: dict[str, Sent] = {}
    for size in SIZES:  # framing, and the same in pieces
        for kind, opcode in (("text", TEXT), ("binary", BINARY)):
            found[f"{kind} of {size}"] = frame(opcode, b"*" * size), 1
            found[f"{kind} of {size} in pieces"] = pieces(opcode, b"*" * size, max(1, size // 7)), 1
    found["many small pieces"] = pieces(TEXT, b"x" * 2000, 1), 1
    found["empty pieces"] = (
        frame(TEXT, final=False) + frame(CONTINUED, final=False) + frame(CONTINUED, b"end"), 1,
    )  # fmt: skip
    for size in (0, 1, 125):  # pings and pongs
        found[f"ping of {size}"] = frame(PING, b"\xfe" * size), 1
        found[f"pong of {size}"] = frame(PONG, b"\xfe" * size) + frame(TEXT, b"x"), 1
    found["ping of 126"] = frame(PING, b"x" * 126), None
    found["pong of 126"] = frame(PONG, b"x" * 126), None
    found["ten pings"] = b"".join(frame(PING, b"%d" % number) for number in range(10)), 10
    for control in (PING, PONG, CLOSE):
        found[f"control {control} in pieces"] = frame(control, b"x", final=False) + frame(CONTINUED, b"y"), None
    found["pings between pieces"] = pieces(TEXT, b"abcdef", 2, frame(PING, b"p")), 3
    found["pongs between pieces"] = pieces(TEXT, b"abcdef", 2, frame(PONG, b"p")), 1
    for bits in (0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70):  # what is reserved
        for opcode in (TEXT, BINARY, PING, CLOSE):
            found[f"bits {bits:x} of {opcode}"] = frame(opcode, b"", reserved=bits), None
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        found[f"kind {opcode}"] = frame(opcode), None
        found[f"kind {opcode} with a payload"] = frame(opcode, b"reserved"), None
    found["continues nothing"] = frame(CONTINUED, b"x"), None
    found["continues nothing, and goes on"] = frame(CONTINUED, b"x", final=False) + frame(TEXT, b"y"), None
    found["continues what is over"] = pieces(TEXT, b"ab", 1) + frame(CONTINUED, b"c", final=False), None
    found["text within text"] = frame(TEXT, b"x", final=False) + frame(TEXT, b"y"), None
    found["binary within text"] = frame(TEXT, b"x", final=False) + frame(BINARY, b"y"), None
    found["not masked"] = frame(TEXT, b"x", masked=False), None
    found["ping not masked"] = frame(PING, masked=False), None
    for number, word in enumerate(WORDS):  # text
        found[f"word {number}"] = frame(TEXT, word), 1
        found[f"word {number} byte by byte"] = pieces(TEXT, word, 1), 1
        found[f"word {number} with pings"] = pieces(TEXT, word, 1, frame(PING)), len(word)
    for number, word in enumerate(NO_WORDS):
        found[f"no word {number}"] = frame(TEXT, word), None
        found[f"no word {number} byte by byte"] = pieces(TEXT, word, 1), None
        found[f"no word {number} as bytes"] = frame(BINARY, word), 1
    found["close without a code"] = frame(CLOSE), None  # the end
    found["close with half a code"] = frame(CLOSE, b"\x03"), None
    for code in (*GOOD_CODES, *BAD_CODES):
        found[f"close {code}"] = closing(code, b"why"), None
    found["longest reason"] = closing(1000, b"x" * 123), None
    found["too long a reason"] = frame(CLOSE, b"\x03\xe8" + b"x" * 124), None
    found["a reason that is no text"] = closing(1000, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80"), None
    found["text behind a close"] = closing(1000) + frame(TEXT, b"x"), None
    found["ping behind a close"] = closing(1000) + frame(PING), None
    found["close within a message"] = frame(TEXT, b"x", final=False) + closing(1000), None
    found["close, and close again"] = closing(1000) + closing(1001), None
    found["larger than the largest"] = frame(BINARY, b"x", size=LARGEST + 1), None
    halves = frame(BINARY, bytes(LARGEST // 2 + 1), final=False) + frame(CONTINUED, bytes(LARGEST // 2))
    found["larger than the largest in pieces"] = halves, None
    found["a size that no frame has"] = b"\x82\xff" + b"\xff" * 8 + bytes(4), None
    return found


CASES = cases()


class Echo:
    """The runtime: by the last part of the target, what it had of each socket and how that ended."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[object, ...]] = {}

    async def serve(self, socket) -> None:
        messages: list[str | bytes] = []
        try:
            while True:
                messages.append(await socket.recv())
                await socket.send(messages[-1])
        except ConnectionClosed as closed:
            rcvd = closed.rcvd and (closed.rcvd.code, closed.rcvd.reason)
            sent = closed.sent and closed.sent.code
            self.seen[socket.request.path.rpartition("/")[2]] = (messages, rcvd, sent)


@pytest.fixture
async def both(rig):
    """The echo, and its two addresses: without the front, and through it."""
    echo = Echo()
    async with serve(echo.serve, "127.0.0.1", 0, max_size=LARGEST, ping_interval=None) as server:
        port = server.sockets[0].getsockname()[1]
        route = rig.publish(port)
        yield echo, {"direct": (port, "/"), "front": (rig.port, f"/runtimes/{route.runtime}/")}


def torn(data: bytes, size: int) -> list[bytes]:
    size = size if len(data) < 300 else max(size, 997)  # what is small byte by byte
    return [data[at : at + size] for at in range(0, len(data), size)]


async def transcript(at, tag: str, key: str, sent: Sent, *, size: int = 1 << 30) -> list[object]:
    """All that a client is answered until the end. Pongs may overtake echoes, so they are told apart."""
    port, prefix = at
    reader, writer, _ = await opened(port, prefix + tag, f"X-Session-API-Key: {key}")
    writer.transport.get_extra_info("socket").setsockopt(6, 1, 1)  # no delay: each write is a segment
    data, closes_after = sent
    pongs, frames = [], []
    async with asyncio.timeout(60):
        for piece in torn(data, size):
            if writer.transport.is_closing():
                break
            writer.write(piece)
            await asyncio.sleep(0)
        try:
            while True:
                if closes_after is not None and len(pongs) + len(frames) == closes_after:
                    writer.write(closing(1000))
                first, payload = await next_frame(reader)
                (pongs if first & 0x0F == PONG else frames).append((first, payload))
                if first & 0x0F == CLOSE:
                    if closes_after is None and data[0] & 0x0F != CLOSE:
                        writer.write(closing(1000))
                    break
            rest = await reader.read()
        except ConnectionError:
            rest = b""
        except asyncio.IncompleteReadError as short:
            rest = short.partial
    writer.close()
    return [pongs, frames, rest]


def same(front, direct, *, together: bool) -> bool:
    """Whether both clients were told the same. `together`: on the way what was torn may have been put together again,
    and a fault have come with the message before it; then the runtime closes without an answer to that one."""
    if front == direct or not together:
        return front == direct
    (pongs, frames, rest), seen = front
    (all_pongs, all_frames, its_rest), its_seen = direct
    left, pongs_left = iter(all_frames), iter(all_pongs)
    in_order = all(one in left for one in frames) and all(one in pongs_left for one in pongs)
    return in_order and frames[-1:] == all_frames[-1:] and (rest, seen) == (its_rest, its_seen)


@pytest.mark.parametrize("size", [1 << 30, 1], ids=["whole", "torn"])
async def test_the_front_makes_no_difference(rig, both, size):
    echo, addresses = both
    told: dict[str, dict[str, object]] = {"direct": {}, "front": {}}

    async def one(number: int, name: str) -> None:
        for way, at in addresses.items():
            tag = f"{way}-{number}"
            answer = await transcript(at, tag, rig.session_key, CASES[name], size=size)
            await rig.eventually(lambda tag=tag: tag in echo.seen, deadline=60)
            told[way][name] = (answer, echo.seen[tag])

    async def some(numbers) -> None:
        for number, name in numbers:
            await one(number, name)

    numbered = iter(enumerate(CASES))
    await asyncio.gather(*(some(numbered) for _ in range(16)))
    assert len(told["front"]) == len(CASES) > 200
    together = size == 1 and rig.data_plane == "nginx"
    for name in CASES:
        assert same(told["front"][name], told["direct"][name], together=together), name
    ends = {answer[1][-1][1][:2] for answer, _ in told["front"].values()}  # type: ignore[index]
    assert {int.from_bytes(end, "big") for end in ends} >= {1000, 1002, 1007, 1009, *GOOD_CODES}


@pytest.mark.parametrize("offer", OFFERS)
async def test_compression_is_negotiated_between_the_ends(rig, both, offer):
    _, addresses = both
    body = b"compressed " * 500
    squeezed = zlib.compressobj(wbits=-9)
    small = (squeezed.compress(body) + squeezed.flush(zlib.Z_SYNC_FLUSH))[:-4]
    told = {}
    for way, (port, prefix) in addresses.items():
        lines = (f"X-Session-API-Key: {rig.session_key}", f"Sec-WebSocket-Extensions: {offer}")
        reader, writer, answer = await opened(port, f"{prefix}{way}", *lines)
        async with asyncio.timeout(30):
            agreed = answer.get("sec-websocket-extensions")
            writer.write(frame(TEXT, small, reserved=0x40) if agreed else frame(TEXT, body))
            told[way] = (agreed, await next_frame(reader))
            writer.write(closing(1000))
            assert (await next_frame(reader))[0] & 0x0F == CLOSE
        writer.close()
    assert told["front"] == told["direct"]
    assert (told["front"][1][0] & 0x40 == 0x40) is (told["front"][0] is not None)


async def test_a_key_in_the_first_frame_declines_compression(rig, both):
    """We answer that handshake ourselves and cannot know what the runtime would agree to."""
    _, addresses = both
    port, prefix = addresses["front"]
    offer = ClientPerMessageDeflateFactory()
    async with connect(f"ws://127.0.0.1:{port}{prefix}x", extensions=[offer], proxy=None) as socket:
        await socket.send(json.dumps({"type": "auth", "session_api_key": rig.session_key}))
        await socket.send("plain " * 100)
        assert await socket.recv() == "plain " * 100
        assert "Sec-WebSocket-Extensions" not in socket.response.headers


@pytest.mark.parametrize("end", ["cut", "half closed", "cut within a frame", "cut within a length"])
async def test_an_abrupt_end_is_as_abrupt_for_the_runtime(rig, both, end):
    echo, addresses = both
    for way, (port, prefix) in addresses.items():
        reader, writer, _ = await opened(port, f"{prefix}{way}", f"X-Session-API-Key: {rig.session_key}")
        async with asyncio.timeout(30):
            writer.write(frame(TEXT, b"whole"))
            await next_frame(reader)
            writer.write(
                {"cut within a frame": frame(TEXT, b"x" * 1000)[:500], "cut within a length": b"\x81"}.get(end, b"")
            )
            if end == "half closed":
                writer.write_eof()
                await reader.read()
            else:
                await asyncio.sleep(0)
                writer.transport.abort()
        await rig.eventually(lambda way=way: way in echo.seen, deadline=30)
        writer.close()
    assert echo.seen["front"] == echo.seen["direct"]
    assert echo.seen["front"][:2] == (["whole"], None)


async def test_a_storm_of_pings_is_answered_in_order(rig, both):
    _, addresses = both
    port, prefix = addresses["front"]
    count = 5000
    reader, writer, _ = await opened(port, prefix + "storm", f"X-Session-API-Key: {rig.session_key}")
    touched = len(rig.touched)

    async def storm() -> None:
        for number in range(0, count, 50):
            writer.write(b"".join(frame(PING, b"%d" % one) for one in range(number, number + 50)))
            await writer.drain()

    async with asyncio.timeout(60):
        sending = asyncio.create_task(storm())
        for number in range(count):
            first, payload = await next_frame(reader)
            assert (first & 0x0F, payload) == (PONG, b"%d" % number)
        await sending
        assert len(rig.touched) == touched  # pings keep nothing awake
        writer.write(frame(TEXT, b"still there"))
        assert await next_frame(reader) == (0x81, b"still there")
    writer.close()
