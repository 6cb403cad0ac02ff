"""Which tenants have something due, across tenants: the index `x:due`.

Used by the Redis conversations and inbox. A tenant's exact due times are in its own sorted set, on its own slot; this
index holds for each tenant the earliest of them, or something earlier: an early visit finds nothing and corrects it,
a late one would let a conversation wait. So it is written before *and* after the tenant's own script (a visit between
the two would otherwise take the tenant out), and a tenant is taken out only if nobody woke it during the visit.
"""

from collections.abc import Sequence
from typing import Any

from orchestrator.domain.ids import TenantId
from orchestrator.state import keys
from orchestrator.state.funnel import Call, Funnel, command, run

#: How long a tenant is put off while somebody visits it; a visitor that dies costs this much.
VISIT_MS = 2_000


async def waking(
    funnel: Funnel,
    tenant: TenantId,
    call: Call,
    *,
    due_in_ms: int = 0,
    durable: bool = False,
    around: tuple[Call, ...] = (),
) -> Any:
    """The reply to `call`, which makes something of the tenant due in `due_in_ms`. `around`: what else of another slot
    is to be noted before and after it."""
    notes = (run("tenant_wake", (keys.DUE_TENANTS,), tenant, due_in_ms), *around)
    replies = await funnel.batch(*notes, call, *notes, durable=durable)
    return replies[len(notes)]


async def visit(funnel: Funnel, *, limit: int) -> tuple[str, Sequence[TenantId]]:
    """The mark of this visit and up to `limit` tenants that may have something due."""
    mark, *tenants = await funnel.one(run("tenants_visit", (keys.DUE_TENANTS,), limit, VISIT_MS))
    return mark, [TenantId(tenant) for tenant in tenants]


def refile(tenant: TenantId, *, mark: str, next_due_ms: str) -> Call:
    """The end of a visit: `next_due_ms` is what the tenant's own index says, '' when it is empty."""
    return run("tenant_refile", (keys.DUE_TENANTS,), tenant, mark, next_due_ms)


async def next_due_ms(funnel: Funnel) -> int | None:
    """Milliseconds until a visit is worth it (0: now), None when nothing is due ever."""
    first, (seconds, microseconds) = await funnel.batch(
        command("ZRANGE", keys.DUE_TENANTS, 0, 0, "WITHSCORES"), command("TIME")
    )
    if not first:
        return None
    return max(0, int(float(first[1])) - (int(seconds) * 1000 + int(microseconds) // 1000))


async def wake(funnel: Funnel, tenant: TenantId) -> None:
    """Something of the tenant is due now."""
    await funnel.one(run("tenant_wake", (keys.DUE_TENANTS,), tenant, 0))
