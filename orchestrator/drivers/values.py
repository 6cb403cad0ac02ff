"""What drivers are told of a runtime, and what they tell of it. No engine's own words."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId, UserId
from orchestrator.domain.secrets import SecretText


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

    bytes: int | None  #: None when there was too much to be counted in time
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
