"""Commands, files, git and the workspace against the contract's captured answers."""

import io
import json
import os
import subprocess
import tarfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import httpx
import pytest
import websockets

from tests.support.runtimes import KEY, Runtime, runtime_at

pytestmark = pytest.mark.anyio

SAMPLES = Path(__file__).parent.parent / "samples"


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())


def body(name: str) -> Any:
    return sample(name)["response"]["body"]


def keys_and_types(value: dict[str, Any]) -> list[tuple[str, str]]:
    return [(key, type(item).__name__) for key, item in value.items()]


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with runtime_at(tmp_path) as made:
        yield made


@pytest.fixture(params=["whole", "scoped"])
async def base(request: pytest.FixtureRequest, runtime: Runtime) -> str:
    """The prefix of the machine's routes: the server's own, or one conversation's."""
    if request.param == "whole":
        return "/api"
    return f"/api/conversations/{await runtime.start()}"


async def outputs(runtime: Runtime, base: str, command: str) -> list[dict[str, Any]]:
    """What the public client does: poll until an output has an exit code."""
    query = {"kind__eq": "BashOutput", "command_id__eq": command, "sort_order": "TIMESTAMP", "limit": "100"}
    with anyio.fail_after(30):
        while True:
            answer = await runtime.http.get(f"{base}/bash/bash_events/search", params=query)
            items: list[dict[str, Any]] = answer.json()["items"]
            if items and items[-1]["exit_code"] is not None:
                return items
            await anyio.sleep(0.02)


# -- commands


async def test_a_command_is_started_and_its_output_searched(runtime: Runtime, base: str, tmp_path: Path) -> None:
    wanted = sample("07-bash-start")["request"]["body"] | {"cwd": str(tmp_path)}
    started = (await runtime.http.post(f"{base}/bash/start_bash_command", json=wanted)).json()
    assert keys_and_types(started) == keys_and_types(body("07-bash-start"))
    assert len(started["id"]) == 32
    (found,) = await outputs(runtime, base, started["id"])
    captured = body("07-bash-search")["items"][0]
    assert list(found) == list(captured)
    assert {key: found[key] for key in ("order", "exit_code", "stdout", "stderr", "kind")} == {
        key: captured[key] for key in ("order", "exit_code", "stdout", "stderr", "kind")
    }
    one = await runtime.http.get(f"{base}/bash/bash_events/{found['id']}")
    assert one.json() == found
    several = await runtime.http.request("GET", f"{base}/bash/bash_events/", json=[started["id"], "0" * 32])
    assert several.json() == [{**started, "cwd": str(tmp_path)}, None]
    after = {"command_id__eq": started["id"], "order__gt": "0"}
    assert (await runtime.http.get(f"{base}/bash/bash_events/search", params=after)).json()["items"] == []


async def test_a_command_is_waited_for(runtime: Runtime, base: str, tmp_path: Path) -> None:
    wanted = {"command": "echo hi; pwd", "cwd": str(tmp_path)}
    answer = (await runtime.http.post(f"{base}/bash/execute_bash_command", json=wanted)).json()
    assert keys_and_types(answer) == keys_and_types(body("07-bash-execute"))
    assert answer["stdout"] == f"hi\n{tmp_path}\n"


async def test_a_scoped_command_begins_in_the_conversations_directory(runtime: Runtime) -> None:
    id = await runtime.start()
    wanted = {"command": "pwd"}
    answer = await runtime.http.post(f"/api/conversations/{id}/bash/execute_bash_command", json=wanted)
    assert answer.json()["stdout"] == f"{runtime.folder / 'work'}\n"
    unknown = await runtime.http.post(f"/api/conversations/{UUID(int=1)}/bash/execute_bash_command", json=wanted)
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Not Found"})


