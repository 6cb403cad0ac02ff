"""The runtime API: bare runtimes, found by the session id that the caller chose (contract outer-api.md 3)."""

from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query

from orchestrator.api.acceptance import service_of
from orchestrator.api.auth import Owner, OwnerOf, ServicesOf
from orchestrator.api.context import Services
from orchestrator.domain.conversation import Conversation, Desired, StartRequest
from orchestrator.domain.errors import InvalidRequest, NotFound, NotOffered
from orchestrator.domain.ids import ConversationId, parse_uuid
from orchestrator.domain.variables import check_variables, configures_server
from orchestrator.facades import runtimes
from orchestrator.facades.answers import V1Route
from orchestrator.facades.runtime_api.bodies import RuntimeBody, StartBody
from orchestrator.facades.runtime_api.shown import runtime_out
from orchestrator.facades.statuses import statuses_of
from orchestrator.services.drafting import Wanted
from orchestrator.services.overrides import Overrides
from orchestrator.services.resting import at_rest

log = structlog.get_logger(__name__)
router = APIRouter(tags=["runtime API"], route_class=V1Route)
HOLD_SECONDS = 240.0  #: its address has to be in the answer, and is known when it is ready; clients wait for 300 s
MOST_IDS = 100
_PAGE = 100
_MOST_LISTED = 1_000
_OVER = frozenset({"stopped", "error"})


@router.post("/start")
async def start(body: StartBody, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """The runtime of this session id: made, started anew where it was stopped or failed, or the one that is there.
    Of those who ask at once all get the same one. Answers when it is ready, or its start has come to nothing."""
    made = await services.runtimes.create(owner.tenant, owner.user, _wanted(body, services), key=owner.caller.key)
    if made.desired is not Desired.RUNNING or at_rest(made):
        made = await runtimes.resume(services, owner, made)
    return await runtime_out(services, owner, await runtimes.waited(services, owner, made, HOLD_SECONDS))


@router.post("/pause")
async def pause(body: RuntimeBody, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """Frozen until somebody resumes it. Paused already: fine."""
    paused = await runtimes.pause(services, owner, await runtimes.find(services, owner, body.runtime_id))
    return await runtime_out(services, owner, paused)


@router.post("/resume")
async def resume(body: RuntimeBody, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """Running again under the same address and session key. Running already: fine."""
    resumed = await runtimes.resume(services, owner, await runtimes.find(services, owner, body.runtime_id))
    return await runtime_out(services, owner, resumed)


@router.post("/stop")
async def stop(body: RuntimeBody, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """What runs is removed, its files are kept for a later start of the same session id. Stopped already: fine."""
    record = await runtimes.find(services, owner, body.runtime_id)
    stopped = await service_of(services, record.kind).stop(owner.tenant, owner.user, record.id)
    return await runtime_out(services, owner, stopped)


@router.get("/sessions/batch")
async def batch(
    owner: OwnerOf, services: ServicesOf, ids: Annotated[list[str], Query(min_length=1)]
) -> list[dict[str, Any]]:
    """Those of the session ids that there are."""
    if len(ids) > MOST_IDS:
        raise InvalidRequest(f"more than {MOST_IDS} ids", field="ids")
    found = [await _of_session(services, owner, session) for session in ids]
    return [await runtime_out(services, owner, record) for record in found if record is not None]


@router.get("/sessions/{session:path}")
async def session(session: str, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """404 for one that was never seen, or is deleted."""
    record = await _of_session(services, owner, session)
    if record is None:
        raise NotFound("there is no runtime of this session")
    return await runtime_out(services, owner, record)


@router.get("/runtime/{runtime}")
async def runtime(runtime: str, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """One by its id."""
    return await runtime_out(services, owner, await runtimes.find(services, owner, runtime))


@router.get("/list")
async def list_live(owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """Those that run, or are on their way there, or sleep: newest first, a thousand at most."""
    shown: list[dict[str, Any]] = []
    cursor: str | None = None
    while len(shown) < _MOST_LISTED:
        page = await services.runtimes.list(owner.tenant, owner.user, cursor=cursor, limit=_PAGE)
        live = [item for item in page.items if statuses_of(item).runtime not in _OVER]
        shown += [await runtime_out(services, owner, record) for record in live]
        cursor = page.next_cursor
        if cursor is None:
            break
    return {"runtimes": shown[:_MOST_LISTED]}


@router.get("/registry_prefix", status_code=501)
@router.get("/image_exists", status_code=501)
@router.get("/build_status", status_code=501)
@router.post("/build", status_code=501)
async def no_builds(owner: OwnerOf) -> None:
    """Images are the operator's."""
    raise NotOffered("building images: not offered here", hint="build them elsewhere, and have the operator allow them")


async def _of_session(services: Services, owner: Owner, session: str) -> Conversation | None:
    """By its name, or by its id where it was made without one."""
    found = await services.runtimes.named(owner.tenant, owner.user, session)
    if found is not None:
        return found
    try:
        return await services.runtimes.get(owner.tenant, owner.user, ConversationId(parse_uuid(session)))
    except (InvalidRequest, NotFound):
        return None


def _wanted(body: StartBody, services: Services) -> Wanted:
    """An image where runtimes have none is passed over: every client sends one, and all runtimes are the same there.
    Variables that would configure the agent server are left out: that is Nestor's to do."""
    left_out = sorted(name for name in body.environment if configures_server(name))
    if left_out:
        log.info("runtime_api.variables_left_out", names=left_out)
    environment = {name: value for name, value in body.environment.items() if name not in left_out}
    return Wanted(
        id=None,
        request=StartRequest(image=body.image if services.images is not None else None),
        overrides=Overrides(environment=check_variables(environment)),
        title=None,
        labels={},
        size=body.resource_factor,
        name=body.session_id or "",
    )
