"""What a start request becomes: the record of a new conversation, checked as far as can be known before it runs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from orchestrator.domain import tracing
from orchestrator.domain.clock import Clock
from orchestrator.domain.conversation import Conversation, Kind, RuntimeRecord, StartRequest
from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.ids import ConversationId, KeyId, OperationId, RuntimeId, TenantId, UserId, new_uuid
from orchestrator.services.effective import Effective
from orchestrator.services.images import NO_IMAGES, Images
from orchestrator.services.overrides import Overrides, OverrideSeal
from orchestrator.state.base import Tenants


@dataclass(frozen=True)
class Wanted:
    """A start request as the edge parsed it."""

    id: ConversationId | None
    request: StartRequest
    overrides: Overrides
    title: str | None
    labels: Mapping[str, str]
    size: int | None = None  #: None: as the tenant has it
    name: str = ""  #: of a bare runtime: whoever asks for the same one gets the one that is there


class Drafts:
    """Of one kind of record."""

    def __init__(
        self,
        tenants: Tenants,
        effective: Effective,
        overrides: OverrideSeal,
        images: Images | None,
        clock: Clock,
        *,
        sizes: Collection[int],
        kind: Kind,
    ) -> None:
        self._tenants = tenants
        self._effective = effective
        self._overrides = overrides
        self._images = images
        self._clock = clock
        self._sizes = sizes
        self._kind = kind

    async def draft(self, tenant: TenantId, user: UserId | None, key: KeyId | None, wanted: Wanted) -> Conversation:
        """The record as it would be stored. Raises `InvalidRequest`, and what pinning an image does."""
        id = wanted.id or ConversationId(new_uuid())
        now = self._clock.now()
        sealed, size = await self._overrides.seal(tenant, id, wanted.overrides), await self.size(tenant, wanted.size)
        conversation = Conversation(
            id=id,
            tenant=tenant,
            user=user,
            request=replace(wanted.request, sealed_overrides=sealed, size=size),
            created_at=now,
            updated_at=now,
            phase_since=now,
            title=wanted.title,
            labels=wanted.labels,
            runtime=RuntimeRecord(id=self._runtime_id(id), generation=0),
            operation=OperationId(new_uuid()),
            key=key,
            trace=tracing.text(),
            kind=self._kind,
            name=wanted.name,
        )
        await self._check(conversation)
        if self._images is None:
            return conversation
        return replace(conversation, image=await self._images.pin(tenant, wanted.request.image, id))

    def _runtime_id(self, id: ConversationId) -> RuntimeId:
        """A conversation's id may be its caller's choice, and two tenants may choose the same one; a bare runtime's is
        ours."""
        return RuntimeId(id if self._kind is Kind.RUNTIME else new_uuid())

    async def are(self, present: Conversation, wanted: Wanted) -> bool:
        """Whether this one was asked for with the same that never changes of it: all but title, labels, and a size that
        is not named. Raises `Undecryptable`."""
        stored = present.request
        asked = replace(wanted.request, sealed_overrides=stored.sealed_overrides, size=stored.size)
        alike = asked == stored and wanted.size in (None, stored.size)
        return alike and await self._overrides.are(present, wanted.overrides)

    async def size(self, tenant: TenantId, asked: int | None) -> int:
        """The size of a runtime of this tenant. Raises `InvalidRequest` for one that it may not have."""
        record = await self._tenants.tenant(tenant)
        own = record.sizes if record is not None else ()
        allowed = own or tuple(sorted(self._sizes))
        if asked is None:
            return allowed[0]
        if asked not in allowed:
            sizes = ", ".join(map(str, sorted(allowed)))
            raise InvalidRequest(
                "this size may not be used here", field="size", hint=f"leave size out, or use one of these: {sizes}"
            )
        return asked

    async def _check(self, conversation: Conversation) -> None:
        request = conversation.request
        if request.image is not None and self._images is None:
            raise InvalidRequest(NO_IMAGES, field="image", hint="leave image out")
        if self._kind is Kind.RUNTIME:
            return  # its clients bring what they need
        bundle = await self._effective.bundle(conversation.tenant, conversation.user, own=conversation)
        if request.has_start_body:
            return  # of a client that knows the agent server: the model is in its body, and the server says what lacks
        if not bundle.settings.get("agent_settings", {}).get("llm", {}).get("model"):
            raise InvalidRequest(
                "no model is set",
                field="settings.agent_settings.llm.model",
                hint="store one with PATCH /api/v2/settings, or send it in settings",
            )
        if request.fork_of is not None:
            return  # what was cloned comes with the workspace
        names = [provider.name for provider in bundle.providers if provider.has_host]
        if request.git_provider is not None and request.git_provider not in names:
            raise InvalidRequest(f"no token is stored for {request.git_provider}", field="git_provider")
        if request.repository is not None and request.git_provider is None and len(names) > 1:
            raise InvalidRequest(
                "there are several git providers", field="git_provider", hint=f"name one of {', '.join(sorted(names))}"
            )
