"""One request through `git http-backend`, as CGI: the bytes of the request in, the bytes of the answer out.

`git_server.py` calls it after it has decided who may; here nothing is decided. The process and what it started are
gone when a call returns, whatever happened to the client.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, Process
from starlette.types import Receive, Scope, Send

#: No clone or push of the demo's size takes this long; a stuck one must not stay for ever.
DEADLINE_SECONDS = 300
_HEAD_LIMIT_BYTES = 64 * 1024

Stream = TypeVar("Stream")


class GitUnavailable(Exception):
    """git, or its http-backend, is not installed here; the message says what to install."""


def find_git() -> Path:
    """The git program, with its http-backend present; raises GitUnavailable."""
    found = shutil.which("git")
    if found is None:
        raise GitUnavailable("git is not on PATH: install the package git")
    asked = subprocess.run([found, "--exec-path"], capture_output=True, text=True, check=True, timeout=30)
    if not (Path(asked.stdout.strip()) / "git-http-backend").exists():
        raise GitUnavailable("git has no http-backend here: install the package git (on Alpine git-daemon)")
    return Path(found)


def git_environment(git: Path, home: Path) -> dict[str, str]:
    """An environment in which neither the user's nor the machine's git configuration counts."""
    return {
        "PATH": f"{git.parent}{os.pathsep}{os.defpath}",
        "HOME": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }


def _cgi_environment(scope: Scope, headers: Mapping[str, str], *, folder: Path, user: str) -> dict[str, str]:
    """The variables of RFC 3875 that http-backend reads.

    A chunked body has no CONTENT_LENGTH: the backend then reads to the end of its input.
    """
    variables = {
        "GIT_PROJECT_ROOT": str(folder),
        "GIT_HTTP_EXPORT_ALL": "1",
        "PATH_INFO": scope["path"],
        "REQUEST_METHOD": scope["method"],
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "REMOTE_USER": user,
        "CONTENT_TYPE": headers.get("content-type", ""),
        "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
        "CONTENT_LENGTH": headers.get("content-length", ""),
        "GIT_PROTOCOL": headers.get("git-protocol", ""),
    }
    return {name: value for name, value in variables.items() if value}


async def forward(
    scope: Scope, receive: Receive, send: Send, *, git: Path, folder: Path, headers: Mapping[str, str], user: str
) -> None:
    """Answer one request with what http-backend says. The repository is `folder` + the request's path."""
    environment = {
        **git_environment(git, folder),
        **_cgi_environment(scope, headers, folder=folder, user=user),
    }
    with anyio.fail_after(DEADLINE_SECONDS):
        process = await anyio.open_process(
            [str(git), "http-backend"], env=environment, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_feed, _piped(process.stdin), receive, tasks.cancel_scope)
                await _answer(_piped(process.stdout), send)
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process)


def _piped(stream: Stream | None) -> Stream:
    if stream is None:
        raise RuntimeError("the backend was started without pipes")
    return stream


async def _feed(stdin: ByteSendStream, receive: Receive, scope: anyio.CancelScope) -> None:
    """The request's body into the process; when the client goes away, the whole request is given up."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            scope.cancel()
            return
        # The backend may have answered (a refusal, say) and gone without reading everything.
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, BrokenPipeError):
            if message.get("body"):
                await stdin.send(message["body"])
            if not message.get("more_body"):
                await stdin.aclose()


async def _answer(stdout: ByteReceiveStream, send: Send) -> None:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _HEAD_LIMIT_BYTES:
        try:
            head += await stdout.receive()
        except anyio.EndOfStream:
            break
    head, separator, body = head.partition(b"\r\n\r\n")
    if not separator:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"git http-backend gave no answer\n"})
        return
    status, headers = _parse_head(head)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    async for chunk in stdout:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _parse_head(head: bytes) -> tuple[int, list[tuple[bytes, bytes]]]:
    """CGI's `Status` becomes the status, everything else stays a header."""
    status = 200
    headers: list[tuple[bytes, bytes]] = []
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"status":
            status = int(value.split()[0])
        else:
            headers.append((name.lower(), value.strip()))
    return status, headers


async def _end(process: Process) -> None:
    """No part of the request outlives it: the backend leads a session of its own, so all of it can be ended."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    await process.aclose()
