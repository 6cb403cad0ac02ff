"""V1 sandboxes: bare runtimes under their older names (contract outer-api.md 2)."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from orchestrator.api.acceptance import service_of
from orchestrator.api.auth import OwnerOf, ServicesOf
from orchestrator.domain.conversation import StartRequest
from orchestrator.domain.errors import CallerError, InvalidRequest, NotFound
from orchestrator.facades import runtimes
from orchestrator.facades.answers import V1Route
from orchestrator.facades.sandboxes.shown import DEFAULT_SPEC, sandbox_out, specs_out
from orchestrator.services.drafting import Wanted
from orchestrator.services.overrides import Overrides

router = APIRouter(prefix="/api/v1", tags=["V1 sandboxes"], route_class=V1Route)
HOLD_SECONDS = 20.0  #: for which a POST waits until the sandbox runs: whoever polls comes again after two seconds
MOST_IDS = 100
_SUCCESS = {"success": True}


@router.post("/sandboxes")
async def create(owner: OwnerOf, services: ServicesOf, sandbox_spec_id: str | None = None) -> dict[str, Any]:
    """A new sandbox; it is in every read that follows. The answer waits for a while until it runs."""
    image = None if sandbox_spec_id in (None, "", DEFAULT_SPEC) else sandbox_spec_id
    overrides = Overrides(session_key=True)
    wanted = Wanted(id=None, request=StartRequest(image=image), overrides=overrides, title=None, labels={})
    made = await services.runtimes.create(owner.tenant, owner.user, wanted, key=owner.caller.key)
    shown = await sandbox_out(services, owner, await runtimes.waited(services, owner, made, HOLD_SECONDS))
    if shown is None:
        raise NotFound("the sandbox was stopped while it started")
    return shown


@router.get("/sandboxes")
async def batch(
    owner: OwnerOf, services: ServicesOf, id: Annotated[list[str], Query(min_length=1)]
) -> list[dict[str, Any] | None]:
    """In the order of the ids; null for one that is unknown, deleted or stopped."""
    if len(id) > MOST_IDS:
        raise CallerError(f"more than {MOST_IDS} ids", hint="ask for fewer at once")
    return [await _one(services, owner, each) for each in id]


@router.get("/sandboxes/search")
async def search(
    owner: OwnerOf,
    services: ServicesOf,
    page_id: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 100,
) -> dict[str, Any]:
    """Newest first. Those of conversations are found by their ids alone."""
    page = await services.runtimes.list(owner.tenant, owner.user, cursor=page_id, limit=limit)
    shown = [await sandbox_out(services, owner, record) for record in page.items]
    return {"items": [item for item in shown if item is not None], "next_page_id": page.next_cursor}


@router.post("/sandboxes/{sandbox}/pause")
async def pause(sandbox: str, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """Frozen until somebody resumes it. Paused already: fine."""
    await runtimes.pause(services, owner, await runtimes.find(services, owner, sandbox))
    return _SUCCESS


@router.post("/sandboxes/{sandbox}/resume")
async def resume(sandbox: str, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """Running again under the same address and key. Running already: fine."""
    await runtimes.resume(services, owner, await runtimes.find(services, owner, sandbox))
    return _SUCCESS


@router.delete("/sandboxes/{sandbox}")
async def delete(sandbox: str, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """Unknown from now on. A client that gave up waiting sends this as well, so it can be undone for some minutes:
    `POST /api/v2/runtimes/{id}/undelete`."""
    record = await runtimes.find(services, owner, sandbox)
    await service_of(services, record.kind).delete(owner.tenant, owner.user, record.id)
    return _SUCCESS


@router.get("/sandbox-specs/search")
async def search_specs(owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """The images that may be asked for."""
    return {"items": specs_out(services), "next_page_id": None}


@router.get("/sandbox-specs")
async def batch_specs(
    owner: OwnerOf, services: ServicesOf, id: Annotated[list[str], Query(min_length=1)]
) -> list[dict[str, Any] | None]:
    """In the order of the ids; null for an unknown one."""
    if len(id) > MOST_IDS:
        raise InvalidRequest(f"more than {MOST_IDS} ids", field="id")
    known = {spec["id"]: spec for spec in specs_out(services)}
    return [known.get(each) for each in id]


async def _one(services: ServicesOf, owner: OwnerOf, id: str) -> dict[str, Any] | None:
    try:
        return await sandbox_out(services, owner, await runtimes.find(services, owner, id))
    except NotFound:
        return None
