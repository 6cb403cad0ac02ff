"""How both surfaces that know runtimes by id find, make and wait for one. Used by `sandboxes` and `runtime_api`.

A runtime is a bare one, or that of a conversation: to these clients there is no difference.
"""

from contextlib import suppress

import anyio

from orchestrator.api.acceptance import service_of, until_ready
from orchestrator.api.auth import Owner
from orchestrator.api.context import Services
from orchestrator.domain.conversation import Conversation, Desired, Phase
from orchestrator.domain.errors import Conflict, Elapsed, InvalidRequest, NotFound
from orchestrator.domain.ids import ConversationId, RuntimeId, parse_uuid
from orchestrator.domain.tenancy import Scope
from orchestrator.facades.statuses import statuses_of

_STOPPING_SECONDS = 60.0
_LOOK_SECONDS = 0.05


async def find(services: Services, owner: Owner, id: str) -> Conversation:
    """The record of the caller's runtime `id`. Raises `NotFound`, in the same words for what is no id at all, for
    somebody else's and for a deleted one. That of a conversation is known by its id while it has one."""
    try:
        runtime = RuntimeId(parse_uuid(id, "id"))
    except InvalidRequest:
        raise _unknown() from None
    with suppress(NotFound):
        return await services.runtimes.get(owner.tenant, owner.user, ConversationId(runtime))
    place = await services.store.conversations.route(runtime)
    if place is None or place[0] != owner.tenant:
        raise _unknown()
    try:
        found = await services.conversations.get(owner.tenant, owner.user, place[1])
    except NotFound:
        raise _unknown() from None
    if found.runtime is None or found.runtime.id != runtime:
        raise _unknown()
    return found


def _unknown() -> NotFound:
    return NotFound("there is no such runtime")


async def waited(services: Services, owner: Owner, record: Conversation, seconds: float) -> Conversation:
    """The record when it is ready, or `seconds` later as it is then; the start goes on."""
    with suppress(Elapsed):
        return await until_ready(services, owner.tenant, owner.user, record, seconds)
    return await service_of(services, record.kind).get(owner.tenant, owner.user, record.id)


async def pause(services: Services, owner: Owner, record: Conversation) -> Conversation:
    """Paused until somebody resumes it; one that sleeps already is fine. Raises `Conflict` while it starts."""
    service = service_of(services, record.kind)
    try:
        return await service.pause(owner.tenant, owner.user, record.id)
    except Conflict:
        if statuses_of(record).sandbox != "PAUSED":
            raise
        return record


async def resume(services: Services, owner: Owner, record: Conversation) -> Conversation:
    """Running again, or on its way there, under the same address and session key. Running already: nothing is done. One
    that is being stopped is stopped first."""
    await stopped_first(services, owner, record)
    service = service_of(services, record.kind)
    return await service.resume(owner.tenant, owner.user, record.id, key=owner.caller.key)


async def stopped_first(services: Services, owner: Owner, record: Conversation) -> None:
    """Wait for the end of a stop that is under way: these clients are told at once that it is over, and start it anew
    by what they were told. Raises as `get`."""
    service = service_of(services, record.kind)
    with anyio.move_on_after(_STOPPING_SECONDS), services.arrivals.of(record.id) as news:
        while record.phase is Phase.STOPPING or (
            record.desired is Desired.STOPPED and record.phase not in (Phase.STOPPED, Phase.FAILED)
        ):
            await news.wait(_LOOK_SECONDS)
            record = await service.get(owner.tenant, owner.user, record.id)


async def session_key_of(services: Services, owner: Owner, record: Conversation) -> str | None:
    """Its session key, to a key that may write: it opens all of the runtime. None before its first start."""
    if Scope.WRITE not in owner.caller.scopes:
        return None
    key = await services.keys.session_key(record)
    return None if key is None else key.open()
