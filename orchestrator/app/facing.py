"""The runtime-facing listener: where runtimes tell what happened in them. It serves `api/runtime_facing.py` alone.

A runtime keeps the address that it was given when it was bound, so the port is remembered in the data folder and taken
again. Where there is no such listener, or a runtime cannot reach it, the orchestrator reads the runtimes' logs by
itself, a little later.
"""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import structlog
import uvicorn
from starlette.types import ASGIApp

from orchestrator.app.facing_connections import Seats, counted, seats
from orchestrator.domain.conversation import Conversation, Kind
from orchestrator.domain.errors import Misconfigured
from orchestrator.settings import OrchestratorSettings

log = structlog.get_logger(__name__)
_PORT_FILE = "runtime-facing.port"
_BATCH_EVENTS = 20
_FLUSH_SECONDS = 0.2  # what a reader of the stream waits for a single event
_GRACE_SECONDS = 2


@dataclass(frozen=True)
class Facing:
    """The bound socket and the address under which runtimes know it."""

    listener: socket.socket
    url: str
    told: bool = False  #: by the operator: then it is the address for all

    @property
    def address(self) -> tuple[str, int]:
        """Where this machine listens."""
        host, port = self.listener.getsockname()[:2]
        return str(host), int(port)

    def webhook(self, conversation: Conversation, host: str | None = None) -> Mapping[str, Any] | None:
        """The receiver that the runtime of this conversation is given at its binding; none for a bare runtime, whose
        conversations are its clients' own. `host` is under which it reaches this orchestrator, if that is not the
        listener's own address."""
        if conversation.runtime is None or conversation.kind is Kind.RUNTIME:
            return None
        url = self.url if host is None or self.told else f"http://{host}:{self.address[1]}"
        return {
            "base_url": f"{url}/runtimes/{conversation.runtime.id}",
            "name": "orchestrator",
            "send_session_key": True,
            "event_buffer_size": _BATCH_EVENTS,
            "flush_delay": _FLUSH_SECONDS,
        }

    async def serve(self, app: ASGIApp, places: Seats | None = None) -> None:
        """Until cancelled. `places`: how many connections it may have; as shipped, where it is left out."""
        server = _Server(
            uvicorn.Config(
                app,
                loop="uvloop",
                http=counted(places or seats()),
                ws="none",
                lifespan="off",
                access_log=False,
                server_header=False,
                log_config=None,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        try:
            await server.serve(sockets=[self.listener])
        finally:  # uvicorn lets go of its sockets only when it ends by itself
            if server.started:
                with anyio.CancelScope(shield=True):
                    await server.shutdown(sockets=[self.listener])


class _Server(uvicorn.Server):
    """Signals are the main server's business."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def facing(settings: OrchestratorSettings, gateway: str | None) -> Iterator[Facing | None]:
    """The listener for the life of the house; None where runtimes could not reach it anyway. `gateway` is the address
    under which they see this machine, if it is another than loopback. Raises `Misconfigured` for an address that the
    operator chose and that cannot be listened on."""
    chosen = settings.runtime_facing
    host, port = _parted(chosen) if chosen is not None else (gateway or "127.0.0.1", 0)
    remembered = settings.data_dir / _PORT_FILE
    try:
        shared = chosen is not None or settings.worker_socket is not None
        listener = _bound(host, port or _read(remembered), shared=shared)
    except OSError as exc:
        if chosen is not None:
            raise Misconfigured(
                f"NESTOR_RUNTIME_FACING: cannot listen on {chosen} ({exc.strerror})", hint="choose another address"
            ) from None
        log.info("runtime_facing.none", address=host, effect="runtimes' logs are read now and then instead")
        yield None
        return
    with listener:
        number = listener.getsockname()[1]
        remembered.write_text(f"{number}\n")
        shown, told = f"[{host}]" if ":" in host else host, settings.runtime_facing_url
        yield Facing(listener, (told or f"http://{shown}:{number}").rstrip("/"), told=told is not None)


def _parted(address: str) -> tuple[str, int]:
    """Raises `Misconfigured`."""
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise Misconfigured("NESTOR_RUNTIME_FACING is not address:port", hint="such as 127.0.0.1:8081")
    return host.strip("[]"), int(port)


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    """On that port; on a free one when a remembered port is taken by now. `shared` with further replicas of this user
    on this machine: each gets a part of the connections, and what one tells is everybody's. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, reuse_port=shared)
    except OSError:
        if not port:
            raise
        if shared:
            raise
        return socket.create_server((host, 0), family=family)


def _read(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
