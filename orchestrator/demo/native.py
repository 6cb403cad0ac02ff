"""The native API as a customer's program uses it: plain HTTP, the few fields that the demo reads.

Only documented shapes (DESIGN.md section 3) and no import from the orchestrator's own API: what works here works for
anybody. Errors come out as `DemoFailed` with the answer's own words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from orchestrator.demo.options import DemoFailed
from orchestrator.domain.secrets import SecretText

Body = Mapping[str, Any]


class _View(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Stage(_View):
    """One named stage of an operation."""

    name: str
    state: str
    seconds: float | None = None
    message: str | None = None


class Operation(_View):
    """How far a start has come."""

    id: str
    state: str
    stages: tuple[Stage, ...] = ()

    @property
    def current(self) -> Stage | None:
        """The stage under way, or the one that failed."""
        return next((stage for stage in self.stages if stage.state in ("running", "failed")), None)


class Runtime(_View):
    """Where a conversation runs, with the key that opens it."""

    id: str
    url: str
    session_key: str = Field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Session-API-Key": self.session_key}

    @property
    def events_url(self) -> str:
        """The address of the event sockets, without the conversation's id."""
        return f"ws{self.url.rstrip('/').removeprefix('http')}/sockets/events"


class Conversation(_View):
    """A conversation as its owner sees it."""

    id: str
    phase: str
    status: str
    reason: JsonValue = None
    message: str | None = None
    hint: str | None = None
    operation: str | None = None
    runtime: Runtime | None = None

    @field_validator("runtime", mode="before")
    @classmethod
    def _reachable(cls, runtime: Any) -> Any:
        """A runtime has an address only while the conversation is ready; before that there is nothing to use."""
        return runtime if isinstance(runtime, Runtime) or (runtime and runtime.get("url")) else None

    @property
    def why(self) -> str:
        """Everything that was said about the phase, in one line."""
        return ": ".join(str(part) for part in (self.reason, self.message, self.hint) if part)


class Event(_View):
    """One entry of a conversation's event log."""

    sequence: int
    event: dict[str, Any]


class Inner(_View):
    """The conversation as its runtime tells it (agent-server form)."""

    execution_status: str
    workspace: dict[str, Any]
    stats: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """A raw answer, for the one place that compares answers."""

    status: int
    body: JsonValue


class NativeApi:
    """The calls of one caller, told by its key."""

    def __init__(self, client: httpx.AsyncClient, key: SecretText) -> None:
        self._client = client
        self._key = key

    def acting_as(self, key: SecretText) -> "NativeApi":
        """The same server for another caller."""
        return NativeApi(self._client, key)

    async def create_tenant(self, name: str) -> str:
        return str((await self._call("POST", "/api/v2/tenants", {"name": name}))["id"])

    async def create_user(self, tenant: str, name: str) -> str:
        return str((await self._call("POST", f"/api/v2/tenants/{tenant}/users", {"name": name}))["id"])

    async def create_key(self, tenant: str, name: str, *, user: str) -> SecretText:
        made = await self._call("POST", f"/api/v2/tenants/{tenant}/api-keys", {"name": name, "user": user})
        return SecretText(str(made["key"]))

    async def change_settings(self, change: Body) -> None:
        await self._call("PATCH", "/api/v2/settings", change)

    async def put_git_provider(self, provider: str, *, token: SecretText, host: str) -> None:
        await self._call("PUT", f"/api/v2/git-providers/{provider}", {"token": token.open(), "host": host})

    async def put_secret(self, name: str, value: SecretText, *, description: str) -> None:
        await self._call("PUT", f"/api/v2/secrets/{name}", {"value": value.open(), "description": description})

    async def create_conversation(self, body: Body) -> Conversation:
        """Answers while the start is still under way; `operation` tells how far it is."""
        return Conversation.model_validate(await self._call("POST", "/api/v2/conversations", body))

    async def conversation(self, conversation: str) -> Conversation:
        return Conversation.model_validate(await self._call("GET", f"/api/v2/conversations/{conversation}"))

    async def operation(self, operation: str) -> Operation:
        return Operation.model_validate(await self._call("GET", f"/api/v2/operations/{operation}"))

    async def send_message(self, conversation: str, content: str, *, client_id: str) -> None:
        body = {"content": content, "client_id": client_id}
        await self._call("POST", f"/api/v2/conversations/{conversation}/messages", body)

    async def events(self, conversation: str) -> list[Event]:
        """The whole log, page by page."""
        found: list[Event] = []
        while True:
            after = found[-1].sequence if found else 0
            path = f"/api/v2/conversations/{conversation}/events?after={after}&limit=100"
            page = [Event.model_validate(item) for item in (await self._call("GET", path))["items"]]
            if not page:
                return found
            found += page

    async def inner(self, runtime: Runtime, conversation: str) -> Inner:
        """What the runtime itself says, asked through the orchestrator with the runtime's session key."""
        url = f"{runtime.url.rstrip('/')}/api/conversations/{conversation}"
        return Inner.model_validate(_opened(await self._send("GET", url, headers=runtime.headers)))

    async def look(self, conversation: str) -> Answer:
        """What this caller sees when it asks for a conversation, whatever that is."""
        answer = await self._send("GET", f"/api/v2/conversations/{conversation}", headers=self._headers)
        return Answer(answer.status_code, _json(answer))

    async def delete_conversation(self, conversation: str) -> bool:
        """Ask for the deletion; whether it is complete already. May be repeated."""
        path = f"/api/v2/conversations/{conversation}?purge=true"  # at once: nothing of a demo is to be left
        answer = await self._send("DELETE", path, headers=self._headers)
        if answer.status_code not in (200, 202, 204, 404, 410):
            _opened(answer)
        return answer.status_code in (204, 404, 410)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key.open()}"}

    async def _call(self, method: str, path: str, body: Body | None = None) -> dict[str, Any]:
        return _opened(await self._send(method, path, headers=self._headers, body=body))

    async def _send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: Body | None = None
    ) -> httpx.Response:
        try:
            return await self._client.request(method, url, json=body, headers=headers)
        except httpx.HTTPError as exc:
            raise DemoFailed(f"{method} {url} had no answer: {type(exc).__name__} {exc}") from exc


def _json(answer: httpx.Response) -> JsonValue:
    try:
        found: JsonValue = answer.json()
    except ValueError:
        return answer.text[:500]
    return found


def _opened(answer: httpx.Response) -> dict[str, Any]:
    """The body of a good answer; raises DemoFailed with what the answer says went wrong."""
    body = _json(answer)
    if answer.is_success:
        return body if isinstance(body, dict) else {}
    said: Sequence[Any] = [body]
    if isinstance(body, dict):
        said = [body[name] for name in ("code", "detail", "hint") if body.get(name)] or [body]
    request = answer.request
    raise DemoFailed(
        f"{request.method} {request.url.path} was answered {answer.status_code}: {': '.join(map(str, said))}"
    )
