"""A fork: a new conversation that goes on from another one's log and workspace, in a runtime and a volume of its own.

The request names its source and how many of its events it takes; nothing is copied before its start. Then the source's
runtime, woken where policy put it to rest, gives both as one stream, which the new runtime takes in as it comes
(`configuring.py`). The source is read and not changed.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from orchestrator.domain.conversation import Conversation, ForkOf
from orchestrator.domain.errors import Conflict, InvalidRequest, NestorError, NotFound, TransientError
from orchestrator.domain.ids import ConversationId, KeyId, TenantId, UserId
from orchestrator.domain.secrets import SecretText
from orchestrator.nested.client import RuntimeClients
from orchestrator.nested.refusals import Refused
from orchestrator.nested.streams import Streams
from orchestrator.services.conversations import ConversationService, Wanted, archived
from orchestrator.services.effective import Effective
from orchestrator.services.files import Files
from orchestrator.services.keys import KeyRing

_NO_EVENT = "Event not found"
_RUNS = "already running"


@dataclass(frozen=True)
class WantedFork:
    """As the edge parsed it. `at`: the number of the last event that it takes; None: of all that are there now."""

    id: ConversationId | None
    title: str | None
    labels: Mapping[str, str]
    at: int | None


class Forking:
    """For the API (`fork`), and for the starts of what it made (`given_out`)."""

    def __init__(
        self,
        conversations: ConversationService,
        effective: Effective,
        files: Files,
        keys: KeyRing,
        clients: RuntimeClients,
        streams: Streams,
    ) -> None:
        self._conversations = conversations
        self._effective = effective
        self._files = files
        self._keys = keys
        self._clients = clients
        self._streams = streams

    async def fork(
        self, tenant: TenantId, user: UserId | None, id: ConversationId, wanted: WantedFork, *, key: KeyId | None
    ) -> Conversation:
        """Accept one, with the settings and secrets that its source's own request brought. A known id answers the
        stored one where that is a fork of the same source. Raises `NotFound`, `Conflict` where the source cannot be
        copied as it is, `InvalidRequest` where it has not so many events, and what a create raises."""
        source = await self._conversations.get(tenant, user, id)
        if (present := await self._present(tenant, user, wanted)) is not None:
            return _same(present, source, wanted)
        _check(source)
        source = await self._files.reached(source)
        events = await self._events(source, wanted.at)
        request = replace(source.request, initial_message=None, fork_of=ForkOf(source.id, events))
        draft = Wanted(
            id=wanted.id,
            request=request,
            size=source.request.size,
            overrides=await self._effective.brought(source),
            title=source.title if wanted.title is None else wanted.title,
            labels=wanted.labels,
        )
        made = await self._conversations.create(tenant, source.user, draft, key=key)
        return _same(made, source, wanted)

    @asynccontextmanager
    async def given_out(self, fork: Conversation) -> AsyncIterator[AsyncIterator[bytes]]:
        """What the source of this fork gives of itself now, piece by piece. Raises `NotFound`, `Conflict`,
        `LimitReached`, `TransientError`; what it is in the middle of too."""
        if fork.request.fork_of is None:
            raise ValueError("only a fork has a source")
        source = await self._conversations.get(fork.tenant, fork.user, fork.request.fork_of.conversation)
        source = await self._files.reached(source)
        origin, key, generation = await self._place(source)
        try:
            answer = await self._streams.ask(
                "GET",
                origin,
                f"/api/conversations/{source.id}/copy/archive?events={fork.request.fork_of.events}",
                inner_key=key,
                generation=generation,
                headers={},
            )
        except Refused as exc:
            raise _told(exc, is_start=True) from exc
        try:
            yield self._files.used(source, answer.pieces)
        finally:
            await answer.close()

    async def _present(self, tenant: TenantId, user: UserId | None, wanted: WantedFork) -> Conversation | None:
        if wanted.id is None:
            return None
        try:
            return await self._conversations.get(tenant, user, wanted.id)
        except NotFound:
            return None  # a create says what is wrong with an id that is taken otherwise

    async def _events(self, source: Conversation, at: int | None) -> int:
        origin, key, generation = await self._place(source)
        try:
            async with self._clients.open(origin, key, generation=generation) as client:
                return await client.copyable(source.id, at)
        except Refused as exc:
            raise _told(exc) from exc

    async def _place(self, source: Conversation) -> tuple[str, SecretText, int]:
        runtime, key = source.runtime, await self._keys.inner_key(source)
        if runtime is None or key is None:
            raise TransientError("the runtime is not there yet")
        return f"http://{runtime.address}", key, runtime.generation


def _check(source: Conversation) -> None:
    """Raises `Conflict`."""
    if source.archived_at is not None:
        raise archived()
    if source.request.has_start_body:
        raise Conflict(
            "the conversation was begun with an agent server's own body, which chose its workspace and its agent",
            hint=f"fork it within its runtime: POST /api/conversations/{source.id}/fork at runtime.url",
        )
    if not source.was_ready:
        raise Conflict("the conversation has never been ready", hint="wait until it is, then fork it")


def _same(present: Conversation, source: Conversation, wanted: WantedFork) -> Conversation:
    """Raises `Conflict` where what has the id is something else than what is asked for."""
    of = present.request.fork_of
    if of is None or of.conversation != source.id or (wanted.at is not None and of.events != wanted.at):
        raise Conflict("another conversation has this id", hint="use another one")
    return present


def _told(refused: Refused, *, is_start: bool = False) -> NestorError:
    """In words of a fork. A start comes again by itself where that may help."""
    said = refused.said
    match refused.status:
        case 404 if said == _NO_EVENT:
            return InvalidRequest("the log of the conversation has not so many events", field="at")
        case 409 if _RUNS in said:
            if is_start:
                return TransientError("the agent of the conversation that is forked is at work", retry_after=5)
            return Conflict("the agent of the conversation is at work", hint="wait until it has ended, or pause it")
        case 404 | 405:
            return Conflict(
                "the agent server of the conversation gives no copies of it",
                hint="only conversations in Nestor's own runtime, of this version, can be forked",
            )
    return TransientError(f"the runtime of the conversation that is forked answered {refused.status}", retry_after=2)
