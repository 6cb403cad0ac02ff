"""Hints that a runtime's process ended: one kernel descriptor a runtime, no polling, no thread.

`process.py` registers what it starts and what it finds running. Nothing may depend on a hint; that is why a reader who
does not read loses some.
"""

import asyncio
import os
from collections.abc import AsyncIterator

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from orchestrator.drivers.process_tree import Process, alive
from orchestrator.drivers.values import DriverEvent

_BOUND = 1024


class Exits:
    """Watches processes on the running event loop. Not for use from other threads."""

    def __init__(self) -> None:
        self._watched: dict[Process, int] = {}
        self._readers: set[MemoryObjectSendStream[DriverEvent]] = set()

    def watch(self, name: str, process: Process) -> bool:
        """Give a hint under `name` when the process ends. Watched already: fine. False when it is dead already."""
        if process in self._watched:
            return True
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return False
        if not alive(process):
            os.close(descriptor)
            return False
        self._watched[process] = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._ended, name, process)
        return True

    async def hints(self) -> AsyncIterator[DriverEvent]:
        """Every hint from now on."""
        send, receive = anyio.create_memory_object_stream[DriverEvent](_BOUND)
        self._readers.add(send)
        try:
            async with receive:
                async for hint in receive:
                    yield hint
        finally:
            self._readers.discard(send)
            send.close()

    def close(self) -> None:
        """Let go of every process; they go on. Readers see the end."""
        for process in list(self._watched):
            self._forget(process)
        for reader in self._readers:
            reader.close()

    def _ended(self, name: str, process: Process) -> None:
        self._forget(process)
        for reader in self._readers:
            try:
                reader.send_nowait(DriverEvent(name))
            except (anyio.WouldBlock, anyio.BrokenResourceError):
                continue  # a reader that is too slow, or is just leaving

    def _forget(self, process: Process) -> None:
        descriptor = self._watched.pop(process)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