async def test_a_command_that_takes_too_long_is_ended_with_all_it_started(runtime: Runtime) -> None:
    wanted = {"command": "echo a; setsid sleep 1234 & sleep 1234", "timeout": 1}
    answer = (await runtime.http.post("/api/bash/execute_bash_command", json=wanted)).json()
    captured = body("07-bash-execute-timeout")
    assert (answer["exit_code"], answer["stdout"], answer["stderr"]) == (
        captured["exit_code"],
        captured["stdout"],
        captured["stderr"],
    )
    with anyio.fail_after(20):
        while running("sleep", "1234"):
            await anyio.sleep(0.05)


async def test_a_stopped_command_says_so(runtime: Runtime) -> None:
    started = (await runtime.http.post("/api/bash/start_bash_command", json={"command": "sleep 2345"})).json()
    with anyio.fail_after(20):
        while not running("sleep", "2345"):
            await anyio.sleep(0.02)
    path = f"/api/bash/bash_commands/{started['id']}/stop"
    for _ in range(2):  # also when it has ended
        answer = await runtime.http.post(path)
        assert (answer.status_code, answer.json()) == (200, body("07-bash-stop"))
    assert (await outputs(runtime, "/api", started["id"]))[-1]["exit_code"] == -15
    assert (await runtime.http.post(f"/api/bash/bash_commands/{'0' * 32}/stop")).status_code == 404


async def test_a_directory_that_is_not_there_is_told_in_the_output(runtime: Runtime) -> None:
    wanted = {"command": "true", "cwd": "/no/such/place"}
    answer = (await runtime.http.post("/api/bash/execute_bash_command", json=wanted)).json()
    assert answer["exit_code"] == -1
    assert "/no/such/place" in answer["stderr"]


async def test_much_output_comes_in_pieces_and_complete(runtime: Runtime) -> None:
    command = "head -c 3500000 /dev/zero | tr '\\0' x"
    started = (await runtime.http.post("/api/bash/start_bash_command", json={"command": command})).json()
    found = await outputs(runtime, "/api", started["id"])
    assert [one["order"] for one in found] == list(range(len(found)))
    assert len(found) > 2
    assert [one["exit_code"] for one in found] == [None] * (len(found) - 1) + [0]
    assert sum(len(one["stdout"] or "") for one in found) == 3_500_000


async def test_a_command_may_be_longer_than_the_kernel_takes_as_an_argument(runtime: Runtime) -> None:
    words = "\u00e9x" * 200_000
    command = f"read -r first; echo \"$first$?\"; ls /proc/self/fd\ncat << 'END' | wc -c\n{words}\nEND\n(exit 7)"
    ran = (await runtime.http.post("/api/bash/execute_bash_command", json={"command": command})).json()
    assert (ran["stdout"], ran["stderr"], ran["exit_code"]) == ("1\n0\n1\n2\n3\n600001\n", None, 7)
    wrong = {"command": f"echo '{words}"}
    ran = (await runtime.http.post("/api/bash/execute_bash_command", json=wrong)).json()
    assert (ran["exit_code"] != 0, "unexpected EOF" in ran["stderr"]) == (True, True)


async def test_a_daemon_makes_nobody_wait(runtime: Runtime) -> None:
    with anyio.fail_after(20):
        wanted = {"command": "sleep 5 & echo $!; exit 4"}
        answer = (await runtime.http.post("/api/bash/execute_bash_command", json=wanted)).json()
    assert answer["exit_code"] == 4
    os.kill(int(answer["stdout"]), 9)


async def test_nothing_of_the_server_is_in_a_commands_environment(runtime: Runtime) -> None:
    await runtime.http.put("/api/settings/secrets", json={"name": "S", "value": "a-stored-secret-value"})
    answer = await runtime.http.post("/api/bash/execute_bash_command", json={"command": "env; ls -l /proc/self/fd"})
    printed = answer.json()["stdout"]
    assert not [line for line in printed.splitlines() if line.startswith(("OH_", "SESSION_", "LITELLM", "PYTEST"))]
    assert KEY not in printed
    assert "socket:" not in printed
    masked = await runtime.http.post("/api/bash/execute_bash_command", json={"command": "echo a-stored-secret-value"})
    assert masked.json()["stdout"] == "<secret-hidden>\n"


