"""What a driver is: code that runs runtimes somewhere. Provisioning and the reconciler call it and know no engine.

Names are chosen before anything is made, so that the engine itself refuses a second runtime of one generation, and a
reply that was lost is found again by name or label. "I could not ask" (`DriverUnavailable`) and "it is not there"
(`RuntimeNotFound`) are different answers: mixing them starts a second runtime.
"""

import enum
import errno
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from orchestrator.domain.errors import PermanentError
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId, UserId
from orchestrator.domain.secrets import SecretText


class StaleFence(PermanentError):
    """A runtime of this name was last touched under a higher fence: somebody else acts now."""

    code = "lease_lost"


class ClaimTaken(PermanentError):
    """A runtime of this name exists with another spec."""

    code = "claim_taken"


NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
MAKE_SPACE = "make space on that disk, or delete conversations; then start again"


def says_no_space(words: str) -> bool:
    """Whether that is what the system says when a disk or a quota is full."""
    said = words.lower()
    return "no space left on device" in said or "disk quota exceeded" in said


class ImageUnavailable(PermanentError):
    """The engine does not have the image; nothing is pulled while somebody waits for a start."""

    code = "image_pull"


class StartRefused(PermanentError):
    """The engine made the runtime but could not start it; `details` may hold the last log lines."""

    code = "start_refused"


@dataclass(frozen=True)
class OwnerLabels:
    """Whose runtime it is, in the clear on the engine. Ids only, never a name or a secret."""

    installation: str  #: which Nestor: one engine may serve several
    tenant: TenantId
    conversation: ConversationId
    runtime: RuntimeId
    generation: int
    user: UserId | None = None
    volume: RuntimeId | None = None  #: whose storage it uses: that of a spare which it began as, None for its own

    @property
    def storage(self) -> RuntimeId:
        """The id under which its storage is filed."""
        return self.volume or self.runtime


def spare_labels(installation: str, id: RuntimeId) -> OwnerLabels:
    """Of a runtime that is nobody's yet. It keeps them when it is bound: whose it is then, the state server says."""
    return OwnerLabels(installation, TenantId(""), ConversationId(""), id, generation=0)


def volume_of(labels: OwnerLabels) -> str:
    """What a call that makes or removes its storage is about, where such calls wait for each other (`calls.py`)."""
    return f"the volume of {labels.storage}"


def is_spare(labels: OwnerLabels) -> bool:
    """Whether a runtime was started for nobody."""
    return not labels.tenant


@dataclass(frozen=True)
class Limits:
    """What one runtime may use at most. `size` says how many times the smallest it is; the limit of the disk is the
    operator's times that (`NESTOR_RUNTIME_DISK_MEGABYTES`)."""

    memory_bytes: int = 2 * 1024**3
    cpus: float = 2.0
    pids: int = 512
    open_files: int = 4096  #: of each process, which may raise it to twice as many
    log_bytes: int = 20_000_000  #: of what it prints, in two files of which the older one is dropped
    size: int = 1

    def times(self, size: int) -> "Limits":
        """So many times of everything."""
        return replace(
            self,
            memory_bytes=size * self.memory_bytes,
            cpus=size * self.cpus,
            pids=size * self.pids,
            open_files=size * self.open_files,
            log_bytes=size * self.log_bytes,
            size=size * self.size,
        )


@dataclass(frozen=True)
class RuntimeSpec:
    """What is wanted. `environment` holds no secret; the init key goes in by `Driver.start`."""

    name: str  #: `nestor-<runtime id>-g<generation>`, the claim; of a spare `nestor-spare-<its id>`
    labels: OwnerLabels
    image: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Handle:
    """The serialisable reference to a runtime that exists."""

    driver: str
    name: str
    reference: str  #: the engine's own id
    labels: OwnerLabels


class Dialect(enum.StrEnum):
    """Which agent server a runtime is, and how it gets its keys."""

    OWN = "own"  #: Nestor's: starts dormant, and proves that it has its init key before it is told anything
    DORMANT = "dormant"  #: a stock one that starts dormant: it takes the init key, and proves nothing
    CONFIGURED = "configured"  #: a stock one that starts with its keys, and is never bound


@dataclass(frozen=True)
class ServingKeys:
    """What a server of `Dialect.CONFIGURED` is started with; others are told when they are bound."""

    session: SecretText  #: what its callers send
    state: SecretText  #: under which it keeps its own state


