"""Conversations in git working trees of their own: made, shared with children, removed without losing work."""

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from orchestrator.demo.model_server import ScriptedModel
from tests.support.runtimes import Runtime, runtime_at, terminal

pytestmark = pytest.mark.anyio


@pytest.fixture
async def runtime(tmp_path: Path, model: ScriptedModel) -> AsyncIterator[Runtime]:
    async with runtime_at(tmp_path, model.base_url, conversation_worktree_root=tmp_path / "trees") as made:
        yield made


def git(folder: Path, *words: str) -> str:
    named = ("-c", "user.name=T", "-c", "user.email=t@example.invalid")
    quiet = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    said = subprocess.run(
        ["git", *named, "-C", str(folder), *words], capture_output=True, text=True, check=True, env=quiet
    )
    return said.stdout.strip()


def commit(folder: Path, name: str, text: str = "x\n") -> str:
    (folder / name).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "-q", "-m", name)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Where `runtime.body()` works, with a commit on main and one more on the branch that is checked out."""
    folder = tmp_path / "work"
    (folder / "sub").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "sub" / "inner").write_text("x\n")
    commit(folder, "first")
    git(folder, "checkout", "-q", "-b", "feature")
    commit(folder, "second")
    return folder


async def started(runtime: Runtime, **more: Any) -> tuple[str, Path]:
    body = {**runtime.body(worktree=True), **more}
    answer = await runtime.http.post("/api/conversations", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"], Path(answer.json()["workspace"]["working_dir"])


async def refused(runtime: Runtime, **more: Any) -> str:
    answer = await runtime.http.post("/api/conversations", json={**runtime.body(worktree=True), **more})
    assert answer.status_code == 422, answer.text
    assert (await runtime.http.get("/api/conversations/count")).json() == 0
    detail = answer.json()["detail"]
    return detail if isinstance(detail, str) else str(detail[0]["loc"])


async def delete(runtime: Runtime, id: str) -> None:
    assert (await runtime.http.delete(f"/api/conversations/{id}")).status_code == 200


def branches(repository: Path) -> list[str]:
    return git(repository, "for-each-ref", "--format=%(refname:short)", "refs/heads").splitlines()


def trees(runtime: Runtime) -> list[Path]:
    root = runtime.folder / "trees"
    return list(root.iterdir()) if root.is_dir() else []


async def test_the_agent_works_in_a_tree_of_its_own(runtime: Runtime, repository: Path) -> None:
    id, place = await started(runtime)
    assert place == runtime.folder / "trees" / id.replace("-", "") / "work"
    assert (place / "first").exists()
    assert not (place / "second").exists(), "it begins at the default branch"
    await runtime.say(id, [terminal("echo mine > mine; git branch --show-current"), {"text": "done"}])
    await runtime.finish(id)
    assert (await runtime.outputs(id))[-1] == f"openhands/{id.replace('-', '')}"
    assert (place / "mine").read_text() == "mine\n"
    assert not (repository / "mine").exists()
    assert git(repository, "branch", "--show-current") == "feature"
    changes = await runtime.http.get(f"/api/conversations/{id}/git/changes", params={"path": str(place)})
    assert changes.json() == [{"status": "ADDED", "path": "mine"}]


async def test_where_it_begins_can_be_said(runtime: Runtime, repository: Path) -> None:
    tag = git(repository, "rev-parse", "main")
    git(repository, "tag", "v1", tag)
    for options, second in (({"base": "head"}, True), ({"base": "ref", "ref": "v1"}, False), ({}, False)):
        id, place = await started(runtime, worktree_options={**options, "branch_prefix": "nestor-"})
        assert (place / "second").exists() is second, options
        assert f"nestor-{id.replace('-', '')}" in branches(repository)
    _, place = await started(runtime, workspace={"working_dir": str(repository / "sub")})
    assert (place.name, (place / "inner").exists()) == ("sub", True), "the same place in the other tree"


async def test_what_cannot_be_is_refused_and_leaves_nothing(runtime: Runtime, repository: Path, tmp_path: Path) -> None:
    before = branches(repository)
    assert "no git repository" in await refused(runtime, workspace={"working_dir": str(tmp_path / "nowhere")})
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "plain").mkdir()
    assert "no git repository" in await refused(runtime, workspace={"working_dir": str(tmp_path / "plain")})
    assert not (tmp_path / "plain" / ".git").exists()
    assert "no commit 'nope'" in await refused(runtime, worktree_options={"base": "ref", "ref": "nope"})
    assert "worktree_options" in await refused(runtime, worktree_options={"base": "ref"})
    assert "worktree_options" in await refused(runtime, worktree_options={"base": "ref", "ref": "--all"})
    assert "worktree_options" in await refused(runtime, worktree_options={"base": "tag"})
    assert "worktree_options" in await refused(runtime, worktree_options={"more": 1})
    assert "worktree_options" in await refused(runtime, worktree_options={"branch_prefix": "-x"})
    assert "name of a branch" in await refused(runtime, worktree_options={"branch_prefix": "a..b/"})
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    assert "no commit yet" in await refused(runtime, workspace={"working_dir": str(empty)})
    id = str(uuid4())
    git(repository, "branch", f"openhands/{id.replace('-', '')}")
    assert "exists already" in await refused(runtime, conversation_id=id)
    assert branches(repository) == [*before[:1], *before[1:], f"openhands/{id.replace('-', '')}"]
    assert trees(runtime) == []


async def test_untouched_it_goes_with_its_branch(runtime: Runtime, repository: Path) -> None:
    before = branches(repository)
    id, place = await started(runtime)
    await delete(runtime, id)
    assert (place.exists(), branches(repository), trees(runtime)) == (False, before, [])
    assert len(git(repository, "worktree", "list").splitlines()) == 1
    again, _ = await started(runtime, conversation_id=id)
    assert again == id


async def test_commits_stay_on_the_branch(runtime: Runtime, repository: Path) -> None:
    id, place = await started(runtime)
    made = commit(place, "done")
    await delete(runtime, id)
    assert git(repository, "rev-parse", f"openhands/{id.replace('-', '')}") == made
    assert trees(runtime) == []


async def test_what_nobody_committed_is_kept_on_a_branch(runtime: Runtime, repository: Path) -> None:
    id, place = await started(runtime)
    (place / "new file").write_text("new\n")
    (place / "first").write_text("changed\n")
    (place / "sub" / "inner").unlink()
    (place / ".gitignore").write_text("*.o\n")
    (place / "made.o").write_text("again\n")
    await delete(runtime, id)
    kept = f"openhands/{id.replace('-', '')}-uncommitted"
    assert kept in branches(repository)
    assert git(repository, "show", f"{kept}:new file") == "new"
    assert git(repository, "show", f"{kept}:first") == "changed"
    assert git(repository, "ls-tree", "-r", "--name-only", kept).splitlines() == [".gitignore", "first", "new file"]
    assert trees(runtime) == []


async def test_a_detached_commit_is_kept_too(runtime: Runtime, repository: Path) -> None:
    id, place = await started(runtime)
    git(place, "checkout", "-q", "--detach")
    made = commit(place, "loose")
    await delete(runtime, id)
    assert git(repository, "rev-parse", f"openhands/{id.replace('-', '')}-uncommitted") == made


async def test_a_repository_inside_cannot_be_saved_so_all_stays(runtime: Runtime, repository: Path) -> None:
    id, place = await started(runtime)
    inner = place / "vendored"
    inner.mkdir()
    git(inner, "init", "-q")
    commit(inner, "theirs")
    await delete(runtime, id)
    assert (inner / "theirs").exists()


async def test_no_program_of_the_repository_runs(runtime: Runtime, repository: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trapped"
    hook = repository / ".git" / "hooks" / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {trap}\n")
    hook.chmod(0o755)
    for program in ("smudge", "clean"):
        git(repository, "config", f"filter.bad.{program}", f"sh -c 'touch {trap}; cat'")
    git(repository, "config", "core.fsmonitor", f"touch {trap}")
    (repository / ".gitattributes").write_text("* filter=bad\n")
    quiet = ("-c", "filter.bad.clean=", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
    git(repository, *quiet, "add", ".gitattributes")
    git(repository, *quiet, "commit", "-qm", "x")
    trap.unlink(missing_ok=True)
    id, place = await started(runtime, worktree_options={"base": "head"})
    assert (place / ".gitattributes").exists()
    (place / "first").write_text("changed\n")
    await delete(runtime, id)
    assert not place.exists()
    assert not trap.exists()


# -- children and copies


async def test_a_child_has_a_tree_at_what_its_parent_committed(runtime: Runtime, repository: Path) -> None:
    id = await runtime.start(confirmation_policy={"kind": "AlwaysConfirm"}, max_budget_per_run=3.0)
    wanted = {"task": 'SCRIPT:[{"text":"child done"}]', "title": "part"}
    answer = (await runtime.http.post(f"/api/conversations/{id}/children", json=wanted)).json()
    assert (answer["isolation"], answer["title"], answer["status"]) == ("worktree", "part", "idle")
    place = Path(answer["workspace"])
    assert (place / "second").exists(), "it begins where the parent is"
    child = answer["conversation_id"]
    await runtime.finish(child)
    shown = (await runtime.http.get(f"/api/conversations/{child}")).json()
    assert shown["parent_conversation_id"] == id
    assert shown["confirmation_policy"] == {"kind": "AlwaysConfirm"}, "it works under the rules of its parent"
    assert (await runtime.http.get(f"/api/conversations/{id}")).json()["sub_conversation_ids"] == [child]
    await delete(runtime, child)
    assert not place.exists()


async def test_a_child_shares_where_it_cannot_have_a_tree(runtime: Runtime) -> None:
    id = await runtime.start()  # its repository was just made and has no commit
    path = f"/api/conversations/{id}/children"
    answer = await runtime.http.post(path, json={"task": "x", "isolation": "worktree"})
    assert answer.status_code == 422
    assert "no commit yet" in answer.json()["detail"]
    made = (await runtime.http.post(path, json={"task": 'SCRIPT:[{"text":"ok"}]'})).json()
    assert (made["isolation"], made["workspace"]) == ("shared", str(runtime.folder / "work"))
    await runtime.finish(made["conversation_id"])
    for wrong in ({}, {"task": ""}, {"task": "x", "isolation": "none"}):
        assert (await runtime.http.post(path, json=wrong)).status_code == 422


async def test_a_tree_goes_with_the_last_that_works_in_it(runtime: Runtime, repository: Path) -> None:
    id, place = await started(runtime)
    copy = (await runtime.http.post(f"/api/conversations/{id}/fork", json={})).json()["id"]
    wanted = {"task": 'SCRIPT:[{"text":"ok"}]', "isolation": "shared"}
    child = (await runtime.http.post(f"/api/conversations/{id}/children", json=wanted)).json()["conversation_id"]
    await runtime.finish(child)
    for one in (id, copy):
        await delete(runtime, one)
        assert place.exists()
    await delete(runtime, child)
    assert not place.exists()


async def test_a_tree_is_known_after_a_restart(tmp_path: Path, model: ScriptedModel, repository: Path) -> None:
    root = tmp_path / "trees"
    async with runtime_at(tmp_path, model.base_url, conversation_worktree_root=root) as first:
        id, place = await started(first)
    async with runtime_at(tmp_path, model.base_url, conversation_worktree_root=root) as second:
        shown = (await second.http.get(f"/api/conversations/{id}")).json()
        assert shown["workspace"]["working_dir"] == str(place)
        await delete(second, id)
    assert not place.exists()
