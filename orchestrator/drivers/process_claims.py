"""The claim of a runtime that is a process: a folder under its name, and in it what any orchestrator needs to know.

`process_lifecycle.py` reads and writes claims; nothing else does. A claim is on disk before the process that it names
may run, so that whoever comes after a crash finds every runtime from these files alone. A claim holds no secret. All
that is kept here is facts: whether the process still lives is asked of the kernel, by `process_tree.py`.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.domain.errors import DriverUnavailable, RuntimeNotFound
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId, UserId
from orchestrator.drivers.errors import StaleFence
from orchestrator.drivers.process_files import (
    folder_lock,
    private_directory,
    read_regular,
    remove_tree,
    sync_directory,
    write_atomic,
)
from orchestrator.drivers.process_tree import Process, alive
from orchestrator.drivers.values import Dialect, OwnerLabels, RuntimeSpec

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,127}")
_FILE = "claim.json"
_EXIT_FILE = "exit.json"
_FORKED_FILE = "forked.json"
_LIMIT_BYTES = 256 * 1024
_LOCK_SECONDS = 60.0


class TornClaim(DriverUnavailable):
    """The claim's file cannot be read as one; destroying the runtime by name still works and mends it."""

    code = "claim_torn"


@dataclass(frozen=True)
class Claim:
    """What is known about one runtime. `server` is the process that we started, `init` pid 1 of its namespace."""

    name: str
    spec_digest: str
    labels: OwnerLabels
    environment: Mapping[str, str]
    fence: int
    boot: str = ""  #: the boot of the machine in which `server` was started; empty until then
    server: Process | None = None
    init: Process | None = None
    namespaced: bool = False
    port: int = 0
    zygote: str | None = None  #: the socket of the zygote that forked `server`; None: the orchestrator executed it
    dialect: Dialect = Dialect.OWN  #: of what `server` runs
    frozen: tuple[Process, ...] | None = None  #: what `pause` stopped, parents first; None while not paused


@dataclass(frozen=True)
class Ending:
    """How a process ended, as far as it was seen: kept apart from the claim, because looking takes no lock."""

    server: Process
    code: int | None  #: negative for a signal; None when another orchestrator was its parent
    requested: bool  #: by `stop`


def digest(spec: RuntimeSpec) -> str:
    """The same text for the same spec, and for no other."""
    return hashlib.sha256(json.dumps(asdict(spec), sort_keys=True).encode()).hexdigest()


