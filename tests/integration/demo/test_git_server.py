"""The git server, used with the git program itself: clone, push, refusal."""

import contextlib
import os
import random
from pathlib import Path

import anyio
import httpx
import pytest

from orchestrator.demo.git_server import GitCommandFailed, GitServer

pytestmark = pytest.mark.anyio

TOKEN = "token-of-acme"
FILES = {"README.md": "hello\n", "app/numbers.py": "ONE = 1\n"}


async def git(folder, *arguments, token=None, **more):
    """Run git as a stranger's git would run: no configuration, no prompt, a credential helper or none."""
    helper = f"!f() {{ echo username=anything; echo password={token}; }}; f" if token else ""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "Agent",
        "GIT_AUTHOR_EMAIL": "agent@example.invalid",
        "GIT_COMMITTER_NAME": "Agent",
        "GIT_COMMITTER_EMAIL": "agent@example.invalid",
        **more,
    }
    command = ["git", "-c", f"credential.helper={helper}", *arguments]
    with anyio.fail_after(60):
        return await anyio.run_process(command, cwd=folder, env=environment, check=False)


async def succeeds(folder, *arguments, token=None):
    done = await git(folder, *arguments, token=token)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.fixture
async def server(tmp_path):
    async with GitServer(tmp_path / "repositories") as server:
        await server.create_repository("acme/app", files=FILES, token=TOKEN)
        yield server


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


async def test_a_clone_with_the_token_has_the_files(server, home):
    await succeeds(home, "clone", server.url("acme/app"), token=TOKEN)
    assert (home / "app/README.md").read_text() == "hello\n"
    assert (home / "app/app/numbers.py").read_text() == "ONE = 1\n"


async def test_a_pushed_commit_is_seen_by_the_server(server, home):
    await succeeds(home, "clone", server.url("acme/app"), token=TOKEN)
    clone = home / "app"
    (clone / "README.md").write_text("changed\n")
    await succeeds(clone, "checkout", "-b", "agent/1")
    await succeeds(clone, "commit", "-am", "Change the greeting")
    await succeeds(clone, "push", "origin", "HEAD", token=TOKEN)
    newest, first = await server.commits("acme/app", "agent/1")
    assert (newest.author, newest.subject) == ("Agent", "Change the greeting")
    assert first.subject == "First commit"
    assert await server.read("acme/app", "agent/1", "README.md") == "changed\n"
    assert await server.branches("acme/app") == ["agent/1", "main"]


async def test_a_push_too_large_for_one_buffer_comes_in_chunks_and_arrives(server, home):
    await succeeds(home, "clone", server.url("acme/app"), token=TOKEN)
    clone = home / "app"
    blob = random.Random(1).randbytes(3_000_000)
    (clone / "blob").write_bytes(blob)
    await succeeds(clone, "add", "blob")
    await succeeds(clone, "commit", "-m", "A large file")
    await succeeds(clone, "push", "origin", "main", token=TOKEN)
    await succeeds(home, "clone", server.url("acme/app"), "again", token=TOKEN)
    assert (home / "again/blob").read_bytes() == blob


async def test_a_long_negotiation_is_compressed_and_understood(server, home):
    await succeeds(home, "clone", server.url("acme/app"), token=TOKEN)
    clone = home / "app"
    other = home / "other"
    await succeeds(home, "clone", server.url("acme/app"), "other", token=TOKEN)
    for number in range(120):  # so many that the client compresses what it tells of them
        # Each later than the common one: the client tells of the newest first, so the common one comes last.
        date = f"@{1_900_000_000 + number} +0000"
        done = await git(clone, "commit", "--allow-empty", "-m", f"Local {number}", GIT_COMMITTER_DATE=date)
        assert done.returncode == 0
    await succeeds(other, "commit", "--allow-empty", "-m", "Elsewhere")
    await succeeds(other, "push", "origin", "main", token=TOKEN)
    fetched = await git(clone, "-c", "protocol.version=0", "fetch", "origin", token=TOKEN, GIT_TRACE_CURL="1")
    assert fetched.returncode == 0
    assert b"Content-Encoding: gzip" in fetched.stderr
    assert await succeeds(clone, "log", "-1", "--format=%s", "origin/main") == "Elsewhere\n"


@pytest.mark.parametrize("token", [None, "token-of-nobody"])
async def test_without_a_good_token_nothing_is_cloned(server, home, token):
    refused = await git(home, "clone", server.url("acme/app"), token=token)
    assert refused.returncode == 128
    assert not (home / "app").exists()
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{server.url('acme/app')}/info/refs?service=git-upload-pack")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic")


async def test_a_token_opens_its_own_repository_only(server, home):
    await server.create_repository("globex/app", files=FILES, token="token-of-globex")
    refused = await git(home, "clone", server.url("globex/app"), token=TOKEN)
    assert refused.returncode == 128
    assert b"not found" in refused.stderr
    await succeeds(home, "clone", server.url("globex/app"), token="token-of-globex")


async def test_a_revoked_token_is_refused_at_once(server, home):
    await succeeds(home, "clone", server.url("acme/app"), token=TOKEN)
    server.revoke("acme/app", TOKEN)
    assert (await git(home / "app", "fetch", token=TOKEN)).returncode == 128


async def test_nothing_but_the_git_protocol_is_served(server):
    async with httpx.AsyncClient(auth=("any", TOKEN)) as client:
        for path in ("config", "HEAD", "objects/info/packs", "../../../etc/passwd", "info/refs/.."):
            answer = await client.get(f"{server.url('acme/app')}/{path}")
            assert answer.status_code == 404, path


async def test_a_client_that_leaves_takes_its_git_process_along(server):
    def backends():
        """The processes whose environment says that they work for this very server."""
        mark = f"GIT_PROJECT_ROOT={server.folder}".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes():
                    found.append(process.name)
        return found

    assert backends() == []
    host, port = server.origin.removeprefix("http://").split(":")
    stream = await anyio.connect_tcp(host, int(port))
    basic = "YW55OnRva2VuLW9mLWFjbWU="
    await stream.send(
        b"POST /acme/app.git/git-receive-pack HTTP/1.1\r\nHost: x\r\nAuthorization: Basic %s\r\n"
        b"Content-Type: application/x-git-receive-pack-request\r\nContent-Length: 100\r\n\r\n0000" % basic.encode()
    )
    with anyio.fail_after(20):
        while not backends():
            await anyio.sleep(0.02)
        await stream.aclose()
        while backends():
            await anyio.sleep(0.02)


async def test_a_bad_name_and_a_missing_file_are_named(server):
    with pytest.raises(ValueError, match="owner/name"):
        await server.create_repository("../app", files=FILES, token=TOKEN)
    with pytest.raises(GitCommandFailed, match=r"nothing\.txt"):
        await server.read("acme/app", "main", "nothing.txt")
    assert await server.commits("acme/app", "no-such-branch") == []
