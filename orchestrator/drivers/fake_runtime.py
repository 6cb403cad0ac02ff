"""A runtime of the fake driver: an agent server in miniature, inside this process, on a loopback socket of its own.

`fake.py` starts one for every fake runtime. It answers what provisioning, delivery and the proxy ask, writes down what
it was told and in which order, and fails where its script says so. It runs no agent: a message is answered by `OK.`.
What a conversation remembers is in `Memory`, which outlives the runtime as a volume does.
"""

import asyncio
import hashlib
import hmac
import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.fake_http import HEAD_LIMIT_BYTES, Answer, Request, read_request, rendered
from orchestrator.drivers.fake_push import Push
from orchestrator.drivers.fake_script import Fault, Received, Script

LOOPBACK = "127.0.0.1"
_MOST_SAID = 10_000
_TURNS_OF_AN_ACCEPT = 5  #: of the loop, from the kernel's connection to the task that serves it
_START_KEYS = frozenset({"agent", "agent_settings", "agent_profile_id", "workspace"})


@dataclass
class Memory:
    """What outlives the runtime: settings, conversations with their event logs, and the highest fence it saw."""

    fence: int = 0
    settings: dict[str, Any] | None = None
    conversations: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    #: How much of each conversation's log a receiver of webhooks, by its name, has acknowledged.
    pushed: dict[str, dict[str, int]] = field(default_factory=dict)
    #: what was taken in for a conversation that begins with it; nobody here reads it
    taken_in: dict[str, bytes] = field(default_factory=dict)


@dataclass
class _Challenge:
    """Of one connection: what is to be answered on it, once."""

    open: tuple[str, str] | None = None  #: the caller's nonce, and ours


