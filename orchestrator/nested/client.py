"""The HTTP client of one runtime, for provisioning and for reading its log; never on a client's data path.

A transport failure or nonsense is `RuntimeUnreachable`; a refusal is `Refused` with the call, the status and what the
runtime said in its own closed words. Bodies of ours never enter an error.
"""

import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from json import dumps
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import anyio

from orchestrator.domain import tracing
from orchestrator.domain.errors import RuntimeUnreachable
from orchestrator.domain.secrets import SecretText
from orchestrator.nested.binding import PATH, Connect, Met, OneConnection, Permitted, at_once, bind, meet, says_dormant
from orchestrator.nested.connection import Content
from orchestrator.nested.exchange import Exchange
from orchestrator.nested.refusals import Impostor, Refused, parsed, refusal
from orchestrator.security.connecting import Door
from orchestrator.telemetry import metrics

_POLL_SECONDS = 0.05
_ALIVE_SECONDS = 2.0
_NOT_YET = 503
_DIGEST = re.compile(r"[0-9a-f]{16,64}")
_DISKS = ("workspace", "state")
_PATH = "/~:@!$&'()*+,;=%"  #: what a path may have beside letters, digits and -._
_EVENT_ID = re.compile(r"[!-~]{1,128}")


@dataclass(frozen=True)
class EventPage:
    items: list[dict[str, Any]]
    next_page_id: str | None


