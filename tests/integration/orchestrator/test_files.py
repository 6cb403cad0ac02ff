"""Files of a workspace by the API, through a real runtime of the process driver."""

import io
import os
import signal
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.requests import HTTPConnection
from support.answers import watched
from support.orchestrators import MODEL, Nestor, nestor_at

from orchestrator.api.auth import STANDS_SECONDS, Standing
from orchestrator.domain.errors import Unauthenticated
from orchestrator.drivers.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
async def nestor(data_dir: Path) -> AsyncIterator[Nestor]:
    async with nestor_at(data_dir, None, driver="process", zygote="off") as running:
        yield running


async def conversation(nestor: Nestor, key: str) -> str:
    made = await nestor.call(
        "POST", "/api/v2/conversations", key, json={}, params={"wait": "ready", "timeout": 120}, status=200
    )
    return str(made["id"])


async def test_files_of_a_workspace(nestor: Nestor) -> None:
    watch = await watched(nestor)  # what is answered is what is declared
    key, other = await nestor.ready_tenant(), await nestor.ready_tenant("other")
    id = await conversation(nestor, key)
    files = f"/api/v2/conversations/{id}/files"

    async def ask(method: str, path: str, own: str = key, **more: Any) -> Any:
        headers = nestor.as_(own) | more.pop("headers", {})
        return await nestor.http.request(method, f"{files}{path}", headers=headers, timeout=60, **more)

    content = os.urandom(3_000_000)  # more than a body of the API may have elsewhere
    made = await ask("PUT", "/src/data.bin", content=content, headers={"Idempotency-Key": "k"})
    assert (made.status_code, made.json()) == (201, {"path": "src/data.bin", "size": len(content)}), made.text
    read = await ask("GET", "/src/data.bin")
    assert read.content == content
    assert read.headers["etag"] == made.headers["etag"]
    assert read.headers["content-disposition"] == 'attachment; filename="data.bin"'
    assert read.headers["content-security-policy"].startswith("sandbox")
    assert "x-session-api-key" not in read.headers
    part = await ask("GET", "/src/data.bin", headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (
        206,
        content[5:10],
        f"bytes 5-9/{len(content)}",
    )
    beyond = await ask("GET", "/src/data.bin", headers={"Range": f"bytes={len(content)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(content)}")
    assert beyond.json()["code"] == "range_not_satisfiable"
    same = await ask("GET", "/src/data.bin", headers={"If-None-Match": made.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    head = await ask("HEAD", "/src/data.bin")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(content)), b"")

    made = await ask("PUT", "/src/data.bin", content=content)
    assert (made.status_code, made.json()["size"]) == (200, len(content))
    assert "src" in [item["name"] for item in (await ask("GET", "")).json()["items"]]
    assert (await ask("PUT", "/src/empty/")).status_code == 204
    listed = (await ask("GET", "/src", params={"limit": 1})).json()
    assert [item["name"] for item in listed["items"]] == ["data.bin"]
    assert listed["items"][0]["etag"] == made.headers["etag"]
    assert "content-length" not in (await ask("HEAD", "/src", params={"limit": 1})).headers, "that of GET is longer"
    rest = (await ask("GET", "/src", params={"page_id": listed["next_page_id"]})).json()
    assert [(item["name"], item["kind"]) for item in rest["items"]] == [("empty", "folder")]
    packed = await ask("GET", "", params={"archive": "tar.gz"})
    assert packed.headers["content-disposition"] == 'attachment; filename="workspace.tar.gz"'
    with tarfile.open(fileobj=io.BytesIO(packed.content)) as tar:
        found = tar.extractfile("src/data.bin")
        assert found is not None
        assert found.read() == content

    stale = await ask("PUT", "/src/data.bin", content=b"x", headers={"If-Match": '"other"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed")
    for path in ("/%2e%2e/%2e%2e/etc/passwd", "/%2fetc/passwd", "/a%00b", "/" + "x" * 5000, "/src/%2e%2e/src"):
        for method in ("GET", "PUT", "DELETE"):
            refused = await ask(method, path)
            assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request"), (method, path)
    full = await ask("DELETE", "/src")
    assert (full.status_code, full.json()["code"]) == (409, "conflict")
    assert (await ask("DELETE", "/src", params={"recursive": True})).status_code == 204
    gone = await ask("GET", "/src")
    assert (gone.status_code, gone.json()["code"]) == (404, "not_found")
    assert (await ask("GET", "", params={"archives": "tar"})).status_code == 422

    foreign, unknown = (
        await ask("GET", "", other),
        await nestor.http.get(f"/api/v2/conversations/{os.urandom(16).hex()}/files", headers=nestor.as_(other)),
    )
    assert foreign.status_code == unknown.status_code == 404
    same = {"request_id": "", "instance": ""}
    assert foreign.json() | same == unknown.json() | same

    await nestor.call("POST", f"/api/v2/conversations/{id}/pause", key, status=202)
    await nestor.until(key, id, "paused", "stopped", seconds=60)
    resting = await ask("GET", "")
    assert (resting.status_code, resting.json()["code"]) == (409, "conflict")
    assert "/resume" in resting.json()["hint"] or "/start" in resting.json()["hint"]
    assert {call for call in watch.calls if "/files" in call[1]} <= watch.seen


async def test_what_policy_put_to_rest_is_woken_for_its_files(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    await nestor.call("PATCH", "/api/v2/settings", key, json={**MODEL, "limits": {"idle_pause_seconds": 1}})
    id = await conversation(nestor, key)
    await nestor.until(key, id, "paused", seconds=90)
    read = await nestor.http.get(f"/api/v2/conversations/{id}/files", headers=nestor.as_(key), timeout=60)
    assert read.status_code == 200, read.text


async def test_an_agent_server_without_such_routes_is_told_from_a_missing_file(
    data_dir: Path, engine: FakeEngine
) -> None:
    async with nestor_at(data_dir, engine) as nestor:
        key = await nestor.ready_tenant()
        path = f"/api/v2/conversations/{await conversation(nestor, key)}/files/a"
        for method in ("GET", "PUT", "DELETE"):
            refused = await nestor.call(method, path, key, status=409)
            assert "serves no files" in refused["detail"]
            assert "/api/file/download" in refused["hint"]
        engine.script.fail("DELETE", path.replace("/v2/", "/"), 503, times=None)
        assert (await nestor.call("DELETE", path, key, status=503))["retryable"] is True


async def test_what_heads_and_names_may_hold_is_no_failure_of_ours(nestor: Nestor) -> None:
    key = await nestor.ready_tenant()
    files = f"/api/v2/conversations/{await conversation(nestor, key)}/files"

    async def ask(method: str, path: str, headers: dict[str, bytes] | None = None, **more: Any) -> Any:
        sent = {"Authorization": f"Bearer {key}".encode(), **(headers or {})}
        return await nestor.http.request(method, f"{files}{path}", headers=sent, timeout=60, **more)

    assert (await ask("PUT", "/a", content=b"0123456789")).status_code == 201
    for name, status in ((b"If-None-Match", 200), (b"If-Match", 412), (b"If-Range", 200)):
        read = await ask("GET", "/a", {name.decode(): b'"\xe9\xff"'})
        assert read.status_code == status, read.text
    assert (await ask("DELETE", "/a", {"If-Match": b'"\xe9"'})).status_code == 412
    for value in (b"lines=0-1", b"bytes=3-1", b"bytes=a-b"):
        assert (await ask("GET", "/a", {"Range": value})).content == b"0123456789"
    part = await ask("PUT", "/a", {"Content-Range": b"bytes 0-1/10"}, content=b"xy")
    assert (part.status_code, part.json()["code"]) == (400, "bad_request")
    assert (await ask("GET", "/a")).content == b"0123456789"

    for path in ("/a%0A", "/a%0Ab"):
        assert (await ask("DELETE", path)).json()["detail"] == "there is no such file"
        assert (await ask("PUT", path, content=b"other")).status_code == 201
        assert (await ask("GET", path)).content == b"other"
    assert (await ask("GET", "/a")).content == b"0123456789"


async def test_a_key_stands_while_the_state_server_is_away_and_falls_when_it_is_back(nestor: Nestor) -> None:
    """What a download asks before each piece: else every one of them would break off with a server that hangs."""
    key = await nestor.ready_tenant()
    told = HTTPConnection({"type": "http", "headers": [(b"authorization", f"Bearer {key}".encode())]})
    standing = Standing(told, nestor.house.services)
    server = nestor.house.state_server
    assert server is not None
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        await anyio.sleep(STANDS_SECONDS + 0.1)
        await standing.check()
    finally:
        os.kill(server.pid, signal.SIGCONT)
    other = Standing(
        HTTPConnection({"type": "http", "headers": [(b"authorization", b"Bearer nst_unknown")]}), nestor.house.services
    )
    await anyio.sleep(STANDS_SECONDS + 0.1)
    with pytest.raises(Unauthenticated):
        await other.check()
