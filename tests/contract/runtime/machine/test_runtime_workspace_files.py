"""Files of a workspace by their paths in it: what can be done with them, and that no path leads out of it."""

import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import anyio
import pytest

from tests.support.runtimes import Runtime, runtime_at

pytestmark = pytest.mark.anyio


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with runtime_at(tmp_path) as made:
        yield made


@pytest.fixture
async def base(runtime: Runtime) -> str:
    return f"/api/conversations/{await runtime.start()}/files"


@pytest.fixture
def work(runtime: Runtime, base: str) -> Path:
    """The working directory, empty: what a runtime makes there by itself is gone."""
    folder = runtime.folder / "work"
    shutil.rmtree(folder / ".git")
    return folder


async def test_written_read_in_ranges_listed_and_removed(runtime: Runtime, base: str, work: Path) -> None:
    content = os.urandom(300_000)
    made = await runtime.http.put(f"{base}/a/b/data.bin", content=content)
    assert (made.status_code, made.json()) == (201, {"path": "a/b/data.bin", "size": len(content)})
    assert (work / "a" / "b" / "data.bin").read_bytes() == content
    read = await runtime.http.get(f"{base}/a/b/data.bin")
    assert read.content == content
    assert read.headers["etag"] == made.headers["etag"]
    assert read.headers["content-security-policy"] == "sandbox"
    part = await runtime.http.get(f"{base}/a/b/data.bin", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, content[10:20])
    same = await runtime.http.get(f"{base}/a/b/data.bin", headers={"If-None-Match": read.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    assert (await runtime.http.put(f"{base}/a/empty/")).status_code == 204
    os.symlink("b", work / "a" / "link")
    first = (await runtime.http.get(f"{base}/a", params={"limit": 2})).json()
    assert [(item["name"], item["kind"], item["size"]) for item in first["items"]] == [
        ("b", "folder", None),
        ("empty", "folder", None),
    ]
    rest = (await runtime.http.get(f"{base}/a", params={"limit": 2, "page_id": first["next_page_id"]})).json()
    assert [(item["name"], item["kind"]) for item in rest["items"]] == [("link", "link")]
    assert rest["next_page_id"] is None
    assert (await runtime.http.delete(f"{base}/a")).status_code == 409
    assert (await runtime.http.delete(f"{base}/a/link")).status_code == 204
    assert (work / "a" / "b").is_dir()
    assert (await runtime.http.delete(f"{base}/a", params={"recursive": True})).status_code == 204
    assert (await runtime.http.get(f"{base}/a")).status_code == 404
    assert (await runtime.http.delete(f"{base}/%2e")).status_code == 409


async def test_who_has_seen_another_file_changes_nothing(runtime: Runtime, base: str, work: Path) -> None:
    tag = (await runtime.http.put(f"{base}/file", content=b"one")).headers["etag"]
    new = await runtime.http.put(f"{base}/file", content=b"new", headers={"If-None-Match": "*"})
    assert new.status_code == 412
    (work / "file").chmod(0o755)
    then = await runtime.http.put(f"{base}/file", content=b"two!", headers={"If-Match": tag})
    assert then.status_code == 200
    assert (work / "file").stat().st_mode & 0o777 == 0o755
    late = await runtime.http.put(f"{base}/file", content=b"late", headers={"If-Match": tag})
    assert late.status_code == 412
    assert (await runtime.http.delete(f"{base}/file", headers={"If-Match": tag})).status_code == 412
    assert (await runtime.http.put(f"{base}/none", content=b"x", headers={"If-Match": "*"})).status_code == 412
    assert (work / "file").read_bytes() == b"two!"
    assert os.listdir(work) == ["file"]
    last = await runtime.http.delete(f"{base}/file", headers={"If-Match": then.headers["etag"]})
    assert last.status_code == 204


async def test_a_body_that_breaks_off_leaves_nothing(runtime: Runtime, base: str, work: Path) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        raise ConnectionError("the caller is gone")

    (work / "file").write_bytes(b"before")
    with pytest.raises(ConnectionError):
        await runtime.http.put(f"{base}/file", content=breaks())
    with anyio.fail_after(30):
        while os.listdir(work) != ["file"]:
            await anyio.sleep(0.02)
    assert (work / "file").read_bytes() == b"before"


OUTSIDE: Sequence[str] = (
    "%2e%2e/secret",
    "a/%2e%2e/%2e%2e/secret",
    "%2Fetc/passwd",
    "to-file",
    "to-folder/secret",
    "up/secret",
    "absolute/passwd",
    "a%00b",
    "pipe",
    "x" * 300,
)


async def test_no_path_leads_out(runtime: Runtime, base: str, work: Path) -> None:
    secret = runtime.folder / "secret"
    secret.write_text("outside")
    (work / "a").mkdir()
    os.symlink(secret, work / "to-file")
    os.symlink(runtime.folder, work / "to-folder")
    os.symlink("..", work / "up")
    os.symlink("/etc", work / "absolute")
    os.mkfifo(work / "pipe")
    present = sorted(os.listdir(work))
    for path in OUTSIDE:
        for method in ("GET", "PUT", "DELETE"):
            if method == "DELETE" and path in ("to-file", "pipe"):
                continue  # the link itself, and the pipe, are in the workspace
            answer = await runtime.http.request(method, f"{base}/{path}", content=b"in" if method == "PUT" else None)
            assert answer.status_code in (400, 409), (method, path, answer.text)
            assert b"outside" not in answer.content
    assert secret.read_text() == "outside"
    assert sorted(os.listdir(work)) == present


async def test_removing_below_a_link_is_refused_and_what_is_archived_does_not_follow_one(
    runtime: Runtime, base: str, work: Path
) -> None:
    outside = runtime.folder / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    os.symlink(outside, work / "out")
    (work / "in").mkdir()
    (work / "in" / "run.sh").write_text("#!/bin/sh\n")
    (work / "in" / "run.sh").chmod(0o755)
    os.mkfifo(work / "in" / "pipe")
    assert (await runtime.http.delete(f"{base}/out/kept")).status_code == 400
    for format in ("tar", "tar.gz"):
        answer = await runtime.http.get(base, params={"archive": format})
        with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
            found = {member.name: (member.type, member.mode & 0o777, member.linkname) for member in tar}
        assert sorted(found) == ["in", "in/run.sh", "out"]
        assert found["in/run.sh"] == (tarfile.REGTYPE, 0o755, "")
        assert found["out"][::2] == (tarfile.SYMTYPE, str(outside))
    answer = await runtime.http.get(f"{base}/in", params={"archive": "zip"})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["run.sh"]
        assert archive.read("run.sh") == b"#!/bin/sh\n"
    assert (await runtime.http.delete(f"{base}/out", params={"recursive": True})).status_code == 204
    assert (outside / "kept").read_text() == "kept"


async def test_the_runtimes_own_state_is_not_given_out(runtime: Runtime, tmp_path: Path) -> None:
    body = runtime.body() | {"workspace": {"working_dir": str(tmp_path)}}
    started = await runtime.http.post("/api/conversations", json=body)
    assert started.status_code == 201, started.text
    base = f"/api/conversations/{started.json()['id']}/files"
    (tmp_path / "mine").write_text("mine")
    assert any((tmp_path / "persistence").rglob("*"))
    answer = await runtime.http.get(base, params={"archive": "tar"})
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        names = tar.getnames()
    assert "mine" in names
    assert [name for name in names if name.startswith("persistence")] == []
    assert (await runtime.http.get(f"{base}/persistence")).status_code == 400
    assert (await runtime.http.put(f"{base}/persistence/x", content=b"")).status_code == 400


async def test_the_runtimes_own_workspace_has_its_files_by_their_paths_too(runtime: Runtime) -> None:
    base, folder = "/api/workspace/files", runtime.folder / "project"
    folder.mkdir(parents=True, exist_ok=True)
    assert (await runtime.http.put(f"{base}/site/a.txt", content=b"one")).status_code == 201
    assert (folder / "site" / "a.txt").read_bytes() == b"one"
    assert (await runtime.http.get(f"{base}/site/a.txt")).content == b"one"
    listed = (await runtime.http.get(base)).json()["items"]
    assert "site" in [one["name"] for one in listed]
    (folder / "out").symlink_to("/etc")
    for path in ("out/passwd", "../conversations", "%2e%2e/conversations"):
        assert (await runtime.http.get(f"{base}/{path}")).status_code in (400, 404), path
    started = await runtime.start()
    assert (await runtime.http.get(f"/api/conversations/{started}/files/site/a.txt")).status_code == 404
    without = await runtime.http.get(f"{base}/site/a.txt", headers={"X-Session-API-Key": "wrong"})
    assert without.status_code == 401


async def test_a_name_with_a_line_end_is_that_file_and_no_other(runtime: Runtime, base: str, work: Path) -> None:
    (work / "a").write_text("another")
    for name, path in (("a\n", "a%0A"), ("a\nb", "a%0Ab"), ("\n", "%0A")):
        assert (await runtime.http.get(f"{base}/{path}")).status_code == 404
        assert (await runtime.http.delete(f"{base}/{path}")).status_code == 404
        assert (await runtime.http.put(f"{base}/{path}", content=b"this one")).status_code == 201
        assert (work / name).read_bytes() == b"this one"
        assert (await runtime.http.get(f"{base}/{path}")).content == b"this one"
        assert (await runtime.http.delete(f"{base}/{path}")).status_code == 204
    assert (work / "a").read_text() == "another"


async def test_names_that_are_no_text_do_not_end_a_list_before_its_end(runtime: Runtime, base: str, work: Path) -> None:
    for name in (b"a", b"b\xff", b"b\xff\xfe", b"c", b"d", b"e\xff"):
        (Path(os.fsdecode(bytes(work) + b"/" + name))).touch()
    found: list[str] = []
    page_id = ""
    for _ in range(10):
        page = (await runtime.http.get(base, params={"limit": 1, "page_id": page_id})).json()
        found += [item["name"] for item in page["items"]]
        page_id = page["next_page_id"]
        if page_id is None:
            break
    assert found == ["a", "c", "d"]


@pytest.mark.parametrize("value", ["lines=0-1", "bytes=3-1", "bytes=a-b", "bytes=", "bytes=-", "0-1"])
async def test_ranges_that_are_none_are_passed_over(runtime: Runtime, base: str, work: Path, value: str) -> None:
    (work / "a").write_text("0123456789")
    whole = await runtime.http.get(f"{base}/a", headers={"Range": value})
    assert (whole.status_code, whole.text) == (200, "0123456789")
    head = await runtime.http.head(f"{base}/a", headers={"Range": "bytes=2-3"})  # a range is GET's alone
    assert (head.status_code, head.headers["content-length"]) == (200, "10")


@pytest.mark.parametrize(
    ("value", "status", "told"),
    [
        ("bytes=2-3, 20-", 206, "bytes 2-3/10"),
        ("bytes=20-30,-2", 206, "bytes 8-9/10"),
        ("bytes=9-,10-10,-0", 206, "bytes 9-9/10"),
        ("bytes=20-,30-31", 416, "bytes */10"),
        ("bytes=-0", 416, "bytes */10"),
    ],
)
async def test_of_several_ranges_those_that_are_there_are_served(
    runtime: Runtime, base: str, work: Path, value: str, status: int, told: str
) -> None:
    (work / "a").write_text("0123456789")
    part = await runtime.http.get(f"{base}/a", headers={"Range": value})
    assert (part.status_code, part.headers["content-range"]) == (status, told)
    if status == 206:
        first, last = told.removeprefix("bytes ").removesuffix("/10").split("-")
        assert part.text == "0123456789"[int(first) : int(last) + 1]
    both = await runtime.http.get(f"{base}/a", headers={"Range": "bytes=0-1,7-8,20-"})
    assert (both.status_code, both.headers["content-type"].partition(";")[0]) == (206, "multipart/byteranges")
    assert b"bytes 0-1/10" in both.content
    assert b"bytes 7-8/10" in both.content


async def test_conditions_are_of_lists_and_of_reads_too(runtime: Runtime, base: str, work: Path) -> None:
    (work / "a").write_text("0123456789")
    tag = (await runtime.http.get(f"{base}/a")).headers["etag"]
    for value, status in ((tag, 200), (f'"x", {tag}', 200), ("*", 200), ('"x"', 412), (f"W/{tag}", 412)):
        assert (await runtime.http.get(f"{base}/a", headers={"If-Match": value})).status_code == status, value
        put = await runtime.http.put(f"{base}/b", content=b"x")
        tag_b = put.headers["etag"]
        value_b = value.replace(tag, tag_b)
        written = await runtime.http.put(f"{base}/b", content=b"y", headers={"If-Match": value_b})
        assert written.status_code == status, value
    for value, status in (("*", 304), (f'"x", W/{tag}', 304), ('"x"', 200)):
        assert (await runtime.http.get(f"{base}/a", headers={"If-None-Match": value})).status_code == status, value


async def test_a_part_never_takes_the_place_of_the_whole(runtime: Runtime, base: str, work: Path) -> None:
    (work / "a").write_text("0123456789")
    part = await runtime.http.put(f"{base}/a", content=b"xy", headers={"Content-Range": "bytes 2-3/10"})
    assert part.status_code == 400
    assert (work / "a").read_text() == "0123456789"


async def test_the_head_of_an_archive_costs_no_archive_and_both_are_safe(
    runtime: Runtime, base: str, work: Path
) -> None:
    with open(work / "sparse", "wb") as sparse:
        sparse.truncate(1 << 42)
    with anyio.fail_after(10):
        head = await runtime.http.head(base, params={"archive": "tar"})
    (work / "sparse").unlink()
    whole = await runtime.http.get(base, params={"archive": "tar"})
    for name in ("content-type", "content-disposition", "content-security-policy", "cache-control"):
        assert head.headers[name] == whole.headers[name]
    assert (head.status_code, head.content) == (200, b"")
    assert whole.headers["content-security-policy"] == "sandbox"
    assert whole.headers["cache-control"] == "private, no-cache"