class RuntimeClient:
    """Calls to one runtime under its inner key. Made by `RuntimeClients.open` for the length of a piece of work."""

    def __init__(
        self,
        exchange: Exchange,
        origin: str,
        inner_key: SecretText,
        fence: int | None,
        generation: int | None,
        connect: Connect,
        door: Door,
    ) -> None:
        self._exchange = exchange
        self._origin = origin
        self._door: Door | None = door  #: None once somebody was seen to listen
        self._met: Met | None = None  #: for the next `init`
        self._connect = connect
        named = {"X-Fence": fence, "X-Generation": generation}
        self._guards = {name: str(number) for name, number in named.items() if number is not None}
        self._headers = {"X-Session-API-Key": inner_key.open(), **self._guards}

    def is_for(self, origin: str, inner_key: SecretText) -> bool:
        """Whether it asks the runtime at this origin, under this key."""
        return self._origin == origin and self._headers["X-Session-API-Key"] == inner_key.open()

    async def alive(self) -> bool:
        """Whether `/alive` answers 200 now. Cheap while nobody listens there."""
        if not self._is_open():
            return False
        try:
            return (await self._exchange.ask("GET", "/alive", {}, seconds=_ALIVE_SECONDS, reads=False))[0] == 200
        except RuntimeUnreachable:
            return False

    async def meets(self, init_key: SecretText) -> bool:
        """As `alive`, of a dormant runtime, which proves itself with its first answer: `init` goes on from there. What
        is wrong with one that answers otherwise is told by `init`."""
        if not self._is_open():
            return False
        await self._part()
        try:
            with anyio.fail_after(_ALIVE_SECONDS):
                self._met = await meet(self._connect, self._origin, init_key)
        except (RuntimeUnreachable, TimeoutError):
            return False
        except Refused as exc:
            return exc.status != _NOT_YET
        except Impostor:
            return True
        return True

    async def _part(self) -> None:
        met, self._met = self._met, None
        if met is not None:
            await met.connection.aclose()

    def _is_open(self) -> bool:
        if self._door is not None and self._door.is_open():
            self._door = None
        return self._door is None

    async def wait_alive(self, *, give_up: "anyio.Event | None" = None) -> None:
        """Until `/alive` answers. Ends only by the caller's deadline, or when `give_up` is set."""
        while not await self.alive():
            if give_up is not None and give_up.is_set():
                return
            await anyio.sleep(_POLL_SECONDS)

    async def init(self, init_key: SecretText, body: Mapping[str, Any], *, permitted: Permitted = at_once) -> None:
        """Bind a dormant runtime, which proves before and on the same connection that it knows the init key, and is
        told nothing before `permitted` returns. Raises `Impostor`; `NotDormant` when it says that it was bound before;
        see `binding.bind`."""
        began, waited = time.perf_counter(), 0.0

        async def waiting() -> None:
            nonlocal waited
            asked = time.perf_counter()
            await permitted()
            waited += time.perf_counter() - asked

        try:
            guards = {**self._guards, **tracing.headers()}
            met, self._met = self._met, None
            await bind(self._connect, self._origin, init_key, guards, body, permitted=waiting, met=met)
        finally:  # with what is asked before it, and without what was waited for
            took = time.perf_counter() - began - waited
            metrics.RUNTIME_CALL_SECONDS.labels(f"POST {PATH}").observe(took)

    async def wait_dormant(self) -> None:
        """Until it says that it waits to be bound. Ends only by the caller's deadline."""
        await self.wait_alive()
        while True:  # it answers before it has read its init key
            if await self.is_dormant():
                return
            await anyio.sleep(_POLL_SECONDS)

    async def is_dormant(self) -> bool:
        """Whether it says so now. Whoever says it gets no key for that."""
        try:
            with anyio.fail_after(_ALIVE_SECONDS):
                return await says_dormant(self._connect, self._origin)
        except (RuntimeUnreachable, TimeoutError):
            return False

    async def init_unproven(self, init_key: SecretText, body: Mapping[str, Any]) -> None:
        """Bind a stock agent server. The caller has asked the engine, a moment ago, who listens at this address."""
        await self._call("POST", "/api/init", json=body, headers={"X-Init-API-Key": init_key.open()})

    async def put_secret(self, name: str, value: SecretText) -> None:
        """Store one secret of a stock agent server, or replace it."""
        await self._call("PUT", "/api/settings/secrets", json={"name": name, "value": value.open()})

    async def delete_secret(self, name: str) -> None:
        """Remove one secret; one that is not there is fine."""
        try:
            await self._call("DELETE", f"/api/settings/secrets/{name}")
        except Refused as exc:
            if exc.status != 404:
                raise

    async def digests(self, names: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """One digest for each part of `names` over what is stored under these names now."""
        answer = await self._call("POST", "/api/settings/digests", json={part: list(names[part]) for part in names})
        found = {part: answer.get(part) for part in names} if isinstance(answer, dict) else {}
        if not found or not all(isinstance(text, str) and _DIGEST.fullmatch(text) for text in found.values()):
            raise RuntimeUnreachable("the runtime answered its digests with something else")
        return {part: str(text) for part, text in found.items()}

    async def full_disks(self) -> tuple[str, ...]:
        """Which disks of the runtime have no space left, of `workspace` and `state`; nothing for a server that does not
        tell. Raises `RuntimeUnreachable`, `Refused`."""
        answer = await self._call("GET", "/server_info")
        about = answer.get("nestor") if isinstance(answer, dict) else None
        told = about.get("full") if isinstance(about, dict) else None
        return tuple(name for name in _DISKS if name in told) if isinstance(told, list) else ()

    async def settings(self) -> dict[str, Any]:
        """The newer settings record, secrets hidden."""
        answer = await self._call("GET", "/api/settings")
        return answer if isinstance(answer, dict) else {}

    async def secret_names(self) -> frozenset[str]:
        """Of the secrets that are stored. Raises `RuntimeUnreachable` for nonsense."""
        answer = await self._call("GET", "/api/settings/secrets")
        items = answer.get("secrets") if isinstance(answer, dict) else None
        if not isinstance(items, list):
            raise RuntimeUnreachable("the runtime answered its list of secrets with something else")
        return frozenset(str(item.get("name")) for item in items if isinstance(item, dict))

    async def unset_git_providers(self) -> None:
        await self._call("POST", "/api/unset-provider-tokens", json={})

    async def update_conversation_secrets(self, id: str, secrets: Mapping[str, SecretText]) -> None:
        """For a stock agent server, whose conversations have secrets of their own."""
        values = {name: {"kind": "StaticSecret", "value": value.open()} for name, value in secrets.items()}
        await self._call("POST", f"/api/conversations/{id}/secrets", json={"secrets": values})

    async def post_settings(self, body: Mapping[str, Any]) -> None:
        await self._call("POST", "/api/settings", json=body)

    async def store_settings(self, flat: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        """The flat record and what it cannot say: in one call, or in two to a runtime that does not say that it merged
        the rest."""
        answer = await self._call("POST", "/api/settings", json={**flat, **rest})
        if rest and not (isinstance(answer, dict) and answer.get("diffs") == "merged"):
            await self.patch_settings(rest)

    async def patch_settings(self, body: Mapping[str, Any]) -> None:
        await self._call("PATCH", "/api/settings", json=body)

    async def post_git_providers(self, body: Mapping[str, Any]) -> None:
        await self._call("POST", "/api/add-git-providers", json=body)

    async def post_secrets(self, body: Mapping[str, Any]) -> None:
        await self._call("POST", "/api/secrets", json=body)

    async def create_conversation(self, body: Mapping[str, Any], *, timeout: float) -> None:
        await self._call("POST", "/api/conversations", json=body, timeout=timeout)

    async def copyable(self, id: str, events: int | None) -> tuple[int, bool]:
        """How many events a copy of the conversation would have that is asked for with the first `events`, None: with
        all; and whether there is the workspace of that event. Raises `RuntimeUnreachable`, also for nonsense, and
        `Refused`."""
        params = {} if events is None else {"events": str(events)}
        answer = await self._call("GET", f"/api/conversations/{id}/copy", params=params)
        count = answer.get("events") if isinstance(answer, dict) else None
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise RuntimeUnreachable("the runtime answered the length of a copy with something else")
        return count, isinstance(answer, dict) and answer.get("workspace") == "event"

    async def take_in(self, id: str, pieces: AsyncIterator[bytes], *, timeout: float) -> None:
        """Give it the copy with which the conversation `id` will begin. Raises what `pieces` raises as well."""
        await self._call("PUT", f"/api/conversations/{id}/copy/archive", content=pieces, timeout=timeout)

    async def conversation(self, id: str) -> dict[str, Any]:
        answer = await self._call("GET", f"/api/conversations/{id}")
        return answer if isinstance(answer, dict) else {}

    async def conversations_in(self, status: str) -> int:
        """How many of the runtime's conversations have this execution status. Raises `RuntimeUnreachable` for
        nonsense."""
        answer = await self._call("GET", "/api/conversations/count", params={"status": status})
        if not isinstance(answer, int):
            raise RuntimeUnreachable("the runtime answered the number of its conversations with something else")
        return answer

    async def known_fence(self, id: str) -> tuple[bool, int]:
        """Whether the conversation is there, and the highest fence that the runtime has seen if that is above this
        client's, else 0. Raises `RuntimeUnreachable`, and `Refused` for anything else that is in the way."""
        try:
            await self.conversation(id)
        except Refused as exc:
            if exc.fence is not None:
                return True, exc.fence
            if exc.status == 404:
                return False, 0
            raise
        return True, 0

    async def post_message(self, id: str, body: Mapping[str, Any]) -> None:
        await self._call("POST", f"/api/conversations/{id}/events", json=body)

    async def events(self, id: str, *, page_id: str | None, limit: int = 100) -> EventPage:
        """One page of the log, oldest first, beginning with the event `page_id`."""
        query = {"limit": str(limit)} | ({"page_id": page_id} if page_id else {})
        answer = await self._call("GET", f"/api/conversations/{id}/events/search", params=query)
        items = answer.get("items") if isinstance(answer, dict) else None
        if not isinstance(items, list) or not all(
            isinstance(item, dict) and is_event_id(item.get("id")) for item in items
        ):
            raise RuntimeUnreachable("the runtime answered its event log with something else")
        following = answer.get("next_page_id")
        return EventPage(items, following if is_event_id(following) else None)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: AsyncIterator[bytes] | None = None,
        timeout: float = 30.0,
    ) -> Any:
        sent = {**self._headers, **tracing.headers(), **(headers or {})}
        body: Content | None = content
        if json is not None:
            body, sent["Content-Type"] = dumps(json).encode(), "application/json"
        target = quote(path, safe=_PATH) + (f"?{urlencode(params)}" if params else "")
        with _measured(method, path):
            status, answer = await self._exchange.ask(method, target, sent, body, seconds=timeout)
        if not 200 <= status < 300:
            raise refusal(f"{method} {path}", status, answer)
        return parsed(answer)


class RuntimeClients:
    """Makes clients. One per orchestrator; connections are never shared between two runtimes."""

    def __init__(self, *, exchange: Callable[[str], Exchange] = Exchange, connect: Connect = OneConnection) -> None:
        self._exchange = exchange
        self._connect = connect

    @asynccontextmanager
    async def open(
        self, origin: str, inner_key: SecretText, *, fence: int | None = None, generation: int | None = None
    ) -> AsyncIterator[RuntimeClient]:
        """A client for the runtime at `origin` (http://host:port); its connections are closed on leaving.

        `fence` and `generation` go with every call: the runtime refuses a lower fence and another generation.
        """
        at = urlsplit(origin)
        async with self._exchange(origin) as exchange:
            with closing(Door(at.hostname or "", at.port or 80)) as door:
                client = RuntimeClient(exchange, origin, inner_key, fence, generation, self._connect, door)
                try:
                    yield client
                finally:
                    await client._part()


def _measured(method: str, path: str) -> AbstractContextManager[object]:
    """The beginning of the path is the same for all conversations."""
    return metrics.RUNTIME_CALL_SECONDS.labels(f"{method} {'/'.join(path.split('/')[:3])}").time()


def is_event_id(value: Any) -> bool:
    """Whether an event can be asked for and kept under it."""
    return isinstance(value, str) and _EVENT_ID.fullmatch(value) is not None
