"""Conversations of the native API, their messages, events, and the operations that start, stop and delete them."""

import json
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

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
from orchestrator.api.answers import contents, operations, records
from orchestrator.api.answers.declared import changes, removes, says, starts, waits
from orchestrator.api.auth import Owner, OwnerOf, ServicesOf
from orchestrator.api.conditions import ConditionOf, tell_version
from orchestrator.api.context import Services
from orchestrator.api.idempotency import NaturalIdOf
from orchestrator.api.lists import MOST, ConversationFilters, IdsOf, Limit, Number, PageNumber, SortOrder, place_of
from orchestrator.api.paging import PagingOf
from orchestrator.domain.conditions import Condition
from orchestrator.domain.conversation import Kind, StartRequest
from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.git import check_provider_name, check_repository
from orchestrator.domain.ids import ConversationId, OperationId, parse_uuid
from orchestrator.domain.secrets import check_secret_name, check_secret_value
from orchestrator.domain.settings import wrap_secrets
from orchestrator.domain.snapshots import SnapshotId
from orchestrator.services.drafting import Wanted
from orchestrator.services.forking import WantedFork
from orchestrator.services.overrides import Overrides
from orchestrator.state.base import StoredEvent

_MOST_DIGITS = 18
router = APIRouter(prefix="/api/v2", tags=["conversations"])


