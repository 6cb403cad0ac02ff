"""A fake runtime's webhooks: its log, sent to whoever it was told of at its binding, as the real runtime sends its own.

The log is the queue and a receiver has a position in it, which is part of `Memory` and so outlives the runtime: a batch
that was not acknowledged is sent again, by this runtime or the next. `fake_runtime.py` alone uses it.
"""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from orchestrator.security.connecting import Transport

_BATCH = 100
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 5.0
_ANSWER_SECONDS = 10.0
_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # receivers are on loopback, and reading them takes long

Logs = Mapping[str, Sequence[Mapping[str, Any]]]


class Push:
    """To one receiver. `start` in the loop of the runtime; `wake` when the log grew."""

    def __init__(
        self,
        hook: Mapping[str, Any],
        logs: Logs,
        positions: dict[str, int],
        headers: Mapping[str, str],
        goes_on: asyncio.Event,
    ) -> None:
        """`positions`: how many events of each conversation were acknowledged. `goes_on` is not set while frozen."""
        self._url = str(hook["base_url"]).rstrip("/")
        self._logs = logs
        self._positions = positions
        self._headers = headers
        self._goes_on = goes_on
        self._grown = asyncio.Event()

    def wake(self) -> None:
        self._grown.set()

    def start(self) -> asyncio.Task[None]:
        """To be cancelled by the caller."""
        self.wake()  # what an earlier life left
        return asyncio.create_task(self._run())

    async def _run(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        transport = Transport(verify=_NO_CERTIFICATES)
        async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=_ANSWER_SECONDS) as http:
            while True:
                await self._grown.wait()
                self._grown.clear()
                if await self._send_all(http):
                    pause = _FIRST_PAUSE_SECONDS
                    continue
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                self.wake()

    async def _send_all(self, http: httpx.AsyncClient) -> bool:
        """False where a receiver did not acknowledge."""
        taken = [await self._send(http, id) for id in list(self._logs)]
        return all(taken)

    async def _send(self, http: httpx.AsyncClient, id: str) -> bool:
        while log := self._logs.get(id, ()):
            position = self._positions.get(id, 0)
            batch = log[position : position + _BATCH]
            if not batch:
                return True
            numbers = {
                "X-Nestor-Sequence-First": str(position + 1),
                "X-Nestor-Sequence-Last": str(position + len(batch)),
                "X-Nestor-Log-Events": str(len(log)),
            }
            await self._goes_on.wait()
            try:
                url = f"{self._url}/events/{id.replace('-', '')}"
                answer = await http.post(url, json=batch, headers={**self._headers, **numbers})
            except httpx.HTTPError:
                return False
            if not answer.is_success:
                return False
            self._positions[id] = position + len(batch)
        return True
