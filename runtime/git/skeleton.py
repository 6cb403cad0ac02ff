"""An empty repository without a git process, where git would make the same one; everywhere else git is asked.

Every new conversation gets a repository, and starting `git init` costs more than all the rest of making one. What git
would make is known when nothing but our own settings has a say in it: then the few files are written here. A user's
configuration that could mean anything else, a program or templates that are not the distribution's, a file system
without modes or links: `make` returns False, and the caller lets git do it. The sample hooks, which git ignores, are
left out.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

_GIT = "/usr/bin/git"
_SYSTEM_CONFIG = "/etc/gitconfig"
_TEMPLATES = Path("/usr/share/git-core/templates")
#: sections that have a say in what `git init` makes, or bring in other files
_WEIGHTY = re.compile(rb"\[\s*(core|extensions|include|includeif|init)\b", re.IGNORECASE)
#: our own settings by environment (`runtime.git.credentials`); of these, the branch's name counts here
_OURS = re.compile(r"(credential|http|protocol|user)\.")
_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_NOT_OURS = re.compile(r"GIT_(?!TERMINAL_PROMPT$|PAGER$|CONFIG_COUNT$|CONFIG_(KEY|VALUE)_\d+$)")

_DIRECTORIES = ("hooks", "info", "objects", "objects/info", "objects/pack", "refs", "refs/heads", "refs/tags")
_CONFIG = b"[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n"


def make(directory: Path, environment: Mapping[str, str]) -> bool:
    """Make `.git` in a directory that has none; False, and nothing is made, where git has to be asked. Raises OSError.

    A half one, of a process that was killed, has no HEAD: git takes it for none and completes it.
    """
    branch = _branch(environment)
    if branch is None or not _is_usual(environment):
        return False
    place = directory / ".git"
    try:
        os.mkdir(place)
    except FileExistsError:
        return False
    try:
        for name in (*_DIRECTORIES, *_more_directories()):
            os.mkdir(place / name)
        if not _keeps_modes_and_links(place):
            shutil.rmtree(place)
            return False
        for name in ("description", "info/exclude"):
            _write(place / name, _template(name))
        _write(place / "HEAD", f"ref: refs/heads/{branch}\n".encode())
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return True


def _branch(environment: Mapping[str, str]) -> str | None:
    """The first branch's name; None when the environment says something else that git would heed."""
    if any(map(_NOT_OURS.match, environment)):
        return None
    branch = None
    for number in range(int(environment.get("GIT_CONFIG_COUNT", "0"))):
        key = environment[f"GIT_CONFIG_KEY_{number}"]
        if key == "init.defaultBranch":
            branch = environment[f"GIT_CONFIG_VALUE_{number}"]
        elif not _OURS.match(key):
            return None
    return branch if branch is not None and _BRANCH.fullmatch(branch) else None


def _is_usual(environment: Mapping[str, str]) -> bool:
    """Whether no file of the machine or its user changes what git makes. Users' files are read each time."""
    home = environment["HOME"]
    of_the_user = (environment.get("XDG_CONFIG_HOME", f"{home}/.config") + "/git/config", f"{home}/.gitconfig")
    return _has_usual_git(environment["PATH"]) and not any(map(_has_say, (_SYSTEM_CONFIG, *of_the_user)))


@functools.cache
def _has_usual_git(path: str) -> bool:
    """Whether git is the distribution's, with its templates. Both are taken to stay while this process lives."""
    found = {str(entry.relative_to(_TEMPLATES)) for entry in _TEMPLATES.rglob("*")}
    usual = {"branches", "description", "hooks", "info", "info/exclude"}
    samples = {name for name in found if re.fullmatch(r"hooks/[^/]+\.sample", name)}
    return shutil.which("git", path=path) == _GIT and found - samples in (usual, usual - {"branches"})


@functools.cache
def _more_directories() -> Sequence[str]:
    """Older releases of git make this one, which nothing uses any more."""
    return ("branches",) if (_TEMPLATES / "branches").is_dir() else ()


def _has_say(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return _WEIGHTY.search(file.read()) is not None
    except FileNotFoundError:
        return False
    except OSError:
        return True  # git will say what is wrong with it


def _keeps_modes_and_links(place: Path) -> bool:
    """Write the configuration and look, as git does, whether it is true of this file system."""
    config = place / "config"
    _write(config, _CONFIG)
    mode = stat.S_IMODE(os.stat(config).st_mode)
    os.chmod(config, mode ^ stat.S_IXUSR)
    keeps = stat.S_IMODE(os.stat(config).st_mode) == mode ^ stat.S_IXUSR
    os.chmod(config, mode)
    link = place / "link"
    try:
        os.symlink("config", link)
        keeps = keeps and link.is_symlink()
        os.unlink(link)
    except OSError:
        return False
    return keeps and not (place / "CoNfIg").exists()


@functools.cache
def _template(name: str) -> bytes:
    return (_TEMPLATES / name).read_bytes()


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)
