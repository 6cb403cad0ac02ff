"""One zygote: found again by its folder, or executed, and what tells whether it has imported what is installed now.

`process_zygote.py` decides when. The note in the folder names the process by its number, its start and the machine's
boot, so that whoever comes after a crash finds it, and never takes another process for it.
"""

import contextlib
import hashlib
import json
import os
import secrets
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.drivers.process_files import folder_lock, private_directory, read_regular, write_atomic
from orchestrator.drivers.process_tree import Process, alive, boot_id, identify
from orchestrator.drivers.process_zygote_wire import ZygoteGone, ask, connect, listen

_RECORD = "current.json"
_LOCK_SECONDS = 30.0
_ASK_SECONDS = 5.0
#: A child writes the mark of its runtime there, so that it is found by it like a process that was executed.
_ROOM = "-" * 192


@dataclass(frozen=True)
class Standing:
    """A zygote that answers, and the files that it has imported."""

    process: Process
    socket: Path
    files: str


def begun(
    folder: Path, command: Sequence[str], *, search_path: str, files: str
) -> tuple[Standing, subprocess.Popen[bytes] | None]:
    """The zygote that runs there, or else a new one, which then is a child of ours.

    One that has imported other files is told to fork no more. Raises OSError, `DriverUnavailable`, ZygoteGone.
    """
    private_directory(folder)
    with folder_lock(folder, deadline_seconds=_LOCK_SECONDS):
        found = _noted(folder)
        if found is not None and found.files == files:
            return found, None
        if found is not None:
            with contextlib.suppress(ZygoteGone):
                ask(found.socket, "retire", {}, seconds=_ASK_SECONDS)
        _sweep(folder)
        return _execute(folder, command, search_path, files)


def _noted(folder: Path) -> Standing | None:
    """The zygote of an earlier orchestrator, or of another one on this folder, if it lives."""
    try:
        fields = json.loads(read_regular(folder / _RECORD, limit_bytes=4096))
        process = Process(int(fields["pid"]), int(fields["started"]))
        if fields["boot"] != boot_id() or not alive(process):
            return None
        return Standing(process, folder / str(fields["socket"]), str(fields["files"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _sweep(folder: Path) -> None:
    """Remove sockets on which nobody listens any more."""
    for path in folder.glob("*.sock"):
        try:
            connect(path, seconds=_ASK_SECONDS).close()
        except ZygoteGone:
            path.unlink(missing_ok=True)


def _execute(
    folder: Path, command: Sequence[str], search_path: str, files: str
) -> tuple[Standing, subprocess.Popen[bytes]]:
    name = folder / f"{secrets.token_hex(6)}.sock"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with listen(name) as listener, open(os.open(folder / "zygote.log", flags, 0o600), "wb") as output:
        child = subprocess.Popen(
            [*command, "--socket-fd", str(listener.fileno()), "--folder", str(folder)],
            env={
                "PATH": search_path,
                "HOME": "/",
                "LANG": "C.UTF-8",
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "NESTOR_ROOM": _ROOM,
            },
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[listener.fileno()],
            start_new_session=True,
            umask=0o077,
        )
    try:
        process = identify(child.pid)
        if process is None:
            raise ZygoteGone("it ended before it began; its log is zygote/zygote.log in the data folder")
        fields = {**asdict(process), "boot": boot_id(), "socket": name.name, "files": files}
        write_atomic(folder / _RECORD, json.dumps(fields).encode())
    except BaseException:
        child.kill()
        child.wait()
        raise
    return Standing(process, name, files), child


def forget(folder: Path, standing: Standing) -> None:
    """Have the next one executed, although this one still lives."""
    with folder_lock(folder, deadline_seconds=_LOCK_SECONDS):
        if _noted(folder) == standing:
            (folder / _RECORD).unlink()


def installed_files(folders: Sequence[Path], single: Sequence[Path]) -> str:
    """A text that is another one when a file of these folders, or one of the single paths, was changed."""
    facts: list[tuple[str, int, int]] = []
    for folder in folders:
        for above, _, names in os.walk(folder):
            paths = [os.path.join(above, name) for name in names if name.endswith((".py", ".txt"))]
            facts += [fact for path in paths if (fact := _fact(path)) is not None]
    facts += [fact for path in single if (fact := _fact(str(path))) is not None]
    return hashlib.sha256(repr(sorted(facts)).encode()).hexdigest()  # the same in every process, unlike `hash`


def _fact(path: str) -> tuple[str, int, int] | None:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return path, facts.st_size, facts.st_mtime_ns
