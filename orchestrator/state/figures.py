"""How much there is in the state server, for `/metrics`: read where it is kept as a number, never counted."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.domain.ids import TenantId
from orchestrator.state import cursor, keys
from orchestrator.state.funnel import Funnel, command
from orchestrator.state.keys import TenantKeys

_PAGE = 500  # tenants in one call
_QUEUES = 1_000


@dataclass(frozen=True)
class Figures:
    """Of the installation, whichever replica is asked."""

    tenants: int
    phases: Mapping[str, int]  #: conversations by phase
    waiting: int  #: starts that wait for a slot
    overdue_seconds: float  #: for how long the tenant that is first in line has had something due
    unshipped: int  #: tenants with changes that may not be in the journal's archive
    spares: int  #: runtimes of the warm pool that are nobody's


async def read(funnel: Funnel) -> Figures:
    """A few commands, and one for each tenant. Raises `StoreUnavailable`."""
    first, (seconds, microseconds), unshipped, spares, queues = await funnel.batch(
        command("ZRANGE", keys.DUE_TENANTS, 0, 0, "WITHSCORES"),
        command("TIME"),
        command("ZCARD", keys.JOURNAL_DUE),
        command("SCARD", keys.SPARES_UNBOUND),
        command("ZRANGE", keys.QUEUED_TENANTS, 0, _QUEUES - 1),
    )
    now = int(seconds) + int(microseconds) / 1_000_000
    overdue = max(0.0, now - float(first[1]) / 1000) if first else 0.0
    lengths = [command("ZCARD", TenantKeys(TenantId(tenant)).queue) for tenant in queues]
    waiting = sum(map(int, await funnel.batch(*lengths))) if lengths else 0
    phases: Counter[str] = Counter()
    tenants, start = 0, "-"
    while entries := await funnel.one(command("ZRANGEBYLEX", keys.TENANTS, start, "+", "LIMIT", 0, _PAGE)):
        of = (TenantKeys(TenantId(cursor.member_id(entry))).phases for entry in entries)
        for counts in await funnel.batch(*(command("HGETALL", key) for key in of)):
            phases.update({phase: int(count) for phase, count in counts.items()})
        tenants, start = tenants + len(entries), f"({entries[-1]}"
    return Figures(tenants, phases, waiting, overdue, int(unshipped), int(spares))
