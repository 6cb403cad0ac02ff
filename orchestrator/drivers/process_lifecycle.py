"""The life of one runtime as a process: claimed, started, looked at, frozen, ended, removed.

`process.py` calls it in worker threads. Every verb that changes something holds the runtime's folder alone and begins
by storing the caller's fence. It keeps no memory of its own: claim files and the kernel say all there is to know, so
an orchestrator that was just restarted works on the runtimes of the one before it without a word.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.domain.errors import DriverUnavailable, RuntimeNotFound
from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.errors import ClaimTaken, StartRefused
from orchestrator.drivers.namespaces import WORKSPACE, PrivateFolders
from orchestrator.drivers.printed import last_lines
from orchestrator.drivers.process_birth import LOOPBACK, MARK, Birth, Born, Recipe
from orchestrator.drivers.process_claims import Claim, Claims, Ending, TornClaim, digest
from orchestrator.drivers.process_files import private_directory, read_regular, remove_tree
from orchestrator.drivers.process_spawn import read_pid_one, spawn
from orchestrator.drivers.process_temporaries import Temporaries
from orchestrator.drivers.process_tree import (
    Process,
    alive,
    boot_id,
    carrying,
    family,
    freeze,
    kill,
    oldest_child,
    reap,
    send,
    thaw,
    wait_gone,
)
from orchestrator.drivers.process_volumes import Volumes
from orchestrator.drivers.process_zygote import ending_told
from orchestrator.drivers.stock_start import key_lines
from orchestrator.drivers.values import Condition, Endpoint, ExitCause, Observed, RuntimeSpec, ServingKeys

_KILL_SECONDS = 10.0
_LOOK_SECONDS = 0.05
_LOG_TAIL_BYTES = 64 * 1024


class Lifecycle:
    """All runtimes of one data folder. Methods block; OSError means that the folder cannot be used."""

    def __init__(self, claims: Claims, volumes: Volumes, recipe: Recipe, *, temporaries: Temporaries) -> None:
        self._claims = claims
        self._temporaries = temporaries
        self._volumes = volumes
        self._recipe = recipe
        self._boot = boot_id()
        self._reaping = threading.Lock()

    def create(self, spec: RuntimeSpec, fence: int) -> Claim:
        """Claim the name. The same name and spec again: the same claim. Raises `ClaimTaken`."""
        with self._claims.claimed(spec.name):
            try:
                known = self._claims.read(spec.name)
            except RuntimeNotFound:
                claim = Claim(spec.name, digest(spec), spec.labels, dict(spec.environment), fence)
                self._claims.write(claim)
                return claim
            if known.spec_digest != digest(spec):
                raise ClaimTaken(f"runtime {spec.name} exists with another spec", hint="destroy it, or use a new name")
            return self._claims.raise_fence(known, fence)

    def start(self, name: str, fence: int, init_key: SecretText, serving: ServingKeys | None = None) -> Endpoint:
        """Start it, or let it go on if it is frozen. Running already: its endpoint. Raises `StartRefused`."""
        with self._claims.held(name, fence=fence) as claim:
            if self._runs(claim):
                return self._endpoint(self._thaw(claim))
            lines = key_lines(self._recipe.dialect, init_key, serving)
            self._end(claim)  # the server is gone, but something that it started may live
            self._reap(claim)
            try:
                return self._endpoint(self._spawn(claim, lines))
            except StartRefused as exc:
                tail = tuple(self.logs(name, 20))
                raise StartRefused(exc.message, hint=exc.hint, log_tail=tail) from exc

    def inspect(self, name: str) -> Observed:
        """What is there now. Takes no lock, so it answers also while another verb is at work."""
        claim = self._claims.read(name)
        if claim.server is None:
            return Observed(Condition.CREATED, fence=claim.fence)
        if self._runs(claim):
            condition = Condition.RUNNING if claim.frozen is None else Condition.PAUSED
            return Observed(condition, endpoint=self._endpoint(claim), fence=claim.fence)
        ending = self._ending(claim, requested=False)
        return Observed(Condition.EXITED, exit_code=ending.code, cause=_cause(ending), fence=claim.fence)

    def logs(self, name: str, lines: int) -> Sequence[str]:
        """The last lines that the runtime printed, each cut to a readable length."""
        try:
            path = self._claims.folder_of(name) / "runtime.log"
            tail = read_regular(path, limit_bytes=_LOG_TAIL_BYTES, tail=True)
        except FileNotFoundError:
            return ()
        return last_lines(tail, lines, is_whole=len(tail) < _LOG_TAIL_BYTES)

    def stop(self, name: str, fence: int, grace: float) -> None:
        """Ask the server to end, and after `grace` seconds kill it; everything that it started ends in either case."""
        with self._claims.held(name, fence=fence) as claim:
            if claim.server is not None and self._runs(claim):
                self._thaw(claim)  # a frozen server cannot hear
                self._ask(claim, claim.server, grace)
            self._end(claim)
            if claim.server is not None:
                self._ending(claim, requested=True)

    def destroy(self, name: str, fence: int) -> None:
        """Kill everything at once and remove the folder, also one whose claim is damaged. Already gone: fine."""
        with contextlib.suppress(RuntimeNotFound), self._claims.locked(name):
            try:
                claim = self._claims.raise_fence(self._claims.read(name), fence)
                self._end(claim)
                self._reap(claim)
            except (RuntimeNotFound, TornClaim):
                self._end_unknown(name)
            remove_tree(self._temporaries.of(name))
            self._claims.remove(name)

    def pause(self, name: str, fence: int) -> None:
        """Freeze every process of it. Raises `RuntimeNotFound` when none runs."""
        with self._claims.held(name, fence=fence) as claim:
            if not self._runs(claim):
                raise RuntimeNotFound(f"runtime {name} does not run, so it cannot be paused")
            if claim.frozen is None:
                # Before the first signal: a crash from here on leaves a runtime that is known to be (half) frozen.
                self._claims.write(replace(claim, frozen=()))
            find = self._members(claim)
            self._claims.write(replace(claim, frozen=tuple(freeze(find))))

    def unpause(self, name: str, fence: int) -> Endpoint:
        """Let it go on. Raises `RuntimeNotFound` when nothing of it is left."""
        with self._claims.held(name, fence=fence) as claim:
            if not self._runs(claim):
                raise RuntimeNotFound(f"runtime {name} does not run, so it cannot go on")
            return self._endpoint(self._thaw(claim))

    def _spawn(self, claim: Claim, lines: Sequence[SecretText]) -> Claim:
        birth = self._birth(claim)
        fresh = replace(
            claim,
            boot=self._boot,
            server=None,
            init=None,
            namespaced=self._recipe.namespaces is not None,
            dialect=self._recipe.dialect,
            frozen=None,
        )

        def record(born: Born) -> None:
            nonlocal fresh
            zygote = None if born.zygote is None else str(born.zygote)
            fresh = replace(fresh, server=born.server, init=born.init, port=born.port, zygote=zygote)
            if born.zygote is not None:
                self._claims.write_forked(claim.name, born.server, self._boot)
            self._claims.write(fresh)

        try:
            born = spawn(self._recipe, birth, lines, record)
        except BaseException:
            if fresh.server is not None:
                self._end(fresh)
                self._ending(fresh, requested=False)
            raise
        if born.init != fresh.init:
            fresh = replace(fresh, init=born.init)
            self._claims.write(fresh)
        return fresh

    def _endpoint(self, claim: Claim) -> Endpoint:
        volume = None if claim.namespaced else self._volumes.volume_of(claim.labels)
        return Endpoint(LOOPBACK, claim.port, claim.dialect, str(WORKSPACE if volume is None else volume.workspace))

    def _birth(self, claim: Claim) -> Birth:
        volume = self._volumes.volume_of(claim.labels)
        if volume is None:
            raise StartRefused(f"conversation {claim.labels.conversation} has no volume", hint="make the volume first")
        folder = self._claims.folder_of(claim.name)
        folders = PrivateFolders(volume.workspace, volume.state, self._temporaries.of(claim.name), folder / "home")
        for private in (folders.temporary, folders.home):
            remove_tree(private)
            private_directory(private)
        return Birth(claim.name, claim.labels, claim.environment, folder, folders)

    def _runs(self, claim: Claim) -> bool:
        return claim.server is not None and claim.boot == self._boot and alive(claim.server)

    def _pid_one(self, claim: Claim) -> Process | None:
        if claim.boot != self._boot or not claim.namespaced:
            return None
        # A crash may have come between bubblewrap's report and our note of it.
        return claim.init or read_pid_one(self._claims.folder_of(claim.name), claim.server)

    def _members(self, claim: Claim) -> Callable[[], Sequence[Process]]:
        """What finds every process of the runtime, parents first. Pid 1 of a namespace has them all below it."""
        roots = [process for process in (self._pid_one(claim), claim.server) if process is not None]
        if claim.boot != self._boot:
            return tuple
        if self._pid_one(claim) is not None:
            return lambda: family(roots)
        return lambda: family([*roots, *carrying(MARK, claim.name)])

    def _thaw(self, claim: Claim) -> Claim:
        if claim.frozen is None:
            return claim
        find = self._members(claim)
        thaw(claim.frozen or find())  # none noted: the pause was cut short
        running = replace(claim, frozen=None)
        self._claims.write(running)
        return running

    def _ask(self, claim: Claim, server: Process, grace: float) -> None:
        """Send SIGTERM to the server and wait. What it started before it ended is killed here: later it has no parent
        by which it could be found."""
        deadline = time.monotonic() + grace
        find = self._members(claim)
        seen = dict.fromkeys(find())
        asked = False
        while alive(server) and not (asked and time.monotonic() >= deadline):
            target = None if asked else self._addressee(claim)
            if target is not None:
                send(target, signal.SIGTERM)
            # Just begun, a namespace may not hold the server yet; without any time to wait, nobody is asked.
            asked = asked or target is not None or time.monotonic() >= deadline
            wait_gone([server], seconds=min(_LOOK_SECONDS, max(0.0, deadline - time.monotonic())))
            seen.update(dict.fromkeys(find()))
        self._kill(lambda: family(seen), claim.name)

    def _addressee(self, claim: Claim) -> Process | None:
        """Who hears SIGTERM: bubblewrap stands between us and a server in a namespace and does not pass signals on."""
        first = self._pid_one(claim)
        return claim.server if first is None else oldest_child(first)

    def _end(self, claim: Claim) -> None:
        """Kill every process of the runtime, whatever state it is in. Nothing runs: fine."""
        first = self._pid_one(claim)
        if first is not None and alive(first):
            send(first, signal.SIGKILL)  # the kernel kills all others of the namespace with it
            self._wait([first], claim.name)
        self._kill(self._members(claim), claim.name)
        self._kill(lambda: carrying(MARK, claim.name), claim.name)

    def _end_unknown(self, name: str) -> None:
        first = self._claims.forked(name, self._boot) or read_pid_one(self._claims.folder_of(name), None)
        marked = family(carrying(MARK, name))
        if first is not None:
            self._kill(lambda: family([first]), name)
        self._kill(lambda: family(carrying(MARK, name)), name)
        for process in marked:
            reap(process)

    def _kill(self, find: Callable[[], Sequence[Process]], name: str) -> None:
        if kill(find, seconds=_KILL_SECONDS):
            raise DriverUnavailable(f"processes of runtime {name} do not die", hint="look for processes in state D")

    def _wait(self, processes: Sequence[Process], name: str) -> None:
        if wait_gone(processes, seconds=_KILL_SECONDS):
            raise DriverUnavailable(f"processes of runtime {name} do not die", hint="look for processes in state D")

    def _reap(self, claim: Claim) -> None:
        """Leave no zombie of a server whose end nobody will ask about any more. A zygote reaps its own."""
        if claim.server is not None and claim.boot == self._boot and claim.zygote is None:
            with self._reaping:
                reap(claim.server)

    def _ending(self, claim: Claim, *, requested: bool) -> Ending:
        """How the server ended; noted the first time, so that the code outlives the zombie and this orchestrator."""
        if claim.server is None:
            raise AssertionError("a runtime that never ran has no ending")
        with self._reaping:
            known = self._claims.ending(claim)
            if known is not None and (known.requested or not requested):
                return known
            code = known.code if known is not None else self._code(claim, claim.server)
            ending = Ending(claim.server, code, requested)
            self._claims.write_ending(claim.name, ending)
            return ending

    def _code(self, claim: Claim, server: Process) -> int | None:
        if claim.boot != self._boot:
            return None
        return reap(server) if claim.zygote is None else ending_told(Path(claim.zygote), server)


def _cause(ending: Ending) -> ExitCause:
    if ending.requested or ending.code == 0:
        return ExitCause.CLEAN
    return ExitCause.UNKNOWN if ending.code is None else ExitCause.CRASHED