class FakeRuntime:
    """One server. `on_death` is called when its script kills it, `on_begun` with each conversation. `start` and `stop`
    in the same event loop."""

    def __init__(
        self,
        name: str,
        init_key: SecretText,
        memory: Memory,
        script: Script,
        on_death: Callable[[], None],
        on_begun: Callable[[str], None] = lambda conversation: None,
    ) -> None:
        self._name = name
        self._init_key = init_key
        self._memory = memory
        self._script = script
        self._on_death = on_death
        self._on_begun = on_begun
        self._config: Mapping[str, Any] | None = None  #: the body of init; None while dormant
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._pushes: list[Push] = []
        self._pushing: list[asyncio.Task[None]] = []
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self.configured: list[str] = []  #: paths of the POSTs that were served since its start, messages left out
        self.port = 0

    async def start(self) -> None:
        """Listen on a free loopback port."""
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0, limit=HEAD_LIMIT_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End the server and every connection, those too that the kernel had handed over and that have no task yet."""
        await asyncio.gather(*self.cut(), return_exceptions=True)
        for _ in range(_TURNS_OF_AN_ACCEPT):
            await asyncio.sleep(0)
        await asyncio.gather(*self.cut(), return_exceptions=True)

    def cut(self) -> Sequence[asyncio.Task[None]]:
        """End at once, as a killed process does; the connections that are on their way out."""
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = [task for task in self._connections if task is not asyncio.current_task()] + self._pushing
        for task in tasks:
            task.cancel()
        return tasks

    def freeze(self) -> None:
        """Connections are taken and nothing is answered, as with a stopped process."""
        self._goes_on.clear()

    def thaw(self) -> None:
        self._goes_on.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs this callback in a task
        self._connections.add(task)
        challenge = _Challenge()
        try:
            while self._server is not None and (request := await read_request(reader)) is not None:
                answer = await self._answer(request, challenge)
                if answer is None:
                    break
                writer.write(rendered(answer))
                await writer.drain()
                if request.headers.get("connection", "").lower() == "close":
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # the client left, or sent what no client of ours sends: this connection is over
        except asyncio.CancelledError:
            pass  # `cut`. The task ends here anyway; Python 3.11 tells of one that ends cancelled as of a fault
        finally:
            self._connections.discard(task)
            if self._server is None:
                writer.transport.abort()  # nobody may read what is left to be sent, and a killed process sends nothing
            else:
                writer.close()

    async def _answer(self, request: Request, challenge: _Challenge) -> Answer | None:
        """What to say; None cuts the connection."""
        await self._goes_on.wait()
        if self._server is None:
            return None
        self._script.received.append(Received(self._name, request.method, request.path, request.headers, request.body))
        if self._script.pace:
            await asyncio.sleep(self._script.pace)
        rule = self._script.meets(request.method, request.path)
        if rule is None:
            return self._noted(request, self._served(request, challenge))
        match rule.fault:
            case Fault.STATUS:
                return Answer(rule.status, {"detail": "scripted"} if rule.body is None else rule.body)
            case Fault.SILENCE:
                await asyncio.Event().wait()  # until `stop` cancels us
            case Fault.LOST_REPLY:
                self._served(request, challenge)
                self._wake()
            case Fault.DEATH:
                self.cut()
                self._on_death()
        return None

    def _noted(self, request: Request, answer: Answer) -> Answer:
        self._wake()
        if request.method == "POST" and answer.status < 300 and not request.path.endswith("/events"):
            self.configured.append(request.path)
        return answer

    def _served(self, request: Request, challenge: _Challenge) -> Answer:
        match (request.method, request.path):
            case ("GET", "/alive" | "/health"):
                return Answer(200, {"status": "ok"})
            case ("GET", "/ready"):
                return Answer(503, {"status": "dormant"}) if self._config is None else Answer(200, {"status": "ready"})
            case ("GET", "/server_info"):
                return Answer(200, {"title": "fake", "version": "0", "uptime": 0.0, "idle_time": 0.0})
            case ("GET", "/api/init"):
                return self._told_state(request, challenge)
            case ("POST", "/api/init"):
                return self._initialised(request, challenge)
        return self._refused(request) or self._configured(request) or self._conversed(request)

    def _told_state(self, request: Request, challenge: _Challenge) -> Answer:
        answer: dict[str, Any] = {"state": "dormant" if self._config is None else "ready", "error": None}
        if nonce := request.headers.get("x-init-nonce"):
            challenge.open = nonce, secrets.token_urlsafe(24)
            answer |= {"challenge": challenge.open[1], "proof": self._signed("runtime", *challenge.open)}
        return Answer(200, answer)

    def _signed(self, *parts: str) -> str:
        return hmac.new(self._init_key.open().encode(), "|".join(parts).encode(), "sha256").hexdigest()

    def _initialised(self, request: Request, challenge: _Challenge) -> Answer:
        if self._config is not None:
            return Answer(400, {"detail": "Runtime is not dormant"})
        asked, challenge.open = challenge.open, None
        if (refused := self._unproven(request, asked) or self._late(request)) is not None:
            return refused
        if not isinstance(request.body, dict) or not request.body.get("session_api_keys"):
            return Answer(422, {"detail": "session_api_keys must hold at least one key"})
        self._config = request.body
        self._push(request.body)
        return Answer(200, {"state": "ready", "error": None})

    def _unproven(self, request: Request, asked: tuple[str, str] | None) -> Answer | None:
        """Stock servers have no challenge: there the key itself comes."""
        proof, key = request.headers.get("x-init-proof"), request.headers.get("x-init-api-key")
        if proof is None:
            stock = asked is None and key is not None and self._init_key.matches(key)
            return None if stock else Answer(401, {"detail": "Unauthorized"})
        if asked is None:
            return Answer(409, {"detail": "no challenge is open on this connection"})
        expected = self._signed("orchestrator", *asked, hashlib.sha256(request.content).hexdigest())
        return None if hmac.compare_digest(proof, expected) else Answer(401, {"detail": "Unauthorized"})

    def _wake(self) -> None:
        """The log may have grown."""
        for push in self._pushes:
            push.wake()

    def _push(self, config: Mapping[str, Any]) -> None:
        """Begin to send the log to the receivers that `config` names."""
        for hook in config.get("webhooks", ()):
            headers = {"X-Nestor-Generation": str(config.get("generation"))}
            if hook.get("send_session_key"):
                headers["X-Session-API-Key"] = str(config["session_api_keys"][0])
            positions = self._memory.pushed.setdefault(str(hook.get("name") or hook["base_url"]), {})
            push = Push(hook, self._memory.conversations, positions, headers, self._goes_on)
            self._pushes.append(push)
            self._pushing.append(push.start())

    def _refused(self, request: Request) -> Answer | None:
        """Why this request is not served at all, if it is not."""
        if self._config is None:
            return Answer(503, {"detail": "Runtime is dormant: waiting for POST /api/init"})
        presented = request.headers.get("x-session-api-key", "")
        if not any(SecretText(key).matches(presented) for key in self._config["session_api_keys"]):
            return Answer(401, {"detail": "Unauthorized"})
        generation = request.headers.get("x-generation")
        if generation is not None and generation != str(self._config.get("generation")):
            return Answer(409, {"detail": "generation mismatch"})
        return self._late(request)

    def _late(self, request: Request) -> Answer | None:
        fence = request.headers.get("x-fence")
        if fence is not None and int(fence) < self._memory.fence:
            return Answer(409, {"detail": "stale fence: another holder has come since", "fence": self._memory.fence})
        self._memory.fence = max(self._memory.fence, int(fence or 0))
        return None

    def _configured(self, request: Request) -> Answer | None:
        match (request.method, request.path):
            case ("POST" | "PATCH", "/api/settings"):
                self._memory.settings = {**(self._memory.settings or {}), **(request.body or {})}
                return Answer(200, {"message": "Settings stored"})
            case ("POST", "/api/add-git-providers"):
                return Answer(200, {"message": "Git providers stored"})
            case ("POST", "/api/secrets"):
                names = sorted((request.body or {}).get("secrets", {}))
                return Answer(200, {"message": "Secrets stored", "created": names, "existing": []})
            case ("POST", "/api/unset-provider-tokens"):
                return Answer(200, {"message": "Unset Git provider tokens"})
            case ("DELETE", path) if path.startswith("/api/settings/secrets/"):
                return Answer(200, {"deleted": True})
            case ("PUT", "/api/settings/secrets"):
                return Answer(200, {"name": (request.body or {}).get("name"), "description": None})
        return None

    def _conversed(self, request: Request) -> Answer:
        if (request.method, request.path) == ("POST", "/api/conversations"):
            return self._begun(request.body or {})
        if (request.method, request.path) == ("GET", "/api/conversations/count"):
            return Answer(200, 0)  # its agents never work for longer than a request
        parts = request.path.strip("/").split("/")
        if request.method == "PUT" and parts[:2] == ["api", "conversations"] and parts[3:] == ["copy", "archive"]:
            self._memory.taken_in[_canonical(parts[2])] = request.content
            return Answer(200, {"success": True})
        log = self._memory.conversations.get(_canonical(parts[2])) if len(parts) >= 3 else None
        if parts[:2] != ["api", "conversations"] or log is None:
            return Answer(404, {"detail": "Not Found"})
        match (request.method, parts[3:]):
            case ("GET", []):
                return Answer(200, _conversation(_canonical(parts[2]), log))
            case ("DELETE", []):
                del self._memory.conversations[_canonical(parts[2])]
                return Answer(200, {"success": True})
            case ("POST", ["run" | "pause"]):
                return Answer(200, {"success": True})
            case ("POST", ["events"]):
                _append_message(log, request.body or {})
                return Answer(200, {"success": True})
            case ("GET", ["events"]):
                return Answer(200, {"events": log[:20], "has_more": len(log) > 20})
            case ("GET", ["events", "search"]):
                return Answer(200, _page(log, request.query))
            case ("GET", ["events", "count"]):
                return Answer(200, len(log))
        return Answer(404, {"detail": "Not Found"})

    def _begun(self, body: Mapping[str, Any]) -> Answer:
        newer = bool(_START_KEYS & body.keys())
        if not newer and self._memory.settings is None:
            return Answer(
                400,
                {"status": "error", "message": "no settings", "msg_id": "CONFIGURATION$SETTINGS_NOT_FOUND"},
            )
        id = _canonical(str(body.get("conversation_id") or uuid.uuid4()))
        known = id in self._memory.conversations
        if body.get("imported") and not known and id not in self._memory.taken_in:
            return Answer(422, {"detail": "nothing was taken in that this conversation could begin with"})
        log = self._memory.conversations.setdefault(id, [])
        self._on_begun(id)
        first = body.get("initial_message") if newer else body.get("initial_user_msg")
        if first and not known:
            _append_message(log, first if isinstance(first, dict) else {"content": first})
        if newer:
            return Answer(200 if known else 201, _conversation(id, log))
        return Answer(200, {"status": "ok", "conversation_id": id, "message": None, "conversation_status": "STARTING"})


def _canonical(id: str) -> str:
    try:
        return str(uuid.UUID(id))
    except ValueError:
        return id


def _conversation(id: str, log: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    status = "finished" if log else "idle"
    return {"id": id, "conversation_id": id, "execution_status": status, "runtime_status": "STATUS$READY"}


def _append_message(log: list[dict[str, Any]], body: Mapping[str, Any]) -> None:
    """A message, and what the agent says to it: `OK.`, as often as a text of the form `SAY:<times>` asks for."""
    event_id = str(body.get("event_id") or uuid.uuid4())
    if any(event["id"] == event_id for event in log):
        return
    log.append(_message(event_id, "user", body.get("content")))
    for _ in range(_times(log[-1])):
        log.append(_message(str(uuid.uuid4()), "agent", "OK."))


def _times(message: Mapping[str, Any]) -> int:
    parts = message["llm_message"]["content"]
    text = str(parts[0].get("text", "")) if isinstance(parts, list) and parts and isinstance(parts[0], dict) else ""
    asked = text.removeprefix("SAY:")
    return min(int(asked), _MOST_SAID) if asked != text and asked.isascii() and asked.isdigit() else 1


def _message(id: str, source: str, content: Any) -> dict[str, Any]:
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    role = "user" if source == "user" else "assistant"
    return {
        "id": id,
        "timestamp": datetime.now().isoformat(),  # naive and local, as the contract has it
        "source": source,
        "kind": "MessageEvent",
        "llm_message": {"role": role, "content": parts},
    }


def _page(log: Sequence[Mapping[str, Any]], query: Mapping[str, str]) -> Mapping[str, Any]:
    limit = int(query.get("limit", "100"))
    first = next((at for at, event in enumerate(log) if event["id"] == query.get("page_id")), 0)
    rest = log[first + limit : first + limit + 1]
    return {"items": log[first : first + limit], "next_page_id": rest[0]["id"] if rest else None}
