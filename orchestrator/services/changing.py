"""What every use case about a conversation does: find it for its caller, compare and set, and leave an operation.

`ConversationService` is made of it. A change is stored before its caller is answered; the work itself is done by
`workers.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from orchestrator.domain import tracing
from orchestrator.domain.admission import Ask
from orchestrator.domain.clock import Clock, rfc3339
from orchestrator.domain.conditions import ALWAYS, Condition
from orchestrator.domain.conversation import Conversation, Desired, Kind, Phase
from orchestrator.domain.errors import Conflict, Gone, LimitReached, NotFound
from orchestrator.domain.ids import ConversationId, KeyId, OperationId, TenantId, UserId, new_uuid
from orchestrator.domain.operation import Operation, OperationState, Stage
from orchestrator.services.resting import at_rest, can_return
from orchestrator.state.base import Store

TRIES = 8  #: of a change that somebody else is faster with
_STARTS = frozenset({"start", "restart", "resume"})


class Changing:
    """Of the conversations, or the bare runtimes (`kind`), of all tenants. `wake` tells the workers of new work."""

    def __init__(self, store: Store, clock: Clock, kind: Kind, *, wake: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._kind = kind
        self._wake = wake

    async def get(
        self, tenant: TenantId, user: UserId | None, id: ConversationId, *, deleted: bool = False
    ) -> Conversation:
        """Raises `NotFound`, in the same words for another user's; `Gone` for one that is deleted and can be brought
        back, unless `deleted`."""
        found = await self._store.conversations.get(tenant, id)
        if found is None:
            raise self._unknown()
        visible = self._visible(found, user)
        if visible.desired is Desired.DELETED and not deleted:
            raise self._deleted(visible) if can_return(visible, self._clock.now()) else self._unknown()
        return visible

    async def is_starting(self, present: Conversation) -> bool:
        """Whether a start or resume was asked for that has not ended, also one that no worker has begun."""
        if present.operation is None or present.desired is not Desired.RUNNING:
            return False
        operation = await self._store.operations.get(present.tenant, present.operation)
        return operation is not None and operation.kind in _STARTS and operation.state is OperationState.RUNNING

    async def _joins(self, present: Conversation) -> bool:
        """Whether a start of it has nothing to do: it runs, or is on its way."""
        runs = not at_rest(present) and present.phase is not Phase.STOPPING
        return await self.is_starting(present) or (runs and present.desired is Desired.RUNNING)

    async def _change(
        self,
        tenant: TenantId,
        user: UserId | None,
        id: ConversationId,
        change: Callable[[Conversation], Conversation | None],
        kind: str,
        stages: Sequence[str],
        ask: Ask | None = None,
        key: KeyId | None = None,
        *,
        deleted: bool = False,
        condition: Condition = ALWAYS,
    ) -> Conversation:
        """Compare-and-set a caller's change; `change` answers None where there is nothing to do. A start brings the
        `ask` for its slot, and the key that it counts for. Raises `LimitReached`; then nothing changed."""
        for _ in range(TRIES):
            present = await self.get(tenant, user, id, deleted=deleted)
            self._check(condition, present)
            changed = change(present)
            if changed is None:
                return present
            operation = OperationId(new_uuid())
            changed = replace(changed, key=key or present.key, operation=operation, trace=tracing.text())
            await self._begin(changed, kind, stages)
            if await self._request(changed, present, ask):
                self._wake()
                return await self._after(changed)
        raise Conflict(f"the {self._kind} is changing quickly", hint="try again")

    async def _request(self, changed: Conversation, present: Conversation, ask: Ask | None) -> bool:
        stored = False
        try:
            stored = await self._store.conversations.request(
                changed, expected_version=present.version, ask=ask, replaces=present.operation
            )
        except LimitReached:
            await self._forget(changed)
            raise
        if not stored:
            await self._forget(changed)
        return stored

    async def _forget(self, conversation: Conversation) -> None:
        if conversation.operation is not None:
            await self._store.operations.forget(conversation.tenant, conversation.operation)

    async def _after(self, changed: Conversation) -> Conversation:
        return (await self._store.conversations.get(changed.tenant, changed.id)) or changed

    async def _begin(self, conversation: Conversation, kind: str, stages: Sequence[str]) -> None:
        if conversation.operation is None:
            return
        now = self._clock.now()
        await self._store.operations.create(
            Operation(
                conversation.operation,
                conversation.tenant,
                conversation.id,
                kind,
                OperationState.RUNNING,
                tuple(Stage(name) for name in stages),
                now,
                now,
                subject=conversation.kind,
            )
        )

    def _visible(self, conversation: Conversation, user: UserId | None) -> Conversation:
        if conversation.kind is not self._kind or (user is not None and conversation.user != user):
            raise self._unknown()
        return conversation

    def _check(self, condition: Condition, present: Conversation | None) -> None:
        condition.check(present.version if present is not None else 0, f"the {self._kind}")

    def _deleted(self, present: Conversation) -> Gone:
        until = f" until {rfc3339(present.purge_at)}" if present.purge_at is not None else ""
        hint = f"POST /api/v2/{self._kind}s/{present.id}/undelete brings it back{until}"
        return Gone(f"the {self._kind} is deleted", hint=hint)

    def _unknown(self) -> NotFound:
        return NotFound(f"there is no such {self._kind}")
