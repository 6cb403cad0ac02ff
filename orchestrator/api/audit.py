"""The audit log: who asked for what, and what became of it."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request

from orchestrator.api import rendering
from orchestrator.api.answers import audit
from orchestrator.api.answers.declared import says
from orchestrator.api.auth import CallerOf, ServicesOf, owner_of
from orchestrator.domain.audit import Outcome
from orchestrator.domain.errors import Forbidden
from orchestrator.domain.ids import TenantId, UserId, parse_uuid
from orchestrator.domain.tenancy import KeyKind, Scope
from orchestrator.services.auditing import Wanted

router = APIRouter(prefix="/api/v2", tags=["audit"])
Limit = Annotated[int, Query(ge=1, le=100)]
Moment = Annotated[datetime | None, Query()]


@router.get("/audit", responses=says({200: audit.AuditPage}))
async def list_audit(
    request: Request,
    caller: CallerOf,
    services: ServicesOf,
    page_id: str | None = None,
    limit: Limit = 100,
    tenant: Annotated[
        str | None, Query(description="The operator's: whose log; without it, what is no tenant's")
    ] = None,
    at__gte: Moment = None,
    at__lt: Moment = None,
    user: Annotated[str | None, Query(description="About this user's things")] = None,
    key: Annotated[str | None, Query(description="Asked with this API key")] = None,
    verb: Annotated[str | None, Query(description="The method, such as DELETE")] = None,
    outcome: Literal["accepted", "refused", "failed"] | None = None,
    object_id: Annotated[str | None, Query(description="The id of what was changed")] = None,
) -> dict[str, Any]:
    """Requests that changed something or were refused, newest first: the tenant's; with a user's key (or
    `X-Act-As-User`) those about that user's things. Where a filter finds little a page may be short, or empty, and
    have a next one."""
    if caller.kind is KeyKind.OPERATOR:
        if Scope.READ not in caller.scopes:
            raise Forbidden(f"this key lacks the scope {Scope.READ}")
        whose = TenantId(parse_uuid(tenant, "tenant")) if tenant is not None else None
        if whose is not None:
            await services.tenancy.tenant(whose)
        about = UserId(parse_uuid(user, "user")) if user is not None else None
    else:
        owner = await owner_of(request, caller)
        if tenant is not None and parse_uuid(tenant, "tenant") != owner.tenant:
            raise Forbidden("only the operator's key may name a tenant")
        whose = owner.tenant
        about = owner.user or (UserId(parse_uuid(user, "user")) if user is not None else None)
        if user is not None and owner.user is not None and parse_uuid(user, "user") != owner.user:
            raise Forbidden("this key sees what is about its own user only")
    wanted = Wanted(
        since=_moment(at__gte),
        until=_moment(at__lt),
        user=about,
        key=parse_uuid(key, "key") if key is not None else None,
        verb=verb.upper() if verb is not None else None,
        outcome=Outcome(outcome) if outcome is not None else None,
        touched=object_id,
    )
    page = await services.auditing.page(whose, wanted, cursor=page_id, limit=limit)
    return {"items": [rendering.audit_out(entry) for entry in page.items], "next_page_id": page.next_cursor}


def _moment(sent: datetime | None) -> datetime | None:
    """One without a zone is meant in UTC."""
    return sent if sent is None or sent.tzinfo is not None else sent.replace(tzinfo=UTC)