@dataclass(frozen=True)
class Endpoint:
    """Where the runtime listens, as the orchestrator reaches it."""

    host: str
    port: int
    dialect: Dialect = Dialect.OWN
    workspace: str = "/workspace"  #: where the conversation's files are, as the runtime sees them

    @property
    def stock(self) -> bool:
        """Whether it is another agent server than Nestor's."""
        return self.dialect is not Dialect.OWN

    @property
    def origin(self) -> str:
        return f"http://{self.host}:{self.port}"


class Condition(enum.StrEnum):
    """What the driver sees now."""

    CREATED = "created"  #: made, never started
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"


class ExitCause(enum.StrEnum):
    """Why a runtime ended, as far as the engine knows."""

    CLEAN = "clean"
    CRASHED = "crashed"
    OOM = "oom"
    DISK = "disk"  #: its storage was over the limit
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Observed:
    """The state of one runtime at one moment."""

    condition: Condition
    endpoint: Endpoint | None = None
    exit_code: int | None = None
    cause: ExitCause | None = None
    fence: int = 0  #: the highest under which the driver has touched it, as far as it remembers


@dataclass(frozen=True)
class Capabilities:
    """What this driver holds, said at start-up and in the docs. `isolation` is one sentence for people."""

    isolation: str
    isolated: bool  #: one runtime cannot see another's files and processes
    pause: bool = False
    images: bool = False  #: runtimes are made of images, which an engine keeps (`Imaged`)
    spares: bool = False  #: runtimes can be started for nobody, and be bound later (`Spareable`)


@dataclass(frozen=True)
class Fingerprint:
    """Whether this host can run anything now, and if not, why and what to do."""

    usable: bool
    message: str
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Usage:
    """What one runtime uses at this moment."""

    cpu_seconds: float  #: since it was started
    memory_bytes: int
    memory_limit_bytes: int
    processes: int
    disk_bytes: int | None  #: of workspace and state together; None where that cannot be told
    size: int  #: how many times the smallest runtime it is
    cpu_limit: float  #: processors
    processes_limit: int
    open_files_limit: int  #: of each process
    log_limit_bytes: int
    disk_limit_bytes: int | None  #: None: the operator set none


@dataclass(frozen=True)
class DiskUse:
    """What the storage of a runtime that runs takes, and for how long it has been running."""

    bytes: int
    running_seconds: float
    size: int = 1  #: how many times the smallest runtime it is


@dataclass(frozen=True)
class Row:
    """One part of the hardening, as it was found on this machine."""

    name: str  #: by which it is accepted in NESTOR_ACCEPT_WEAKER
    held: bool
    required: bool  #: without it tenants are not kept apart as promised
    said: str  #: what was found, in few words


@dataclass(frozen=True)
class DriverEvent:
    """A hint that something changed. Nothing may depend on getting it."""

    name: str


class Driver(Protocol):
    """Small, idempotent, honest. Every mutating verb takes the fence of the caller's lease and refuses a lower one than
    it has seen for that runtime (`StaleFence`)."""

    name: str
    capabilities: Capabilities

    async def fingerprint(self) -> Fingerprint:
        """Can this host run anything now; if not, why. Never raises."""
        ...

    async def ensure_volume(self, labels: OwnerLabels, *, fence: int) -> bool:
        """Make the conversation's lasting storage (workspace and state); True if it was made now."""
        ...

    async def remove_volume(self, labels: OwnerLabels, *, fence: int) -> None:
        """Remove that storage. Already gone: fine. Only `labels.storage` and `labels.tenant` matter."""
        ...

    async def create(self, spec: RuntimeSpec, *, fence: int) -> Handle:
        """Claim the name and make the runtime, not started. Same name and spec: same handle. Raises `ClaimTaken`."""
        ...

    async def start(
        self, handle: Handle, *, fence: int, init_key: SecretText, serving: ServingKeys | None = None
    ) -> Endpoint:
        """Start it, dormant, handing `init_key` to it alone; a server of `Dialect.CONFIGURED` gets `serving` in its
        place. Running already: its endpoint. Raises `StartRefused`, also for such a server without `serving`."""
        ...

    async def inspect(self, handle: Handle) -> Observed:
        """What is there now. `RuntimeNotFound` only when the engine says so."""
        ...

    async def logs(self, handle: Handle, *, lines: int = 20) -> Sequence[str]:
        """The last lines of what the runtime printed; empty when there are none."""
        ...

    async def stop(self, handle: Handle, *, fence: int, grace: float) -> None:
        """End it: asked first, killed after `grace` seconds, with every process it started. Ended already: fine."""
        ...

    async def destroy(self, handle: Handle, *, fence: int) -> None:
        """Stop it at once and remove it, not its volume. Already gone: fine."""
        ...

    async def find(self, name: str) -> Handle | None:
        """The handle of the runtime of that name: how a lost reply of `create` is found again."""
        ...

    async def list(self, installation: str) -> Sequence[Handle]:
        """Every runtime of this installation, whatever its condition."""
        ...

    def events(self) -> AsyncIterator[DriverEvent]:
        """Hints, for as long as the iterator is read."""
        ...

    async def close(self) -> None:
        """Let go of connections and watchers. Runtimes go on."""
        ...


