"""A fork: a new conversation that goes on from another one's log and workspace, in a runtime and a volume of its own.

The request names its source and how many of its events it takes; nothing is copied before its start. Then the source's
runtime, woken where policy put it to rest, gives both as one stream, which the new runtime takes in as it comes
(`configuring.py`), its workspace as it was at that event where it kept that, which the record says; or a snapshot gives
it, which needs no runtime. The source is read and not changed.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from orchestrator.domain.conversation import Conversation, ForkOf
from orchestrator.domain.errors import Conflict, InvalidRequest, NotFound
from orchestrator.domain.ids import ConversationId, KeyId, TenantId, UserId
from orchestrator.domain.snapshots import Snapshot, SnapshotId
from orchestrator.services.conversations import ConversationService
from orchestrator.services.copying import Copying, check_source
from orchestrator.services.drafting import Wanted
from orchestrator.services.effective import Effective
from orchestrator.services.files import Files
from orchestrator.services.snapshots import Snapshots


@dataclass(frozen=True)
class WantedFork:
    """As the edge parsed it. `at`: the number of the last event that it takes; None: of all that are there now.
    `snapshot`: the one whose log and workspace it takes; None: the newest at exactly `at`, and where there is none, the
    workspace as it was then, or where that was not kept, as it is now."""

    id: ConversationId | None
    title: str | None
    labels: Mapping[str, str]
    at: int | None
    snapshot: SnapshotId | None = None


class Forking:
    """For the API (`fork`), and for the starts of what it made (`given_out`)."""

    def __init__(
        self,
        conversations: ConversationService,
        effective: Effective,
        files: Files,
        copying: Copying,
        snapshots: Snapshots,
    ) -> None:
        self._conversations = conversations
        self._effective = effective
        self._files = files
        self._copying = copying
        self._snapshots = snapshots

    async def fork(
        self, tenant: TenantId, user: UserId | None, id: ConversationId, wanted: WantedFork, *, key: KeyId | None
    ) -> Conversation:
        """Accept one, with the settings and secrets that its source's own request brought. A known id answers the
        stored one where that is a fork of the same source. Raises `NotFound`, `Conflict` where the source cannot be
        copied as it is, `InvalidRequest` where it has not so many events, and what a create raises."""
        source = await self._conversations.get(tenant, user, id)
        if (present := await self._present(tenant, user, wanted)) is not None:
            return _same(present, source, wanted)
        check_source(source)
        snapshot = await self._of_snapshot(source, wanted)
        if snapshot is not None:
            fork_of = ForkOf(source.id, snapshot.at, snapshot.id)
        else:
            source = await self._files.reached(source)
            events, of_event = await self._copying.look(source, wanted.at)
            fork_of = ForkOf(source.id, events, of_event=of_event)
        request = replace(source.request, initial_message=None, fork_of=fork_of)
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
        """What this fork begins with, piece by piece: of its snapshot, or of what its source has. Raises `NotFound`,
        `Conflict`, `LimitReached`, `TransientError`; what it is in the middle of too."""
        of = fork.request.fork_of
        if of is None:
            raise ValueError("only a fork has a source")
        source = await self._conversations.get(fork.tenant, fork.user, of.conversation)
        if of.snapshot:
            yield self._snapshots.pieces(source, of.snapshot)
            return
        source = await self._files.reached(source)
        async with self._copying.stream(source, of.events, of_event=of.of_event, is_start=True) as pieces:
            yield pieces

    async def _of_snapshot(self, source: Conversation, wanted: WantedFork) -> Snapshot | None:
        if wanted.snapshot is None and wanted.at is None:
            return None
        found = await self._snapshots.find(source, id=wanted.snapshot, at=wanted.at)
        if found is not None and wanted.at is not None and found.at != wanted.at:
            hint = "leave `at` out, or use that number"
            raise InvalidRequest(f"the snapshot is of event {found.at}", field="at", hint=hint)
        return found

    async def _present(self, tenant: TenantId, user: UserId | None, wanted: WantedFork) -> Conversation | None:
        if wanted.id is None:
            return None
        try:
            return await self._conversations.get(tenant, user, wanted.id)
        except NotFound:
            return None  # a create says what is wrong with an id that is taken otherwise


def _same(present: Conversation, source: Conversation, wanted: WantedFork) -> Conversation:
    """Raises `Conflict` where what has the id is something else than what is asked for."""
    of = present.request.fork_of
    if (
        of is None
        or of.conversation != source.id
        or wanted.at not in (None, of.events)
        or wanted.snapshot not in (None, of.snapshot)
    ):
        raise Conflict("another conversation has this id", hint="use another one")
    return present
