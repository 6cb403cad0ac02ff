"""Bare runtimes of the native API: a runtime without a conversation, for clients that know the agent server.

The same record, steps and clocks as a conversation's (`domain/conversation.py`), so that all that is promised of those
holds for these.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from orchestrator.api import rendering, schemas
from orchestrator.api.acceptance import (
    ENDED,
    KEPT,
    PAUSED,
    RUNS,
    Wait,
    WaitSeconds,
    accepted,
    asked_last,
    record_page,
    removed,
    rendered,
    walking,
)
from orchestrator.api.answers import operations, records
from orchestrator.api.answers.declared import changes, removes, says, starts
from orchestrator.api.auth import Owner, OwnerOf, ServicesOf
from orchestrator.api.conditions import ConditionOf, tell_version
from orchestrator.api.context import Services
from orchestrator.api.idempotency import NaturalIdOf
from orchestrator.api.lists import MOST, IdsOf, Limit, RuntimeFilters, SortOrder, alone
from orchestrator.api.paging import PagingOf
from orchestrator.domain.conditions import Condition
from orchestrator.domain.conversation import Kind, StartRequest
from orchestrator.domain.ids import ConversationId, parse_uuid
from orchestrator.domain.variables import check_variables
from orchestrator.services.drafting import Wanted
from orchestrator.services.overrides import Overrides

router = APIRouter(prefix="/api/v2", tags=["runtimes"])


@router.post("/runtimes", status_code=202, responses=starts(records.Runtime))
async def create(
    body: schemas.BareRuntimeBody,
    owner: OwnerOf,
    services: ServicesOf,
    response: Response,
    natural_id: NaturalIdOf,
    wait: Wait = None,
    timeout: WaitSeconds = 30,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Ask for a bare runtime: 202 with the operation that starts it. A `name` that one of yours has already, or a
    repeated `Idempotency-Key`, answers the one that is there, as it is. Over a limit as for conversations."""
    wanted = _wanted(body, natural_id)
    if dry_run:
        response.status_code = 200
        report = await services.runtimes.try_out(owner.tenant, owner.user, wanted, key=owner.caller.key)
        return rendering.report_out(report)
    made = await services.runtimes.create(owner.tenant, owner.user, wanted, key=owner.caller.key)
    return await accepted(services, owner, made, response, wait, timeout)


@router.get("/runtimes", responses=says({200: records.RuntimePage}))
async def list_runtimes(
    request: Request,
    owner: OwnerOf,
    services: ServicesOf,
    filters: RuntimeFilters,
    ids: IdsOf,
    paging: PagingOf,
    limit: Limit = MOST,
    sort_order: SortOrder = "CREATED_AT_DESC",
    name: Annotated[str | None, Query(max_length=200, description="As `name__eq`")] = None,
    name__eq: Annotated[str | None, Query(max_length=200, description="The one that has it; no other filter")] = None,
) -> dict[str, Any]:
    """Newest first, without session keys; or the one of this `name`. Those of conversations are not among them. Filters
    as for conversations."""
    if (wanted := name if name__eq is None else name__eq) is not None:
        alone(request, "name__eq" if name is None else "name", "deleted")
        found = await services.runtimes.named(owner.tenant, owner.user, wanted)
        ids = [found.id] if found is not None else []
    lists, oldest_first = services.runtimes.lists, sort_order == "CREATED_AT"
    return await record_page(services, owner, lists, filters, ids, paging, limit, oldest_first=oldest_first)


@router.get("/runtimes/count", responses=says({200: operations.Count}))
async def count_runtimes(
    owner: OwnerOf, services: ServicesOf, filters: RuntimeFilters, paging: PagingOf
) -> dict[str, Any]:
    """How many the list has under these filters, as for conversations."""
    with walking(services, owner) as looked:
        lists = services.runtimes.lists
        count, following = await lists.count(owner.tenant, owner.user, filters, cursor=paging.after, looked=looked)
    return {"count": count, "next_page_id": paging.next(following)}


@router.get("/runtimes/{runtime}", responses=says({200: records.Runtime}))
async def get(
    runtime: str, owner: OwnerOf, services: ServicesOf, response: Response, deleted: bool = False
) -> dict[str, Any]:
    """One, with its address while it is ready or paused, and for a key that may write its session key. `deleted`: also
    one that is deleted and can still be brought back."""
    found = await services.runtimes.get(owner.tenant, owner.user, id_of(runtime), deleted=deleted)
    tell_version(response, found.version)
    return await rendered(services, owner, found)


@router.delete("/runtimes/{runtime}", status_code=202, response_model=None, responses=removes(records.Runtime))
async def delete(
    runtime: str,
    owner: OwnerOf,
    services: ServicesOf,
    response: Response,
    condition: ConditionOf,
    purge: bool = False,
) -> dict[str, Any] | Response:
    """In every phase. Gone from now on (410) and its name free: 202 until nothing runs of it, then 204. Until
    `purge_at` it can be brought back. `purge`: at once."""
    return await removed(services, owner, id_of(runtime), Kind.RUNTIME, response, condition, purge)


