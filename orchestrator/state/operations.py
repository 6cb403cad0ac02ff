"""Operations in Redis. See `base.Operations`."""

from orchestrator.domain.conversation import Why
from orchestrator.domain.ids import OperationId, TenantId
from orchestrator.domain.operation import Operation, OperationState, Stage
from orchestrator.state import records
from orchestrator.state.base import OPERATION_TTL_MS
from orchestrator.state.funnel import Call, Funnel, command, run
from orchestrator.state.keys import TenantKeys
from orchestrator.state.refusals import no_operation

_STAGE = "stage:"


def stage_call(tenant: TenantId, id: OperationId, stage: Stage) -> Call:
    """Replace a stage; answers 0 when there is no such operation or stage."""
    return run("operation_stage", (TenantKeys(tenant).operation(id),), stage.name, records.stage_text(stage))


class RedisOperations:
    def __init__(self, funnel: Funnel) -> None:
        self._funnel = funnel

    async def create(self, operation: Operation) -> None:
        t = TenantKeys(operation.tenant)
        stages = [part for stage in operation.stages for part in (stage.name, records.stage_text(stage))]
        keys = (
            t.operation(operation.id),
            t.running_operations(operation.conversation),
            t.conversation(operation.conversation),
        )
        text = records.operation_text(operation)
        await self._funnel.one(
            run(
                "operation_create",
                keys,
                operation.id,
                operation.state,
                text,
                OPERATION_TTL_MS,
                *stages,
                journal=t.journal,
            )
        )

    async def get(self, tenant: TenantId, id: OperationId) -> Operation | None:
        fields: dict[str, str] = await self._funnel.one(command("HGETALL", TenantKeys(tenant).operation(id)))
        if not fields:
            return None
        stages = {name.removeprefix(_STAGE): text for name, text in fields.items() if name.startswith(_STAGE)}
        return records.operation_from(
            fields["text"],
            state=fields["state"],
            updated_ms=int(fields["updated_ms"]),
            stages=stages,
            failure=fields.get("failure", ""),
        )

    async def stage(self, tenant: TenantId, id: OperationId, stage: Stage) -> None:
        if not await self._funnel.one(stage_call(tenant, id, stage)):
            raise no_operation()

    async def forget(self, tenant: TenantId, id: OperationId) -> None:
        operation = await self.get(tenant, id)
        if operation is not None:
            t = TenantKeys(tenant)
            keys = (t.operation(id), t.running_operations(operation.conversation))
            await self._funnel.one(run("operation_forget", keys, id, journal=t.journal))

    async def finish(
        self, tenant: TenantId, id: OperationId, state: OperationState, *, failure: Why | None = None
    ) -> None:
        operation = await self.get(tenant, id)
        if operation is None:
            raise no_operation()
        t = TenantKeys(tenant)
        keys = (t.operation(id), t.running_operations(operation.conversation))
        arguments = (id, state, OPERATION_TTL_MS, records.why_text(failure))
        await self._funnel.one(run("operation_finish", keys, *arguments, journal=t.journal))
