"""What a runtime gives of its conversation to be copied: how long the log is, and log and workspace as one stream.

For forks, which pass it on to another runtime, and for snapshots, which keep it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.domain.conversation import Conversation
from orchestrator.domain.errors import Conflict, InvalidRequest, NestorError, TransientError
from orchestrator.domain.secrets import SecretText
from orchestrator.nested.client import RuntimeClients
from orchestrator.nested.refusals import Refused
from orchestrator.nested.streams import Streams
from orchestrator.services.files import Files
from orchestrator.services.keys import KeyRing
from orchestrator.services.resting import archived

_NO_EVENT = "Event not found"
_RUNS = "already running"
_SAID = "x-nestor-workspace"


class Copying:
    """Of conversations whose runtime is ready (`Files.reached`). The source is read and not changed."""

    def __init__(self, files: Files, keys: KeyRing, clients: RuntimeClients, streams: Streams) -> None:
        self._files = files
        self._keys = keys
        self._clients = clients
        self._streams = streams

    async def events(self, source: Conversation) -> int:
        """How many events a copy would have. Raises as `look`."""
        return (await self.look(source, None))[0]

    async def look(self, source: Conversation, at: int | None) -> tuple[int, bool]:
        """How many events a copy would have that is asked for up to number `at`, None: with all that there are; and
        whether the runtime kept the workspace of that event. Raises `InvalidRequest` where there are not so many,
        `Conflict` while the agent works, `TransientError`."""
        origin, key, generation = await self._place(source)
        try:
            async with self._clients.open(origin, key, generation=generation) as client:
                return await client.copyable(source.id, at)
        except Refused as exc:
            raise _told(exc) from exc

    @asynccontextmanager
    async def stream(
        self, source: Conversation, events: int, *, of_event: bool = False, is_start: bool = False
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """What it gives of itself now, piece by piece: it counts as use for as long. With `of_event` the workspace is
        the one that it kept of the last event, `Conflict` where it has none any more. Raises as `look`; for a start
        what it is in the middle of is `TransientError`, since that comes again by itself."""
        workspace = "event" if of_event else "current"
        origin, key, generation = await self._place(source)
        try:
            answer = await self._streams.ask(
                "GET",
                origin,
                f"/api/conversations/{source.id}/copy/archive?events={events}&workspace={workspace}",
                inner_key=key,
                generation=generation,
                headers={},
            )
        except Refused as exc:
            raise _told(exc, is_start=is_start) from exc
        try:
            if of_event and answer.headers.get(_SAID) != workspace:  # one that does not know the question
                raise _not_kept()
            yield self._files.used(source, answer.pieces)
        finally:
            await answer.close()

    async def _place(self, source: Conversation) -> tuple[str, SecretText, int]:
        runtime, key = source.runtime, await self._keys.inner_key(source)
        if runtime is None or key is None:
            raise TransientError("the runtime is not there yet")
        return f"http://{runtime.address}", key, runtime.generation


def check_source(source: Conversation) -> None:
    """Raises `Conflict` for a conversation that cannot be copied, whatever it does now."""
    if source.archived_at is not None:
        raise archived()
    if source.request.has_start_body:
        raise Conflict(
            "the conversation was begun with an agent server's own body, which chose its workspace and its agent",
            hint=f"fork it within its runtime: POST /api/conversations/{source.id}/fork at runtime.url",
        )
    if not source.was_ready:
        raise Conflict("the conversation has never been ready", hint="wait until it is, then copy it")


def _not_kept() -> Conflict:
    return Conflict(
        "the workspace of that event is not kept any more: others have taken its room, or its runtime has changed",
        hint="fork it again: the fork then says which workspace it has",
    )


def _told(refused: Refused, *, is_start: bool = False) -> NestorError:
    said = refused.said
    match refused.status:
        case 404 if said == _NO_EVENT:
            return InvalidRequest("the log of the conversation has not so many events", field="at")
        case 409 if _RUNS in said:
            if is_start:
                return TransientError("the agent of the conversation that is forked is at work", retry_after=5)
            return Conflict(
                "the agent of the conversation is at work",
                hint="wait until it rests; one that was paused meanwhile has to be resumed for that",
            )
        case 410:
            return _not_kept()
        case 404 | 405:
            return Conflict(
                "the agent server of the conversation gives no copies of it",
                hint="only conversations in Nestor's own runtime, of this version, can be copied",
            )
    return TransientError(f"the runtime of the conversation that is copied answered {refused.status}", retry_after=2)
