"""An ASGI application behind a real socket inside this process, for as long as a `with` block lasts.

The scripted model and the git server stand on it. It must not touch signals or logging: both belong to the process
that plays the demo or the test.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Generator

import anyio
import uvicorn
from starlette.types import ASGIApp

#: Answers still under way when the block ends get this long; the demo's clients are gone by then.
GRACE_SECONDS = 1


class _QuietServer(uvicorn.Server):
    """uvicorn takes over SIGINT and SIGTERM when it serves; inside a larger program they are not its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; raises OSError naming host and port when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as exc:
        listener.close()
        raise OSError(exc.errno, f"cannot listen on {host}:{port}: {exc.strerror}") from exc
    return listener


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, *, host: str, port: int) -> AsyncIterator[str]:
    """Serve `app` and yield its origin (`http://host:port`); port 0 takes a free one.

    The socket listens before the block begins, so the first connection cannot be refused.
    """
    listener = bind(host, port)
    bound = listener.getsockname()[1]
    config = uvicorn.Config(
        app,
        interface="asgi3",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _QuietServer(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name=f"loopback-{bound}")
    try:
        yield f"http://[{host}]:{bound}" if ":" in host else f"http://{host}:{bound}"
    finally:
        server.should_exit = True
        with anyio.CancelScope(shield=True):
            await task
