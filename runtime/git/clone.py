"""Makes a repository's clone, and an empty repository where there is none, before an agent starts.

Called while a conversation is created. Runs the git program in a thread with a deadline; its errors are classified from
what it says, and what it says never holds a token, because git never has it in a URL.
"""

from __future__ import annotations

import enum
import errno
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from runtime.git import skeleton
from runtime.git.remotes import Remote
from runtime.machine import account

CLONE_SECONDS = 120.0
_LOCAL_SECONDS = 20.0
_REFUSALS = (
    "authentication failed",
    "could not read username",
    "could not read password",
    "terminal prompts disabled",
    "error: 403",
    "error: 401",
    "invalid username or password",
    "access denied",
)
_FOREIGN = "dubious ownership"


class CloneFailure(enum.StrEnum):
    """Why a clone failed, as far as git tells."""

    REFUSED = "refused"  #: the host wants another credential, or hides the repository from this one
    UNAVAILABLE = "unavailable"  #: no such repository or branch, host not reachable, deadline
    FOREIGN = "foreign"  #: a repository that is there belongs to another user than the one git runs as


class CloneFailed(Exception):
    """The repository could not be cloned; the text is git's last line, without credentials."""

    def __init__(self, failure: CloneFailure, message: str) -> None:
        super().__init__(message)
        self.failure = failure


async def clone(remote: Remote, *, branch: str | None, target: Path, environment: Mapping[str, str]) -> None:
    """Clone into `target`, which is left alone when it is a repository already. Raises CloneFailed.

    After a failure nothing of a new clone is left.
    """
    await account.in_thread(_clone, remote, branch, target, environment)


def _clone(remote: Remote, branch: str | None, target: Path, environment: Mapping[str, str]) -> None:
    if (target / ".git").exists():
        _check_same(remote, target, environment)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".clone-", dir=target.parent))
    command = ["git", "clone", "--quiet"]
    if branch is not None:
        command.append(f"--branch={branch}")
    try:
        _run([*command, "--", remote.url, str(unfinished)], environment, CLONE_SECONDS)
        unfinished.chmod(0o755)
        # Only a whole clone gets the name, so that nobody takes a half one for it.
        os.rename(unfinished, target)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise CloneFailed(CloneFailure.UNAVAILABLE, f"{target} is in the way: {error.strerror}") from error
    except CloneFailed:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _check_same(remote: Remote, target: Path, environment: Mapping[str, str]) -> None:
    said = _run(["git", "-C", str(target), "config", "--get", "remote.origin.url"], environment, _LOCAL_SECONDS)
    if said.strip() != remote.url:
        raise CloneFailed(CloneFailure.UNAVAILABLE, f"{target} is a clone of another repository")


def ensure_repository(directory: Path, environment: Mapping[str, str]) -> None:
    """Make an empty repository in the directory when it is in none. Raises CloneFailed, and PermissionError for one
    that is in another user's. Blocks."""
    if _may_be_in_one(directory):  # a look costs less than asking git, and most new directories are in none
        try:
            _run(["git", "-C", str(directory), "rev-parse", "--git-dir"], environment, _LOCAL_SECONDS)
        except CloneFailed as error:
            if error.failure is CloneFailure.FOREIGN:  # made anew, it would stay another user's
                raise PermissionError(errno.EPERM, "the repository in it is closed") from error
        else:
            return
    elif skeleton.make(directory, environment):
        return
    _run(["git", "-C", str(directory), "init", "--quiet"], environment, _LOCAL_SECONDS)


def _may_be_in_one(directory: Path) -> bool:
    """Whether this or a directory above has what git looks for: `.git`, or the parts of a bare repository."""
    resolved = directory.resolve()
    return any((place / ".git").exists() or (place / "HEAD").exists() for place in (resolved, *resolved.parents))


def _run(command: list[str], environment: Mapping[str, str], seconds: float) -> str:
    """Run git to its end or its deadline and return its output; no descriptor of ours is inherited."""
    process: subprocess.Popen[bytes] = subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        close_fds=True,
        start_new_session=True,
        **account.owner(),
    )
    try:
        output, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise CloneFailed(CloneFailure.UNAVAILABLE, f"git did not finish within {seconds:.0f} seconds") from None
    if process.returncode != 0:
        text = said.decode(errors="replace").strip()
        last = text.rpartition("\n")[2] or f"git ended with status {process.returncode}"
        raise CloneFailed(_failure(text.lower()), last)
    return output.decode(errors="replace")


def _failure(said: str) -> CloneFailure:
    if _FOREIGN in said:
        return CloneFailure.FOREIGN
    return CloneFailure.REFUSED if any(mark in said for mark in _REFUSALS) else CloneFailure.UNAVAILABLE
