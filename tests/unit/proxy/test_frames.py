"""Frames, followed and read."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.proxy import frames
from orchestrator.proxy.frames import BadFrame, Frame, FrameTracker, close_frame, read_frame


def frame(opcode: int, payload: bytes, *, masked: bool, wide: int = 0) -> bytes:
    size = len(payload)
    if wide == 8 or size > 65535:
        length = bytes([127]) + struct.pack("!Q", size)
    elif wide == 2 or size > 125:
        length = bytes([126]) + struct.pack("!H", size)
    else:
        length = bytes([size])
    if not masked:
        return bytes([0x80 | opcode]) + length + payload
    mask = b"\x01\x02\x03\x04"
    hidden = bytes(byte ^ mask[index & 3] for index, byte in enumerate(payload))
    return bytes([0x80 | opcode, length[0] | 0x80]) + length[1:] + mask + hidden


FRAMES = st.lists(
    st.tuples(
        st.sampled_from([frames.TEXT, frames.BINARY, frames.PING, frames.PONG]),
        st.one_of(st.binary(max_size=20), st.integers(120, 140).map(bytes), st.just(bytes(66000))),
        st.booleans(),
        st.sampled_from([0, 2, 8]),
    ),
    max_size=6,
)


@given(FRAMES, st.data())
def test_borders_are_found_however_the_stream_is_cut(
    stream: list[tuple[int, bytes, bool, int]], cuts: st.DataObject
) -> None:
    wire, borders = b"", {0}
    for opcode, payload, masked, wide in stream:
        wire += frame(opcode, payload, masked=masked, wide=wide)
        borders.add(len(wire))
    points = sorted(cuts.draw(st.sets(st.integers(0, len(wire)), max_size=12)) | {0, len(wire)})
    tracker = FrameTracker()
    for start, end in itertools.pairwise(points):
        first = tracker.feed(wire[start:end])
        inside = sorted(border for border in borders if start < border <= end)
        assert first == (inside[0] - start if inside else -1)
        assert tracker.between_frames is (end in borders)
    assert tracker.messages == sum(opcode in (frames.TEXT, frames.BINARY) for opcode, *_ in stream)
    assert not tracker.closed


def test_a_close_frame_is_noticed() -> None:
    tracker = FrameTracker()
    tracker.feed(close_frame(1012, "bye"))
    assert tracker.closed
    assert tracker.between_frames


@given(st.binary(max_size=300), st.binary(max_size=20), st.sampled_from([0, 2, 8]))
def test_a_whole_frame_is_read_and_the_rest_kept(payload: bytes, rest: bytes, wide: int) -> None:
    wire = frame(frames.TEXT, payload, masked=True, wide=wide)
    assert read_frame(wire + rest, 8192) == (Frame(frames.TEXT, True, payload), rest)
    for end in range(len(wire)):
        assert read_frame(wire[:end], 8192) is None


@pytest.mark.parametrize(
    "wire",
    [
        frame(frames.TEXT, b"hi", masked=False),
        b"\xc1" + frame(frames.TEXT, b"hi", masked=True)[1:],
        frame(frames.TEXT, bytes(8193), masked=True)[:8],
        frame(frames.PING, bytes(126), masked=True),
        b"\x81\xff" + b"\xff" * 12,
    ],
    ids=["not masked", "extension", "too long", "long ping", "absurd length"],
)
def test_what_a_stranger_may_not_send(wire: bytes) -> None:
    with pytest.raises(BadFrame):
        read_frame(wire, 8192)
