"""The event log of a conversation in Redis: a stream whose ids are the sequences. See `base.Events`."""

from collections.abc import Sequence

from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.state.base import StoredEvent
from orchestrator.state.changes import told
from orchestrator.state.funnel import Funnel, command, run
from orchestrator.state.keys import TenantKeys
from orchestrator.state.refusals import no_conversation

_AT_ONCE = 200  # bounds how long one script keeps the server


class RedisEvents:
    def __init__(self, funnel: Funnel) -> None:
        self._funnel = funnel

    async def append(self, tenant: TenantId, id: ConversationId, events: Sequence[StoredEvent]) -> int:
        t = TenantKeys(tenant)
        last = -1
        for start in range(0, max(1, len(events)), _AT_ONCE):
            fields = [
                field
                for event in events[start : start + _AT_ONCE]
                for field in (event.sequence, event.id, event.payload, int(event.is_message))
            ]
            call = run("events_append", (t.conversation(id), t.events(id), t.inbox(id)), *fields)
            last = (await self._funnel.batch(call, told(id), durable=True))[0]
            if last < 0:
                raise no_conversation()
        return last

    async def last(self, tenant: TenantId, id: ConversationId) -> StoredEvent | None:
        found = await self._funnel.one(command("XREVRANGE", TenantKeys(tenant).events(id), "+", "-", "COUNT", 1))
        return _event(found[0]) if found else None

    async def read(self, tenant: TenantId, id: ConversationId, *, after: int, limit: int) -> Sequence[StoredEvent]:
        stream = TenantKeys(tenant).events(id)
        found = await self._funnel.one(command("XRANGE", stream, f"{after + 1}-0", "+", "COUNT", limit))
        return [_event(entry) for entry in found]


def _event(entry: tuple[str, dict[str, str]]) -> StoredEvent:
    stream_id, fields = entry
    return StoredEvent(int(stream_id.partition("-")[0]), fields["id"], fields["payload"])
