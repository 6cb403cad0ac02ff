"""The engine that a fake driver drives: it outlives orchestrators, counts, and fails as it is told.

Two drivers on one see the same runtimes. It notes when two runtimes of one conversation are alive at once, which no
test could see at the orchestrator's own answers.
"""

from collections import deque
from dataclasses import dataclass, field

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from orchestrator.domain.errors import NestorError
from orchestrator.domain.ids import TenantId
from orchestrator.drivers.fake_runtime import FakeRuntime, Memory
from orchestrator.drivers.fake_script import Script
from orchestrator.drivers.values import DriverEvent, ExitCause, RuntimeSpec

_LOG_LINES = 1000


@dataclass
class EngineVolume:
    """What outlives the runtimes of a conversation."""

    tenant: TenantId
    fence: int
    memory: Memory = field(default_factory=Memory)


@dataclass
class EngineRuntime:
    """One that was made, whether it runs or not."""

    spec: RuntimeSpec
    fence: int
    server: FakeRuntime | None = None
    paused: bool = False
    exit_code: int | None = None
    cause: ExitCause | None = None
    lock: anyio.Lock = field(default_factory=anyio.Lock)  #: one verb at a time
    serves: set[str] = field(default_factory=set)  #: the conversations that were begun in it
    log: deque[str] = field(default_factory=lambda: deque(maxlen=_LOG_LINES))

    @property
    def alive(self) -> bool:
        """Whether it serves, or would if it was not paused."""
        return self.server is not None and self.exit_code is None


@dataclass
class _VerbFault:
    verb: str
    error: NestorError
    times: int
    after: bool


class FakeEngine:
    """All that exists, for as long as the test or the demo lasts."""

    def __init__(self) -> None:
        self.script = Script()
        self.runtimes: dict[str, EngineRuntime] = {}
        self.volumes: dict[str, EngineVolume] = {}
        self.readers: set[MemoryObjectSendStream[DriverEvent]] = set()
        self.starts = 0  #: how many runtimes were ever started
        self.program = ""  #: what runtimes run: another text is another program (`FakeDriver.spare_kind`)
        self.images: dict[str, str] | None = None  #: ids by name; None: what runs is made of no image
        self.doubles: list[tuple[str, str]] = []  #: names of two runtimes of one conversation that were alive at once
        self._faults: list[_VerbFault] = []
        self._hangs: list[tuple[str, anyio.Event]] = []

    def fail(self, verb: str, error: NestorError, *, times: int = 1, after: bool = False) -> None:
        """Let the driver's `verb` raise `error`; with `after`, when its work is done: a lost reply."""
        self._faults.append(_VerbFault(verb, error, times, after))

    def fail_no_more(self) -> None:
        """Forget what `fail` has planned."""
        self._faults.clear()

    def crash(self, name: str, *, code: int = -9) -> None:
        """End a runtime as if it was killed from outside."""
        self.ended(self.runtimes[name], code)

    async def shut_down(self) -> None:
        """End every runtime and forget everything."""
        for runtime in self.runtimes.values():
            if runtime.server is not None:
                await runtime.server.stop()
        self.runtimes.clear()
        self.volumes.clear()

    def hang(self, verb: str, *, times: int = 1) -> anyio.Event:
        """Let the driver's `verb` do nothing until the event that is answered is set; then it does its work, whoever
        waits for it."""
        released = anyio.Event()
        self._hangs += [(verb, released)] * times
        return released

    async def meet(self, verb: str, *, after: bool) -> None:
        """Wait, and raise, as `hang` and `fail` have planned for this moment."""
        hang = next((one for one in self._hangs if one[0] == verb), None)
        if hang is not None and not after:
            self._hangs.remove(hang)
            await hang[1].wait()
        for fault in self._faults:
            if fault.times > 0 and fault.verb == verb and fault.after == after:
                fault.times -= 1
                raise fault.error

    def began(self, runtime: EngineRuntime) -> None:
        """Count a start, and note whether another runtime of the same conversation is alive."""
        self.starts += 1
        labels = runtime.spec.labels
        for name, other in self.runtimes.items():
            same = (other.spec.labels.tenant, other.spec.labels.conversation) == (labels.tenant, labels.conversation)
            if same and labels.tenant and other is not runtime and other.alive:
                self.doubles.append((name, runtime.spec.name))

    def serves(self, runtime: EngineRuntime, conversation: str) -> None:
        """Note whose runtime one is by now: the labels of a spare do not say it."""
        runtime.serves.add(conversation)
        for name, other in self.runtimes.items():
            told = conversation in other.serves or conversation == other.spec.labels.conversation
            by_labels = runtime.spec.labels.tenant and other.spec.labels.tenant  # `began` has looked at those
            if told and not by_labels and other is not runtime and other.alive:
                self.doubles.append((name, runtime.spec.name))

    def ended(self, runtime: EngineRuntime, code: int) -> None:
        """Note a death that nobody asked for."""
        if runtime.server is None or runtime.exit_code is not None:
            return
        runtime.server.cut()
        runtime.exit_code, runtime.cause = code, ExitCause.CRASHED
        runtime.log.append(f"fake runtime: ended with {code}")
        self.hint(runtime.spec.name)

    def hint(self, name: str) -> None:
        """Tell every reader of events that something changed."""
        for reader in self.readers:
            try:
                reader.send_nowait(DriverEvent(name))
            except (anyio.WouldBlock, anyio.BrokenResourceError):
                continue  # nothing may depend on a hint
