"""The end of a conversation's event log in Redis: a stream whose ids are the sequences. See `base.Events`.

How many bytes it holds, and up to where the archive reaches, are fields of the conversation's hash: they go with
it, and where they are missing the archive is asked.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from orchestrator.domain import hooks
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.state.base import HeldEvents, StoredEvent
from orchestrator.state.changes import told
from orchestrator.state.funnel import Call, Funnel, command, run
from orchestrator.state.hooks import outbox_due
from orchestrator.state.keys import TenantKeys
from orchestrator.state.refusals import no_conversation
from orchestrator.state.spending import at_text, growing, used_text

_AT_ONCE = 200  # bounds how long one script keeps the server


class RedisEvents:
    def __init__(self, funnel: Funnel) -> None:
        self._funnel = funnel

    @property
    def confirmed(self) -> bool:
        return not self._funnel.waits_for_archive

    async def append(
        self, tenant: TenantId, id: ConversationId, events: Sequence[StoredEvent], *, at: datetime | None = None
    ) -> int:
        t, at = TenantKeys(tenant), at or datetime.now(UTC)
        last, events = -1, list(growing(events))
        clients = await self._clients(t.inbox(id), [event.id for event in events if event.is_message])
        for start in range(0, max(1, len(events)), _AT_ONCE):
            some = events[start : start + _AT_ONCE]
            fields = [
                field
                for event in some
                for field in (
                    event.sequence,
                    event.id,
                    event.payload,
                    _told(tenant, id, event, clients),
                    event.first,
                    used_text(event.spent),
                )
            ]
            keys = (t.conversation(id), t.events(id), t.inbox(id), t.hooks_wanted, t.hook_prefix, t.tenant, t.ledgers)
            if any(event.spent is not None for event in some):
                call = run("events_append", keys, id, at_text(tenant, at), *fields, journal=t.journal)
            else:  # nothing for the journal: it is neither looked at nor waited for
                call = run("events_append", (*keys, t.journal.stream), id, "", *fields, "")
            last = (await self._funnel.batch(call, told(id), outbox_due(tenant), durable=True))[0]
            if last < 0:
                raise no_conversation()
        return last

    async def _clients(self, inbox: str, messages: Sequence[str]) -> Mapping[str, str | None]:
        """The client ids under which they were put into the inbox, by the ids of their events."""
        if not messages:
            return {}
        found = await self._funnel.one(command("HMGET", inbox, *(f"event:{id}" for id in messages)))
        return dict(zip(messages, found, strict=True))

    async def last(self, tenant: TenantId, id: ConversationId) -> StoredEvent | None:
        found = await self._funnel.one(_newest(tenant, id))
        return _event(found[0]) if found else None

    async def read(self, tenant: TenantId, id: ConversationId, *, after: int, limit: int) -> Sequence[StoredEvent]:
        stream = TenantKeys(tenant).events(id)
        found = await self._funnel.one(command("XRANGE", stream, f"{after + 1}-0", "+", "COUNT", limit))
        return [_event(entry) for entry in found]

    async def held(self, tenant: TenantId, id: ConversationId) -> HeldEvents:
        t = TenantKeys(tenant)
        fields = command("HMGET", t.conversation(id), "log_bytes", "log_archived")
        count, newest, (size, archived) = await self._funnel.batch(
            command("XLEN", t.events(id)), _newest(tenant, id), fields
        )
        through = None if archived is None else int(archived)
        last = _event(newest[0]).sequence if newest else max(0, through or 0)
        return HeldEvents(count, int(size or 0), last, through)

    async def resume(self, tenant: TenantId, id: ConversationId, archived: StoredEvent | None) -> None:
        one = archived or StoredEvent(0, "", "")
        await self._done("events_resume", tenant, id, one.sequence, one.id, one.payload, one.first)

    async def trim(self, tenant: TenantId, id: ConversationId, *, archived: int, events: int, size: int) -> None:
        await self._done("events_trim", tenant, id, archived, events, size)

    async def _done(self, script: str, tenant: TenantId, id: ConversationId, *arguments: str | int) -> None:
        t = TenantKeys(tenant)
        if await self._funnel.one(run(script, (t.conversation(id), t.events(id)), *arguments)) < 0:
            raise no_conversation()


def _newest(tenant: TenantId, id: ConversationId) -> Call:
    return command("XREVRANGE", TenantKeys(tenant).events(id), "+", "-", "COUNT", 1)


def _told(tenant: TenantId, id: ConversationId, event: StoredEvent, clients: Mapping[str, str | None]) -> str:
    if not event.is_message:
        return ""
    at, client = datetime.now(UTC), clients.get(event.id)
    return hooks.drafts_text([hooks.accepted(tenant, id, event.sequence, event.id, at, client_id=client)])


def _event(entry: tuple[str, dict[str, str]]) -> StoredEvent:
    stream_id, fields = entry
    first = int(fields.get("first", 0))
    return StoredEvent(int(stream_id.partition("-")[0]), fields["id"], fields["payload"], first=first)