@runtime_checkable
class Pausable(Protocol):
    """A driver that can freeze a runtime in place."""

    async def pause(self, handle: Handle, *, fence: int) -> None:
        """Freeze it. Frozen already: fine."""
        ...

    async def unpause(self, handle: Handle, *, fence: int) -> Endpoint:
        """Let it go on. Running already: fine."""
        ...


@runtime_checkable
class Spareable(Protocol):
    """A driver whose runtimes can be started before anybody wants them: dormant, with `spare_labels`, on a storage of
    their own. That storage belongs to nobody, until it is named (`OwnerLabels.volume`) by labels that have a tenant;
    from then on it is that tenant's. Nothing is asked of the engine in order to bind one."""

    async def spare_kind(self, image: str | None) -> str:
        """What a runtime of this image would be now: another text when it would be another program. No secret."""
        ...


@runtime_checkable
class Imaged(Protocol):
    """A driver whose runtimes are made of images."""

    async def image_id(self, name: str) -> str:
        """The engine's own id of what it has under this name, or under this id: a digest of all that is in it. Raises
        `ImageUnavailable`, `DriverUnavailable`."""
        ...

    async def pull(self, name: str) -> None:
        """Fetch it from its registry. Takes minutes. Raises `ImageUnavailable`, `DriverUnavailable`."""
        ...


@runtime_checkable
class Measurable(Protocol):
    """A driver that can tell what a runtime uses, and end one whose storage is too large."""

    async def usage(self, handle: Handle) -> Usage:
        """Raises `RuntimeNotFound` when it is not there."""
        ...

    async def disk(self, handle: Handle) -> DiskUse | None:
        """None where its size cannot be told. Raises `RuntimeNotFound` when it does not run."""
        ...

    async def end_full(self, handle: Handle) -> None:
        """Kill it; from then on its cause is `ExitCause.DISK`. No fence: it is true whoever holds the lease."""
        ...


@runtime_checkable
class Gated(Protocol):
    """A driver whose runtimes may reach only hosts that were named."""

    async def permit(self, endpoint: Endpoint, hosts: Sequence[str]) -> None:
        """From now on the runtime there may reach these, and no others: `host:port` each, where the host may begin with
        `*.` for everything below it. Nothing is asked of the engine. Where egress is no allow-list: nothing."""
        ...


@runtime_checkable
class Walled(Protocol):
    """A driver that keeps runtimes apart by what it sets on this machine, and can say whether that took effect."""

    async def wall(self, listener: tuple[str, int] | None) -> None:
        """Set the rules, `listener` being the one address and port of this machine that runtimes may reach. Called
        once, before the first runtime is made. Raises `DriverUnavailable`, `Misconfigured`."""
        ...

    async def report(self) -> Sequence[Row]:
        """What holds, tried out now. Takes seconds. Raises `DriverUnavailable`."""
        ...

    async def mend(self) -> Sequence[str]:
        """Look whether the rules still hold, set what is missing, remove what is left over; what was done, in words."""
        ...


@runtime_checkable
class Faced(Protocol):
    """A driver whose runtimes do not all reach this orchestrator under the same address."""

    def facing_host(self, endpoint: Endpoint) -> str | None:
        """The address under which the runtime there reaches this orchestrator's runtime-facing listener; None where it
        is the listener's own. Asks nobody."""
        ...


@runtime_checkable
class Prunable(Protocol):
    """A driver whose volumes lie outside of the data folder, and so outlive one that is thrown away."""

    async def prune(self, installation: str, *, fence: int) -> None:
        """Remove every volume of this installation that no runtime uses."""
        ...
