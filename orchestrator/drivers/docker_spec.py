"""What the engine is asked for: a runtime's spec as the arguments of a container, and its labels read back.

Pure; `docker_lifecycle.py` sends what this module makes. Hardening is not a choice of callers: every runtime gets all
of it, and a test looks at each flag from inside a container. Labels hold ids and numbers only, and are the truth that
survives every store.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from docker.types import HostConfig, LogConfig, Mount, Ulimit

from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId, UserId
from orchestrator.drivers.stock_start import shell_words
from orchestrator.drivers.values import Dialect, Limits, OwnerLabels, RuntimeSpec

PREFIX = "io.nestor."
INSTALLATION = f"{PREFIX}installation"
RUNTIME = f"{PREFIX}runtime"
#: The user of every image that can be a runtime, and the owner of its two volumes.
USER = "10001:10001"
PORT = 8000
WORKSPACE = "/workspace"
STATE = "/state"
HOME = "/home/agent"
#: For the image's entry point: where to listen.
ADDRESS = ("--host", "0.0.0.0", "--port", str(PORT))
#: An image with this label starts dormant by itself and takes the init key as a line on standard input.
BOOTS = f"{PREFIX}boots"
#: On a container of any other image, which is a stock agent server: how it was started.
DIALECT = f"{PREFIX}dialect"

_TMPFS = {
    "/tmp": "rw,nosuid,nodev,exec,size=512m,mode=1777",  # noqa: S108 - inside the container, where it is private
    "/run": "rw,nosuid,nodev,noexec,size=16m,mode=755",
    HOME: "rw,nosuid,nodev,exec,size=512m,mode=700,uid=10001,gid=10001",
}
_STOP_SECONDS = 10
_LOG_FILES = 2
OOM_SCORE = 500
CPU_SHARES = 512  #: of the 1024 that a program of the machine has
SHM_MEBIBYTES = 128
#: How many times the smallest a container is.
SIZE = f"{PREFIX}size"


@dataclass(frozen=True)
class Hardening:
    """What the operator chooses for every container, and what this engine needs to be told about it."""

    oci_runtime: str | None = None  #: by the engine's name for it, such as runsc; None for the engine's default
    seccomp: str | None = None  #: a profile as JSON; None for the engine's default
    apparmor: str | None = None  #: the name of a profile that the machine has loaded
    swappiness: bool = False  #: the kernel's control groups know it (version 1)
    file_bytes: int = 0  #: the largest file in a runtime of size 1; 0 for any
    processors: int = 0  #: the machine's, as the engine counts them; it refuses a limit above that. 0: not known
    resolve: bool = True  #: names are resolved inside; without it the engine's resolver asks nobody


NO_CHOICE = Hardening()
NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Image:
    """What an image says of itself."""

    name: str
    dialect: Dialect
    entry_point: tuple[str, ...]


@dataclass(frozen=True)
class Owned:
    """What the labels of a container or volume say."""

    labels: OwnerLabels
    fence: int  #: under which it was made
    digest: str  #: of the spec; empty for a volume


def digest(spec: RuntimeSpec) -> str:
    """The same text for the same spec, and for no other."""
    return hashlib.sha256(json.dumps(asdict(spec), sort_keys=True).encode()).hexdigest()


def labels_of(owner: OwnerLabels, *, fence: int, digest: str = "") -> dict[str, str]:
    """The labels of a container or a volume."""
    labels = {
        INSTALLATION: owner.installation,
        f"{PREFIX}tenant": owner.tenant,
        f"{PREFIX}conversation": owner.conversation,
        RUNTIME: owner.runtime,
        f"{PREFIX}generation": str(owner.generation),
        f"{PREFIX}fence": str(fence),
    }
    if owner.user is not None:
        labels[f"{PREFIX}user"] = owner.user
    if owner.volume is not None:
        labels[f"{PREFIX}volume"] = owner.volume
    if digest:
        labels[f"{PREFIX}spec"] = digest
    return labels


def owned(labels: Mapping[str, str] | None) -> Owned | None:
    """What these labels say, or None when they are not ours: anybody may have made the thing that bears them."""
    found = labels or {}
    try:
        return Owned(
            labels=OwnerLabels(
                installation=found[INSTALLATION],
                tenant=TenantId(found[f"{PREFIX}tenant"]),
                conversation=ConversationId(found[f"{PREFIX}conversation"]),
                runtime=RuntimeId(found[RUNTIME]),
                generation=int(found[f"{PREFIX}generation"]),
                user=UserId(found[f"{PREFIX}user"]) if f"{PREFIX}user" in found else None,
                volume=RuntimeId(found[f"{PREFIX}volume"]) if f"{PREFIX}volume" in found else None,
            ),
            fence=int(found[f"{PREFIX}fence"]),
            digest=found.get(f"{PREFIX}spec", ""),
        )
    except (KeyError, ValueError):
        return None


def spare_kind(image: Image, described: Mapping[str, Any], *, network: str, hardening: Hardening) -> str:
    """What a spare of this image would be now: another text when the image was made anew or is started in another
    way."""
    command = _command(image)
    chosen = asdict(replace(hardening, swappiness=False, processors=0))  # these are the engine's, and no choice
    how = [network, command, _TMPFS, asdict(Limits()), chosen]
    return json.dumps([described.get("Id"), how], sort_keys=True)


def image_of(name: str, described: Mapping[str, Any], stock: Dialect = Dialect.DORMANT) -> Image:
    """An image from the engine's description; `stock` is how one is started that is not ours."""
    config = described.get("Config") or {}
    words = config.get("Entrypoint") or config.get("Cmd") or ()
    dialect = Dialect.OWN if BOOTS in (config.get("Labels") or {}) else stock
    return Image(name, dialect, tuple(str(word) for word in words))


