"""Private git repositories over HTTP on loopback, served by git's own http-backend.

The demo and the tests clone from it and push to it as they would with a hosting service: Basic authentication with
a token as the password, 401 for a token nobody knows, 404 for a repository that the token does not open. It knows
nothing of the orchestrator.
"""

import base64
import binascii
import contextlib
import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import anyio
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from orchestrator.demo.git_backend import find_git, forward, git_environment
from orchestrator.demo.loopback import serving

_REQUEST_PATH = re.compile(
    r"/(?P<name>[A-Za-z0-9._-]+/[A-Za-z0-9._-]+)\.git/(info/refs|git-upload-pack|git-receive-pack)"
)
_REPOSITORY_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*/[A-Za-z0-9_-][A-Za-z0-9._-]*")
_COMMAND_SECONDS = 60
_AUTHOR = "Nestor Demo <demo@example.invalid>"


class GitCommandFailed(Exception):
    """A git command on one of the server's own repositories failed; the message is what git said."""


@dataclass(frozen=True)
class Commit:
    """One commit as the repository has it."""

    sha: str
    author: str
    subject: str


@dataclass
class _Repository:
    tokens: list[str] = field(default_factory=list, repr=False)

    def opens(self, token: str) -> bool:
        return any(hmac.compare_digest(token.encode(), known.encode()) for known in self.tokens)


class GitServer:
    """The server as an async context manager; `origin` is what a git provider's `host` is set to.

    Repositories live as bare ones under `folder` and stay there when the server ends.
    """

    def __init__(self, folder: Path, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.folder = folder
        self._host = host
        self._port = port
        self._origin: str | None = None
        self._repositories: dict[str, _Repository] = {}
        self._stack = contextlib.AsyncExitStack()

    @property
    def origin(self) -> str:
        """`http://host:port`; raises RuntimeError outside of the `with` block."""
        if self._origin is None:
            raise RuntimeError("the git server is not running: enter it with `async with` first")
        return self._origin

    def url(self, name: str) -> str:
        """The clone address of a repository, without any credential in it."""
        return f"{self.origin}/{name}.git"

    async def __aenter__(self) -> "GitServer":
        """Raises GitUnavailable where git or its http-backend is not installed."""
        self._git = await anyio.to_thread.run_sync(find_git)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._origin = await self._stack.enter_async_context(serving(self._app, host=self._host, port=self._port))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._origin = None
        await self._stack.aclose()

    async def create_repository(
        self, name: str, *, files: Mapping[str, str], token: str, branch: str = "main", subject: str = "First commit"
    ) -> None:
        """Make the private repository `name` ("owner/name") with one commit of `files`; `token` opens it."""
        if not _REPOSITORY_NAME.fullmatch(name) or name.endswith(".git"):
            raise ValueError(f"{name!r} is no repository name: write owner/name without .git")
        await self._command("init", "--quiet", "--bare", f"--initial-branch={branch}", str(self._path(name)))
        # A garbage collection started by a push would outlive the push.
        for setting in ("receive.autogc", "maintenance.auto"):
            await self._in(name, "config", setting, "false")
        await self._in(name, "fast-import", "--quiet", stdin=_import_stream(branch, subject, files))
        self.grant(name, token, new=True)

    def grant(self, name: str, token: str, *, new: bool = False) -> None:
        """One more token that opens `name`; raises KeyError for a repository that was not made here."""
        if new:
            self._repositories[name] = _Repository()
        self._repositories[name].tokens.append(token)

    def revoke(self, name: str, token: str) -> None:
        """From the next request on `token` does not open `name`."""
        self._repositories[name].tokens.remove(token)

    async def branches(self, name: str) -> list[str]:
        """The branches of a repository, sorted."""
        listed = await self._in(name, "for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads")
        return sorted(listed.split())

    async def commits(self, name: str, branch: str) -> list[Commit]:
        """The commits of a branch, newest first; empty when there is no such branch."""
        if branch not in await self.branches(name):
            return []
        log = await self._in(name, "log", "--format=%H%x00%an%x00%s", f"refs/heads/{branch}")
        return [Commit(*line.split("\0")) for line in log.splitlines()]

    async def read(self, name: str, branch: str, path: str) -> str:
        """A file's text on a branch; raises GitCommandFailed when it is not there."""
        return await self._in(name, "show", f"refs/heads/{branch}:{path}")

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.git"

    async def _in(self, name: str, *arguments: str, stdin: bytes = b"") -> str:
        return await self._command("--git-dir", str(self._path(name)), *arguments, stdin=stdin)

    async def _command(self, *arguments: str, stdin: bytes = b"") -> str:
        with anyio.fail_after(_COMMAND_SECONDS):
            done = await anyio.run_process(
                [str(self._git), *arguments],
                input=stdin,
                check=False,
                env=git_environment(self._git, self.folder),
                start_new_session=True,
            )
        if done.returncode:
            raise GitCommandFailed(done.stderr.decode(errors="replace").strip())
        return done.stdout.decode(errors="replace")

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        if scope["path"].startswith("/api/"):
            await _refuse(send, 404, "this host has no API")  # a 401 there would say that the token is a wrong one
            return
        credentials = _basic_credentials(headers.get("authorization"))
        found = _REQUEST_PATH.fullmatch(scope["path"])
        if credentials is None or not self._knows(credentials.token):
            await _refuse(send, 401, "a token is needed as the password")
            return
        repository = self._repositories.get(found["name"]) if found else None
        if repository is None or not repository.opens(credentials.token):
            await _refuse(send, 404, "no such repository")
            return
        await forward(
            scope, receive, send, git=self._git, folder=self.folder, headers=headers, user=credentials.user or "token"
        )

    def _knows(self, token: str) -> bool:
        return any(repository.opens(token) for repository in self._repositories.values())


@dataclass(frozen=True)
class _Credentials:
    user: str
    token: str = field(repr=False)


def _basic_credentials(header: str | None) -> _Credentials | None:
    """User and token of an Authorization header; the user's name is anything at all, as hosts take it."""
    scheme, _, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, token = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return _Credentials(user, token)


async def _refuse(send: Send, status: int, message: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="git"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{message}\n".encode()})


def _import_stream(branch: str, subject: str, files: Mapping[str, str]) -> bytes:
    """The files as one commit in the form that `git fast-import` reads: no working tree is needed."""
    stamp = f"{_AUTHOR} {int(time.time())} +0000"
    lines = [f"commit refs/heads/{branch}\ncommitter {stamp}\n".encode(), _counted(subject)]
    for path, text in files.items():
        lines += [f"M 100644 inline {path}\n".encode(), _counted(text)]
    return b"".join(lines)


def _counted(text: str) -> bytes:
    encoded = text.encode()
    return b"data %d\n%s\n" % (len(encoded), encoded)
