"""What is wrong with stored conversations, for `nestor doctor`: read page by page, without changing anything."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from orchestrator.domain.errors import Unreadable
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.state import cursor as cursors
from orchestrator.state import records
from orchestrator.state.funnel import Funnel, command
from orchestrator.state.keys import TenantKeys

_PAGE = 200
_STUCK = "stuck:"


@dataclass(frozen=True)
class Ailing:
    """One conversation of which something is to be told."""

    id: ConversationId
    unreadable: Unreadable | None = None
    stuck: tuple[str, ...] = ()  #: `step: problem` of undos that failed
    not_pushed: str | None = None  #: why its runtime has not the configuration that is wanted


async def ailing(funnel: Funnel, tenant: TenantId) -> AsyncIterator[Ailing]:
    """Those of one tenant. Raises `StoreUnavailable`."""
    t, start = TenantKeys(tenant), "-"
    while entries := await funnel.one(command("ZRANGEBYLEX", t.conversations, start, "+", "LIMIT", 0, _PAGE)):
        start = f"({entries[-1]}"
        ids = [ConversationId(cursors.member_id(entry)) for entry in entries]
        stored = await funnel.batch(*(command("HMGET", t.conversation(id), *records.PARTS) for id in ids))
        logs = await funnel.batch(*(command("HGETALL", t.saga(id)) for id in ids))
        for id, parts, log in zip(ids, stored, logs, strict=True):
            stuck = tuple(f"{name.removeprefix(_STUCK)}: {log[name]}" for name in log if name.startswith(_STUCK))
            trouble, unreadable = None, None
            try:
                if parts[0] is not None:
                    trouble = records.conversation_from(parts).trouble
            except Unreadable as exc:
                unreadable = exc
            if stuck or trouble or unreadable:
                yield Ailing(id, unreadable, stuck, trouble.problem if trouble else None)
