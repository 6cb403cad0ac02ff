"""A start, rehearsed: what the first requests of a runtime make, import and touch is there before anybody waits for it.

The calls of a start go through the application once, for a runtime of nobody, in a folder that is removed afterwards.
`runtime.app` does it in a zygote, so that whoever is forked from it inherits what was made, and in a spare, which has
then also copied the memory that it shares no more. Nothing is started or asked outside of this process, nothing is
logged, and no key leaves it.
"""

import asyncio
import json
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog
from pydantic import SecretStr
from starlette.types import ASGIApp, Message

from runtime import logs
from runtime.boot import InitKey
from runtime.connection import CONNECTION, Connection
from runtime.machine import account
from runtime.settings import RuntimeSettings
from runtime.state import RuntimeState

log = structlog.get_logger()

_LLM = {"model": "rehearsed/rehearsed", "num_retries": 1}
_THREADS_SECONDS = 5.0
#: The interpreter makes code faster that it has run before, and is done with that after the third time.
_TIMES = 3
#: As an orchestrator's; nobody is told anything.
_WEBHOOK = {"base_url": "http://rehearsed.invalid", "name": "orchestrator", "send_session_key": True}
Dressed = Callable[[RuntimeState], ASGIApp]


class _Refused(Exception):
    """A call of the rehearsal was not served, so what it should have made is made by a request."""


async def rehearse(dressed: Dressed, settings: RuntimeSettings, *, wanted: Callable[[], bool] = lambda: True) -> None:
    """Make every call of a start, for as long as `wanted`. `dressed` is the application over another state;
    `settings` are those of the runtime, none of whose folders is touched. What goes wrong is logged and else without
    effect: the first request of its kind is slow then."""
    try:
        for _ in range(_TIMES):
            if not wanted():
                return
            with tempfile.TemporaryDirectory(prefix="rehearsal-", ignore_cleanup_errors=True) as folder, logs.quiet():
                await _through(dressed, _moved(settings, Path(folder)), wanted)
    except (_Refused, OSError) as problem:
        log.warning("runtime.not_rehearsed", problem=str(problem))


def rehearse_alone(dressed: Dressed) -> None:
    """As `rehearse`, in a process without an event loop, and leave no thread behind."""
    others = set(threading.enumerate())
    asyncio.run(rehearse(dressed, RuntimeSettings()))
    for thread in set(threading.enumerate()) - others:  # they were told to end when the loop did
        thread.join(_THREADS_SECONDS)


def _moved(settings: RuntimeSettings, folder: Path) -> RuntimeSettings:
    project = folder / "project"
    project.mkdir(mode=0o700)
    folder.chmod(0o711)
    account.give(project)
    return settings.model_copy(
        update={
            "persistence_dir": folder / "persistence",
            "conversations_path": folder / "conversations",
            "bash_events_dir": folder / "bash_events",
            "conversation_worktree_root": folder / "worktrees",
            "workspace_path": project,
        }
    )


async def _through(dressed: Dressed, settings: RuntimeSettings, wanted: Callable[[], bool]) -> None:
    init_key, key = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    state = RuntimeState(settings, init_key=InitKey(SecretStr(init_key), travels=True), rehearsing=True)
    client = _Client(dressed(state), {"X-Init-API-Key": init_key, "X-Session-API-Key": key})
    try:
        for method, path, body in _calls(key):
            if not wanted():
                return
            await client.call(method, path, body)
            await asyncio.sleep(0)
    finally:
        await state.stop()


def _calls(key: str) -> Iterator[tuple[str, str, Mapping[str, Any] | None]]:
    """What an orchestrator asks, in its order."""
    told = {"secret_key": secrets.token_urlsafe(24), "generation": 1, "allow_set_conversation_id": True}
    told |= {"public_urls": [], "allow_http_hosts": ["127.0.0.1"], "lookup_secret_hosts": []}
    id = uuid4()
    yield "GET", "/api/init", None
    yield "POST", "/api/init", {"session_api_keys": [key], "webhooks": [_WEBHOOK], **told}
    yield "POST", "/api/settings", {"agent": "CodeActAgent", "llm_model": _LLM["model"], "llm_api_key": key}
    yield "PATCH", "/api/settings", {"agent_settings_diff": {"llm": _LLM}}
    yield "POST", "/api/add-git-providers", {"provider_tokens": {"github": {"token": key}}}
    yield "POST", "/api/secrets", {"secrets": {"REHEARSED": key}}
    asked = {"settings": ["/agent_settings/llm/model"], "git_providers": ["github"], "secrets": ["REHEARSED"]}
    yield "POST", "/api/settings/digests", asked
    yield "POST", "/api/conversations", {"conversation_id": str(id)}
    yield "GET", f"/api/conversations/{id}/events/search", None


class _Client:
    """Requests without a socket, as one connection of uvicorn brings them."""

    def __init__(self, app: ASGIApp, keys: Mapping[str, str]) -> None:
        self._app = app
        named = {**keys, "X-Init-Nonce": secrets.token_urlsafe(24), "X-Fence": "1", "Content-Type": "application/json"}
        self._headers = [(name.lower().encode(), value.encode()) for name, value in named.items()]
        self._connection = Connection()

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        received: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]
        sent: list[Message] = []

        async def receive() -> Message:
            if not received:
                await asyncio.Event().wait()  # nobody hangs up
            return received.pop()

        async def send(message: Message) -> None:
            sent.append(message)

        await self._app(self._scope(method, path, len(content)), receive, send)
        status = sent[0]["status"] if sent else 0
        if not 200 <= status < 300:
            raise _Refused(f"{method} {path}: {status} {_body(sent)}")

    def _scope(self, method: str, path: str, length: int) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [*self._headers, (b"content-length", b"%d" % length)],
            "client": ("127.0.0.1", 0),
            "server": ("127.0.0.1", 0),
            "state": {CONNECTION: self._connection},
        }


def _body(sent: Sequence[Message]) -> str:
    return b"".join(message.get("body", b"") for message in sent)[:300].decode(errors="replace")