async def test_finished_commands_outlive_the_server_and_can_be_cleared(tmp_path: Path) -> None:
    async with runtime_at(tmp_path) as first:
        kept = (await first.http.post("/api/bash/execute_bash_command", json={"command": "echo kept"})).json()
    async with runtime_at(tmp_path) as second:
        assert (await second.http.get(f"/api/bash/bash_events/{kept['id']}")).json() == kept
        cleared = await second.http.request("DELETE", "/api/bash/bash_events")
        assert cleared.json() == {"cleared_count": 2}
        assert (await second.http.get("/api/bash/bash_events/search")).json()["items"] == []
        assert list((tmp_path / "bash_events").iterdir()) == []


@pytest.mark.parametrize(
    "wanted", [{}, {"command": ""}, {"command": "a\0b"}, {"command": "x", "timeout": -1}, {"command": 1}]
)
async def test_a_command_that_is_none_is_refused(runtime: Runtime, wanted: Any) -> None:
    for route in ("start_bash_command", "execute_bash_command"):
        assert (await runtime.http.post(f"/api/bash/{route}", json=wanted)).status_code == 422


async def test_commands_are_told_on_a_socket(runtime: Runtime) -> None:
    address = runtime.url.replace("http", "ws", 1) + "/sockets/bash-events?resend_mode=all"
    captured = {one["kind"]: one for one in sample("06-ws-bash-frames")}
    async with websockets.connect(address) as socket:
        await socket.send(json.dumps({"type": "auth", "session_api_key": KEY}))
        await socket.send(json.dumps({"command": "echo ws"}))
        await socket.send(json.dumps({"x": 1}))
        found: dict[str, Any] = {}
        with anyio.fail_after(20):
            while set(found) != set(captured):
                frame = json.loads(await socket.recv())
                found[frame["kind"]] = frame
    for kind, frame in found.items():
        assert list(frame) == list(captured[kind])
    assert found["BashOutput"]["stdout"] == "ws\n"
    async with websockets.connect(address, additional_headers={"X-Session-API-Key": KEY}) as again:
        with anyio.fail_after(20):
            assert json.loads(await again.recv()) == found["BashCommand"]
    with pytest.raises(websockets.InvalidStatus):
        await websockets.connect(address + "&session_api_key=wrong")


# -- files


async def test_a_file_goes_up_and_comes_down(runtime: Runtime, base: str, tmp_path: Path) -> None:
    path = str(tmp_path / "new" / "sub" / "up.txt")
    up = await runtime.http.post(f"{base}/file/upload", params={"path": path}, files={"file": ("x", b"hello\n")})
    assert (up.status_code, up.json()) == (200, body("08-file-upload"))
    down = await runtime.http.get(f"{base}/file/download", params={"path": path})
    assert (down.status_code, down.text) == (200, body("08-file-download"))
    assert down.headers["content-type"] == "application/octet-stream"
    assert down.headers["content-disposition"].startswith("attachment")
    same = await runtime.http.get(f"{base}/file/download", params={"path": path}, headers={"Range": "bytes=1-2"})
    assert (same.status_code, same.text) == (206, "el")


async def test_an_upload_that_breaks_off_leaves_the_old_file(runtime: Runtime, tmp_path: Path) -> None:
    target = tmp_path / "kept.txt"
    target.write_text("old")
    target.chmod(0o640)

    async def torn() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nhalf'

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = await runtime.http.post("/api/file/upload", params={"path": str(target)}, content=torn(), headers=headers)
    assert answer.status_code == 422
    assert target.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".upload")] == []
    await runtime.http.post("/api/file/upload", params={"path": str(target)}, files={"file": b"new"})
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("new", 0o640)


