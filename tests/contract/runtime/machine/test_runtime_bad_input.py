"""What no client sends by mistake: names, times and bodies at the edge of what can be written. All of it is a 4xx."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.demo.model_server import ScriptedModel
from tests.support.runtimes import Runtime, runtime_at

pytestmark = pytest.mark.anyio

PATHS = {
    "NUL": "/a\0b",
    "long name": "/" + "x" * 300,
    "long name in bytes": "/" + "é" * 128,
    "long path": "/" + "x/" * 3000,
    "relative": "a",
    "option": "--help",
    "home": "~",
    "url": "file:///etc/passwd",
    "file as folder": "/etc/passwd/x/y",
}
READS = ("file/download", "file/search_subdirs", "file/archive", "git/changes", "git/diff", "git/commits")
SHAPES: dict[str, bytes] = {
    "deep": b"[" * 200_000,
    "deep object": b'{"a":' * 20_000,
    "no utf-8": b'{"a":"\xff"}',
    "half a pair": b'{"name":"A","value":"\\ud800","command":"\\ud800","llm":"\\ud800","project_dir":"\\ud800"}',
    "infinite": b'{"timeout":1e999,"command":"x","name":"A","value":1e999}',
    "many digits": b'{"timeout":' + b"9" * 5000 + b"}",
    "null": b"null",
    "list": b"[1]",
    "nothing": b"",
}
TAKES = [
    ("PATCH", "/api/settings"),
    ("PUT", "/api/settings/secrets"),
    ("POST", "/api/settings/mcp/x"),
    ("POST", "/api/conversations"),
    ("POST", "/api/conversations/{id}/events"),
    ("POST", "/api/conversations/{id}/secrets"),
    ("POST", "/api/conversations/{id}/confirmation_policy"),
    ("POST", "/api/bash/execute_bash_command"),
    ("POST", "/api/profiles/a"),
    ("POST", "/api/mcp/test"),
    ("POST", "/api/secrets"),
    ("POST", "/api/add-git-providers"),
    ("POST", "/api/init"),
    ("GET", "/api/bash/bash_events/"),
]


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with ScriptedModel() as model, runtime_at(tmp_path, model.base_url) as made:
        yield made


@pytest.mark.parametrize("name", PATHS)
async def test_a_path_that_is_none(runtime: Runtime, name: str) -> None:
    for read in READS:
        answer = await runtime.http.get(f"/api/{read}", params={"path": PATHS[name]})
        nothing_there = name == "file as folder" and read == "git/changes"
        assert 400 <= answer.status_code < 500 or (nothing_there and answer.json() == []), (read, answer.text)
    for write in ("file/create_directory", "file/upload"):
        files = {"file": ("a", b"x")} if write == "file/upload" else None
        answer = await runtime.http.post(f"/api/{write}", params={"path": PATHS[name]}, files=files)
        assert 400 <= answer.status_code < 500, (write, answer.text)


@pytest.mark.parametrize(
    "ref", ["--output=/tmp/x", "-h", "HEAD\0", "a" * 251, "..", "HEAD:x", "HEAD^{/x}", "@{-1}", " "]
)
async def test_a_ref_that_is_none(runtime: Runtime, ref: str) -> None:
    await runtime.start()
    place = {"path": str(runtime.folder / "work")}
    for path, more in (
        ("git/changes", {"ref": ref}),
        ("git/diff", {"ref": ref}),
        ("file/archive", {"base_ref": ref}),
    ):
        answer = await runtime.http.get(f"/api/{path}", params={**place, **more})
        assert answer.status_code in {400, 422}, (path, answer.text)


@pytest.mark.parametrize("sha", ["--help", "-x", "zzzz", "a" * 100, "%00", "abcd%0a", "abcd"])
async def test_a_commit_that_is_none(runtime: Runtime, sha: str) -> None:
    await runtime.start()
    answer = await runtime.http.get(f"/api/git/commits/{sha}/changes", params={"path": str(runtime.folder / "work")})
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_a_time_beyond_all_times_is_before_or_after_everything(runtime: Runtime, moment: str) -> None:
    id = await runtime.start([{"text": "x"}])
    await runtime.finish(id)
    await runtime.http.post("/api/bash/execute_bash_command", json={"command": "true"})
    for path in (f"/api/conversations/{id}/events/search", "/api/bash/bash_events/search"):
        since = (await runtime.http.get(path, params={"timestamp__gte": moment})).json()["items"]
        before = (await runtime.http.get(path, params={"timestamp__lt": moment})).json()["items"]
        assert (since == [], before == []) == ((False, True) if moment.startswith("0") else (True, False))
    async with runtime.socket(id, f"?resend_mode=since&after_timestamp={moment.replace('+', '%2B')}") as frames:
        assert (await frames.next())["key"] == "full_state"


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_body_that_is_none(runtime: Runtime, shape: str) -> None:
    id = await runtime.start()
    for method, path in TAKES:
        answer = await runtime.http.request(
            method, path.format(id=id), content=SHAPES[shape], headers={"Content-Type": "application/json"}
        )
        assert 400 <= answer.status_code < 500, (path, answer.text)
    settings = await runtime.http.get("/api/settings")
    assert settings.json()["agent_settings"]["mcp_config"] == {}
    assert (await runtime.http.get("/api/settings/secrets")).json() == {"secrets": []}


async def test_very_many_problems_are_told_in_few_words(runtime: Runtime) -> None:
    odd = {f"key-{number}": 1 for number in range(5000)}
    for path in ("/api/conversations", "/api/agent-profiles/a"):
        answer = await runtime.http.post(path, json=odd)
        told = answer.json()["detail"]
        assert (answer.status_code, len(told)) == (422, 101), path
        assert told[-1]["msg"].endswith("more problems")


_FILE = b'--a\r\nContent-Disposition: form-data; name="file"'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--a\r\n\r\n"),
        ("multipart/form-data; boundary=", b"--a\r\n\r\n"),
        (f"multipart/form-data; boundary={'x' * 5000}", b"--a\r\n\r\n"),
        ("multipart/mixed; boundary=a", b"--a\r\n\r\n"),
        ("text/plain", b"x"),
        (
            "multipart/form-data; boundary=a",
            b'--a\r\nContent-Disposition: form-data; name="file"; x="' + b"y" * 300_000,
        ),
        ("multipart/form-data; boundary=a", b"--a\r\n" + b"y" * 300_000),
        ("multipart/form-data; boundary=a", b'--a\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx\r\n--a--'),
        ("multipart/form-data; boundary=a", b'--a\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n'),
    ],
)
async def test_an_upload_that_is_none_leaves_nothing(runtime: Runtime, kind: str, body: bytes) -> None:
    target = runtime.folder / "up"
    answer = await runtime.http.post(
        "/api/file/upload", params={"path": str(target)}, content=body, headers={"Content-Type": kind}
    )
    assert answer.status_code == 422, answer.text
    assert not [path for path in runtime.folder.iterdir() if "up" in path.name]


async def test_what_the_kernel_shows_of_the_server_is_not_shown_to_the_agent(runtime: Runtime) -> None:
    work = runtime.folder / "work"
    work.mkdir(exist_ok=True)
    (work / "innocent").symlink_to("/proc/self/environ")
    (work / "round").symlink_to(work / "round")
    paths = ["/proc/self/environ", "/proc/self/maps", "/proc/self/root/proc/self/environ", "/dev/zero", "/sys"]
    paths += [str(work / "innocent"), str(work / "round"), "/proc/self/fd/0"]
    script: list[Any] = [{"tool": "file_editor", "args": {"command": "view", "path": path}} for path in paths]
    id = await runtime.start([*script, {"text": "done"}])
    await runtime.finish(id)
    seen = await runtime.observations(id)
    assert len(seen) == len(paths)
    for one in seen:
        assert one["is_error"], one
        assert "PATH=" not in json.dumps(one)
