"""The event socket of one conversation, through the orchestrator: the first frame is the key, then events arrive.

`act.py` runs one beside each conversation. It remembers which events came live and whether any frame held a value
that must never leave a runtime.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

import anyio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from orchestrator.demo.native import Runtime
from orchestrator.demo.options import DemoFailed
from orchestrator.domain.secrets import SecretText

_CONNECT_SECONDS = 30
#: A frame of the runtime stays below 1 MiB; more is a fault worth seeing.
_FRAME_LIMIT_BYTES = 1024 * 1024

OnEvent = Callable[[Mapping[str, Any]], Awaitable[None]]


class Watcher:
    """Follows one conversation; `seen` are the ids of the events that came, `leaks` what should not have."""

    def __init__(
        self, runtime: Runtime, conversation: str, *, guarded: Mapping[str, SecretText], on_event: OnEvent
    ) -> None:
        self._url = f"{runtime.events_url}/{conversation}"
        self._key = runtime.session_key
        self._guarded = guarded
        self._on_event = on_event
        self.seen: set[str] = set()
        self.leaks: set[str] = set()
        self.connected = anyio.Event()

    async def follow(self, *, through_proxy: bool) -> None:
        """Read until cancelled. `connected` is set at the first frame.

        Raises DemoFailed when the socket is refused or ends by itself.
        """
        proxy: Literal[True] | None = True if through_proxy else None
        try:
            with anyio.fail_after(_CONNECT_SECONDS):
                socket = await connect(self._url, proxy=proxy, max_size=_FRAME_LIMIT_BYTES)
        except (OSError, WebSocketException) as exc:
            raise DemoFailed(f"the event socket was refused: {type(exc).__name__} {exc}") from exc
        try:
            await self._read(socket)
        finally:
            with anyio.move_on_after(5, shield=True):
                await socket.close()

    async def _read(self, socket: ClientConnection) -> None:
        try:
            await socket.send(json.dumps({"type": "auth", "session_api_key": self._key}))
            async for frame in socket:
                await self._take(frame if isinstance(frame, str) else frame.decode())
        except ConnectionClosed as exc:
            raise DemoFailed(f"the event socket broke: {exc}") from exc
        raise DemoFailed(f"the event socket was closed: {socket.close_code} {socket.close_reason}")

    async def _take(self, frame: str) -> None:
        self.leaks |= {name for name, value in self._guarded.items() if value.open() in frame}
        event = json.loads(frame)
        self.seen.add(str(event.get("id")))
        self.connected.set()
        await self._on_event(event)

    async def saw(self, events: Sequence[str], *, within: float) -> bool:
        """Whether all of these events came over the socket, waiting for the last ones."""
        with anyio.move_on_after(within):
            while not self.seen.issuperset(events):  # noqa: ASYNC110 - frames have no single moment to wait for
                await anyio.sleep(0.05)
        return self.seen.issuperset(events)
