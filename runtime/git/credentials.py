"""Serves git tokens to git processes of this runtime's shells, on a private unix socket.

Started and stopped by the conversation service. The other end is `credential_helper`, which git runs; `environment`
makes git use it and nothing else. Tokens are read from the store at each request, so that a new one counts at once.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from runtime.git import credential_helper
from runtime.git.remotes import provider_for, username_for
from runtime.machine import account
from runtime.secrets.providers import GitProviderStore
from runtime.store.files import private_directory

log = structlog.get_logger()

_REQUEST_BYTES = 64 * 1024
_REQUEST_SECONDS = 10.0
#: the kernel's limit of a socket's path is 108 bytes with its end mark
_LONGEST_PATH = 100


class CredentialService:
    """One socket for all conversations of this runtime: they belong to one user."""

    def __init__(self, providers: GitProviderStore, *, directory: Path, http_hosts: Sequence[str]) -> None:
        self._providers = providers
        self._directory = directory
        self._http_hosts = http_hosts
        self._temporary: Path | None = None
        self._server: asyncio.Server | None = None
        self.path = directory.absolute() / "git.sock"
        self.program = Path(credential_helper.__file__)

    async def start(self) -> None:
        """Listen. Raises OSError. A socket left by a crash is replaced."""
        if len(os.fsencode(self.path)) > _LONGEST_PATH or account.chosen() is not None:
            self._temporary = Path(tempfile.mkdtemp(prefix="nestor-"))  # 0700
            if account.chosen() is not None:  # the agent's git reaches neither the state's folder nor, maybe, our files
                account.give(self._temporary)
                self.program = Path(shutil.copy(credential_helper.__file__, self._temporary))
                account.give(self.program)
            self.path = self._temporary / "git.sock"
        private_directory(self.path.parent)
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, path=self.path, limit=_REQUEST_BYTES)
        self.path.chmod(0o600)
        account.give(self.path)

    async def stop(self) -> None:
        """Stop listening and remove the socket. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.path.unlink(missing_ok=True)
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                writer.write(self._answer(_attributes(await _read(reader))))
                await writer.drain()
        except (TimeoutError, OSError) as error:
            log.warning("git.credential_request_failed", error=type(error).__name__)
        finally:
            writer.close()

    def _answer(self, attributes: Mapping[str, str]) -> bytes:
        provider = provider_for(attributes, self._providers.all(), self._http_hosts)
        if provider is None or provider.token is None:
            return b""
        token = provider.token.get_secret_value()
        if "\n" in token or "\0" in token:
            log.warning("git.token_unusable", provider=provider.name, reason="it holds a line end")
            return b""
        return f"username={username_for(provider)}\npassword={token}\n".encode()


def environment(
    socket: Path, *, user_name: str, user_email: str, program: Path = Path(credential_helper.__file__)
) -> dict[str, str]:
    """What a process needs so that its git asks us, and asks nobody else: no file of the user is read or changed.

    The empty first helper drops the ones that a system's configuration names.
    """
    helper = " ".join(shlex.quote(part) for part in (account.interpreter(), "-I", "-S", str(program)))
    settings = [
        ("credential.helper", ""),
        ("credential.helper", f"!{helper}"),
        ("credential.useHttpPath", "true"),
        ("user.name", user_name),
        ("user.email", user_email),
        ("protocol.ext.allow", "never"),
        ("init.defaultBranch", "main"),
    ]
    variables = {"GIT_TERMINAL_PROMPT": "0", "NESTOR_GIT_SOCKET": str(socket), "GIT_CONFIG_COUNT": str(len(settings))}
    for number, (key, value) in enumerate(settings):
        variables[f"GIT_CONFIG_KEY_{number}"] = key
        variables[f"GIT_CONFIG_VALUE_{number}"] = value
    return variables


async def _read(reader: asyncio.StreamReader) -> bytes:
    """The whole request, up to its limit; the other end closes its half after it."""
    try:
        return await reader.readexactly(_REQUEST_BYTES)
    except asyncio.IncompleteReadError as end:
        return end.partial


def _attributes(request: bytes) -> dict[str, str]:
    """`key=value` lines up to the first empty one."""
    found: dict[str, str] = {}
    for line in request.decode(errors="replace").split("\n"):
        if not line:
            break
        key, _, value = line.partition("=")
        found[key] = value
    return found
