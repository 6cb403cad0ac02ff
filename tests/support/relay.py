"""A TCP relay in front of a real server that is slow, silent, or leads elsewhere, as it is told."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Relay:
    """Listens on `port` of loopback. Change the fields at any time, also from another thread."""

    def __init__(self, target: int) -> None:
        self.target = target  #: port of loopback to which new connections lead
        self.latency = 0.0  #: seconds that every piece of an answer takes longer, as on a long way
        self.silent = False  #: nothing gets through, and nothing is closed
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Close every connection."""
        self._loop.call_soon_threadsafe(lambda: [writer.close() for writer in self._open])

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with contextlib.suppress(OSError, asyncio.CancelledError):  # which comes at the end of all
            try:
                there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
            except OSError:
                writer.close()
                return
            self._open.add(there_writer)
            try:
                way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
                await asyncio.gather(
                    self._pump(reader, there_writer),
                    self._depart(there_reader, way),
                    self._arrive(way, writer),
                )
            finally:
                for one in (writer, there_writer):
                    one.close()
                    self._open.discard(one)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                while self.silent:
                    await asyncio.sleep(0.02)
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def _depart(self, reader: asyncio.StreamReader, way: asyncio.Queue[tuple[float, bytes]]) -> None:
        piece = b"..."
        while piece:
            try:
                piece = await reader.read(65536)
            except OSError:
                piece = b""  # the end, as it comes at the other side
            way.put_nowait((self._loop.time() + self.latency, piece))

    async def _arrive(self, way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, piece = await way.get()
                await asyncio.sleep(due - self._loop.time())
                while self.silent:
                    await asyncio.sleep(0.02)
                if not piece:
                    break
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def _serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        server.close()
        for writer in self._open:
            writer.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def relay(target: int) -> Iterator[Relay]:
    """A relay for the length of the block, in a thread of its own."""
    made, ready, stop = Relay(target), threading.Event(), asyncio.Event()
    thread = threading.Thread(target=lambda: made._loop.run_until_complete(made._serve(ready, stop)))
    thread.start()
    try:
        assert ready.wait(10)
        yield made
    finally:
        made._loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        made._loop.close()