async def test_what_cannot_be_a_file_is_told(runtime: Runtime, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()

    async def down(path: str) -> tuple[int, Any]:
        with anyio.fail_after(20):  # a pipe would keep its reader for ever
            answer = await runtime.http.get("/api/file/download", params={"path": path})
        return answer.status_code, answer.json()["detail"]

    assert await down(str(tmp_path / "none")) == (404, "File not found")
    assert await down(str(tmp_path / "folder")) == (400, "Path is not a file")
    assert await down(str(tmp_path / "pipe")) == (400, "Path is not a file")
    assert await down("relative") == (400, "Path must be absolute")
    assert (await down("/a\0b"))[0] == 400
    assert (await down("/" + "x" * 5000))[0] == 400
    assert (await down(str(tmp_path / ("y" * 300))))[0] == 400
    assert (await runtime.http.get("/api/file/download")).status_code == 422
    for query, sent in (({"path": "x"}, 400), ({}, 422), ({"path": str(tmp_path / "folder")}, 400)):
        answer = await runtime.http.post("/api/file/upload", params=query, files={"file": b"x"})
        assert answer.status_code == sent
    for wrong in ({"content": b"x"}, {"files": {"other": b"x"}}):
        answer = await runtime.http.post("/api/file/upload", params={"path": str(tmp_path / "f")}, **wrong)
        assert answer.status_code == 422
    assert not (tmp_path / "f").exists()


async def test_what_the_server_keeps_is_not_given_out(runtime: Runtime, tmp_path: Path) -> None:
    await runtime.http.put("/api/settings/secrets", json={"name": "S", "value": "v"})
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "persistence")
    for path in (tmp_path / "persistence" / "secrets.json", link / "secrets.json"):
        answer = await runtime.http.get("/api/file/download", params={"path": str(path)})
        assert (answer.status_code, answer.json()["detail"]) == (400, "Path belongs to the runtime itself")
        answer = await runtime.http.post("/api/file/upload", params={"path": str(path)}, files={"file": b"x"})
        assert answer.status_code == 400


@pytest.mark.parametrize("path", ["/proc/self/environ", "/proc/1/cmdline", "/dev/zero", "/sys/kernel"])
async def test_what_the_kernel_shows_of_the_server_is_not_given_out(runtime: Runtime, path: str) -> None:
    for route in ("file/download", "file/search_subdirs", "file/archive", "git/changes"):
        answer = await runtime.http.get(f"/api/{route}", params={"path": path})
        assert answer.status_code in (400, 404)
        assert "OH_" not in answer.text
    answer = await runtime.http.post("/api/file/upload", params={"path": path}, files={"file": b"x"})
    assert answer.status_code == 400


async def test_folders_are_made_and_listed(runtime: Runtime, base: str, tmp_path: Path) -> None:
    for name in ("a/b", "c", ".hidden"):
        answer = await runtime.http.post(f"{base}/file/create_directory", params={"path": str(tmp_path / "d" / name)})
        assert (answer.status_code, answer.json()) == (200, {"success": True})
    query = {"path": str(tmp_path / "d")}
    found = (await runtime.http.get(f"{base}/file/search_subdirs", params=query)).json()
    assert keys_and_types(found) == keys_and_types(body("08-file-search-subdirs"))
    assert [one["name"] for one in found["items"]] == ["a", "c"]
    page = (await runtime.http.get(f"{base}/file/search_subdirs", params={**query, "limit": 1})).json()
    assert (page["next_page_id"], len(page["items"])) == ("c", 1)
    assert list((await runtime.http.get(f"{base}/file/home")).json()) == list(body("08-file-home"))
    missing = await runtime.http.post(f"{base}/file/create_directory", json={"path": "/x"})
    assert missing.status_code == 422


async def test_a_conversation_and_a_folder_are_packed(runtime: Runtime, tmp_path: Path) -> None:
    id = await runtime.start()
    packed = await runtime.http.get(f"/api/file/download-trajectory/{id}")
    assert packed.headers["content-type"] == "application/zip"
    assert "conversation.json" in zipfile.ZipFile(io.BytesIO(packed.content)).namelist()
    (tmp_path / "work" / "f").write_text("text")
    query = {"path": str(tmp_path / "work"), "format": "tar.gz"}
    archive = await runtime.http.get("/api/file/archive", params=query)
    with tarfile.open(fileobj=io.BytesIO(archive.content)) as unpacked:
        assert "f" in unpacked.getnames()
    query["path"] = str(tmp_path / "none")
    assert (await runtime.http.get("/api/file/archive", params=query)).json() == {"detail": "Directory not found"}


