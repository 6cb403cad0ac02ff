"""Snapshots of a conversation: log and workspace together, at the event that is the last one now."""

from typing import Any

from fastapi import APIRouter, Response

from orchestrator.api import audited
from orchestrator.api.answers import contents, operations
from orchestrator.api.answers.declared import says
from orchestrator.api.auth import OwnerOf, ServicesOf
from orchestrator.api.conversations import id_of
from orchestrator.api.lists import MOST, OLDEST_FIRST, IdsOf, Limit, SortOrder, uuids, whole
from orchestrator.api.paging import PagingOf
from orchestrator.domain.clock import rfc3339
from orchestrator.domain.ids import parse_uuid
from orchestrator.domain.snapshots import Snapshot, SnapshotId

router = APIRouter(prefix="/api/v2/conversations/{conversation}/snapshots", tags=["conversations"])


@router.post("", status_code=201, responses=says({201: contents.Snapshot}))
async def take(conversation: str, owner: OwnerOf, services: ServicesOf, response: Response) -> Any:
    """Take one now: answered when it is kept, which takes as long as copying the workspace does. The agent must not be
    at work (409). One that policy put to rest is woken; one that somebody paused stays so, and its runtime runs for the
    length of the copy alone; one that somebody stopped has to be started first (409). A fork of it needs no runtime of
    this conversation."""
    id = id_of(conversation)
    await audited.first(services)  # the state server knows nothing of snapshots
    made = await services.snapshots.take(owner.tenant, owner.user, id)
    response.headers["location"] = f"/api/v2/conversations/{id}/snapshots/{made.id}"
    return _out(made)


@router.get("", responses=says({200: contents.SnapshotPage}))
async def list_snapshots(
    conversation: str,
    owner: OwnerOf,
    services: ServicesOf,
    ids: IdsOf,
    paging: PagingOf,
    limit: Limit = MOST,
    sort_order: SortOrder = OLDEST_FIRST,
) -> dict[str, Any]:
    """The oldest first unless `sort_order` says otherwise."""
    found = await services.snapshots.list(owner.tenant, owner.user, id_of(conversation))
    page, following = whole(
        found,
        lambda one: one.id,
        by=lambda one: f"{rfc3339(one.created_at)} {one.id}",
        ids=uuids(ids),
        paging=paging,
        limit=limit,
        sort_order=sort_order,
    )
    return {"items": [None if one is None else _out(one) for one in page], "next_page_id": following}


@router.get("/count", responses=says({200: operations.Count}))
async def count_snapshots(conversation: str, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """How many are kept."""
    found = await services.snapshots.list(owner.tenant, owner.user, id_of(conversation))
    return {"count": len(found), "next_page_id": None}


@router.delete("/{snapshot}", status_code=204)
async def remove(conversation: str, snapshot: str, owner: OwnerOf, services: ServicesOf) -> None:
    """Forks that were made of it stay; one that is still to copy it fails and says so."""
    of, id = id_of(conversation), SnapshotId(parse_uuid(snapshot, "snapshot"))
    await audited.first(services)
    await services.snapshots.remove(owner.tenant, owner.user, of, id)


def _out(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "id": snapshot.id,
        "at": snapshot.at,
        "bytes": snapshot.size,
        "user": snapshot.user,
        "created_at": rfc3339(snapshot.created_at),
    }
