"""How the work that a call asked for is answered: accepted (202), or waited for; and the record as it is shown.

Shared by the routes of conversations and of bare runtimes, and by the facades, which wait as well.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import anyio
from fastapi import Query, Response

from orchestrator.api import rendering
from orchestrator.api.auth import Owner
from orchestrator.api.context import Services
from orchestrator.api.paging import Paging
from orchestrator.domain.conditions import Condition
from orchestrator.domain.conversation import Conversation, Desired, Kind, Phase
from orchestrator.domain.errors import Elapsed
from orchestrator.domain.ids import ConversationId, OperationId, TenantId, UserId, parse_uuid
from orchestrator.domain.operation import OperationState
from orchestrator.domain.tenancy import Scope
from orchestrator.services.conversation_lists import ConversationLists, Filters
from orchestrator.services.conversations import ConversationService
from orchestrator.services.starting import STARTING

#: in which a start, a pause, a stop, and the taking back of a deletion have nothing to do
RUNS = frozenset({Phase.READY})
PAUSED = frozenset({Phase.PAUSED})
ENDED = frozenset({Phase.STOPPED, Phase.FAILED})
KEPT = frozenset(Phase) - {Phase.DELETING}
_RECORDS_A_CALL = 100
#: between two looks of whoever waits: what is stored is told (`services/arrivals.py`), unless that is missed
_SHORTEST_REST, _LONGEST_REST = 0.5, 2.0
Wait = Annotated[Literal["ready"] | None, Query()]
WaitSeconds = Annotated[float, Query(gt=0, le=300)]


def service_of(services: Services, kind: Kind) -> ConversationService:
    """The use cases of one kind of record."""
    return services.conversations if kind is Kind.CONVERSATION else services.runtimes


async def accepted(
    services: Services,
    owner: Owner,
    conversation: Conversation,
    response: Response,
    wait: str | None,
    timeout: float,
    *,
    done: Collection[Phase] = (),
    before: OperationId | None = None,
) -> dict[str, Any]:
    """202 with the operation's address, however soon that is over; or, when asked to, wait until it is ready or failed
    and answer 200. At once 200 where this call made no work: the operation is the one that `asked_last` told before it,
    that is over, and the phase is one of `done`."""
    made = conversation.operation != before
    if conversation.phase in done and not made and not await under_way(services, conversation):
        response.status_code = 200
    elif conversation.operation is not None:
        response.headers["location"] = f"/api/v2/operations/{conversation.operation}"
        response.headers["retry-after"] = "1"
    if wait == "ready":
        conversation = await until_ready(services, owner.tenant, owner.user, conversation, timeout)
        response.status_code = 200
    return await rendered(services, owner, conversation)


async def asked_last(services: Services, owner: Owner, id: ConversationId, kind: Kind) -> OperationId | None:
    """The operation that was asked for last; looked at before a call, since whether that made one of its own must not
    hang on whether the worker or the answer was quicker. Raises `NotFound`."""
    return (await service_of(services, kind).get(owner.tenant, owner.user, id, deleted=True)).operation


async def under_way(services: Services, conversation: Conversation) -> bool:
    """Whether what was asked for last is not done yet."""
    if conversation.operation is None:
        return False
    operation = await services.store.operations.get(conversation.tenant, conversation.operation)
    return operation is not None and operation.state is OperationState.RUNNING


async def removed(
    services: Services,
    owner: Owner,
    id: ConversationId,
    kind: Kind,
    response: Response,
    condition: Condition,
    purge: bool,
) -> dict[str, Any] | Response:
    """Delete it: 202 with the record for who asked for it first, however soon it is done, and while what runs is being
    removed; then 204."""
    service = service_of(services, kind)
    before = await asked_last(services, owner, id, kind)
    gone = await service.delete(owner.tenant, owner.user, id, purge=purge, condition=condition)
    asked_before = gone.operation == before
    if asked_before and gone.phase is Phase.DELETING and not await under_way(services, gone):
        return Response(status_code=204)
    return await accepted(services, owner, gone, response, None, 0)


async def until_ready(
    services: Services, tenant: TenantId, user: UserId | None, conversation: Conversation, timeout: float
) -> Conversation:
    """The record once it is ready, or its start has come to nothing. Raises `Elapsed` after `timeout` seconds; the
    start goes on. Raises `NotFound` when it is deleted meanwhile."""
    service = service_of(services, conversation.kind)
    began = anyio.current_time()
    with anyio.move_on_after(timeout), services.arrivals.of(conversation.id) as news:
        is_starting = await service.is_starting(conversation)
        while conversation.phase is not Phase.READY and is_starting:
            # A tenth of what it took so far is what is lost at most by having looked too early.
            rest = min(_LONGEST_REST, max(_SHORTEST_REST, (anyio.current_time() - began) / 10))
            was_told = await news.wait(rest)
            conversation = await service.get(tenant, user, conversation.id)
            is_wanted = conversation.desired is Desired.RUNNING
            on_its_way = was_told and is_wanted and conversation.phase in STARTING
            if not on_its_way and conversation.phase is not Phase.READY:  # else the record says it itself
                is_starting = await service.is_starting(conversation)
        if conversation.phase is Phase.READY:
            return conversation
        return await service.get(tenant, user, conversation.id)  # as it was at the end of its operation
    raise Elapsed(
        f"not ready within {timeout:g} seconds; the start goes on",
        hint="watch the operation",
        conversation=conversation.id,
        operation=conversation.operation,
    )


@contextmanager
def walking(services: Services, owner: Owner) -> Iterator[Callable[[int], None]]:
    """What is told how many records a list looks at: each hundred beyond the first counts as one more call, also where
    it failed on its way."""
    seen = 0

    def looked(records: int) -> None:
        nonlocal seen
        seen += records

    try:
        yield looked
    finally:
        services.call_rates.charge(owner.caller, (seen - 1) // _RECORDS_A_CALL)


async def record_page(
    services: Services,
    owner: Owner,
    lists: ConversationLists,
    filters: Filters,
    ids: Sequence[str] | None,
    paging: Paging,
    limit: int,
    *,
    oldest_first: bool,
) -> dict[str, Any]:
    """A page of records of either kind, or those of `ids` with null for what is not there; without session keys."""
    if ids is not None:
        wanted = [ConversationId(parse_uuid(id, "ids")) for id in ids]
        found, following = await lists.many(owner.tenant, owner.user, wanted, deleted=filters.deleted), None
    else:
        with walking(services, owner) as looked:
            page = await lists.page(
                owner.tenant,
                owner.user,
                filters,
                cursor=paging.after,
                limit=limit,
                oldest_first=oldest_first,
                looked=looked,
            )
        found, following = list(page.items), paging.next(page.next_cursor)
    items = [
        None if one is None else rendering.record_out(one, url=services.runtime_url(one), session_key=None)
        for one in found
    ]
    return {"items": items, "next_page_id": following}


async def rendered(services: Services, owner: Owner, conversation: Conversation) -> dict[str, Any]:
    """With the session key a caller can do anything inside of the runtime, so reading alone does not give it."""
    shown = conversation.phase in rendering.ADDRESSED and Scope.WRITE in owner.caller.scopes
    key = await services.keys.session_key(conversation) if shown else None
    out = rendering.record_out(conversation, url=services.runtime_url(conversation), session_key=key)
    # Read at once: each of them alone would wait for what others have written in the meantime.
    generation, (outlook, rest), standing, attempted, spent = await asyncio.gather(
        services.store.configuration.generation(conversation.tenant, conversation.user),
        services.holding.outlook(conversation),
        services.admission.standing(conversation),
        services.store.saga.attempted(owner.tenant, conversation.id),
        services.store.spending.of_conversation(owner.tenant, conversation.id),
    )
    cost = {"cost": rendering.cost_out(spent)} if conversation.kind is Kind.CONVERSATION else {}
    return (
        out
        | cost
        | {
            "idle": rendering.idle_out(rest),
            **rendering.outlook_out(outlook),
            "failures": rendering.failures_out(conversation),
            "configuration": rendering.configuration_out(conversation, generation),
            "queue": rendering.queue_out(standing),
            "stuck": rendering.stuck_out(attempted),
        }
    )
