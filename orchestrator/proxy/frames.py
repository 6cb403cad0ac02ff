"""WebSocket frames, as little of them as a proxy needs: follow their borders, read the first ones, write a close.

Bytes are never changed: a tunnel passes them on, and `FrameTracker` only knows where in the stream they are, because a
close frame of ours may go between two frames and nowhere else.
"""

import struct
from dataclasses import dataclass

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
GOING_AWAY, RUNTIME_LOST, RESTART, TRY_LATER = 1001, 1011, 1012, 1013
AUTHENTICATION_FAILED, NOT_FOUND = 4001, 4004
PROTOCOL_ERROR = 1002


class FrameTracker:
    """Where one direction of a socket is."""

    __slots__ = ("_header", "_left", "closed", "messages")

    def __init__(self) -> None:
        self._header = b""
        self._left = 0
        self.closed = False  #: a close frame went by
        self.messages = 0  #: text and binary frames that began

    @property
    def between_frames(self) -> bool:
        return not self._left and not self._header

    def feed(self, data: bytes) -> int:
        """Follow `data`; the offset in it at which the first frame ends, -1 if none does."""
        size = len(data)
        if not self._left and not self._header and size >= 2:
            length = data[1] & 0x7F
            if length < 126 and size == length + (
                6 if data[1] & 0x80 else 2
            ):  # one whole small frame, as nearly all are
                opcode = data[0] & 0x0F
                if opcode in (TEXT, BINARY):
                    self.messages += 1
                elif opcode == CLOSE:
                    self.closed = True
                return size
        return self._follow(data)

    def _follow(self, data: bytes) -> int:
        position, size, first = 0, len(data), -1
        while position < size:
            if self._left:
                step = min(self._left, size - position)
                self._left -= step
                position += step
            else:
                missing = _header_size(self._header) - len(self._header)
                piece = data[position : position + missing]
                self._header += piece
                position += len(piece)
                if len(self._header) < _header_size(self._header):
                    continue
                self._begin_frame()
            if first < 0 and self.between_frames:
                first = position
        return first

    def _begin_frame(self) -> None:
        self._note(self._header[0])
        self._left = _payload_size(self._header)
        self._header = b""

    def _note(self, first: int) -> None:
        opcode = first & 0x0F
        self.closed = self.closed or opcode == CLOSE
        self.messages += opcode in (TEXT, BINARY)


@dataclass(frozen=True)
class Frame:
    """A whole frame, unmasked."""

    opcode: int
    final: bool
    payload: bytes


class BadFrame(Exception):
    """Not a frame that a client may send before it has said who it is."""


def read_frame(buffer: bytes, limit: int) -> tuple[Frame, bytes] | None:
    """The first frame of `buffer`, sent by a client, and what follows it; None if it is not all there.

    Raises `BadFrame` if it is not masked, uses an extension, or has more than `limit` bytes of payload.
    """
    size = _header_size(buffer)
    if len(buffer) >= 2 and (buffer[0] & 0x70 or not buffer[1] & 0x80):
        raise BadFrame
    if len(buffer) < size:
        return None
    length = _payload_size(buffer)
    if length > limit or (buffer[0] & 0x08 and length > 125):
        raise BadFrame
    if len(buffer) < size + length:
        return None
    mask, masked = buffer[size - 4 : size], buffer[size : size + length]
    payload = bytes(byte ^ mask[index & 3] for index, byte in enumerate(masked))
    return Frame(buffer[0] & 0x0F, bool(buffer[0] & 0x80), payload), buffer[size + length :]


def server_frame(opcode: int, payload: bytes) -> bytes:
    """A whole frame from a server; `payload` of at most 125 bytes, as control frames have."""
    return bytes((0x80 | opcode, len(payload))) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """A server's close frame."""
    return server_frame(CLOSE, struct.pack("!H", code) + reason.encode()[:123])


def _header_size(header: bytes) -> int:
    """How long the header is that begins with these bytes, as far as they tell."""
    if len(header) < 2:
        return 2
    length = header[1] & 0x7F
    extended = 8 if length == 127 else 2 if length == 126 else 0
    return 2 + extended + (4 if header[1] & 0x80 else 0)


def _payload_size(header: bytes) -> int:
    length = header[1] & 0x7F
    if length == 126:
        return int.from_bytes(header[2:4], "big")
    if length == 127:
        return int.from_bytes(header[2:10], "big")
    return length
