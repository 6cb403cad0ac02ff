"""The audit log's entry of each request that may change something, or be told something secret. Pure ASGI, inside of
idempotency keys: a repeat that is answered with what was kept changes nothing.

The change itself carries its entry (`state/audit.py`). What changed nothing, because it was refused or held already, is
written here before the answer goes out. A request of nobody who is known leaves no entry: whoever is not let in could
fill the log. Those are counted by metrics.
"""

import json
import re

from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.context import Services
from orchestrator.domain.audit import Actor, ActorKind
from orchestrator.domain.conversation import Conversation
from orchestrator.domain.ids import UserId
from orchestrator.domain.tenancy import Caller, KeyKind
from orchestrator.state.audit import Telling, current, telling

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
#: reads that may tell secrets; they say so themselves (`by_runtime`, `first`)
_REVEALING = re.compile(r"/api/v1/(sandboxes/[^/]+/settings/secrets/[^/]+|users/me)")
_KIND = {KeyKind.OPERATOR: ActorKind.OPERATOR, KeyKind.TENANT: ActorKind.TENANT, KeyKind.USER: ActorKind.USER}
_NATIVE = "/api/v2/"
_FAILURE, _INTERNAL = 400, 500
_LONGEST_PROBLEM = 65_536


class Audited:
    """Around the application."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        changes = scope["type"] == "http" and scope["method"] not in _SAFE and not _is_dry_run(scope)
        if not changes and (scope["type"] != "http" or not _REVEALING.fullmatch(scope["path"])):
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        told = self._services.auditing.begin(
            scope["method"],
            scope["path"],
            request_id=scope.get("state", {}).get("request_id"),
            address=client[0] if client else None,
            wanted=changes,
        )
        end = _End(self._services, told, send)
        with telling(told):
            try:
                await self._app(scope, receive, end.send)
            except Exception:  # an answer is made of it outside of here
                await end.settle(_INTERNAL, "internal")
                raise


class _End:
    """Holds the answer back until the entry is written; one of failure until its body says why."""

    def __init__(self, services: Services, told: Telling, send: Send) -> None:
        self._services = services
        self._told = told
        self._send = send
        self._held: Message | None = None
        self._settled = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if message["status"] >= _FAILURE:
                self._held = message
                return
            await self.settle(message["status"], None)
        elif self._held is not None:
            held, self._held = self._held, None
            await self.settle(held["status"], _code(message.get("body", b"")))
            await self._send(held)
        await self._send(message)

    async def settle(self, status: int, code: str | None) -> None:
        if not self._settled:
            self._settled = True
            await self._services.auditing.settle(self._told, status, code)


def by(caller: Caller) -> None:
    """Who sends the request that is being served."""
    if (told := current()) is not None:
        told.by(Actor(_KIND[caller.kind], caller.key, caller.user, subject=caller.subject), caller.tenant)


def acting_for(user: UserId | None) -> None:
    """The user that it is about."""
    if (told := current()) is not None:
        told.acting_for(user)


def by_runtime(record: Conversation) -> None:
    """The holder of a runtime's session key asks for something secret."""
    if (told := current()) is not None:
        runtime = record.runtime.id if record.runtime is not None else None
        told.by(Actor(ActorKind.RUNTIME, user=record.user, runtime=runtime), record.tenant)
        told.wanted = True


def asked() -> None:
    """For something secret, whatever becomes of it."""
    if (told := current()) is not None:
        told.wanted = True


async def first(services: Services) -> None:
    """Write the entry now, before something is done that the state server does not know of, or something secret is
    told. Raises `StoreUnavailable`: then it is not to be done."""
    if (told := current()) is not None:
        await services.auditing.first(told)


def _is_dry_run(scope: Scope) -> bool:
    """Of the native API, which refuses the parameter where there is no dry run (`query.py`). Other surfaces pass over
    what they do not know: there it must hide nothing."""
    if not scope["path"].startswith(_NATIVE):
        return False
    wanted = QueryParams(scope.get("query_string", b"")).get("dry_run", "")
    return wanted.lower() in ("true", "1", "yes", "on", "t", "y")


def _code(body: bytes) -> str | None:
    """What a problem document calls the failure; older surfaces may not say."""
    try:
        document = json.loads(body) if len(body) <= _LONGEST_PROBLEM else None
    except ValueError:
        return None
    code = document.get("code") if isinstance(document, dict) else None
    return code[:64] if isinstance(code, str) else None
