"""The loop that `nestor up` runs on says in its own words that a connection is gone; the client lets them through."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvloop

from orchestrator.domain.errors import StoreUnavailable
from orchestrator.state.funnel import Funnel, command


@contextmanager
def slammed() -> Iterator[int]:
    """The port of a relay whose server is gone: it accepts, and resets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def test_a_connection_that_is_reset_while_it_is_made_is_an_unavailable_store() -> None:
    async def tries(port: int) -> None:
        funnel = Funnel(f"redis://127.0.0.1:{port}/0", timeout=2, connections=4, durable_within=1)
        for _ in range(300):
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                await funnel.one(command("PING"))
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                await anext(funnel.subscribed("x:changed"))
        await funnel.close()

    with slammed() as port:
        uvloop.run(tries(port))