class Claims:
    """All claims of one data folder. Methods block and raise OSError when the folder cannot be used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def folder_of(self, name: str) -> Path:
        """Where the runtime of that name keeps its files. Raises ValueError for a text that is no name."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name[:140]!r} cannot name a runtime: use lower-case letters, digits and dashes")
        return self._folder / name

    @contextlib.contextmanager
    def claimed(self, name: str) -> Iterator[None]:
        """Make the folder if it is missing and hold it alone. The folder is the claim: mkdir lets one win."""
        folder = self.folder_of(name)
        private_directory(self._folder)
        while True:
            try:
                folder.mkdir(mode=0o700)
                sync_directory(self._folder)
            except FileExistsError:
                pass
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(folder_lock(folder, deadline_seconds=_LOCK_SECONDS))
                except FileNotFoundError:
                    continue  # removed between the two lines: claim it anew
                yield
                return

    @contextlib.contextmanager
    def held(self, name: str, *, fence: int) -> Iterator[Claim]:
        """Hold a claim alone, with `fence` stored in it. Raises `RuntimeNotFound`, `StaleFence`, `TornClaim`."""
        with self.locked(name):
            claim = self.read(name)
            yield self.raise_fence(claim, fence)

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the folder alone, whatever is in it. Raises `RuntimeNotFound` when there is none."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(folder_lock(self.folder_of(name), deadline_seconds=_LOCK_SECONDS))
            except FileNotFoundError:
                raise RuntimeNotFound(f"there is no runtime {name}") from None
            yield

    def raise_fence(self, claim: Claim, fence: int) -> Claim:
        """The claim with `fence`, stored if it is higher. Raises `StaleFence` if it is lower."""
        if fence < claim.fence:
            raise StaleFence(f"runtime {claim.name} was touched under fence {claim.fence}, this call has {fence}")
        if fence == claim.fence:
            return claim
        raised = replace(claim, fence=fence)
        self.write(raised)
        return raised

    def read(self, name: str) -> Claim:
        """The claim of that name. Raises `RuntimeNotFound` and `TornClaim`."""
        try:
            content = read_regular(self.folder_of(name) / _FILE, limit_bytes=_LIMIT_BYTES)
        except FileNotFoundError:
            raise RuntimeNotFound(f"there is no runtime {name}") from None
        try:
            claim = _claim(json.loads(content))
        except (ValueError, KeyError, TypeError) as exc:
            raise TornClaim(f"the claim of runtime {name} is damaged", hint="destroy the runtime") from exc
        if claim.name != name:
            raise TornClaim(f"the claim of runtime {name} names another one", hint="destroy the runtime")
        return claim

    def write(self, claim: Claim) -> None:
        """Store the claim, on disk when this returns."""
        write_atomic(self.folder_of(claim.name) / _FILE, json.dumps(asdict(claim), indent=1).encode())

    def ending(self, claim: Claim) -> Ending | None:
        """How the claim's present process ended, if that was seen."""
        try:
            fields = json.loads(read_regular(self.folder_of(claim.name) / _EXIT_FILE, limit_bytes=_LIMIT_BYTES))
            ending = Ending(Process(**fields["server"]), fields["code"], bool(fields["requested"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return ending if ending.server == claim.server else None  # an earlier start's

    def write_ending(self, name: str, ending: Ending) -> None:
        """Store how a process ended. A runtime that is gone meanwhile needs it no more."""
        with contextlib.suppress(FileNotFoundError):
            write_atomic(self.folder_of(name) / _EXIT_FILE, json.dumps(asdict(ending)).encode())

    def write_forked(self, name: str, server: Process, boot: str) -> None:
        """Note a forked process once more, apart from the claim: its environment may not be readable, and so it could
        not be found by its mark if the claim were damaged."""
        write_atomic(self.folder_of(name) / _FORKED_FILE, json.dumps({**asdict(server), "boot": boot}).encode())

    def forked(self, name: str, boot: str) -> Process | None:
        """The process that was noted so, if it was in this boot and lives."""
        try:
            fields = json.loads(read_regular(self.folder_of(name) / _FORKED_FILE, limit_bytes=_LIMIT_BYTES))
            process = Process(int(fields["pid"]), int(fields["started"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return process if fields.get("boot") == boot and alive(process) else None

    def names(self) -> Sequence[str]:
        """Every name that is claimed, in order; damaged and half-made claims too."""
        try:
            return sorted(entry.name for entry in self._folder.iterdir() if _NAME.fullmatch(entry.name))
        except FileNotFoundError:
            return ()

    def remove(self, name: str) -> None:
        """Remove the folder and all in it, the claim last: a crash on the way leaves a claim, not an unknown folder.

        Call it while holding the folder.
        """
        folder = self.folder_of(name)
        for entry in list(folder.iterdir()):
            if entry.name == _FILE:
                continue
            if entry.is_dir() and not entry.is_symlink():
                remove_tree(entry)
            else:
                entry.unlink()
        remove_tree(folder)

    def remove_if_unclaimed(self, name: str) -> None:
        """Remove a folder whose maker died before it wrote the claim: nothing was ever started from it."""
        with contextlib.suppress(RuntimeNotFound, DriverUnavailable), self.locked(name):
            if not (self.folder_of(name) / _FILE).exists():
                self.remove(name)


def _claim(fields: Mapping[str, Any]) -> Claim:
    labels = fields["labels"]
    return Claim(
        name=str(fields["name"]),
        spec_digest=str(fields["spec_digest"]),
        labels=OwnerLabels(
            installation=str(labels["installation"]),
            tenant=TenantId(labels["tenant"]),
            conversation=ConversationId(labels["conversation"]),
            runtime=RuntimeId(labels["runtime"]),
            generation=int(labels["generation"]),
            user=UserId(labels["user"]) if labels["user"] else None,
            volume=RuntimeId(labels["volume"]) if labels.get("volume") else None,
        ),
        environment={str(name): str(value) for name, value in fields["environment"].items()},
        fence=int(fields["fence"]),
        boot=str(fields["boot"]),
        server=_process(fields["server"]),
        init=_process(fields["init"]),
        namespaced=bool(fields["namespaced"]),
        port=int(fields["port"]),
        zygote=None if fields.get("zygote") is None else str(fields["zygote"]),
        dialect=Dialect(fields.get("dialect", Dialect.OWN)),
        frozen=None if fields["frozen"] is None else tuple(Process(**one) for one in fields["frozen"]),
    )


def _process(fields: Mapping[str, int] | None) -> Process | None:
    return None if fields is None else Process(pid=int(fields["pid"]), started=int(fields["started"]))
