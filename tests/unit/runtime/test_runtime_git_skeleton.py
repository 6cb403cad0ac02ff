"""The repository that is made without git: git itself says whether it is the one that it would have made."""

import os
import shutil
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from runtime.git import skeleton
from runtime.git.clone import ensure_repository
from runtime.git.credentials import environment as git_environment

Tree = dict[str, tuple[int, bytes]]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What a process of the agent has, with a home that says nothing."""
    home = tmp_path / "home"
    home.mkdir()
    settings = git_environment(tmp_path / "socket", user_name="Somebody", user_email="somebody@nestor.invalid")
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(home), **settings}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    made.mkdir()
    return made


def git(directory: Path, environment: Mapping[str, str], *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(directory), *arguments], env=dict(environment), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


def tree(directory: Path) -> Tree:
    """Mode and content of everything in `.git`, without the samples that git ignores."""
    return {
        str(path.relative_to(directory)): (
            stat.S_IMODE(path.stat().st_mode),
            path.read_bytes() if path.is_file() else b"",
        )
        for path in directory.rglob("*")
        if path.suffix != ".sample"
    }


def git_made(where: Path, environment: Mapping[str, str]) -> Tree:
    where.mkdir()
    git(where, environment, "init", "--quiet")
    return tree(where)


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_it_is_what_git_makes(tmp_path: Path, directory: Path, environment: dict[str, str], umask: int) -> None:
    before = os.umask(umask)
    try:
        assert skeleton.make(directory, environment)
        assert tree(directory) == git_made(tmp_path / "by-git", environment)
    finally:
        os.umask(before)


def test_git_works_in_it(directory: Path, environment: dict[str, str]) -> None:
    assert skeleton.make(directory, environment)
    assert git(directory, environment, "status", "--porcelain=v2", "--branch").startswith("# branch.oid (initial)")
    assert git(directory, environment, "symbolic-ref", "HEAD").strip() == "refs/heads/main"
    (directory / "file").write_text("content")
    git(directory, environment, "add", "file")
    git(directory, environment, "commit", "--quiet", "--message", "first")
    git(directory, environment, "fsck", "--strict", "--no-progress")
    git(directory, environment, "switch", "--quiet", "--create", "other")
    git(directory, environment, "gc", "--quiet")
    assert git(directory, environment, "log", "--format=%an %s").strip() == "Somebody first"
    assert git(directory, environment, "status", "--porcelain") == ""
    before = tree(directory)
    git(directory, environment, "init", "--quiet")  # once more changes nothing
    assert tree(directory) == before


@pytest.mark.skipif(os.getuid() != 0, reason="gives a folder away")
def test_in_a_folder_of_somebody_else_git_refuses_it_as_it_refuses_its_own(
    tmp_path: Path, directory: Path, environment: dict[str, str]
) -> None:
    own = tmp_path / "by-git"
    own.mkdir()
    for folder in (directory, own):
        os.chown(folder, 12345, 12345)
    assert skeleton.make(directory, environment)
    git(own, environment, "init", "--quiet")
    for name in (".git", ".git/HEAD", ".git/refs/heads"):
        made, theirs = (directory / name).stat(), (own / name).stat()
        assert (made.st_uid, made.st_gid) == (theirs.st_uid, theirs.st_gid)

    def said(folder: Path) -> str:
        command = ["git", "-C", str(folder), "status"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        return done.stderr.replace(str(folder), "")

    assert said(directory) == said(own)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (".gitconfig", "[init]\n\ttemplateDir = {there}\n"),
        (".gitconfig", "[Core]\n\tsharedRepository = group\n"),
        (".gitconfig", "[user]\n\tname = x\n[include]\n\tpath = other\n"),
        (".gitconfig", '[includeIf "gitdir:/"]\n\tpath = other\n'),
        (".config/git/config", "[init]\n\tdefaultObjectFormat = sha256\n"),
    ],
)
def test_what_the_user_configured_is_left_to_git(
    tmp_path: Path, directory: Path, environment: dict[str, str], name: str, content: str
) -> None:
    there = tmp_path / "template"
    (there / "hooks").mkdir(parents=True)
    (there / "hooks" / "pre-commit").write_text("#!/bin/sh\n")
    config = Path(environment["HOME"], name)
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(content.format(there=there))
    (config.parent / "other").write_text("[core]\n\tsharedRepository = group\n")
    assert not skeleton.make(directory, environment)
    assert not (directory / ".git").exists()
    ensure_repository(directory, environment)
    assert tree(directory) == git_made(tmp_path / "by-git", environment)


def test_a_harmless_configuration_is_not(directory: Path, environment: dict[str, str]) -> None:
    Path(environment["HOME"], ".gitconfig").write_text(
        "[user]\n\tname = x\n[alias]\n\tst = status\n[push]\n\tdefault = current\n"
    )
    assert skeleton.make(directory, environment)


@pytest.mark.parametrize(
    "variables",
    [
        {"GIT_TEMPLATE_DIR": "/somewhere"},
        {"GIT_DEFAULT_HASH": "sha256"},
        {"GIT_DIR": "/somewhere"},
        {"GIT_CONFIG_GLOBAL": "/dev/null"},
        {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.sharedRepository", "GIT_CONFIG_VALUE_0": "group"},
        {"GIT_CONFIG_COUNT": "0"},
        {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "init.defaultBranch", "GIT_CONFIG_VALUE_0": "a..b"},
        {"PATH": "/nowhere"},
    ],
)
def test_what_the_environment_says_is_left_to_git(
    directory: Path, environment: dict[str, str], variables: dict[str, str]
) -> None:
    assert not skeleton.make(directory, {**environment, **variables})
    assert not (directory / ".git").exists()


def test_another_git_than_the_distributions_is_asked(
    tmp_path: Path, directory: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "bin").mkdir()
    own = tmp_path / "bin" / "git"
    own.write_text('#!/bin/sh\necho "$@" > "$HOME/asked"\nexec /usr/bin/git "$@"\n')
    own.chmod(0o755)
    ensure_repository(directory, {**environment, "PATH": f"{own.parent}:{environment['PATH']}"})
    assert "init" in Path(environment["HOME"], "asked").read_text()


def test_a_file_system_without_links_is_left_to_git(
    directory: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "symlink", refused)
    assert not skeleton.make(directory, environment)
    assert not (directory / ".git").exists()


def test_what_is_there_is_left_alone(directory: Path, environment: dict[str, str]) -> None:
    (directory / ".git").symlink_to("nowhere")
    assert not skeleton.make(directory, environment)
    assert (directory / ".git").is_symlink()


@pytest.mark.parametrize("left", [[], ["objects"], ["objects", "refs", "config"]])
def test_what_a_killed_process_left_is_completed(directory: Path, environment: dict[str, str], left: list[str]) -> None:
    assert skeleton.make(directory, environment)
    (directory / ".git" / "HEAD").unlink()
    for path in (directory / ".git").iterdir():
        if path.name not in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    ensure_repository(directory, environment)
    assert git(directory, environment, "status", "--porcelain=v2", "--branch").endswith("# branch.head main\n")


def test_a_directory_in_a_repository_gets_none(directory: Path, environment: dict[str, str]) -> None:
    git(directory, environment, "init", "--quiet")
    inner = directory / "inner"
    inner.mkdir()
    ensure_repository(inner, environment)
    assert list(inner.iterdir()) == []


def test_an_unwritable_place_is_an_error_and_leaves_nothing(
    directory: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def full(descriptor: int, content: bytes) -> int:
        if content.startswith(b"ref:"):
            raise OSError(28, "No space left on device")
        return write(descriptor, content)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        skeleton.make(directory, environment)
    assert not (directory / ".git").exists()