# -- git


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "a").write_text("one\n")
    (folder / "gone").write_text("x\n")
    commit(folder, "one")
    (folder / "a").write_text("one\ntwo\n")
    (folder / "d").write_text("new\n")
    (folder / "gone").unlink()
    return folder


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.invalid")
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def commit(folder: Path, subject: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", subject)


async def test_changes_and_differences(runtime: Runtime, base: str, repository: Path) -> None:
    found = (await runtime.http.get(f"{base}/git/changes", params={"path": str(repository)})).json()
    assert found == [*body("09-git-changes"), {"status": "DELETED", "path": "gone"}]
    diff = (await runtime.http.get(f"{base}/git/diff", params={"path": str(repository / "a")})).json()
    assert diff == body("09-git-diff")
    new = (await runtime.http.get(f"{base}/git/diff", params={"path": str(repository / "d")})).json()
    assert new == {"modified": "new", "original": None}
    gone = (await runtime.http.get(f"{base}/git/diff", params={"path": str(repository / "gone")})).json()
    assert gone == {"modified": None, "original": "x"}
    commits = (await runtime.http.get(f"{base}/git/commits", params={"path": str(repository)})).json()
    assert keys_and_types(commits["commits"][0]) == keys_and_types(body("09-git-commits")["commits"][0])
    assert commits["has_more"] is False
    sha = commits["commits"][0]["sha"]
    whole = await runtime.http.get(f"{base}/git/commits/{sha}/changes", params={"path": str(repository)})
    assert whole.json() == [{"status": "ADDED", "path": "a"}, {"status": "ADDED", "path": "gone"}]


async def test_work_on_a_clone_is_shown_against_where_it_began(runtime: Runtime, repository: Path) -> None:
    commit(repository, "two")
    clone = repository.parent / "clone"
    git(repository.parent, "clone", "--quiet", str(repository), str(clone))
    (clone / "a").write_text("changed\n")
    commit(clone, "mine")
    found = (await runtime.http.get("/api/git/changes", params={"path": str(clone)})).json()
    assert found == [{"status": "UPDATED", "path": "a"}]
    since = (await runtime.http.get("/api/git/changes", params={"path": str(clone), "ref": "HEAD"})).json()
    assert since == []


async def test_an_archive_is_a_patch_that_can_be_applied(runtime: Runtime, repository: Path) -> None:
    index = (repository / ".git" / "index").read_bytes()
    answer = await runtime.http.get("/api/file/archive", params={"path": str(repository)})
    assert answer.headers["x-archive-repo-root"] == str(repository)
    assert answer.headers["content-type"].startswith("text/x-patch")
    assert (repository / ".git" / "index").read_bytes() == index, "nothing was staged"
    fresh = repository.parent / "fresh"
    git(repository.parent, "clone", "--quiet", str(repository), str(fresh))
    subprocess.run(["git", "apply"], cwd=fresh, input=answer.content, check=True)
    assert ((fresh / "d").read_text(), (fresh / "gone").exists()) == ("new\n", False)


async def test_git_runs_nothing_that_the_repository_names(runtime: Runtime, repository: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    for key in ("core.fsmonitor", "diff.external", "core.pager", "diff.evil.textconv", "core.hooksPath"):
        git(repository, "config", key, f"touch {proof}; true" if key != "core.hooksPath" else str(tmp_path))
    (repository / ".gitattributes").write_text("* diff=evil\n")
    assert (await runtime.http.get("/api/git/changes", params={"path": str(repository)})).status_code == 200
    assert (await runtime.http.get("/api/git/diff", params={"path": str(repository / "a")})).status_code == 200
    assert not proof.exists()


async def test_what_is_no_repository_or_ref_is_told(runtime: Runtime, repository: Path, tmp_path: Path) -> None:
    async def asked(route: str, **query: str) -> tuple[int, Any]:
        answer = await runtime.http.get(f"/api/git/{route}", params=query)
        return answer.status_code, answer.json()

    assert await asked("changes", path=str(tmp_path / "none")) == (200, [])
    assert (await asked("changes", path=str(tmp_path)))[0] == 400
    assert (await asked("changes", path="relative"))[0] == 400
    for ref in ("--output=x", "nothing", "a b", "x" * 251):
        assert (await asked("changes", path=str(repository), ref=ref))[0] in (400, 422)
    assert (await asked("diff", path=str(repository / "never")))[0] == 400
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "--quiet")
    (empty / "first").write_text("x")
    assert await asked("changes", path=str(empty)) == (200, [{"status": "ADDED", "path": "first"}])
    assert await asked("commits", path=str(empty)) == (200, {"commits": [], "has_more": False})


# -- workspace, runtime, what is not there


async def test_workspace_files_are_read_with_key_or_ticket(runtime: Runtime) -> None:
    id = await runtime.start()
    work = runtime.folder / "work"
    (work / "TODO.md").write_text("one\ntwo\n")
    (work / "site").mkdir()
    (work / "site" / "index.html").write_text("<p>hi")
    (work / "out").symlink_to("/etc")
    path = f"/api/conversations/{id}/workspace"
    read = await runtime.http.get(f"{path}/TODO.md")
    assert (read.text, read.headers["content-type"]) == (
        body("10-workspace-file"),
        sample("10-workspace-file")["response"]["content_type"],
    )
    assert read.headers["content-security-policy"] == "sandbox"
    assert (await runtime.http.get(f"{path}/site")).text == "<p>hi"
    for inside, status in (("none", 404), ("", 404), ("%2e%2e/persistence", 400), ("out/hostname", 400)):
        assert (await runtime.http.get(f"{path}/{inside}")).status_code == status
    session = await runtime.http.post("/api/auth/workspace-session")
    cookie = session.headers["set-cookie"]
    assert session.status_code == 204
    assert KEY not in cookie
    ticket = cookie.partition(";")[0]
    assert "HttpOnly" in cookie
    async with httpx.AsyncClient(base_url=runtime.url, trust_env=False) as stranger:
        assert (await stranger.get(f"{path}/TODO.md")).status_code == 401
        assert (await stranger.get(f"{path}/TODO.md", headers={"Cookie": ticket})).status_code == 200
        assert (await stranger.get(f"/api/conversations/{id}", headers={"Cookie": ticket})).status_code == 401
        assert (await stranger.post("/api/auth/workspace-session")).status_code == 401
    assert "Max-Age=0" in (await runtime.http.delete("/api/auth/workspace-session")).headers["set-cookie"]


async def test_the_runtime_of_a_conversation_is_this_one(runtime: Runtime) -> None:
    path = f"/api/conversations/{await runtime.start()}/runtime"
    assert (await runtime.http.get(path)).json() == body("04-runtime")
    assert (await runtime.http.post(f"{path}/reprovision")).json() == body("04-runtime")
    assert (await runtime.http.post(f"{path}/credentials")).json() == {"session_api_key": KEY}
    assert (await runtime.http.delete(path)).status_code == 404


async def test_the_key_between_orchestrator_and_runtime_is_shown_to_nobody(tmp_path: Path) -> None:
    async with runtime_at(tmp_path, generation=7) as runtime:
        path = f"/api/conversations/{await runtime.start()}/runtime/credentials"
        answer = await runtime.http.post(path)
        assert (answer.status_code, KEY in answer.text) == (404, False)


async def test_an_editor_is_not_there(runtime: Runtime) -> None:
    assert (await runtime.http.get("/api/vscode/status")).json() == body("10-vscode-status")
    assert (await runtime.http.get("/api/vscode/url")).status_code == 503


def running(*words: str) -> bool:
    """Whether a process with exactly this command line lives."""
    wanted = "\0".join(words).encode() + b"\0"
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cmdline").read_bytes() == wanted:
                return True
        except OSError:
            continue
    return False
