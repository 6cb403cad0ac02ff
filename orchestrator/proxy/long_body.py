"""Long bodies of runtimes, from one socket to the other with one buffer in between.

The loop reads at most 250 kB at once and copies them into a `bytes`. While what is left of a body of known length is
long, a `LongBody` is the protocol of the runtime's connection: it reads into memory that is there already, twice as
much, and that is written from there. Fewer and larger pieces also wake the client less often.
"""

import asyncio
from typing import Protocol

LONG = 128 * 1024  #: bytes; below, changing the protocol costs more than it saves
PIECE = 512 * 1024  #: bytes; a client that is slow keeps one waiting


class Memory:
    """The buffer that all connections of a process share: nothing else runs between a read into it and the write of
    what was read."""

    __slots__ = ("_size", "_view")

    def __init__(self, size: int = PIECE) -> None:
        self._size = size
        self._view = memoryview(bytearray(0))

    def room(self, most: int) -> memoryview:
        """Where to read at most `most` bytes."""
        if not self._view:
            self._view = memoryview(bytearray(self._size))
        return self._view if most >= self._size else self._view[:most]

    def part(self, size: int) -> memoryview:
        """The first `size` bytes of what was read last."""
        return self._view[:size]

    def give_away(self) -> None:
        """A transport still has to write from it: it stays as it is, and the next read gets other memory."""
        self._view = memoryview(bytearray(0))


class LongReader(Protocol):
    """The connection whose place a `LongBody` takes."""

    memory: Memory
    left: int | None  #: bytes until the end of the body

    def on_long_read(self, size: int) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class LongBody(asyncio.BufferedProtocol):
    """In the place of a connection as long as there is more of the body than a little."""

    __slots__ = ("_connection",)

    def __init__(self, connection: LongReader) -> None:
        self._connection = connection

    def get_buffer(self, sizehint: int) -> memoryview:
        """Room for one byte more than is left, so that a runtime that sends more is found out."""
        return self._connection.memory.room((self._connection.left or 0) + 1)

    def buffer_updated(self, nbytes: int) -> None:
        self._connection.on_long_read(nbytes)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
