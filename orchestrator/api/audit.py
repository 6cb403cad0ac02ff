"""The audit log: who asked for what, and what became of it."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request

from orchestrator.api import rendering
from orchestrator.api.answers import audit, operations
from orchestrator.api.answers.declared import says
from orchestrator.api.auth import CallerOf, ServicesOf, owner_of
from orchestrator.api.lists import MOST, BatchOf, Limit, Moment, alone, moment
from orchestrator.api.paging import PagingOf
from orchestrator.domain.audit import Outcome
from orchestrator.domain.errors import Forbidden
from orchestrator.domain.ids import TenantId, UserId, parse_uuid
from orchestrator.domain.tenancy import KeyKind, Scope
from orchestrator.services.auditing import Wanted

router = APIRouter(prefix="/api/v2", tags=["audit"])


@dataclass(frozen=True)
class Asked:
    """Of whose log, and which entries. `whose` None: what is no tenant's."""

    whose: TenantId | None
    wanted: Wanted


async def asked(
    request: Request,
    caller: CallerOf,
    services: ServicesOf,
    tenant: Annotated[
        str | None, Query(description="The operator's: whose log; without it, what is no tenant's")
    ] = None,
    at__gte: Moment = None,
    at__lt: Moment = None,
    user__eq: Annotated[str | None, Query(description="About this user's things")] = None,
    key__eq: Annotated[str | None, Query(description="Asked with this API key")] = None,
    verb__eq: Annotated[str | None, Query(description="The method, such as DELETE")] = None,
    outcome__eq: Literal["accepted", "refused", "failed"] | None = None,
    object_id__eq: Annotated[str | None, Query(description="The id of what was changed")] = None,
) -> Asked:
    """Raises `Forbidden` for another's log, `NotFound` for a tenant that is not there."""
    about = UserId(parse_uuid(user__eq, "user__eq")) if user__eq is not None else None
    if caller.kind is KeyKind.OPERATOR:
        if Scope.READ not in caller.scopes:
            raise Forbidden(f"this key lacks the scope {Scope.READ}")
        whose = TenantId(parse_uuid(tenant, "tenant")) if tenant is not None else caller.tenant
        if whose is not None:
            await services.tenancy.tenant(whose)
    else:
        owner = await owner_of(request, caller)
        if tenant is not None and parse_uuid(tenant, "tenant") != owner.tenant:
            raise Forbidden("only the operator's key may name a tenant")
        if about is not None and owner.user is not None and about != owner.user:
            raise Forbidden("this key sees what is about its own user only")
        whose, about = owner.tenant, owner.user or about
    wanted = Wanted(
        since=moment(at__gte),
        until=moment(at__lt),
        user=about,
        key=parse_uuid(key__eq, "key__eq") if key__eq is not None else None,
        verb=verb__eq.upper() if verb__eq is not None else None,
        outcome=Outcome(outcome__eq) if outcome__eq is not None else None,
        touched=object_id__eq,
    )
    return Asked(whose, wanted)


AskedOf = Annotated[Asked, Depends(asked)]


@router.get("/audit", responses=says({200: audit.AuditPage}))
async def list_audit(
    request: Request, services: ServicesOf, asked: AskedOf, paging: PagingOf, ids: BatchOf = None, limit: Limit = MOST
) -> dict[str, Any]:
    """Requests that changed something or were refused, newest first: the tenant's; with a user's key (or
    `X-Act-As-User`) those about that user's things. Where a filter finds little a page may be short, or empty, and
    have a next one."""
    if ids is not None:
        alone(request, "ids", "tenant")
        batch = await services.auditing.many(asked.whose, asked.wanted.user, [parse_uuid(id, "ids") for id in ids])
        return {"items": [one and rendering.audit_out(one) for one in batch], "next_page_id": None}
    page = await services.auditing.page(asked.whose, asked.wanted, cursor=paging.after, limit=limit)
    return {
        "items": [rendering.audit_out(entry) for entry in page.items],
        "next_page_id": paging.next(page.next_cursor),
    }


@router.get("/audit/count", responses=says({200: operations.Count}))
async def count_audit(services: ServicesOf, asked: AskedOf, paging: PagingOf) -> dict[str, Any]:
    """How many the list has under these filters. 2,000 are looked at for one answer: where there are more,
    `next_page_id` says where to go on, and the counts are to be added up."""
    page = await services.auditing.page(asked.whose, asked.wanted, cursor=paging.after, limit=2_000)
    return {"count": len(page.items), "next_page_id": paging.next(page.next_cursor)}
