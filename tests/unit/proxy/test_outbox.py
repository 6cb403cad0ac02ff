"""What is posted in one turn of the loop is written at its end, in order, whatever becomes of single transports."""

import asyncio
from typing import Any, cast

import pytest

from orchestrator.proxy.outbox import POSTED_BYTES, Outbox

pytestmark = pytest.mark.anyio


class Wire:
    """A transport that keeps what is written to it."""

    def __init__(self, *, closing: bool = False, broken: bool = False) -> None:
        self.written: list[bytes] = []
        self.aborted = False
        self._closing, self._broken = closing, broken

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: bytes) -> None:
        if self._broken:
            raise RuntimeError("no")
        self.written.append(data)

    def abort(self) -> None:
        self.aborted = True


def as_transport(wire: Wire) -> asyncio.Transport:
    return cast(asyncio.Transport, cast(Any, wire))


async def test_nothing_is_written_before_the_end_of_the_turn_and_all_of_it_then() -> None:
    outbox, wires = Outbox(), [Wire(), Wire(closing=True), Wire(broken=True), Wire()]
    for number, wire in enumerate([*wires, wires[0]]):
        outbox.post(as_transport(wire), b"%d" % number)
    assert not wires[0].written
    await asyncio.sleep(0)
    assert [wire.written for wire in wires] == [[b"0", b"4"], [], [], [b"3"]]
    assert [wire.aborted for wire in wires] == [False, False, True, False]


async def test_a_turn_ends_with_what_was_posted_in_it() -> None:
    outbox, wire = Outbox(), Wire()
    turn = outbox.turn
    outbox.post(as_transport(wire), b"a")
    assert outbox.turn == turn
    outbox.flush()
    assert (outbox.turn == turn, wire.written) == (False, [b"a"])
    outbox.post(as_transport(wire), b"b")
    await asyncio.sleep(0)
    assert wire.written == [b"a", b"b"]


async def test_a_turn_of_very_many_is_written_in_parts() -> None:
    outbox, wire = Outbox(), Wire()
    for _ in range(100):
        outbox.post(as_transport(wire), b"a")
    assert len(wire.written) == 64
    await asyncio.sleep(0)
    assert len(wire.written) == 100


async def test_what_is_added_goes_out_with_what_it_belongs_to() -> None:
    outbox, wire, other = Outbox(), Wire(), Wire()
    outbox.post(as_transport(wire), b"head ")
    outbox.add(as_transport(wire), b"body")
    outbox.post(as_transport(other), b"x")
    outbox.add(as_transport(wire), b"more")
    await asyncio.sleep(0)
    assert (wire.written, other.written) == ([b"head body", b"more"], [b"x"])


async def test_a_body_in_very_many_chunks_is_put_together_in_pieces() -> None:
    outbox, wire = Outbox(), Wire()
    outbox.post(as_transport(wire), b"head ")
    for _ in range(POSTED_BYTES):
        outbox.add(as_transport(wire), b"1\r\nx\r\n")
    await asyncio.sleep(0)
    assert b"".join(wire.written) == b"head " + b"1\r\nx\r\n" * POSTED_BYTES
    assert max(map(len, wire.written)) < 2 * POSTED_BYTES
