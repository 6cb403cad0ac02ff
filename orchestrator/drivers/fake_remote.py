"""The fake driver for several orchestrators: the engine is a process of its own that outlives them (`fake_server.py`).

So that replicas can be killed, stopped and raced while somebody neutral counts what runs. The same promises, and the
same conformance suite, as `fake.py`.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from orchestrator.domain.errors import DriverUnavailable
from orchestrator.domain.secrets import SecretText
from orchestrator.drivers import fake_wire
from orchestrator.drivers.calls import Calls
from orchestrator.drivers.fake import FakeDriver
from orchestrator.drivers.values import (
    DriverEvent,
    Endpoint,
    Fingerprint,
    Handle,
    Observed,
    OwnerLabels,
    RuntimeSpec,
    ServingKeys,
    volume_of,
)

T = TypeVar("T")
_ENDPOINT, _OBSERVED = TypeAdapter(Endpoint), TypeAdapter(Observed)
_HANDLE, _HANDLES = TypeAdapter(Handle), TypeAdapter(list[Handle])
_MAYBE_HANDLE = TypeAdapter(Handle | None)
_AT_ONCE = 1024


class RemoteFakeDriver:
    """See `base.Driver`, `base.Pausable` and `base.Spareable`. `path` is the engine's socket."""

    name = FakeDriver.name
    capabilities = FakeDriver.capabilities

    def __init__(self, path: Path) -> None:
        self._path = path
        self._calls = Calls("the fake engine", at_once=_AT_ONCE)

    async def fingerprint(self) -> Fingerprint:
        try:
            await self._call("list", installation="")
        except DriverUnavailable as exc:
            return Fingerprint(usable=False, message=exc.message)
        return Fingerprint(usable=True, message=self.capabilities.isolation)

    async def ensure_volume(self, labels: OwnerLabels, *, fence: int) -> bool:
        return bool(await self._call("ensure_volume", labels=asdict(labels), fence=fence))

    async def remove_volume(self, labels: OwnerLabels, *, fence: int) -> None:
        await self._call("remove_volume", labels=asdict(labels), fence=fence)

    async def create(self, spec: RuntimeSpec, *, fence: int) -> Handle:
        return _HANDLE.validate_python(await self._call("create", spec=asdict(spec), fence=fence))

    async def start(
        self, handle: Handle, *, fence: int, init_key: SecretText, serving: ServingKeys | None = None
    ) -> Endpoint:
        answer = await self._call("start", handle=asdict(handle), fence=fence, init_key=init_key)
        return _ENDPOINT.validate_python(answer)

    async def inspect(self, handle: Handle) -> Observed:
        return _OBSERVED.validate_python(await self._call("inspect", handle=asdict(handle)))

    async def logs(self, handle: Handle, *, lines: int = 20) -> Sequence[str]:
        return list(await self._call("logs", handle=asdict(handle), lines=lines))

    async def stop(self, handle: Handle, *, fence: int, grace: float) -> None:
        await self._call("stop", handle=asdict(handle), fence=fence, grace=grace)

    async def destroy(self, handle: Handle, *, fence: int) -> None:
        await self._call("destroy", handle=asdict(handle), fence=fence)

    async def pause(self, handle: Handle, *, fence: int) -> None:
        await self._call("pause", handle=asdict(handle), fence=fence)

    async def unpause(self, handle: Handle, *, fence: int) -> Endpoint:
        return _ENDPOINT.validate_python(await self._call("unpause", handle=asdict(handle), fence=fence))

    async def spare_kind(self, image: str | None) -> str:
        return str(await self._call("spare_kind", image=image))

    async def find(self, name: str) -> Handle | None:
        return _MAYBE_HANDLE.validate_python(await self._call("find", name=name))

    async def list(self, installation: str) -> Sequence[Handle]:
        return _HANDLES.validate_python(await self._call("list", installation=installation))

    async def events(self) -> AsyncIterator[DriverEvent]:
        reader, writer = await fake_wire.connect(self._path)
        try:
            writer.write(fake_wire.line({"verb": "events"}))
            await writer.drain()
            while hint := await reader.readline():
                yield DriverEvent(str(json.loads(hint)))
        finally:
            writer.close()

    async def close(self) -> None:
        """The engine is not ours to end."""

    async def _call(self, verb: str, **arguments: Any) -> Any:
        of = _of(arguments)
        return await self._calls.run(lambda: fake_wire.call(self._path, verb, **arguments), of=of)


def _of(arguments: Mapping[str, Any]) -> str:
    """What a call is about, as for the other drivers."""
    if "labels" in arguments:
        return volume_of(OwnerLabels(**arguments["labels"]))
    named = arguments.get("spec") or (arguments.get("handle") if "fence" in arguments else arguments)
    return str((named or {}).get("name", ""))
