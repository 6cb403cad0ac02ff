"""A git working tree of its own for a conversation: made on a branch of its own, removed without losing work.

`make` leaves the repository as it is but for a new branch; `remove` keeps on a branch what nobody committed, and keeps
the folder when it cannot. What git ignores counts as made again easily, and goes. Blocking: call these in a thread.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, model_validator

from runtime.machine.safe_git import GitFailed, filters_off, line_of, names_in, safe_git
from runtime.store.files import private_directory

log = structlog.get_logger()

#: where `default_branch` is looked for, the first that exists
_DEFAULTS = ("origin/HEAD", "origin/main", "origin/master", "refs/heads/main", "refs/heads/master", "HEAD")
_NO_OBJECT = "0" * 40
_GITLINK = b"160000 "
_LARGEST_SUFFIX = 100


class WorktreeRefused(Exception):
    """The working tree cannot be made; the text says why."""


class WorktreeOptions(BaseModel):
    """What the branch begins at, and how its name begins."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    base: Literal["default_branch", "head", "ref"] = "default_branch"
    ref: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=250)
    branch_prefix: str = Field(default="openhands/", pattern=r"^([A-Za-z0-9][A-Za-z0-9._/-]*)?$", max_length=200)

    @model_validator(mode="after")
    def _named(self) -> WorktreeOptions:
        if self.base == "ref" and self.ref is None:
            raise ValueError("base `ref` needs `ref`")
        return self


class Worktree(BaseModel):
    """One that was made. `repository` is its git directory, `base` the commit that its branch began at."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    repository: str
    path: str
    branch: str
    base: str


def make(
    directory: Path, *, name: str, root: Path, options: WorktreeOptions, environment: Mapping[str, str]
) -> tuple[Worktree, Path]:
    """A working tree of the repository around `directory`, below `root`/`name`; and what `directory` is in it.

    Raises WorktreeRefused; then nothing is left.
    """
    if not directory.is_dir():
        raise WorktreeRefused(f"{directory} is in no git repository: it does not exist")
    try:
        top, common = _places(directory, environment)
    except GitFailed:
        raise WorktreeRefused(f"{directory} is in no git repository") from None
    try:
        base = _start(top, options, environment)
        branch = _free_branch(top, options.branch_prefix + name, environment)
        path = _free_folder(root / name, top.name)
        wanted = ("worktree", "add", "--quiet", "--no-track", "-b", branch, "--", str(path), base)
        safe_git(top, environment, *filters_off(top, environment), *wanted)
    except GitFailed as error:
        raise WorktreeRefused(f"git cannot make a working tree: {error}") from error
    except OSError as error:
        raise WorktreeRefused(f"no working tree can be made below {root}: {error.strerror}") from error
    made = Worktree(repository=str(common), path=str(path), branch=branch, base=base)
    return made, path / directory.resolve().relative_to(top)


def remove(made: Worktree, environment: Mapping[str, str]) -> None:
    """Remove the working tree, and its branch when nothing was done on it. What was not committed becomes a commit on
    the branch `<branch>-uncommitted`. When that fails, everything stays where it is, and the log says so. Idempotent.
    """
    path, repository = Path(made.path), Path(made.repository)
    try:
        if path.is_dir():
            _save(made, path, environment)
            safe_git(repository, environment, *filters_off(repository, environment), *_REMOVE, str(path))
        elif not repository.is_dir():
            return
        safe_git(repository, environment, "worktree", "prune")
        with suppress(GitFailed):  # it moved on, or was removed: not ours any more
            safe_git(repository, environment, "update-ref", "-d", f"refs/heads/{made.branch}", made.base)
    except (GitFailed, OSError) as error:
        log.warning("worktree.kept", path=made.path, branch=made.branch, reason=str(error)[:300])
        return
    with suppress(OSError):
        path.parent.rmdir()


_REMOVE: Sequence[str] = ("worktree", "remove", "--force", "--")


def _places(directory: Path, environment: Mapping[str, str]) -> tuple[Path, Path]:
    """The top of the working tree, and the repository's own directory, which all its working trees share."""
    top = Path(line_of(safe_git(directory, environment, "rev-parse", "--show-toplevel")))
    common = safe_git(directory, environment, "rev-parse", "--path-format=absolute", "--git-common-dir")
    return top.resolve(), Path(line_of(common))


