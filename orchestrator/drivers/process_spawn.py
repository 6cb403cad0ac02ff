"""How a runtime's process comes to be: forked by the zygote where that can be had, else executed.

`process_lifecycle.py` calls `spawn` while it holds the runtime's claim. The child waits at a pipe (`process_launch.py`)
until the claim on disk names it, so a crash of ours at any line leaves either no process or one that can be found.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.errors import StartRefused
from orchestrator.drivers.process_birth import (
    LOOPBACK,
    START_SECONDS,
    Birth,
    Born,
    Descriptors,
    Recipe,
    descriptors_for,
    environment_of,
    info_file,
    let_go,
)
from orchestrator.drivers.process_fork import fork
from orchestrator.drivers.process_tree import Process, alive, identify, is_child, send
from orchestrator.drivers.stock_start import shell_words

_LAUNCHER = Path(__file__).with_name("process_launch.py")
_POLL_SECONDS = 0.005


def spawn(recipe: Recipe, birth: Birth, lines: Sequence[SecretText], record: Callable[[Born], None]) -> Born:
    """Start the runtime, which gets its keys as `lines`. `record(born)` must have the claim on disk when it returns;
    only then it runs.

    Raises `StartRefused` when it cannot be started. After any failure the process is killed; a namespace that it may
    have made by then is for the caller to end.
    """
    born = fork(recipe, birth, lines, record)
    return born if born is not None else _execute(recipe, birth, lines, record)


def _execute(recipe: Recipe, birth: Birth, lines: Sequence[SecretText], record: Callable[[Born], None]) -> Born:
    with descriptors_for(
        birth, lines, own_server=recipe.command is None, namespaced=recipe.namespaces is not None
    ) as ends:
        server = _start_launcher(recipe, birth, ends)
        try:
            record(Born(server, None, ends.port))
            _check_program(recipe)
            let_go(ends)
            init = None if ends.info is None else _pid_one(server, birth.folder)
        except BaseException:
            send(server, signal.SIGKILL)
            raise
        return Born(server, init, ends.port)


def _check_program(recipe: Recipe) -> None:
    """Another server's program is executed by a shell, which would only end."""
    if recipe.command is not None and shutil.which(recipe.command[0], path=recipe.search_path) is None:
        raise StartRefused(
            "the runtime's command could not be executed: there is no such program",
            hint="check NESTOR_RUNTIME_COMMAND",
        )


def read_pid_one(folder: Path, server: Process | None) -> Process | None:
    """Pid 1 of the runtime's namespace as bubblewrap reported it, if it did and if that process lives.

    `server` is the bubblewrap process outside, if it is known.
    """
    try:
        report = json.loads(info_file(folder).read_bytes())
        first = identify(int(report["child-pid"]))
        if first is None or (server is not None and is_child(first, server)):
            return first
        # The one outside is dead; by now the number could be any process's, so look whether it has that namespace.
        same = os.stat(f"/proc/{first.pid}/ns/pid").st_ino == int(report["pid-namespace"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return first if same else None


def _start_launcher(recipe: Recipe, birth: Birth, ends: Descriptors) -> Process:
    command, own = _command(recipe, ends), recipe.command is None
    if recipe.namespaces is not None and ends.info is not None:
        command = recipe.namespaces.wrap(command, folders=birth.folders, info_descriptor=ends.info.fileno())
    if recipe.command is not None:
        ends.listener.close()  # the other server binds the port itself; from here on somebody else could take it
    words = [
        str(ends.leave.fileno()),
        str(ends.report.fileno()),
        "plain" if recipe.namespaces is None else "namespaced",
    ]
    try:
        child = subprocess.Popen(
            [recipe.python, "-I", "-S", str(_LAUNCHER), *words, *command],
            env=environment_of(recipe, birth, ends.port),
            cwd="/" if recipe.namespaces is not None else birth.folders.state,
            stdin=subprocess.DEVNULL if own else ends.key,
            stdout=ends.log,
            stderr=ends.log,
            pass_fds=ends.inherited(own_server=own),
            start_new_session=True,
            umask=0o077,
        )
    except OSError as exc:
        raise StartRefused(f"{recipe.python} could not be started", hint="run scripts/install") from exc
    # The process outlives this object and is waited for by number, also by a driver that did not start it; Popen,
    # told nothing, would complain about that when it is collected.
    child.returncode = 0
    server = identify(child.pid)
    if server is None:
        os.waitpid(child.pid, 0)
        raise StartRefused("the runtime's process ended before it began")
    return server


def _command(recipe: Recipe, ends: Descriptors) -> list[str]:
    if recipe.command is None:
        listener, key = str(ends.listener.fileno()), str(ends.key.fileno())
        return [recipe.python, "-I", "-m", "runtime", "--listen-fd", listener, "--boot-key-fd", key]
    command = list(recipe.command)
    if not any("{port}" in word for word in command):
        command += ["--host", "{host}", "--port", "{port}"]
    filled = [word.replace("{host}", LOOPBACK).replace("{port}", str(ends.port)) for word in command]
    return [*shell_words(recipe.dialect), *filled]


def _pid_one(server: Process, folder: Path) -> Process:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if (found := read_pid_one(folder, server)) is not None:
            return found
        if not alive(server):
            break
        time.sleep(_POLL_SECONDS)
    raise StartRefused("the runtime ended as soon as it began", hint="its last lines say why")
