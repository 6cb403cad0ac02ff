"""The saga log in Redis: which steps of a start may have run. See `base.SagaLog`."""

from collections.abc import Sequence

from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.state.base import Lease, Told
from orchestrator.state.funnel import Funnel, command, run
from orchestrator.state.keys import TenantKeys
from orchestrator.state.operations import stage_call
from orchestrator.state.refusals import lease_lost


class RedisSagaLog:
    def __init__(self, funnel: Funnel) -> None:
        self._funnel = funnel

    async def started(self, lease: Lease, step: str, *, note: str = "", told: Told | None = None) -> None:
        await self._write("saga_started", lease, step, note, told=told)

    async def undone(self, lease: Lease, step: str) -> None:
        await self._write("saga_undone", lease, step)

    async def stuck(self, lease: Lease, step: str, message: str) -> None:
        await self._write("saga_stuck", lease, step, message)

    async def clear(self, lease: Lease, *, told: Told | None = None) -> None:
        await self._write("saga_clear", lease, told=told)

    async def attempted(self, tenant: TenantId, id: ConversationId) -> Sequence[tuple[str, str, str | None]]:
        fields: dict[str, str] = await self._funnel.one(command("HGETALL", TenantKeys(tenant).saga(id)))
        places = {name.removeprefix("place:"): int(n) for name, n in fields.items() if name.startswith("place:")}
        return [
            (step, fields.get(f"note:{step}", ""), fields.get(f"stuck:{step}"))
            for step in sorted(places, key=places.__getitem__)
        ]

    async def _write(self, script: str, lease: Lease, *arguments: str, told: Told | None = None) -> None:
        t = TenantKeys(lease.tenant)
        keys = (t.conversation(lease.conversation), t.saga(lease.conversation))
        stages = [] if told is None else [stage_call(lease.tenant, told.operation, stage) for stage in told.stages]
        replies = await self._funnel.batch(run(script, keys, lease.owner, lease.fence, *arguments), *stages)
        if not replies[0]:
            raise lease_lost(lease)