@router.post("/conversations", status_code=202, responses=starts(records.Conversation))
async def create(
    body: schemas.ConversationBody,
    owner: OwnerOf,
    services: ServicesOf,
    response: Response,
    natural_id: NaturalIdOf,
    wait: Wait = None,
    timeout: WaitSeconds = 30,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Ask for a conversation: 202 with the operation that starts it. A known `id`, or a repeated `Idempotency-Key`,
    joins the start under way. Over a limit it is refused (429), waits, or makes room, as the tenant's settings say;
    `dry_run` only tells which.
    """
    key = owner.caller.key
    if dry_run:
        response.status_code = 200
        return rendering.report_out(
            await services.conversations.try_out(owner.tenant, owner.user, _wanted(body, natural_id), key=key)
        )
    conversation = await services.conversations.create(owner.tenant, owner.user, _wanted(body, natural_id), key=key)
    return await accepted(services, owner, conversation, response, wait, timeout)


@router.get("/conversations", responses=says({200: records.ConversationPage}))
async def list_conversations(
    owner: OwnerOf,
    services: ServicesOf,
    filters: ConversationFilters,
    ids: IdsOf,
    paging: PagingOf,
    limit: Limit = MOST,
    sort_order: SortOrder = "CREATED_AT_DESC",
) -> dict[str, Any]:
    """Newest first. Keys of runtimes are in single reads only. Where filters find little a page may be short, or empty,
    and have a next one: 2,000 conversations are looked at for one page."""
    lists, oldest_first = services.conversations.lists, sort_order == "CREATED_AT"
    return await record_page(services, owner, lists, filters, ids, paging, limit, oldest_first=oldest_first)


@router.get("/conversations/count", responses=says({200: operations.Count}))
async def count_conversations(
    owner: OwnerOf, services: ServicesOf, filters: ConversationFilters, paging: PagingOf
) -> dict[str, Any]:
    """How many the list has under these filters. 5,000 are looked at for one answer: where there are more,
    `next_page_id` says where to go on, and the counts are to be added up."""
    with walking(services, owner) as looked:
        lists = services.conversations.lists
        count, following = await lists.count(owner.tenant, owner.user, filters, cursor=paging.after, looked=looked)
    return {"count": count, "next_page_id": paging.next(following)}


@router.get("/conversations/{conversation}", responses=says({200: records.Conversation}))
async def get(
    conversation: str, owner: OwnerOf, services: ServicesOf, response: Response, deleted: bool = False
) -> dict[str, Any]:
    """One conversation, with the address of its runtime while it is ready, and for a key that may write its session
    key. `deleted`: also one that is deleted and can still be brought back."""
    found = await services.conversations.get(owner.tenant, owner.user, id_of(conversation), deleted=deleted)
    tell_version(response, found.version)
    return await rendered(services, owner, found)


@router.put("/conversations/{conversation}", status_code=202, responses=starts(records.Conversation))
async def put(
    conversation: str,
    body: schemas.ConversationBody,
    owner: OwnerOf,
    services: ServicesOf,
    response: Response,
    condition: ConditionOf,
    wait: Wait = None,
    timeout: WaitSeconds = 30,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Ask for a conversation under an id of yours, as often as you like: 202 where it is made, 200 with the one that is
    there; 409 where that was asked for with something else (title and labels, which change, are not compared, nor a
    `size` that is left out). `If-None-Match: *`: only where there is none (412)."""
    if body.id is not None and id_of(body.id) != id_of(conversation):
        raise InvalidRequest("the id in the body is not the one in the path", field="id", hint="leave it out")
    wanted, key = _wanted(body, id_of(conversation)), owner.caller.key
    if dry_run:
        response.status_code = 200
        report = await services.conversations.try_put(owner.tenant, owner.user, wanted, key=key, condition=condition)
        return rendering.report_out(report)
    there, made = await services.conversations.put(owner.tenant, owner.user, wanted, key=key, condition=condition)
    response.status_code = 202 if made else 200
    tell_version(response, there.version)
    return await accepted(services, owner, there, response, wait, timeout)


@router.delete(
    "/conversations/{conversation}", status_code=202, response_model=None, responses=removes(records.Conversation)
)
async def delete(
    conversation: str,
    owner: OwnerOf,
    services: ServicesOf,
    response: Response,
    condition: ConditionOf,
    purge: bool = False,
) -> dict[str, Any] | Response:
    """In every phase. Gone from now on (410), its runtime is removed: 202 until that is done, then 204. Until
    `purge_at` it can be brought back, then nothing is left of it (404). `purge`: at once."""
    return await removed(services, owner, id_of(conversation), Kind.CONVERSATION, response, condition, purge)


@router.post("/conversations/{conversation}/undelete", status_code=202, responses=changes(records.Conversation))
async def undelete(
    conversation: str, owner: OwnerOf, services: ServicesOf, response: Response, condition: ConditionOf
) -> dict[str, Any]:
    """Bring a deleted conversation back: stopped, with its workspace as it was. Not deleted: 200, and nothing is done.
    404 when nothing is left of it."""
    before = await asked_last(services, owner, id_of(conversation), Kind.CONVERSATION)
    back = await services.conversations.undelete(owner.tenant, owner.user, id_of(conversation), condition=condition)
    return await accepted(services, owner, back, response, None, 0, done=KEPT, before=before)


@router.post("/conversations/{conversation}/start", status_code=202, responses=starts(records.Conversation))
async def start(
    conversation: str,
    owner: OwnerOf,
    services: ServicesOf,
    response: Response,
    condition: ConditionOf,
    wait: Wait = None,
    timeout: WaitSeconds = 30,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Bring a stopped or failed conversation back. Starting already: nothing is done; ready already: 200."""
    if dry_run:
        return await _tried(services, owner, conversation, response, condition)
    before = await asked_last(services, owner, id_of(conversation), Kind.CONVERSATION)
    started = await services.conversations.start(
        owner.tenant, owner.user, id_of(conversation), key=owner.caller.key, condition=condition
    )
    return await accepted(services, owner, started, response, wait, timeout, done=RUNS, before=before)


@router.post("/conversations/{conversation}/pause", status_code=202, responses=changes(records.Conversation))
async def pause(
    conversation: str, owner: OwnerOf, services: ServicesOf, response: Response, condition: ConditionOf
) -> dict[str, Any]:
    """Freeze the runtime in place until it is resumed; messages wait in the inbox. Paused already: 200."""
    before = await asked_last(services, owner, id_of(conversation), Kind.CONVERSATION)
    paused = await services.conversations.pause(owner.tenant, owner.user, id_of(conversation), condition=condition)
    return await accepted(services, owner, paused, response, None, 0, done=PAUSED, before=before)


@router.post("/conversations/{conversation}/resume", status_code=202, responses=starts(records.Conversation))
async def resume(
    conversation: str,
    owner: OwnerOf,
    services: ServicesOf,
    response: Response,
    condition: ConditionOf,
    wait: Wait = None,
    timeout: WaitSeconds = 30,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Bring a paused conversation back, under the same address and session key. Stopped or failed: as `start`."""
    if dry_run:
        return await _tried(services, owner, conversation, response, condition)
    before = await asked_last(services, owner, id_of(conversation), Kind.CONVERSATION)
    resumed = await services.conversations.resume(
        owner.tenant, owner.user, id_of(conversation), key=owner.caller.key, condition=condition
    )
    return await accepted(services, owner, resumed, response, wait, timeout, done=RUNS, before=before)


@router.post("/conversations/{conversation}/stop", status_code=202, responses=changes(records.Conversation))
async def stop(
    conversation: str, owner: OwnerOf, services: ServicesOf, response: Response, condition: ConditionOf
) -> dict[str, Any]:
    """Remove the runtime; workspace and log are kept for a later start. Stopped or failed already: 200."""
    before = await asked_last(services, owner, id_of(conversation), Kind.CONVERSATION)
    stopped = await services.conversations.stop(owner.tenant, owner.user, id_of(conversation), condition=condition)
    return await accepted(services, owner, stopped, response, None, 0, done=ENDED, before=before)


@router.post("/conversations/{conversation}/upgrade", responses=says({200: records.Conversation}))
async def upgrade(
    conversation: str,
    owner: OwnerOf,
    services: ServicesOf,
    response: Response,
    condition: ConditionOf,
    body: schemas.UpgradeBody | None = None,
) -> dict[str, Any]:
    """Put a stopped or failed conversation on another image, for its next starts: on `image`, or without it on what a
    new conversation would get."""
    changed = await services.conversations.upgrade(
        owner.tenant,
        owner.user,
        id_of(conversation),
        image=None if body is None else body.image,
        condition=condition,
    )
    tell_version(response, changed.version)
    return await rendered(services, owner, changed)


@router.post("/conversations/{conversation}/fork", status_code=202, responses=waits(records.Conversation))
async def fork(
    conversation: str,
    owner: OwnerOf,
    services: ServicesOf,
    response: Response,
    natural_id: NaturalIdOf,
    body: schemas.ForkBody | None = None,
    wait: Wait = None,
    timeout: WaitSeconds = 30,
) -> dict[str, Any]:
    """A new conversation in a runtime of its own that goes on from this one. With a `snapshot`, or where there is one
    of exactly event `at`, it has log and workspace of that; otherwise the log up to event `at`, and the workspace as it
    was then, or where the runtime did not keep that, as it is now: `fork_of.workspace` says which. This one stays as it
    is, and must not be at work (409) unless a snapshot is taken. A known `id`, or a repeated `Idempotency-Key`, joins
    the start under way.
    """
    body = body or schemas.ForkBody()
    snapshot = None if body.snapshot is None else SnapshotId(parse_uuid(body.snapshot, "snapshot"))
    wanted = WantedFork(
        id=_given_id(body.id, natural_id), title=body.title, labels=body.labels, at=body.at, snapshot=snapshot
    )
    made = await services.forking.fork(owner.tenant, owner.user, id_of(conversation), wanted, key=owner.caller.key)
    return await accepted(services, owner, made, response, wait, timeout)


@router.get("/conversations/{conversation}/events", responses=says({200: contents.EventPage}))
async def events(
    request: Request,
    conversation: str,
    owner: OwnerOf,
    services: ServicesOf,
    ids: IdsOf,
    after: Number = 0,
    page_id: PageNumber = None,
    limit: Limit = MOST,
) -> dict[str, Any]:
    """The event log above `after`. `next_page_id` is the `after` of the next page, null at the end of what is there.
    `ids` are `sequence`s."""
    after = place_of(request, after, page_id)
    if ids is not None:
        numbers = [sequence_of(one) for one in ids]
        asked = await services.conversations.events_of(owner.tenant, owner.user, id_of(conversation), numbers)
        return {"items": [None if one is None else event_out(one) for one in asked], "next_page_id": None}
    found = await services.conversations.events(owner.tenant, owner.user, id_of(conversation), after=after, limit=limit)
    return {"items": [event_out(item) for item in found], "next_page_id": _next(found, limit)}


@router.get("/conversations/{conversation}/events/count", responses=says({200: operations.Count}))
async def count_events(conversation: str, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """How many events the log has now: the `sequence` of the last one."""
    count = await services.conversations.event_count(owner.tenant, owner.user, id_of(conversation))
    return {"count": count, "next_page_id": None}


@router.get("/operations/{operation}", responses=says({200: operations.Operation}))
async def get_operation(operation: str, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """An operation with its stages; kept 24 hours after it ended."""
    id = OperationId(parse_uuid(operation, "operation"))
    return rendering.operation_out(await services.conversations.operation(owner.tenant, owner.user, id))


def id_of(text: str) -> ConversationId:
    """Raises `InvalidRequest`."""
    return ConversationId(parse_uuid(text, "conversation"))


def sequence_of(text: str) -> int:
    """Raises `InvalidRequest`."""
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise InvalidRequest("the sequence of an event is a number", field="ids")
    return int(text)


def event_out(item: StoredEvent) -> dict[str, Any]:
    """One event as every surface of the native API shows it."""
    return {"sequence": item.sequence, "event": json.loads(item.payload)}


def _next(found: Sequence[StoredEvent], limit: int) -> str | None:
    return str(found[-1].sequence) if len(found) == limit else None


def _given_id(id: str | None, natural_id: str | None) -> ConversationId | None:
    if id is not None:
        return id_of(id)
    return ConversationId(natural_id) if natural_id is not None else None


def _wanted(body: schemas.ConversationBody, natural_id: str | None) -> Wanted:
    check_repository(body.repository, body.branch)
    if body.settings is not None and body.settings.limits is not None:
        body.settings.limits.refuse_tenants_own("a request")
    secrets = {check_secret_name(name): check_secret_value(value) for name, value in (body.secrets or {}).items()}
    settings = wrap_secrets(body.settings.change()) if body.settings is not None else {}
    return Wanted(
        id=_given_id(body.id, natural_id),
        request=StartRequest(
            repository=body.repository,
            branch=body.branch,
            git_provider=check_provider_name(body.git_provider) if body.git_provider is not None else None,
            initial_message=body.initial_message,
            image=body.image,
        ),
        size=body.size,
        overrides=Overrides(settings=settings, secrets=secrets),
        title=body.title,
        labels=body.labels,
    )


async def _tried(
    services: Services, owner: Owner, conversation: str, response: Response, condition: Condition
) -> dict[str, Any]:
    response.status_code = 200
    return rendering.report_out(
        await services.conversations.try_start(
            owner.tenant, owner.user, id_of(conversation), key=owner.caller.key, condition=condition
        )
    )
