"""An orchestrator over a state server of its own, with tenants, and one conversation of each kind made
through its API."""

import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from fastapi import FastAPI
from redis import Redis

from orchestrator.app import api
from orchestrator.app.furnishing import House
from orchestrator.app.house import open_house
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.drivers.fake import FakeDriver
from orchestrator.settings import OrchestratorSettings
from orchestrator.state.embedded import find_server

OPERATOR = "operator-key-of-the-bench-0123456789"
MODEL = {"agent_settings": {"llm": {"model": "openai/scripted", "api_key": "sk-model-key"}}}
KINDS = {"stopped": 0.6, "failed": 0.1, "archived": 0.3}  #: shares of what rests
_CHANGES = frozenset("ensure_volume remove_volume create start stop destroy pause unpause".split())


class CountingDriver(FakeDriver):
    """Counts the calls that change something."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def __getattribute__(self, name: str) -> Any:
        if name in _CHANGES:
            self.changes += 1
        return super().__getattribute__(name)


@dataclass
class Owner:
    """A tenant, its key, and its users."""

    tenant: TenantId
    key: str
    key_id: str
    users: list[str]


@dataclass
class Site:
    """One orchestrator over one state server."""

    house: House
    driver: CountingDriver
    app: FastAPI
    redis: "Redis[str]"
    address: Path
    owners: list[Owner] = field(default_factory=list)
    ready: list[str] = field(default_factory=list)
    resting: list[tuple[TenantId, str]] = field(default_factory=list)  #: some of those that were written
    count: int = 0
    bytes_each: float = 0.0

    @property
    def big(self) -> Owner:
        return self.owners[0]

    async def call(self, method: str, path: str, key: str, body: Any = None, *, user: str | None = None) -> Any:
        """The application, without a client or a socket around it. The answer, which has to be a good one."""
        path, _, query = path.partition("?")
        headers = [(b"authorization", f"Bearer {key}".encode()), (b"host", b"bench")]
        if user is not None:
            headers.append((b"x-act-as-user", user.encode()))
        content = b"" if body is None else json.dumps(body).encode()
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [*headers, (b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        await self.app(scope, receive, send)
        answer = json.loads(b"".join(message.get("body", b"") for message in sent[1:]) or b"null")
        assert sent[0]["status"] < 300, (path, sent[0]["status"], answer)
        return answer


@contextmanager
def state_server(folder: Path) -> Iterator[Path]:
    """One with nothing on its disk; the address of its socket."""
    folder.mkdir()
    address = folder / "s.sock"
    command = [str(find_server()), "--port", "0", "--unixsocket", str(address), "--dir", str(folder)]
    process = subprocess.Popen([*command, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 10
        while not address.exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        yield address
    finally:
        process.terminate()
        process.wait()


@asynccontextmanager
async def open_site(folder: Path) -> AsyncIterator[Site]:
    with state_server(folder) as address:
        settings = OrchestratorSettings(
            data_dir=folder / "data",
            redis_url=f"unix://{address}",
            driver="fake",
            operator_key=OPERATOR,
            runtime_ports=False,
        )
        driver = CountingDriver()
        async with open_house(settings, "http://127.0.0.1:1", driver=driver) as house:
            with Redis(unix_socket_path=str(address), decode_responses=True) as redis:
                yield Site(house, driver, api.build(house.services), redis, address)


async def furnish(site: Site, *, tenants: int, live: int) -> dict[str, tuple[str, str]]:
    """Owners, the live ones (half of them paused), and two of each kind that rests. Answers the ids of those."""
    for number in range(tenants):
        tenant = (await site.call("POST", "/api/v2/tenants", OPERATOR, {"name": f"tenant {number}"}))["id"]
        made = await site.call("POST", f"/api/v2/tenants/{tenant}/api-keys", OPERATOR, {"name": "k"})
        users = [
            (await site.call("POST", f"/api/v2/tenants/{tenant}/users", OPERATOR, {"name": f"user {one}"}))["id"]
            for one in range(50 if number == 0 else 3)
        ]
        await site.call("PATCH", "/api/v2/settings", made["key"], MODEL)
        site.owners.append(Owner(TenantId(tenant), made["key"], made["id"], users))
    kinds: dict[str, tuple[str, str]] = {}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(site.house.workers.run)
        for number in range(live):
            owner = site.owners[number % tenants]
            id = await _started(site, owner, owner.users[number % len(owner.users)])
            if number % 2:
                await site.call("POST", f"/api/v2/conversations/{id}/pause", owner.key)
            elif owner is site.big:
                site.ready.append(id)
        for kind in KINDS:
            first, second = [await _rested(site, kind) for _ in range(2)]
            kinds[kind] = first, second
        await anyio.sleep(1)
        tasks.cancel_scope.cancel()
    return kinds


async def _started(site: Site, owner: Owner, user: str, query: str = "?wait=ready&timeout=60") -> str:
    body = {"repository": "owner/name", "initial_message": "hello", "title": "A title", "labels": {"team": "one"}}
    return str((await site.call("POST", f"/api/v2/conversations{query}", owner.key, body, user=user))["id"])


async def _rested(site: Site, kind: str) -> str:
    """One that came to rest as its kind does: after work, or because its runtime would not take its settings."""
    owner, archives = site.big, site.big.users[-1]
    if kind == "failed":
        site.driver.script.fail("POST", "/api/settings", 500, times=None)
        id = await _started(site, owner, owner.users[0], query="")
    else:
        short = {"limits": {"archive_seconds": 1}}
        await site.call("PATCH", "/api/v2/settings", owner.key, short, user=archives)
        id = await _started(site, owner, archives if kind == "archived" else owner.users[0])
        message = {"content": "and more", "client_id": "m"}
        await site.call("POST", f"/api/v2/conversations/{id}/messages", owner.key, message)
        with anyio.fail_after(60):
            while True:  # two messages and their answers
                events = (await site.call("GET", f"/api/v2/conversations/{id}/events", owner.key))["items"]
                waiting = await site.house.store.inbox.waiting(owner.tenant, ConversationId(id), limit=1)
                if len(events) >= 4 and not waiting:
                    break
                await anyio.sleep(0.1)
        await site.call("POST", f"/api/v2/conversations/{id}/stop", owner.key)
    with anyio.fail_after(60):
        while True:
            found = await site.call("GET", f"/api/v2/conversations/{id}", owner.key)
            if found["archived_at"] if kind == "archived" else found["phase"] == kind:
                break
            await anyio.sleep(0.05)
    site.driver.script.clear()
    return id


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
