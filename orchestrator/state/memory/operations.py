"""Operations in memory. See `base.Operations`."""

from dataclasses import replace
from datetime import UTC, datetime

from orchestrator.domain.conversation import Why
from orchestrator.domain.ids import OperationId, TenantId
from orchestrator.domain.operation import Operation, OperationState, Stage
from orchestrator.state import records
from orchestrator.state.base import OPERATION_TTL_MS
from orchestrator.state.memory.shelf import Shelf
from orchestrator.state.refusals import no_operation


class MemoryOperations:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def create(self, operation: Operation) -> None:
        key = (operation.tenant, operation.id)
        self._shelf.sweep()
        if key in self._shelf.operations:
            return
        place = self._shelf.places.get((operation.tenant, operation.conversation))
        runs = place is not None and operation.state is OperationState.RUNNING
        if place is not None and runs:
            place.running_operations.add(operation.id)
        if operation.state is OperationState.RUNNING:
            self._shelf.note(operation.tenant, "operation", operation.id, records.operation_text(operation))
        self._shelf.operations[key] = (self._touched(operation), None if runs else self._goes())

    async def get(self, tenant: TenantId, id: OperationId) -> Operation | None:
        self._shelf.sweep()
        kept = self._shelf.operations.get((tenant, id))
        return None if kept is None else kept[0]

    async def stage(self, tenant: TenantId, id: OperationId, stage: Stage) -> None:
        self._shelf.sweep()
        operation, goes = self._kept(tenant, id)
        if stage.name not in {known.name for known in operation.stages}:
            raise no_operation()
        stages = tuple(stage if known.name == stage.name else known for known in operation.stages)
        self._shelf.operations[tenant, id] = (self._touched(replace(operation, stages=stages)), goes)

    async def forget(self, tenant: TenantId, id: OperationId) -> None:
        kept = self._shelf.operations.pop((tenant, id), None)
        if kept is not None:
            self._shelf.note(tenant, "operation", id, None)
        place = None if kept is None else self._shelf.places.get((tenant, kept[0].conversation))
        if place is not None:
            place.running_operations.discard(id)

    async def finish(
        self, tenant: TenantId, id: OperationId, state: OperationState, *, failure: Why | None = None
    ) -> None:
        self._shelf.sweep()
        self._kept(tenant, id)
        self._shelf.end_operation(tenant, id, state, failure)

    def _kept(self, tenant: TenantId, id: OperationId) -> tuple[Operation, int | None]:
        kept = self._shelf.operations.get((tenant, id))
        if kept is None:
            raise no_operation()
        return kept

    def _goes(self) -> int:
        return self._shelf.now_ms() + OPERATION_TTL_MS

    def _touched(self, operation: Operation) -> Operation:
        return replace(operation, updated_at=datetime.fromtimestamp(self._shelf.now_ms() / 1000, UTC))