@router.post("/runtimes/{runtime}/undelete", status_code=202, responses=changes(records.Runtime))
async def undelete(
    runtime: str, owner: OwnerOf, services: ServicesOf, response: Response, condition: ConditionOf
) -> dict[str, Any]:
    """Bring a deleted one back: stopped, with its files as they were. 404 when it is gone; 409 when another one has its
    name by now."""
    before = await asked_last(services, owner, id_of(runtime), Kind.RUNTIME)
    back = await services.runtimes.undelete(owner.tenant, owner.user, id_of(runtime), condition=condition)
    return await accepted(services, owner, back, response, None, 0, done=KEPT, before=before)


@router.post("/runtimes/{runtime}/start", status_code=202, responses=starts(records.Runtime))
async def start(
    runtime: str,
    owner: OwnerOf,
    services: ServicesOf,
    response: Response,
    condition: ConditionOf,
    wait: Wait = None,
    timeout: WaitSeconds = 30,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Bring a stopped or failed one back. Running or starting already: nothing is done."""
    if dry_run:
        return await _tried(services, owner, runtime, response, condition)
    before = await asked_last(services, owner, id_of(runtime), Kind.RUNTIME)
    started = await services.runtimes.start(
        owner.tenant, owner.user, id_of(runtime), key=owner.caller.key, condition=condition
    )
    return await accepted(services, owner, started, response, wait, timeout, done=RUNS, before=before)


@router.post("/runtimes/{runtime}/pause", status_code=202, responses=changes(records.Runtime))
async def pause(
    runtime: str, owner: OwnerOf, services: ServicesOf, response: Response, condition: ConditionOf
) -> dict[str, Any]:
    """Freeze it in place until it is resumed; address and session key stay."""
    before = await asked_last(services, owner, id_of(runtime), Kind.RUNTIME)
    paused = await services.runtimes.pause(owner.tenant, owner.user, id_of(runtime), condition=condition)
    return await accepted(services, owner, paused, response, None, 0, done=PAUSED, before=before)


@router.post("/runtimes/{runtime}/resume", status_code=202, responses=starts(records.Runtime))
async def resume(
    runtime: str,
    owner: OwnerOf,
    services: ServicesOf,
    response: Response,
    condition: ConditionOf,
    wait: Wait = None,
    timeout: WaitSeconds = 30,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Bring a paused one back, under the same address and session key. Stopped or failed: as `start`."""
    if dry_run:
        return await _tried(services, owner, runtime, response, condition)
    before = await asked_last(services, owner, id_of(runtime), Kind.RUNTIME)
    resumed = await services.runtimes.resume(
        owner.tenant, owner.user, id_of(runtime), key=owner.caller.key, condition=condition
    )
    return await accepted(services, owner, resumed, response, wait, timeout, done=RUNS, before=before)


@router.post("/runtimes/{runtime}/stop", status_code=202, responses=changes(records.Runtime))
async def stop(
    runtime: str, owner: OwnerOf, services: ServicesOf, response: Response, condition: ConditionOf
) -> dict[str, Any]:
    """Remove what runs; its files are kept for a later start."""
    before = await asked_last(services, owner, id_of(runtime), Kind.RUNTIME)
    stopped = await services.runtimes.stop(owner.tenant, owner.user, id_of(runtime), condition=condition)
    return await accepted(services, owner, stopped, response, None, 0, done=ENDED, before=before)


@router.post("/runtimes/{runtime}/upgrade", responses=says({200: records.Runtime}))
async def upgrade(
    runtime: str,
    owner: OwnerOf,
    services: ServicesOf,
    response: Response,
    condition: ConditionOf,
    body: schemas.UpgradeBody | None = None,
) -> dict[str, Any]:
    """Put a stopped or failed one on another image, for its next starts, as a conversation."""
    image = None if body is None else body.image
    changed = await services.runtimes.upgrade(
        owner.tenant, owner.user, id_of(runtime), image=image, condition=condition
    )
    tell_version(response, changed.version)
    return await rendered(services, owner, changed)


def id_of(text: str) -> ConversationId:
    """Raises `InvalidRequest`."""
    return ConversationId(parse_uuid(text, "runtime"))


def _wanted(body: schemas.BareRuntimeBody, natural_id: str | None) -> Wanted:
    return Wanted(
        id=ConversationId(natural_id) if natural_id is not None else None,
        request=StartRequest(image=body.image),
        overrides=Overrides(environment=check_variables(body.environment or {})),
        title=None,
        labels=body.labels,
        size=body.size,
        name=body.name or "",
    )


async def _tried(
    services: Services, owner: Owner, runtime: str, response: Response, condition: Condition
) -> dict[str, Any]:
    response.status_code = 200
    return rendering.report_out(
        await services.runtimes.try_start(
            owner.tenant, owner.user, id_of(runtime), key=owner.caller.key, condition=condition
        )
    )
