"""The driver that runs nothing: every runtime is a small server inside this process. For tests and for development.

It keeps every promise of `base.Driver` and passes the same conformance suite as the others. A `FakeEngine`
(`fake_engine.py`) stands for the engine that outlives an orchestrator. `driver.script` says what goes wrong
inside runtimes and what they were told, `driver.engine.fail` what goes wrong in the engine.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import anyio

from orchestrator.domain.errors import RuntimeNotFound
from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.calls import Calls
from orchestrator.drivers.errors import ClaimTaken, ImageUnavailable, StaleFence, StartRefused
from orchestrator.drivers.fake_engine import EngineRuntime, EngineVolume, FakeEngine
from orchestrator.drivers.fake_runtime import LOOPBACK, FakeRuntime
from orchestrator.drivers.fake_script import Script
from orchestrator.drivers.values import (
    Capabilities,
    Condition,
    DriverEvent,
    Endpoint,
    ExitCause,
    Fingerprint,
    Handle,
    Observed,
    OwnerLabels,
    RuntimeSpec,
    ServingKeys,
    volume_of,
)

_HINTS = 1024
_AT_ONCE = 1024  #: there are no threads to be spared


class FakeDriver:
    """See `base.Driver`, `Pausable` and `Spareable`. Without an `engine` it has its own, which `close` shuts down."""

    name = "fake"
    capabilities = Capabilities(
        isolation="Nothing runs: runtimes are small servers inside the orchestrator, without agents or shells.",
        isolated=True,
        pause=True,
        spares=True,
    )

    def __init__(self, engine: FakeEngine | None = None) -> None:
        self._own = engine is None
        self.engine = engine or FakeEngine()
        self._calls = Calls("the fake engine", at_once=_AT_ONCE)

    @property
    def script(self) -> Script:
        """What goes wrong inside runtimes, and what they were told."""
        return self.engine.script

    async def fingerprint(self) -> Fingerprint:
        return Fingerprint(usable=True, message=self.capabilities.isolation)

    async def ensure_volume(self, labels: OwnerLabels, *, fence: int) -> bool:
        return await self._calls.run(lambda: self._ensure_volume(labels, fence=fence), of=volume_of(labels))

    async def _ensure_volume(self, labels: OwnerLabels, *, fence: int) -> bool:
        await self.engine.meet("ensure_volume", after=False)
        known = self._volume(labels, fence)
        if known is None:
            self.engine.volumes[labels.storage] = EngineVolume(labels.tenant, fence)
        await self.engine.meet("ensure_volume", after=True)
        return known is None

    async def remove_volume(self, labels: OwnerLabels, *, fence: int) -> None:
        await self._calls.run(lambda: self._remove_volume(labels, fence=fence), of=volume_of(labels))

    async def _remove_volume(self, labels: OwnerLabels, *, fence: int) -> None:
        await self.engine.meet("remove_volume", after=False)
        if self._volume(labels, fence) is not None:
            del self.engine.volumes[labels.storage]
        await self.engine.meet("remove_volume", after=True)

    async def create(self, spec: RuntimeSpec, *, fence: int) -> Handle:
        return await self._calls.run(lambda: self._create(spec, fence=fence), of=spec.name)

    async def _create(self, spec: RuntimeSpec, *, fence: int) -> Handle:
        await self.engine.meet("create", after=False)
        if self.engine.images is not None:
            await self.image_id(spec.image or "")
        known = self.engine.runtimes.get(spec.name)
        if known is None:
            self.engine.runtimes[spec.name] = EngineRuntime(spec, fence)
        elif known.spec != spec:
            raise ClaimTaken(f"runtime {spec.name} exists with another spec", hint="destroy it, or use a new name")
        else:
            _raise_fence(known, fence)
        await self.engine.meet("create", after=True)
        return _handle(spec)

    async def start(
        self, handle: Handle, *, fence: int, init_key: SecretText, serving: ServingKeys | None = None
    ) -> Endpoint:
        return await self._calls.run(
            lambda: self._start(handle, fence=fence, init_key=init_key, serving=serving), of=handle.name
        )

    async def _start(
        self, handle: Handle, *, fence: int, init_key: SecretText, serving: ServingKeys | None
    ) -> Endpoint:
        await self.engine.meet("start", after=False)
        async with self._held(handle.name, fence) as runtime:
            if runtime.alive:
                self._thaw(runtime)
            else:
                await self._begin(runtime, init_key)
            endpoint = _endpoint(runtime)
        await self.engine.meet("start", after=True)
        return endpoint

    async def inspect(self, handle: Handle) -> Observed:
        return await self._calls.run(lambda: self._inspect(handle))

    async def _inspect(self, handle: Handle) -> Observed:
        await self.engine.meet("inspect", after=False)
        runtime = self._runtime(handle.name)
        if runtime.server is None:
            return Observed(Condition.CREATED, fence=runtime.fence)
        if not runtime.alive:
            ended = Observed(Condition.EXITED, exit_code=runtime.exit_code, cause=runtime.cause)
            return replace(ended, fence=runtime.fence)
        condition = Condition.PAUSED if runtime.paused else Condition.RUNNING
        return Observed(condition, endpoint=_endpoint(runtime), fence=runtime.fence)

    async def logs(self, handle: Handle, *, lines: int = 20) -> Sequence[str]:
        known = self.engine.runtimes.get(handle.name)
        return list(known.log)[-lines:] if known is not None and lines > 0 else ()

    async def stop(self, handle: Handle, *, fence: int, grace: float) -> None:
        await self._calls.run(lambda: self._stop(handle, fence=fence, grace=grace), of=handle.name)

    async def _stop(self, handle: Handle, *, fence: int, grace: float) -> None:
        await self.engine.meet("stop", after=False)
        async with self._held(handle.name, fence) as runtime:
            await self._end(runtime)
        await self.engine.meet("stop", after=True)

    async def destroy(self, handle: Handle, *, fence: int) -> None:
        await self._calls.run(lambda: self._destroy(handle, fence=fence), of=handle.name)

    async def _destroy(self, handle: Handle, *, fence: int) -> None:
        await self.engine.meet("destroy", after=False)
        with contextlib.suppress(RuntimeNotFound):
            async with self._held(handle.name, fence) as runtime:
                await self._end(runtime)
                del self.engine.runtimes[handle.name]
        await self.engine.meet("destroy", after=True)

    async def pause(self, handle: Handle, *, fence: int) -> None:
        await self._calls.run(lambda: self._pause(handle, fence=fence), of=handle.name)

    async def _pause(self, handle: Handle, *, fence: int) -> None:
        await self.engine.meet("pause", after=False)
        async with self._held(handle.name, fence) as runtime:
            if runtime.server is None or not runtime.alive:
                raise RuntimeNotFound(f"runtime {handle.name} does not run, so it cannot be paused")
            runtime.paused = True
            runtime.server.freeze()

    async def unpause(self, handle: Handle, *, fence: int) -> Endpoint:
        return await self._calls.run(lambda: self._unpause(handle, fence=fence), of=handle.name)

    async def _unpause(self, handle: Handle, *, fence: int) -> Endpoint:
        await self.engine.meet("unpause", after=False)
        async with self._held(handle.name, fence) as runtime:
            if not runtime.alive:
                raise RuntimeNotFound(f"runtime {handle.name} does not run, so it cannot go on")
            self._thaw(runtime)
            return _endpoint(runtime)

    async def spare_kind(self, image: str | None) -> str:
        return f"fake|{image or ''}|{self.engine.program}"

    async def image_id(self, name: str) -> str:
        """See `base.Imaged`."""
        await self.engine.meet("image_id", after=False)
        images = self.engine.images or {}
        id = name if name in images.values() else images.get(name)
        if id is None:
            raise ImageUnavailable(f"the engine has no image {name}", hint="add it, then start again")
        return id

    async def pull(self, name: str) -> None:
        """See `base.Imaged`: there is no registry."""
        raise ImageUnavailable(f"the engine could not pull {name}", hint="add it")

    async def find(self, name: str) -> Handle | None:
        return await self._calls.run(lambda: self._find(name), of=name)

    async def _find(self, name: str) -> Handle | None:
        await self.engine.meet("find", after=False)
        known = self.engine.runtimes.get(name)
        return None if known is None else _handle(known.spec)

    async def list(self, installation: str) -> Sequence[Handle]:
        return await self._calls.run(lambda: self._list(installation))

    async def _list(self, installation: str) -> Sequence[Handle]:
        await self.engine.meet("list", after=False)
        specs = [runtime.spec for runtime in self.engine.runtimes.values()]
        return [_handle(spec) for spec in specs if spec.labels.installation == installation]

    async def events(self) -> AsyncIterator[DriverEvent]:
        send, receive = anyio.create_memory_object_stream[DriverEvent](_HINTS)
        self.engine.readers.add(send)
        try:
            async with receive:
                async for hint in receive:
                    yield hint
        finally:
            self.engine.readers.discard(send)
            send.close()

    async def close(self) -> None:
        if self._own:
            await self.engine.shut_down()

    async def _begin(self, runtime: EngineRuntime, init_key: SecretText) -> None:
        volume = self.engine.volumes.get(runtime.spec.labels.storage)
        if volume is None:
            raise StartRefused(
                f"conversation {runtime.spec.labels.conversation} has no volume", hint="make the volume first"
            )
        if runtime.server is not None:
            await runtime.server.stop()  # what a crash left of it
        server = FakeRuntime(
            runtime.spec.name,
            init_key,
            volume.memory,
            self.engine.script,
            on_death=lambda: self.engine.ended(runtime, 1),
            on_begun=lambda conversation: self.engine.serves(runtime, conversation),
        )
        await server.start()
        runtime.server, runtime.paused = server, False
        runtime.exit_code = runtime.cause = None
        runtime.serves.clear()
        self.engine.began(runtime)
        runtime.log.append(f"fake runtime: listening on {LOOPBACK}:{server.port}")

    async def _end(self, runtime: EngineRuntime) -> None:
        if runtime.server is None:
            return
        await runtime.server.stop()
        if runtime.exit_code is None or runtime.cause is not ExitCause.CRASHED:
            runtime.exit_code = 0
        runtime.cause, runtime.paused = ExitCause.CLEAN, False
        self.engine.hint(runtime.spec.name)

    def _thaw(self, runtime: EngineRuntime) -> None:
        runtime.paused = False
        if runtime.server is not None:
            runtime.server.thaw()

    def _runtime(self, name: str) -> EngineRuntime:
        try:
            return self.engine.runtimes[name]
        except KeyError:
            raise RuntimeNotFound(f"there is no runtime {name}") from None

    @contextlib.asynccontextmanager
    async def _held(self, name: str, fence: int) -> AsyncIterator[EngineRuntime]:
        runtime = self._runtime(name)
        async with runtime.lock:
            if self._runtime(name) is not runtime:
                raise RuntimeNotFound(f"runtime {name} was destroyed while its turn was awaited")
            _raise_fence(runtime, fence)
            yield runtime

    def _volume(self, labels: OwnerLabels, fence: int) -> EngineVolume | None:
        known = self.engine.volumes.get(labels.storage)
        if known is None:
            return None
        if not known.tenant:
            known.tenant = labels.tenant  # a spare's, which was nobody's
        if known.tenant != labels.tenant:
            raise ClaimTaken(f"the volume of conversation {labels.conversation} belongs to another tenant")
        if fence < known.fence:
            raise StaleFence(f"that volume was touched under fence {known.fence}, this call has {fence}")
        known.fence = fence
        return known


def _raise_fence(runtime: EngineRuntime, fence: int) -> None:
    if fence < runtime.fence:
        raise StaleFence(f"runtime {runtime.spec.name} was touched under fence {runtime.fence}, this call has {fence}")
    runtime.fence = fence


def _endpoint(runtime: EngineRuntime) -> Endpoint:
    if runtime.server is None:
        raise RuntimeNotFound(f"runtime {runtime.spec.name} was never started")
    return Endpoint(LOOPBACK, runtime.server.port)


def _handle(spec: RuntimeSpec) -> Handle:
    return Handle(driver=FakeDriver.name, name=spec.name, reference=spec.name, labels=spec.labels)
