"""What is wrong with stored conversations, for `nestor doctor`: read page by page, without changing anything."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from orchestrator.domain.conversation import Phase
from orchestrator.domain.errors import Unreadable
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.state import cursor as cursors
from orchestrator.state import records
from orchestrator.state.funnel import Funnel, command
from orchestrator.state.keys import TenantKeys

_PAGE = 200
_STUCK = "stuck:"
_WITHOUT_SLOT = frozenset({Phase.PAUSED, Phase.STOPPED, Phase.FAILED})


@dataclass(frozen=True)
class Ailing:
    """One conversation of which something is to be told."""

    id: ConversationId
    unreadable: Unreadable | None = None
    stuck: tuple[str, ...] = ()  #: `step: problem, for N s` of undos that failed
    holds_slot: bool = (
        False  #: a place is counted for it, and nothing of it runs or may run; for a moment that is usual
    )
    not_pushed: str | None = None  #: why its runtime has not the configuration that is wanted


async def ailing(funnel: Funnel, tenant: TenantId) -> AsyncIterator[Ailing]:
    """Those of one tenant. Raises `StoreUnavailable`."""
    t, start = TenantKeys(tenant), "-"
    while entries := await funnel.one(command("ZRANGEBYLEX", t.conversations, start, "+", "LIMIT", 0, _PAGE)):
        start = f"({entries[-1]}"
        ids = [ConversationId(cursors.member_id(entry)) for entry in entries]
        stored = await funnel.batch(*(command("HMGET", t.conversation(id), *records.PARTS) for id in ids))
        logs = await funnel.batch(*(command("HGETALL", t.saga(id)) for id in ids))
        slots = await funnel.batch(*(command("ZSCORE", t.slots, id) for id in ids))
        now = int((await funnel.one(command("TIME")))[0])
        for id, parts, log, slot in zip(ids, stored, logs, slots, strict=True):
            stuck = tuple(_told(name.removeprefix(_STUCK), log, now) for name in log if name.startswith(_STUCK))
            trouble, unreadable, idle = None, None, False
            try:
                if parts[0] is not None:
                    record = records.conversation_from(parts)
                    trouble = record.trouble
                    idle = slot is not None and not log and record.phase in _WITHOUT_SLOT
            except Unreadable as exc:
                unreadable = exc
            if stuck or trouble or unreadable or idle:
                yield Ailing(id, unreadable, stuck, idle, trouble.problem if trouble else None)


def _told(step: str, log: Mapping[str, str], now: int) -> str:
    since = log.get(f"since:{step}")
    return f"{step}: {log[_STUCK + step]}" + (f", for {now - int(since)} s" if since else "")