def dialect_of(labels: Mapping[str, str] | None) -> Dialect:
    """What a container's labels, its image's among them, say of the server in it."""
    found = labels or {}
    return Dialect.OWN if BOOTS in found else Dialect(found.get(DIALECT, Dialect.DORMANT))


def container_arguments(
    spec: RuntimeSpec,
    *,
    image: Image,
    network: str,
    mounts: Sequence[Mount],
    fence: int,
    version: str,
    hardening: Hardening = NO_CHOICE,
    told: Mapping[str, str] = NOTHING,
) -> dict[str, Any]:
    """The arguments of `create_container`, name included. `version` is the engine's API version."""
    return {
        "image": image.name,
        "name": spec.name,
        **_command(image),
        "user": USER,
        "environment": {**told, **environment_of(spec)},
        "labels": {
            **labels_of(spec.labels, fence=fence, digest=digest(spec)),
            SIZE: str(spec.limits.size),
            **({} if image.dialect is Dialect.OWN else {DIALECT: image.dialect.value}),
        },
        "working_dir": HOME,  # empty at every start, so that no file of the agent is taken for configuration
        "stdin_open": True,  # the init key comes as one line; not StdinOnce, so that a later start can be told one
        "tty": False,
        "detach": True,
        "stop_signal": "SIGTERM",
        "stop_timeout": _STOP_SECONDS,
        "healthcheck": {"test": ["NONE"]},  # the orchestrator probes
        "host_config": host_config(spec, network=network, mounts=mounts, version=version, hardening=hardening),
        "use_config_proxy": False,  # a person's docker configuration is not the runtimes'
    }


def _command(image: Image) -> dict[str, Any]:
    if image.dialect is Dialect.OWN:
        return {"command": [*ADDRESS, "--boot-key-fd", "0"]}
    return {"entrypoint": shell_words(image.dialect), "command": [*image.entry_point, *ADDRESS]}


