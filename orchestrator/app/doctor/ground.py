"""The machine and the data folder."""

import os
import shutil
import stat
from collections.abc import Iterator

from orchestrator.app.choices import master_keys_of
from orchestrator.app.doctor.finding import Finding, Level, from_error
from orchestrator.domain.errors import NestorError
from orchestrator.settings import OrchestratorSettings
from orchestrator.state.embedded import find_server

_LOW_BYTES = 512 * 1024 * 1024
_SHORT_BYTES = 2 * 1024**3


def look(settings: OrchestratorSettings) -> Iterator[Finding]:
    yield from _folder(settings)
    yield _space(settings)
    yield _master_key(settings)
    if settings.redis_url is None:
        yield _server_program()
    if settings.driver == "process":
        yield _bubblewrap(settings)


def _folder(settings: OrchestratorSettings) -> Iterator[Finding]:
    about, folder = "data folder", settings.data_dir
    try:
        found = folder.stat()
    except FileNotFoundError:
        yield Finding(about, Level.WARNING, f"{folder} is not there yet", "the first start makes it")
        return
    except OSError as exc:
        yield Finding(about, Level.FAILURE, f"{folder} cannot be looked at ({exc.strerror})", "mend its owner and mode")
        return
    if not stat.S_ISDIR(found.st_mode):
        yield Finding(about, Level.FAILURE, f"{folder} is no folder", "choose another with NESTOR_DATA_DIR")
    elif not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield Finding(about, Level.FAILURE, f"{folder} cannot be written by this user", "mend its owner and mode")
    elif os.statvfs(folder).f_flag & os.ST_RDONLY:
        yield Finding(about, Level.FAILURE, f"{folder} is on a read-only file system", "mount it writable")
    elif stat.S_IMODE(found.st_mode) & 0o077:
        yield Finding(
            about,
            Level.FAILURE,
            f"{folder} is open to others (mode {stat.S_IMODE(found.st_mode):04o})",
            f"run: chmod 0700 {folder}",
        )
    else:
        yield Finding(about, Level.OK, f"{folder} can be written, and by this user alone")


def _space(settings: OrchestratorSettings) -> Finding:
    about, place = "disk space", settings.data_dir
    while not place.exists():
        place = place.parent
    left = shutil.disk_usage(place).free
    files = os.statvfs(place)
    words = f"{left / 1024**3:.1f} GiB left at {place}"
    if left < _LOW_BYTES or (files.f_files and files.f_favail < 1_000):
        hint = "make space: without it changes are refused, and an embedded state server ends"
        return Finding(about, Level.FAILURE, words if left < _LOW_BYTES else f"no files left at {place}", hint)
    if left < _SHORT_BYTES:
        return Finding(about, Level.WARNING, words, "make space soon")
    return Finding(about, Level.OK, words)


def _master_key(settings: OrchestratorSettings) -> Finding:
    about = "master key"
    default = settings.data_dir / "master.key"
    if settings.master_key is None and settings.master_key_file is None and not default.exists():
        return Finding(about, Level.WARNING, f"{default} is not there yet", "the first start makes it; then back it up")
    try:
        master_keys_of(settings)
    except NestorError as exc:
        return from_error(about, exc)
    if settings.master_key is not None:
        hint = "prefer NESTOR_MASTER_KEY_FILE: an environment can be read by others"
        return Finding(about, Level.WARNING, "it is in the environment", hint)
    return Finding(about, Level.OK, f"{settings.master_key_file or default} can be read, and by this user alone")


def _server_program() -> Finding:
    try:
        return Finding("state server", Level.OK, f"the embedded one is {find_server()}")
    except NestorError as exc:
        return from_error("state server", exc)


def _bubblewrap(settings: OrchestratorSettings) -> Finding:
    found = shutil.which("bwrap")
    if found is not None:
        return Finding("bubblewrap", Level.OK, found)
    level = Level.FAILURE if settings.namespaces else Level.WARNING
    return Finding(
        "bubblewrap", level, "there is none, so runtimes are plain processes of this user", "install bubblewrap"
    )
