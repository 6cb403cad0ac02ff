"""The use cases about conversations: ask for one, look at it, talk to it, pause it, stop it, delete it.

What is asked for is stored before the answer goes out; the work itself is done by `workers.py`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from orchestrator.domain.clock import Clock
from orchestrator.domain.conversation import (
    Conversation,
    Desired,
    Phase,
    Reason,
    RuntimeRecord,
    StartRequest,
)
from orchestrator.domain.errors import Conflict, ImageRefused, InvalidRequest, NotFound
from orchestrator.domain.ids import ConversationId, OperationId, RuntimeId, TenantId, UserId, new_uuid
from orchestrator.domain.operation import Operation, OperationState, Stage
from orchestrator.services.effective import Effective
from orchestrator.services.events import EventLog
from orchestrator.services.overrides import Overrides, OverrideSeal
from orchestrator.services.provisioning import STAGES
from orchestrator.state.base import Message, Page, Store, StoredEvent

WAITING_MESSAGES = 1_000
_TRIES = 8
_STARTS = frozenset({"start", "resume"})
_BY_POLICY = frozenset({Reason.IDLE, Reason.EVICTED})
_PAUSABLE = frozenset({Phase.READY, Phase.PAUSING, Phase.PAUSED, Phase.RESUMING})


@dataclass(frozen=True)
class Wanted:
    """A start request as the edge parsed it."""

    id: ConversationId | None
    request: StartRequest
    overrides: Overrides
    title: str | None
    labels: Mapping[str, str]


def may_wake(conversation: Conversation) -> bool:
    """Whether using it brings it back: policy put it to rest, and nobody wants it to stay there."""
    at_rest = conversation.phase in (Phase.PAUSING, Phase.PAUSED, Phase.STOPPED)
    return at_rest and conversation.desired is Desired.RUNNING and conversation.why.reason in _BY_POLICY


class ConversationService:
    """Every method works on the conversations of one tenant, and of one user where the caller is a user."""

    def __init__(
        self,
        store: Store,
        effective: Effective,
        overrides: OverrideSeal,
        events: EventLog,
        clock: Clock,
        *,
        wake: Callable[[], None],
        images: Collection[str] | None,
    ) -> None:
        self._store = store
        self._effective = effective
        self._overrides = overrides
        self._events = events
        self._clock = clock
        self._wake = wake
        self._images = images

    async def create(self, tenant: TenantId, user: UserId | None, wanted: Wanted) -> Conversation:
        """Accept a conversation; a known id answers the stored one, so that a repeat joins the start under way."""
        id = wanted.id or ConversationId(new_uuid())
        if wanted.id is not None and (present := await self._store.conversations.get(tenant, id)) is not None:
            return self._visible(present, user)
        now = self._clock.now()
        sealed = await self._overrides.seal(tenant, id, wanted.overrides)
        conversation = Conversation(
            id=id,
            tenant=tenant,
            user=user,
            request=replace(wanted.request, sealed_overrides=sealed),
            created_at=now,
            updated_at=now,
            phase_since=now,
            title=wanted.title,
            labels=wanted.labels,
            runtime=RuntimeRecord(id=RuntimeId(new_uuid()), generation=0),
            operation=OperationId(new_uuid()),
        )
        await self._check(conversation)
        if conversation.runtime is not None:
            await self._store.conversations.put_route(conversation.runtime.id, tenant, id)
        await self._begin(conversation, "start", STAGES)
        stored = await self._store.conversations.create(conversation, live_limit=None)
        self._wake()
        return self._visible(stored, user)

    async def get(self, tenant: TenantId, user: UserId | None, id: ConversationId) -> Conversation:
        """Raises `NotFound`, in the same words for another user's."""
        found = await self._store.conversations.get(tenant, id)
        if found is None:
            raise NotFound("there is no such conversation")
        return self._visible(found, user)

    async def list(
        self, tenant: TenantId, user: UserId | None, *, cursor: str | None, limit: int
    ) -> Page[Conversation]:
        """Newest first."""
        return await self._store.conversations.list(tenant, user=user, cursor=cursor, limit=limit)

    async def start(self, tenant: TenantId, user: UserId | None, id: ConversationId) -> Conversation:
        """Bring a stopped, failed or paused conversation back; one that runs or is on its way is answered as it is."""
        present = await self.get(tenant, user, id)
        if await self.is_starting(present):
            return present
        if present.phase in (Phase.PAUSING, Phase.PAUSED) or present.desired is Desired.PAUSED:
            return await self._resume(tenant, user, id)

        def change(present: Conversation) -> Conversation | None:
            if present.desired is Desired.DELETED:
                raise NotFound("there is no such conversation")
            if present.phase in (Phase.STOPPED, Phase.FAILED):
                return replace(present, desired=Desired.RUNNING, operation=OperationId(new_uuid()))
            if present.desired is not Desired.RUNNING:
                raise Conflict(f"the conversation is {present.phase}", hint="wait until it is stopped, then start it")
            return None

        return await self._change(tenant, user, id, change, "start", STAGES)

    async def pause(self, tenant: TenantId, user: UserId | None, id: ConversationId) -> Conversation:
        """Freeze the runtime until somebody resumes it. Paused already: nothing to do, but a pause by policy becomes
        one that stays. Raises `Conflict` where there is nothing to pause."""

        def change(present: Conversation) -> Conversation | None:
            if present.desired is Desired.DELETED:
                raise NotFound("there is no such conversation")
            if present.desired is Desired.PAUSED:
                return None
            if present.desired is not Desired.RUNNING or present.phase not in _PAUSABLE:
                raise Conflict(f"the conversation is {present.phase}", hint="only one that is ready can be paused")
            return replace(present, desired=Desired.PAUSED, operation=OperationId(new_uuid()))

        return await self._change(tenant, user, id, change, "pause", ())

    async def resume(self, tenant: TenantId, user: UserId | None, id: ConversationId) -> Conversation:
        """Bring a paused conversation back, whoever paused it; else as `start`."""
        return await self.start(tenant, user, id)

    async def wake(self, tenant: TenantId, id: ConversationId) -> None:
        """For a use of it that arrived: resume what policy put to rest. What a caller paused or stopped stays so."""
        present = await self.get(tenant, None, id)
        if may_wake(present) and not await self.is_starting(present):
            with suppress(Conflict):  # it changes by itself, quickly
                await self.start(tenant, None, id)

    async def _resume(self, tenant: TenantId, user: UserId | None, id: ConversationId) -> Conversation:
        def change(present: Conversation) -> Conversation | None:
            if present.desired is Desired.DELETED:
                raise NotFound("there is no such conversation")
            if present.phase not in (Phase.PAUSING, Phase.PAUSED) and present.desired is not Desired.PAUSED:
                return None
            return replace(present, desired=Desired.RUNNING, operation=OperationId(new_uuid()))

        return await self._change(tenant, user, id, change, "resume", ())

    async def stop(self, tenant: TenantId, user: UserId | None, id: ConversationId) -> Conversation:
        """Remove the runtime, keep workspace and log. Stopped or failed already: nothing to do, unless a start was
        asked for since."""
        starting = await self.is_starting(await self.get(tenant, user, id))

        def change(present: Conversation) -> Conversation | None:
            at_rest = present.phase in (Phase.STOPPED, Phase.FAILED) and not starting
            if present.desired in (Desired.STOPPED, Desired.DELETED) or at_rest:
                return None
            return replace(present, desired=Desired.STOPPED, operation=OperationId(new_uuid()))

        return await self._change(tenant, user, id, change, "stop", ())

    async def delete(self, tenant: TenantId, user: UserId | None, id: ConversationId) -> Conversation:
        """In every phase; repeated until it is gone it is accepted again. Raises `NotFound` after that."""

        def change(present: Conversation) -> Conversation | None:
            if present.desired is Desired.DELETED:
                return None
            return replace(present, desired=Desired.DELETED, operation=OperationId(new_uuid()))

        return await self._change(tenant, user, id, change, "delete", ())

    async def post_message(
        self, tenant: TenantId, user: UserId | None, id: ConversationId, *, content: str, client_id: str | None
    ) -> Message:
        """Put a message into the inbox, once for each `client_id`."""
        conversation = await self.get(tenant, user, id)
        if conversation.desired is Desired.DELETED:
            raise NotFound("there is no such conversation")
        if conversation.phase is Phase.FAILED:
            raise Conflict(
                f"the conversation failed: {conversation.why.message}",
                hint=f"POST /api/v2/conversations/{id}/start first",
            )
        message = await self._store.inbox.put(
            tenant, id, client_id=client_id or new_uuid(), content=content, limit=WAITING_MESSAGES
        )
        self._wake()
        if conversation.phase is Phase.STOPPED:
            await self.wake(tenant, id)
        return message

    async def events(
        self, tenant: TenantId, user: UserId | None, id: ConversationId, *, after: int, limit: int
    ) -> Sequence[StoredEvent]:
        """Events above `after`, oldest first, whether or not the runtime is there."""
        return await self._events.read(await self.get(tenant, user, id), after=after, limit=limit)

    async def operation(self, tenant: TenantId, user: UserId | None, id: OperationId) -> Operation:
        """Raises `NotFound`."""
        found = await self._store.operations.get(tenant, id)
        if found is None:
            raise NotFound("there is no such operation")
        if user is not None:
            conversation = await self._store.conversations.get(tenant, found.conversation)
            if conversation is not None:
                self._visible(conversation, user)
        return found

    async def _check(self, conversation: Conversation) -> None:
        request = conversation.request
        if request.image is not None and self._images is None:
            raise InvalidRequest("the driver in use has no images", field="image", hint="leave image out")
        if request.image is not None and request.image not in (self._images or ()):
            raise ImageRefused(
                "this image may not be used here",
                field="image",
                hint="leave image out, or ask the operator to allow it",
            )
        bundle = await self._effective.bundle(conversation.tenant, conversation.user, own=conversation)
        if not bundle.settings.get("agent_settings", {}).get("llm", {}).get("model"):
            raise InvalidRequest(
                "no model is set",
                field="settings.agent_settings.llm.model",
                hint="store one with PATCH /api/v2/settings, or send it in settings",
            )
        names = [provider.name for provider in bundle.providers]
        if request.git_provider is not None and request.git_provider not in names:
            raise InvalidRequest(f"no token is stored for {request.git_provider}", field="git_provider")
        if request.repository is not None and request.git_provider is None and len(names) > 1:
            raise InvalidRequest(
                "there are several git providers", field="git_provider", hint=f"name one of {', '.join(sorted(names))}"
            )

    async def _change(
        self,
        tenant: TenantId,
        user: UserId | None,
        id: ConversationId,
        change: Callable[[Conversation], Conversation | None],
        kind: str,
        stages: Sequence[str],
    ) -> Conversation:
        """Compare-and-set a caller's change; `change` answers None where there is nothing to do."""
        for _ in range(_TRIES):
            present = await self.get(tenant, user, id)
            changed = change(present)
            if changed is None:
                return present
            await self._begin(changed, kind, stages)
            if await self._store.conversations.request(changed, expected_version=present.version):
                if present.operation is not None and present.operation != changed.operation:
                    await self._supersede(tenant, present.operation)
                self._wake()
                return await self._after(changed)
        raise Conflict("the conversation is changing quickly", hint="try again")

    async def _supersede(self, tenant: TenantId, operation: OperationId) -> None:
        """An operation that another one replaces has failed, if it has not ended already."""
        with suppress(NotFound):  # it ended more than a day ago
            await self._store.operations.finish(tenant, operation, OperationState.FAILED)

    async def is_starting(self, present: Conversation) -> bool:
        """Whether a start or resume was asked for that has not ended, also one that no worker has begun."""
        if present.operation is None or present.desired is not Desired.RUNNING:
            return False
        operation = await self._store.operations.get(present.tenant, present.operation)
        return operation is not None and operation.kind in _STARTS and operation.state is OperationState.RUNNING

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
            )
        )

    @staticmethod
    def _visible(conversation: Conversation, user: UserId | None) -> Conversation:
        if user is not None and conversation.user != user:
            raise NotFound("there is no such conversation")
        return conversation