def environment_of(spec: RuntimeSpec) -> dict[str, str]:
    """No secret, no tenant: where the runtime keeps things, and what the spec adds."""
    return {
        "LANG": "C.UTF-8",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OH_CONVERSATIONS_PATH": f"{STATE}/conversations",
        "OH_PERSISTENCE_DIR": f"{STATE}/persistence",
        "OH_BASH_EVENTS_DIR": f"{STATE}/bash_events",
        "OH_WORKSPACE_PATH": WORKSPACE,
        "OH_INTERNAL_SERVER_URL": f"http://127.0.0.1:{PORT}",
        **spec.environment,
        "HOME": HOME,
        "TMPDIR": "/tmp",  # noqa: S108 - see _TMPFS
        "NESTOR_RUNTIME": spec.labels.runtime,
    }


def host_config(
    spec: RuntimeSpec, *, network: str, mounts: Sequence[Mount], version: str, hardening: Hardening
) -> HostConfig:
    """Hardening and limits. Nothing is published, nothing of the host is mounted but the two volumes."""
    limits = spec.limits
    return HostConfig(
        version=version,
        network_mode=network,
        mounts=list(mounts),
        read_only=True,
        tmpfs=dict(_TMPFS),
        cap_drop=["ALL"],
        security_opt=_security(hardening),
        runtime=hardening.oci_runtime,  # an engine that does not have it refuses: nothing falls back to another
        privileged=False,
        mem_limit=limits.memory_bytes,
        memswap_limit=limits.memory_bytes,  # the same number: no swap
        mem_swappiness=0 if hardening.swappiness else None,
        oom_score_adj=OOM_SCORE,  # the kernel takes a runtime before it takes the orchestrator
        nano_cpus=round(_cpus(limits, hardening) * 1_000_000_000),
        cpu_shares=CPU_SHARES,
        pids_limit=limits.pids,
        ulimits=_ulimits(hardening, limits),
        dns=None if hardening.resolve else ["127.0.0.1"],
        dns_opt=None if hardening.resolve else ["timeout:1", "attempts:1"],  # nobody answers there: say so soon
        init=True,  # reaps what the agent's commands leave behind, and hands SIGTERM on
        ipc_mode="private",
        cgroupns="private",  # what the machine calls it is nothing to know; version 1 shows it unless told otherwise
        shm_size=f"{SHM_MEBIBYTES}m",
        log_config=_log(limits),
        restart_policy={"Name": "no"},  # the orchestrator decides, otherwise fences mean nothing
        auto_remove=False,  # exit code and last lines are evidence
    )


def _security(hardening: Hardening) -> list[str]:
    options = ["no-new-privileges:true"]
    if hardening.seccomp is not None:
        options.append(f"seccomp={hardening.seccomp}")
    if hardening.apparmor is not None:
        options.append(f"apparmor={hardening.apparmor}")
    return options


def _cpus(limits: Limits, hardening: Hardening) -> float:
    return min(limits.cpus, hardening.processors) if hardening.processors else limits.cpus


def _log(limits: Limits) -> LogConfig:
    each = f"{max(1, limits.log_bytes // _LOG_FILES // 1_000_000)}m"
    return LogConfig(type=LogConfig.types.JSON, config={"max-size": each, "max-file": str(_LOG_FILES)})


def _ulimits(hardening: Hardening, limits: Limits) -> list[Ulimit]:
    files = limits.open_files
    found = [Ulimit(name="nofile", soft=files, hard=2 * files), Ulimit(name="core", soft=0, hard=0)]
    if hardening.file_bytes:
        largest = hardening.file_bytes * limits.size
        found.append(Ulimit(name="fsize", soft=largest, hard=largest))
    return found


def size_of(labels: Mapping[str, str] | None) -> int:
    """How many times the smallest a container is, by its labels; 1 for one that was made before there were sizes."""
    text = (labels or {}).get(SIZE, "")
    return int(text) if text.isascii() and text.isdigit() and int(text) else 1