def _start(top: Path, options: WorktreeOptions, environment: Mapping[str, str]) -> str:
    wanted: Sequence[str]
    match options.base:
        case "head":
            wanted = ("HEAD",)
        case "ref":
            wanted = (options.ref or "", f"origin/{options.ref}")
        case _:
            wanted = _DEFAULTS
    for ref in wanted:
        with suppress(GitFailed):
            question = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
            return line_of(safe_git(top, environment, *question))
    if options.base == "ref":
        raise WorktreeRefused(f"worktree_options.ref: there is no commit {options.ref!r} in {top}")
    raise WorktreeRefused(f"{top} has no commit yet that a working tree could begin at")


def _free_branch(top: Path, branch: str, environment: Mapping[str, str]) -> str:
    try:
        safe_git(top, environment, "check-ref-format", f"refs/heads/{branch}")
    except GitFailed:
        raise WorktreeRefused(f"worktree_options.branch_prefix: {branch!r} cannot be the name of a branch") from None
    if _tip(top, branch, environment) is not None:
        raise WorktreeRefused(f"the branch {branch} exists already")
    return branch


def _tip(place: Path, branch: str, environment: Mapping[str, str]) -> str | None:
    try:
        return line_of(safe_git(place, environment, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}"))
    except GitFailed:
        return None


def _free_folder(parent: Path, name: str) -> Path:
    private_directory(parent.parent)
    if parent.parent.stat().st_uid not in (os.geteuid(), 0):
        raise WorktreeRefused(f"{parent.parent} belongs to another user")
    path = private_directory(parent) / (re.sub(r"[^A-Za-z0-9._-]", "-", name) or "tree")
    if path.exists():
        raise WorktreeRefused(f"{path} exists already")
    return path


def _save(made: Worktree, path: Path, environment: Mapping[str, str]) -> None:
    """Put on a branch what is on none. Raises GitFailed when something would be lost all the same."""
    top, common = _places(path, environment)
    if top != path.resolve() or common.resolve() != Path(made.repository).resolve():
        raise GitFailed("the folder is no working tree of the repository any more")
    head = line_of(safe_git(path, environment, "rev-parse", "HEAD"))
    changed = safe_git(path, environment, *filters_off(path, environment), "status", "--porcelain", "-z", "-uall")
    tip = _commit_all(path, head, environment) if changed else head
    on_branch = safe_git(path, environment, "for-each-ref", "--count=1", f"--contains={tip}", "refs/heads")
    if on_branch:
        return
    for number in range(1, _LARGEST_SUFFIX):
        name = f"{made.branch}-uncommitted" + (f"-{number}" if number > 1 else "")
        if _tip(path, name, environment) is None:
            safe_git(path, environment, "update-ref", f"refs/heads/{name}", tip, _NO_OBJECT)
            log.info("worktree.work_kept", branch=name)
            return
    raise GitFailed("no name is free for a branch with what was not committed")


def _commit_all(path: Path, head: str, environment: Mapping[str, str]) -> str:
    """A commit of all that lies there, in an index aside and with no program of the repository."""
    with tempfile.TemporaryDirectory(prefix="nestor-index-") as aside:
        apart = {**environment, "GIT_INDEX_FILE": str(Path(aside, "index"))}
        # Every one of these may look at files again, not only `add`.
        off = filters_off(path, environment)
        safe_git(path, apart, *off, "read-tree", head)
        safe_git(path, apart, *off, "-c", "advice.addEmbeddedRepo=false", "add", "--all", "--", ".")
        for entry in names_in(safe_git(path, apart, *off, "ls-files", "--stage", "-z")):
            mode, _, name = entry.partition("\t")
            if mode.encode().startswith(_GITLINK) and (path / name / ".git").exists():
                raise GitFailed(f"it holds another repository: {name}")
        tree = line_of(safe_git(path, apart, *off, "write-tree"))
        words = ("commit-tree", "-p", head, "-m", "Work that was not committed when its conversation was deleted", tree)
        return line_of(safe_git(path, apart, *words))
