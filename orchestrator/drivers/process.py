"""Runtimes as processes of this machine: the driver of `nestor up` and of tests, with no engine to install.

`app.py` makes one; provisioning and the reconciler call it through `base.Driver`. This file only brings the verbs into
worker threads and says what holds on this host: the work is in `process_lifecycle.py`, and `namespaces.py` is what
keeps runtimes apart where the host allows it. With a zygote (`process_zygote.py`) our own runtimes are forked as soon
as it is ready, instead of executed. It knows nothing of the runtime's own API.
"""

import errno
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import anyio.to_thread

from orchestrator.domain.errors import DiskFull, DriverUnavailable, NestorError, RuntimeNotFound
from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.calls import Calls
from orchestrator.drivers.errors import MAKE_SPACE, NO_SPACE
from orchestrator.drivers.namespaces import Namespaces, NamespacesUnavailable, probe, readable_for
from orchestrator.drivers.process_birth import SYSTEM_PATH, Recipe
from orchestrator.drivers.process_claims import Claim, Claims, TornClaim
from orchestrator.drivers.process_exits import Exits
from orchestrator.drivers.process_files import private_directory
from orchestrator.drivers.process_interpreter import Interpreter, InterpreterUnusable, ask
from orchestrator.drivers.process_lifecycle import Lifecycle
from orchestrator.drivers.process_temporaries import Temporaries
from orchestrator.drivers.process_volumes import Volumes
from orchestrator.drivers.process_zygote import Zygote
from orchestrator.drivers.process_zygote_probe import tried
from orchestrator.drivers.process_zygote_start import installed_files
from orchestrator.drivers.values import (
    Capabilities,
    Dialect,
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
ZygoteOf = Callable[[Path, Interpreter], Zygote]  #: from its folder, and what is known of the interpreter

_OF_RUNTIMES = ("runtimes", "volumes", "tmp")  # the folders in the data folder that are theirs
_UNLIMITED = "The network is the machine's own, and memory, processors and the number of processes are not limited."


class ProcessDriver:
    """See `base.Driver`, `Pausable` and `Spareable`. `folder` is the data folder; several drivers may use it at once.

    `command` is another agent server, with `{host}` and `{port}` in it or else `--host` and `--port` appended; `stock`
    says how that one gets its keys. `namespaces` None takes them where the host allows it, True refuses to run without,
    False does without. `hidden` are paths that a runtime must not see although a folder above them is shown (a master
    key's file). `zygote` makes what forks our own runtimes; it is not used where a forked process could not isolate
    itself as an executed one is. Making a driver blocks for some 100 ms: it asks the interpreter and tries the
    namespaces.
    """

    name = "process"

    def __init__(
        self,
        folder: Path,
        *,
        command: Sequence[str] | None = None,
        stock: Dialect = Dialect.DORMANT,
        python: str = sys.executable,
        namespaces: bool | None = None,
        hidden: Iterable[Path] = (),
        zygote: ZygoteOf | None = None,
    ) -> None:
        hidden = tuple(hidden)
        self._folder = folder.absolute()
        self._command = command
        self._python = python
        self._interpreter, self._interpreter_trouble = _asked(python)
        wanted = namespaces is not False
        found, self._namespace_trouble = self._probe(hidden) if wanted else (None, "")
        self._refused = namespaces is True and found is None
        # A foreign command cannot prove later that it is the one that was started.
        self.capabilities = replace(_capabilities(found), spares=command is None)
        self._zygote, self._zygote_trouble = self._zygote_by(zygote, found, hidden)
        recipe = Recipe(python=python, command=command, namespaces=found, zygote=self._zygote, stock=stock)
        self._claims = Claims(self._folder / "runtimes")
        self._volumes = Volumes(self._folder / "volumes")
        self._lifecycle = Lifecycle(self._claims, self._volumes, recipe, temporaries=Temporaries(self._folder / "tmp"))
        self._exits = Exits()
        self._calls = Calls("the data folder")

    async def fingerprint(self) -> Fingerprint:
        return await self._calls.in_thread(self._fingerprint)

    async def ensure_volume(self, labels: OwnerLabels, *, fence: int) -> bool:
        return await self._in_thread(lambda: self._volumes.ensure(labels, fence=fence), of=volume_of(labels))

    async def remove_volume(self, labels: OwnerLabels, *, fence: int) -> None:
        await self._in_thread(lambda: self._volumes.remove(labels, fence=fence), of=volume_of(labels))

    async def create(self, spec: RuntimeSpec, *, fence: int) -> Handle:
        self._check_usable()
        self.begin()
        return _handle(await self._in_thread(lambda: self._lifecycle.create(spec, fence), of=spec.name))

    async def start(
        self, handle: Handle, *, fence: int, init_key: SecretText, serving: ServingKeys | None = None
    ) -> Endpoint:
        self._check_usable()
        endpoint = await self._in_thread(
            lambda: self._lifecycle.start(handle.name, fence, init_key, serving), of=handle.name
        )
        await self._watch(handle.name)
        return endpoint

    async def inspect(self, handle: Handle) -> Observed:
        return await self._in_thread(lambda: self._lifecycle.inspect(handle.name))

    async def logs(self, handle: Handle, *, lines: int = 20) -> Sequence[str]:
        return await self._in_thread(lambda: self._lifecycle.logs(handle.name, lines))

    async def stop(self, handle: Handle, *, fence: int, grace: float) -> None:
        await self._in_thread(lambda: self._lifecycle.stop(handle.name, fence, grace), of=handle.name)

    async def destroy(self, handle: Handle, *, fence: int) -> None:
        await self._in_thread(lambda: self._lifecycle.destroy(handle.name, fence), of=handle.name)

    async def pause(self, handle: Handle, *, fence: int) -> None:
        await self._in_thread(lambda: self._lifecycle.pause(handle.name, fence), of=handle.name)

    async def unpause(self, handle: Handle, *, fence: int) -> Endpoint:
        return await self._in_thread(lambda: self._lifecycle.unpause(handle.name, fence), of=handle.name)

    async def spare_kind(self, image: str | None) -> str:
        return await self._in_thread(self._program)

    async def find(self, name: str) -> Handle | None:
        try:
            return _handle(await self._in_thread(lambda: self._claims.read(name), of=name))
        except RuntimeNotFound:
            return None

    async def list(self, installation: str) -> Sequence[Handle]:
        claims = await self._in_thread(self._readable_claims)
        return [_handle(claim) for claim in claims if claim.labels.installation == installation]

    async def events(self) -> AsyncIterator[DriverEvent]:
        self.begin()
        for claim in await self._in_thread(self._readable_claims):
            if not await self._watch(claim.name):
                yield DriverEvent(claim.name)  # it ended while nobody listened
        async for hint in self._exits.hints():
            yield hint

    async def close(self) -> None:
        self._exits.close()
        if self._zygote is not None:
            await anyio.to_thread.run_sync(self._zygote.close)

    def _probe(self, hidden: Iterable[Path]) -> tuple[Namespaces | None, str]:
        readable = [] if self._interpreter is None else [*self._interpreter.folders, *self._interpreter.package]
        if self._command is not None:
            readable += readable_for(self._command, SYSTEM_PATH)
        try:
            scratch = private_directory(self._folder)
            return probe(SYSTEM_PATH, readable=readable, hidden=[self._folder, *hidden], scratch=scratch), ""
        except (NamespacesUnavailable, OSError) as exc:
            return None, str(exc)

    def _zygote_by(
        self, make: ZygoteOf | None, namespaces: Namespaces | None, hidden: Sequence[Path]
    ) -> tuple[Zygote | None, str]:
        """The zygote, which is not started yet, or why there is none."""
        if make is None or self._command is not None or self._interpreter is None or not self._interpreter.package:
            return None, "" if make is None else "they run another command than our own runtime"
        zygote = make(self._folder / "zygote", self._interpreter)
        if namespaces is not None and (trouble := tried(zygote.command, namespaces, private_directory(self._folder))):
            zygote.close()
            return None, f"a forked process cannot isolate itself here ({trouble})"
        if namespaces is not None:
            # What runtimes are not to see is no business of the process either in which their libraries are imported.
            shown = [private_directory(self._folder / name) for name in _OF_RUNTIMES]
            folders = [self._folder, *(path for path in hidden if path.is_dir())]
            zygote.cover(folders, files=[path for path in hidden if path.is_file()], keep=shown)
        return zygote, ""

    def begin(self) -> None:
        """Have the zygote started, if there is one; the verbs do it that show that runtimes will be wanted."""
        if self._zygote is not None:
            self._zygote.start()

    def _program(self) -> str:
        """What a runtime would be: the files that it runs, and whether it is isolated."""
        found = self._interpreter
        if found is None:
            return ""
        files = installed_files(found.package, [Path(found.executable), *found.libraries])
        return f"process|{self._python}|{'isolated' if self._isolated else 'plain'}|{files}"

    def _starts(self) -> str:
        """How runtimes begin, for people."""
        if self._zygote is None:
            return f"executed, because {self._zygote_trouble}" if self._zygote_trouble else "executed"
        inside = ", and isolate themselves as bubblewrap isolates those that are executed" if self._isolated else ""
        if self._zygote.standing is not None:
            return f"forked from a zygote{inside}"
        why = f" ({self._zygote.trouble})" if self._zygote.trouble else ""
        return f"executed until the zygote is ready{why}; from then on they are forked from it{inside}"

    @property
    def _isolated(self) -> bool:
        return self.capabilities.isolated

    def _check_usable(self) -> None:
        if self._refused:
            raise DriverUnavailable(
                f"namespaces are required and this host has none: {self._namespace_trouble}",
                hint="allow them, or run without isolation by choice",
            )

    def _fingerprint(self) -> Fingerprint:
        trouble = self._trouble()
        details = {
            "isolation": self.capabilities.isolation,
            "namespaces": self._namespace_trouble or ("yes" if self.capabilities.isolated else "not wanted"),
            "starts": self._starts(),
            "damaged_claims": "" if trouble else " ".join(self._damaged_claims()),
        }
        return Fingerprint(usable=not trouble, message=trouble or self.capabilities.isolation, details=details)

    def _trouble(self) -> str:
        if self._refused:
            return f"namespaces are required and this host has none: {self._namespace_trouble}"
        if self._command is None and self._interpreter is None:
            return self._interpreter_trouble
        if self._command is None and self._interpreter is not None and not self._interpreter.package:
            return f"{self._python} has no package named runtime: run scripts/install"
        try:
            private_directory(self._folder)
        except OSError as exc:
            return f"the data folder {self._folder} cannot be made: {_code(exc)}"
        if not os.access(self._folder, os.W_OK | os.X_OK):
            return f"the data folder {self._folder} is not writable: choose another by NESTOR_DATA_DIR"
        return ""

    def _damaged_claims(self) -> Sequence[str]:
        damaged = []
        for name in self._claims.names():
            try:
                self._claims.read(name)
            except TornClaim:
                damaged.append(name)
            except (RuntimeNotFound, OSError):
                continue  # removed meanwhile, or the folder's trouble, which is told apart
        return damaged

    def _readable_claims(self) -> Sequence[Claim]:
        """Every claim that can be read; folders of creators who died before claiming are removed on the way."""
        found = []
        for name in self._claims.names():
            try:
                found.append(self._claims.read(name))
            except RuntimeNotFound:
                self._claims.remove_if_unclaimed(name)
            except TornClaim:
                continue  # its owner is not known; `fingerprint` names it, and destroying it by name works
        return found

    async def _watch(self, name: str) -> bool:
        """False when it has ended already."""
        try:
            claim = await self._in_thread(lambda: self._claims.read(name))
        except (RuntimeNotFound, TornClaim):
            return True
        return claim.server is None or self._exits.watch(name, claim.server)

    async def _in_thread(self, work: Callable[[], T], *, of: str = "") -> T:
        """Run `work` to its end, also when the caller is cancelled: half a verb would be worse than a late one. `of` as
        for `Calls.run`."""
        try:
            return await self._calls.in_thread(work, of=of)
        except NestorError:
            raise
        except OSError as exc:
            if exc.errno in NO_SPACE:
                raise DiskFull(f"no space is left in the data folder ({_code(exc)})", hint=MAKE_SPACE) from exc
            raise DriverUnavailable(
                f"the data folder cannot be used: {_code(exc)}", hint="check space and permissions of the data folder"
            ) from exc


def own_zygote(folder: Path, interpreter: Interpreter) -> Zygote:
    """The zygote of the runtime that ships."""
    singles = [Path(interpreter.executable), *interpreter.libraries]
    return Zygote(
        folder,
        [interpreter.executable, "-I", "-m", "runtime.zygote"],
        search_path=SYSTEM_PATH,
        files=lambda: installed_files(interpreter.package, singles),
    )


def _code(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def _asked(python: str) -> tuple[Interpreter | None, str]:
    try:
        return ask(python), ""
    except InterpreterUnusable as exc:
        return None, str(exc)


def _handle(claim: Claim) -> Handle:
    return Handle(driver=ProcessDriver.name, name=claim.name, reference=claim.name, labels=claim.labels)


def _capabilities(namespaces: Namespaces | None) -> Capabilities:
    if namespaces is None:
        return Capabilities(
            isolation=(
                "Runtimes are plain processes of this user: an agent can read every file of the user, the data folder "
                f"among them, and can signal its processes. {_UNLIMITED}"
            ),
            isolated=False,
            pause=True,
        )
    return Capabilities(
        isolation=(
            "Each runtime has its own processes, /workspace, /state, /tmp and home, a read-only system, no "
            f"capabilities, and sees neither the data folder nor other runtimes. {_UNLIMITED}"
        ),
        isolated=True,
        pause=True,
    )
