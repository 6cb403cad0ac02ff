"""What changed in a repository, for callers with the runtime's key (contract 7.3). Real git, told to run nothing.

`safe_git` is how git is run. Blocking: call these in a thread.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.machine.safe_git import GitFailed, filters_off, line_of, names_in, safe_git

_LARGEST_FILE = 1 << 20
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./@{}^~-]{0,250}")
_SHA = re.compile(r"[0-9a-fA-F]{4,64}")
_STATUS = {"A": "ADDED", "M": "UPDATED", "T": "UPDATED", "U": "UPDATED", "D": "DELETED"}


@dataclass(frozen=True)
class Repository:
    """The working tree that holds a path."""

    root: Path
    environment: Mapping[str, str]
    filters: Sequence[str]

    @classmethod
    def around(cls, path: Path, environment: Mapping[str, str]) -> Repository:
        """Raises GitFailed when the path is in none."""
        folder = path if os.path.isdir(path) else path.parent  # what may not be looked at is no folder either
        if not os.path.isdir(folder):
            raise GitFailed("Path not found")
        try:
            root = safe_git(folder, environment, "rev-parse", "--show-toplevel")
        except GitFailed:
            raise GitFailed("Path is not in a git repository") from None
        return cls(Path(os.fsdecode(root.rstrip(b"\n"))), environment, filters_off(folder, environment))

    def base(self, ref: str | None) -> str:
        """What to compare with: `ref`, else where the work left the default branch of origin, else the last commit."""
        if ref is not None:
            return self._commit(ref)
        for start in ("origin/HEAD", "origin/main", "origin/master"):
            try:
                return self._line("merge-base", "HEAD", start)
            except GitFailed:
                continue
        return self._commit("HEAD")

    def changes(self, folder: Path, ref: str | None) -> list[dict[str, str]]:
        """Changed, new and removed files below the folder, paths relative to it; a rename is both of the last two."""
        base = self.base(ref)
        tracked = self._git(*_DIFF, "--name-status", "-z", "--relative", base, "--", ".", folder=folder)
        new = safe_git(folder, self.environment, "ls-files", "--others", "--exclude-standard", "-z", "--", ".")
        found = dict(_pairs(tracked))
        found |= {name: "ADDED" for name in names_in(new) if found.get(name) != "UPDATED"}
        return [{"status": status, "path": name} for name, status in sorted(found.items())]

    def diff(self, path: Path, ref: str | None) -> dict[str, str | None]:
        """One file before and after; null where it did not or does not exist."""
        relative = os.path.relpath(path.parent.resolve() / path.name, self.root)
        try:
            original = safe_git(self.root, self.environment, "show", "--no-textconv", f"{self.base(ref)}:{relative}")
        except GitFailed:
            original = None
        modified = _content(path)
        if original is None and modified is None:
            raise GitFailed("File not found, now or before")
        return {"modified": _text(modified), "original": _text(original)}

    def commits(self, limit: int) -> dict[str, object]:
        """The last ones, newest first."""
        shape = "%H%x00%h%x00%s%x00%an%x00%cI%x1e"
        try:
            said = safe_git(self.root, self.environment, "log", f"--max-count={limit + 1}", f"--format={shape}", "HEAD")
        except GitFailed:
            return {"commits": [], "has_more": False}  # there is none yet
        rows = [row.strip(b"\n").split(b"\0") for row in said.split(b"\x1e") if row.strip()]
        names = ("sha", "short_sha", "subject", "author", "timestamp")
        found = [dict(zip(names, (field.decode(errors="replace") for field in row), strict=True)) for row in rows]
        return {"commits": found[:limit], "has_more": len(found) > limit}

    def commit_changes(self, sha: str) -> list[dict[str, str]]:
        """What one commit changed against its first parent."""
        if not _SHA.fullmatch(sha):
            raise GitFailed("Not a commit id")
        commit = self._commit(sha)
        try:
            before = self._commit(f"{commit}^1")
        except GitFailed:
            before = self._empty_tree()
        said = safe_git(self.root, self.environment, *_DIFF, "--name-status", "-z", before, commit)
        return [{"status": status, "path": name} for name, status in sorted(_pairs(said))]

    def patch(self, ref: str | None, *, without: Sequence[Path] = ()) -> bytes:
        """Everything that is not in the base as one patch, new files included. Nothing is staged.

        What is below the folders `without` is left out, whatever the repository says is its working tree.
        """
        root = self.root.resolve()
        if any(root == folder or folder in root.parents for folder in without):
            raise GitFailed("The repository's files belong to the runtime itself")
        inner = [folder.relative_to(root) for folder in without if root in folder.parents]
        base = self.base(ref)
        with tempfile.TemporaryDirectory(prefix="nestor-index-") as aside:
            environment = {**self.environment, "GIT_INDEX_FILE": str(Path(aside, "index"))}
            self._git("read-tree", base, environment=environment)
            excluded = [f":(exclude,top,literal){folder}" for folder in inner]
            self._git("add", "--all", "--", ".", *excluded, environment=environment)
            return self._git(*_DIFF, "--binary", "--cached", base, environment=environment)

    def _commit(self, ref: str) -> str:
        if not _REF.fullmatch(ref):
            raise GitFailed(f"{ref[:80]!r} is not a ref")
        try:
            return self._line("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        except GitFailed:
            if ref == "HEAD":
                return self._empty_tree()
            raise GitFailed(f"There is no commit {ref[:80]!r}") from None

    def _empty_tree(self) -> str:
        return self._line("hash-object", "-t", "tree", "/dev/null")

    def _line(self, *arguments: str) -> str:
        return line_of(safe_git(self.root, self.environment, *arguments))

    def _git(self, *arguments: str, folder: Path | None = None, environment: Mapping[str, str] | None = None) -> bytes:
        """With the repository's filters off: for what reads files of the working tree."""
        return safe_git(folder or self.root, environment or self.environment, *self.filters, *arguments)


_DIFF: Sequence[str] = (
    *("diff", "--no-ext-diff", "--no-textconv", "--no-renames", "--no-color"),
    "--ignore-submodules=dirty",
)


def _pairs(output: bytes) -> list[tuple[str, str]]:
    """Name and status of each changed file."""
    words = names_in(output)
    return [(name, _STATUS.get(letter[:1], "UPDATED")) for letter, name in zip(words[::2], words[1::2], strict=True)]


def _content(path: Path) -> bytes | None:
    try:
        if path.is_symlink():
            return os.fsencode(os.readlink(path))
        if not path.is_file():
            return None
        if path.stat().st_size > _LARGEST_FILE:
            raise GitFailed("File is larger than 1 MiB")
        return path.read_bytes()
    except OSError as error:
        raise GitFailed(f"File cannot be read: {error.strerror}") from None


def _text(content: bytes | None) -> str | None:
    if content is None:
        return None
    if len(content) > _LARGEST_FILE:
        raise GitFailed("File is larger than 1 MiB")
    return content.decode(errors="replace").removesuffix("\n")
