"""Turns of snapshots: two of a tenant at once, so that one whose runtimes are slow keeps nobody else waiting."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any, cast

import anyio
import pytest

from orchestrator.domain.clock import SystemClock
from orchestrator.domain.conversation import Conversation, Phase, RuntimeRecord, StartRequest
from orchestrator.domain.errors import Conflict
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId, UserId, new_uuid
from orchestrator.services import snapshots
from orchestrator.services.snapshots import Snapshots

pytestmark = pytest.mark.anyio
SLOW, OTHER = TenantId(new_uuid()), TenantId(new_uuid())
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


class Rig:
    """Conversations that are all there, of runtimes of which the slow tenant's do not answer before they are let."""

    def __init__(self) -> None:
        self.let, self.reaching, self.most = anyio.Event(), Counter[str](), Counter[str]()

    async def get(self, tenant: TenantId, user: UserId | None, id: ConversationId) -> Conversation:
        runtime = RuntimeRecord(id=RuntimeId(new_uuid()), generation=1)
        return Conversation(
            id, tenant, user, StartRequest(), MOMENT, MOMENT, MOMENT, Phase.READY, runtime=runtime, was_ready=True
        )

    async def present(self, home: str) -> list[Any]:
        return []

    async def reached(self, source: Conversation) -> Conversation:
        self.reaching[source.tenant] += 1
        self.most[source.tenant] = max(self.most[source.tenant], self.reaching[source.tenant])
        if source.tenant == SLOW:
            await self.let.wait()
        self.reaching[source.tenant] -= 1
        raise Conflict("reached")


async def test_slow_runtimes_of_one_tenant_keep_no_other_waiting() -> None:
    rig = Rig()
    there = cast(Any, rig)
    taking = Snapshots(there, there, there, there, there, SystemClock(), most=10, limit_bytes=1)

    async def take(tenant: TenantId) -> None:
        with pytest.raises(Conflict, match="reached"):
            await taking.take(tenant, None, ConversationId(new_uuid()))

    async with anyio.create_task_group() as tasks:
        for _ in range(2 * snapshots._AT_ONCE):
            tasks.start_soon(take, SLOW)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(30):
            await take(OTHER)
        assert (rig.most[SLOW], rig.most[OTHER]) == (2, 1)
        rig.let.set()
    assert rig.most[SLOW] == 2
