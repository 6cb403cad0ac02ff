"""Files of a conversation's workspace, through its runtime: found, woken where policy put it to rest, and asked.

For the API. What may be done with a path is decided in the runtime, which alone sees what is there; what cannot be a
path is refused before. Nothing is kept here, and bodies pass through as they come.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from urllib.parse import quote, urlencode

import anyio

from orchestrator.domain.conversation import Conversation, Desired, Phase
from orchestrator.domain.errors import (
    Conflict,
    InvalidRequest,
    NestorError,
    NotFound,
    PreconditionFailed,
    RuntimeUnreachable,
    TooLarge,
    TransientError,
)
from orchestrator.domain.ids import ConversationId, TenantId, UserId
from orchestrator.drivers.errors import MAKE_SPACE, says_no_space
from orchestrator.nested.refusals import Refused
from orchestrator.nested.streams import Answer, Streams
from orchestrator.services.arrivals import Arrivals
from orchestrator.services.conversations import ConversationService
from orchestrator.services.keys import KeyRing
from orchestrator.services.resting import archived, may_wake, no_runtime, will_wake

_POLL_SECONDS = 0.25
_LONGEST = 4095
_AT_HAND = frozenset({Phase.PENDING, Phase.PROVISIONING, Phase.CONFIGURING, Phase.RESUMING})
_NO_FILE = "File not found"
Touch = Callable[[TenantId, ConversationId], None]


class Files:
    """`wake_seconds`: how long a caller waits for a runtime that is on its way."""

    def __init__(
        self,
        conversations: ConversationService,
        keys: KeyRing,
        streams: Streams,
        arrivals: Arrivals,
        touch: Touch,
        *,
        wake_seconds: float = 60.0,
    ) -> None:
        self._conversations = conversations
        self._keys = keys
        self._streams = streams
        self._arrivals = arrivals
        self._touch = touch
        self._wake_seconds = wake_seconds

    async def ask(
        self,
        tenant: TenantId,
        user: UserId | None,
        id: ConversationId,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: AsyncIterator[bytes] | None = None,
    ) -> Answer:
        """One request about `path` of the workspace; the answer is 2xx, 304 or 416. It counts as use of the
        conversation for as long as bytes go. Raises `NotFound`, `InvalidRequest`, `Conflict`, `PreconditionFailed`,
        `LimitReached`, `TransientError`."""
        check_path(path)
        conversation = await self.reached(await self._conversations.get(tenant, user, id))
        runtime, key = conversation.runtime, await self._keys.inner_key(conversation)
        if runtime is None or key is None:
            raise TransientError("the runtime is not there yet")
        target = f"/api/conversations/{id}/files" + (f"/{quote(path, safe='/')}" if path else "")
        try:
            answer = await self._streams.ask(
                method,
                f"http://{runtime.address}",
                target + (f"?{urlencode(query)}" if query else ""),
                inner_key=key,
                generation=runtime.generation,
                headers=headers,
                body=None if body is None else self.used(conversation, body),
            )
        except Refused as exc:
            raise _told(exc) from exc
        answer.pieces = self.used(conversation, answer.pieces)
        return answer

    async def reached(self, conversation: Conversation) -> Conversation:
        """The conversation with its runtime ready. Raises `Conflict` where nothing brings it, `TransientError` when it
        takes too long."""
        self._touch(conversation.tenant, conversation.id)
        with anyio.move_on_after(self._wake_seconds), self._arrivals.of(conversation.id) as news:
            while conversation.phase is not Phase.READY:
                if may_wake(conversation):
                    await self._conversations.wake(conversation.tenant, conversation.id)
                elif not await self._comes(conversation):
                    raise _at_rest(conversation)
                await news.wait(_POLL_SECONDS)
                conversation = await self._conversations.get(conversation.tenant, conversation.user, conversation.id)
            return conversation
        raise TransientError(f"the conversation is {conversation.phase}: its runtime is on its way", retry_after=5)

    async def _comes(self, conversation: Conversation) -> bool:
        if conversation.desired is not Desired.RUNNING:
            return False
        at_hand = conversation.phase in _AT_HAND or will_wake(conversation)
        return at_hand or await self._conversations.is_starting(conversation)

    async def used(self, conversation: Conversation, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same pieces, each of which counts as use of the conversation."""
        async for piece in pieces:
            self._touch(conversation.tenant, conversation.id)
            yield piece


def check_path(path: str) -> None:
    """Refuse what no path of a workspace is. Raises `InvalidRequest`."""
    if path.startswith("/"):
        raise InvalidRequest("the path has to be relative to the workspace", field="path")
    if any(part in (".", "..") for part in path.split("/")):
        raise InvalidRequest("the path may not contain . or ..", field="path")
    if "\0" in path or len(path.encode("utf-8", "surrogatepass")) > _LONGEST:
        raise InvalidRequest("the path is too long, or holds NUL", field="path")


def _at_rest(conversation: Conversation) -> Conflict:
    if conversation.archived_at is not None:
        return archived()
    verb = "resume" if conversation.phase in (Phase.PAUSING, Phase.PAUSED) else "start"
    hint = f"POST /api/v2/conversations/{conversation.id}/{verb} first"
    return no_runtime(conversation, ", and its files are reached through its runtime", hint=hint)


def _told(refused: Refused) -> NestorError:
    """In the runtime's own closed words."""
    said = refused.said
    match refused.status:
        case 404 if said == _NO_FILE:
            return NotFound("there is no such file", hint="list the folder above it")
        case 404 | 405:
            return Conflict(
                "this conversation's agent server serves no files by their paths",
                hint="use its own routes at runtime.url: /api/file/download and /api/file/upload",
            )
        case 400 if says_no_space(said):
            return TransientError("no space is left where the workspace is", hint=MAKE_SPACE, retry_after=60)
        case 400 | 422:
            return InvalidRequest(said or "the runtime refused the path", field="path")
        case 409 if refused.fence is None and "generation mismatch" not in said:
            return Conflict(said or "something else is there")
        case 412:
            return PreconditionFailed(said or "the file changed since it was read", hint="read it again")
        case 413:
            return TooLarge(said or "the body is too large")
        case 409 | 503:
            return TransientError("the runtime is being replaced", retry_after=2)
    return RuntimeUnreachable(f"the runtime answered {refused.status}")
