"""Tenants, users and API keys: what the operator does, and what a tenant may see of itself."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from orchestrator.api import rendering, schemas
from orchestrator.api.answers import operations, tenancy
from orchestrator.api.answers.declared import says
from orchestrator.api.auth import CallerOf, ServicesOf, operator
from orchestrator.api.conditions import ConditionOf, tell_version
from orchestrator.api.idempotency import NaturalIdOf
from orchestrator.api.lists import MOST, OLDEST_FIRST, IdsOf, Limit, SortOrder, SpanOf, alone, uuids, whole
from orchestrator.api.paging import PagingOf
from orchestrator.domain.clock import rfc3339
from orchestrator.domain.errors import Forbidden, InvalidRequest, NotFound
from orchestrator.domain.ids import KeyId, TenantId, UserId, parse_uuid
from orchestrator.domain.tenancy import ALL_SCOPES, Caller, KeyKind, Scope
from orchestrator.services.images import NO_IMAGES
from orchestrator.services.tenancy import TenantChange

router = APIRouter(prefix="/api/v2/tenants", tags=["tenants"])
OperatorOf = Annotated[Caller, Depends(operator)]


def _keys_of_user(
    user__eq: Annotated[str | None, Query(description="Those that speak for this user")] = None,
) -> UserId | None:
    return None if user__eq is None else UserId(parse_uuid(user__eq, "user__eq"))


KeysOfUser = Annotated[UserId | None, Depends(_keys_of_user)]


def _of_tenant(caller: Caller, text: str, *, scope: Scope = Scope.READ) -> TenantId:
    """The tenant in the path, for the operator and for the tenant itself. Anybody else's is not there."""
    tenant = TenantId(parse_uuid(text, "tenant"))
    if caller.kind is not KeyKind.OPERATOR and not (caller.kind is KeyKind.TENANT and caller.tenant == tenant):
        raise NotFound("there is no such tenant")
    if scope not in caller.scopes:
        raise Forbidden(f"this key lacks the scope {scope}", hint="make a key with that scope")
    return tenant


@router.post("", status_code=201, responses=says({201: tenancy.Tenant}))
async def create_tenant(
    body: schemas.TenantBody, _: OperatorOf, services: ServicesOf, natural_id: NaturalIdOf
) -> dict[str, Any]:
    """Make a tenant, once for each `Idempotency-Key`."""
    return rendering.tenant_out(await services.tenancy.create_tenant(body.name, id=natural_id))


@router.get("", responses=says({200: tenancy.TenantPage}))
async def list_tenants(
    _: OperatorOf,
    services: ServicesOf,
    span: SpanOf,
    ids: IdsOf,
    paging: PagingOf,
    limit: Limit = MOST,
    sort_order: SortOrder = OLDEST_FIRST,
) -> dict[str, Any]:
    """Tenants, the oldest first unless `sort_order` says otherwise."""
    if ids is not None:
        found = await services.tenancy.many_tenants([TenantId(parse_uuid(id, "ids")) for id in ids])
        return {"items": [one and rendering.tenant_out(one) for one in found], "next_page_id": None}
    oldest_first = sort_order == OLDEST_FIRST
    page = await services.tenancy.tenants(cursor=paging.after, limit=limit, span=span, oldest_first=oldest_first)
    return {"items": [rendering.tenant_out(item) for item in page.items], "next_page_id": paging.next(page.next_cursor)}


@router.get("/count", responses=says({200: operations.Count}))
async def count_tenants(_: OperatorOf, services: ServicesOf, span: SpanOf) -> dict[str, Any]:
    """How many the list has under these filters."""
    return {"count": await services.tenancy.tenant_count(span), "next_page_id": None}


@router.get("/{tenant}", responses=says({200: tenancy.Tenant}))
async def get_tenant(tenant: str, caller: CallerOf, services: ServicesOf, response: Response) -> dict[str, Any]:
    """One tenant."""
    found = await services.tenancy.tenant(_of_tenant(caller, tenant))
    tell_version(response, found.version)
    return rendering.tenant_out(found)


@router.patch("/{tenant}", responses=says({200: tenancy.Tenant}))
async def change_tenant(
    tenant: str,
    body: schemas.TenantPatchBody,
    _: OperatorOf,
    services: ServicesOf,
    response: Response,
    condition: ConditionOf,
) -> dict[str, Any]:
    """Give one tenant other limits than all have, other sizes of runtimes, other images, or a budget for models. The
    tenant itself may go below its limits, never above."""
    granted = None
    if "images" in body.model_fields_set and services.images is None:
        raise InvalidRequest(NO_IMAGES, field="images", hint="leave images out")
    if body.images is not None and services.images is not None:
        granted = await services.images.grant(body.images)
    wanted = TenantChange(
        limits=body.limits.model_dump(exclude_unset=True),
        sizes=(body.sizes or []) if "sizes" in body.model_fields_set else None,
        images=granted,
        with_images="images" in body.model_fields_set,
        budget=None if body.budget is None else body.budget.budget(),
        with_budget="budget" in body.model_fields_set,
    )
    id = TenantId(parse_uuid(tenant, "tenant"))
    changed = await services.tenancy.change_tenant(id, wanted, condition=condition)
    tell_version(response, changed.version)
    return rendering.tenant_out(changed)


@router.post("/{tenant}/users", status_code=201, responses=says({201: tenancy.User}))
async def create_user(
    tenant: str, body: schemas.UserBody, caller: CallerOf, services: ServicesOf, natural_id: NaturalIdOf
) -> dict[str, Any]:
    """Make a user, once for each `Idempotency-Key`; with an `external_id` that is known, answer that user."""
    id = _of_tenant(caller, tenant, scope=Scope.WRITE)
    return rendering.user_out(await services.tenancy.create_user(id, body.name, body.external_id, id=natural_id))


@router.get("/{tenant}/users", responses=says({200: tenancy.UserPage}))
async def list_users(
    request: Request,
    tenant: str,
    caller: CallerOf,
    services: ServicesOf,
    span: SpanOf,
    ids: IdsOf,
    paging: PagingOf,
    limit: Limit = MOST,
    sort_order: SortOrder = OLDEST_FIRST,
    external_id__eq: Annotated[str | None, Query(description="The one that has it; no other filter")] = None,
) -> dict[str, Any]:
    """Users of a tenant, the oldest first unless `sort_order` says otherwise."""
    of = _of_tenant(caller, tenant)
    if external_id__eq is not None:
        alone(request, "external_id__eq")
        known = await services.tenancy.external_user(of, external_id__eq)
        return {"items": [] if known is None else [rendering.user_out(known)], "next_page_id": None}
    if ids is not None:
        found = await services.tenancy.many_users(of, [UserId(parse_uuid(id, "ids")) for id in ids])
        return {"items": [one and rendering.user_out(one) for one in found], "next_page_id": None}
    oldest_first = sort_order == OLDEST_FIRST
    page = await services.tenancy.users(of, cursor=paging.after, limit=limit, span=span, oldest_first=oldest_first)
    return {"items": [rendering.user_out(item) for item in page.items], "next_page_id": paging.next(page.next_cursor)}


@router.get("/{tenant}/users/count", responses=says({200: operations.Count}))
async def count_users(tenant: str, caller: CallerOf, services: ServicesOf, span: SpanOf) -> dict[str, Any]:
    """How many the list has under these filters."""
    return {"count": await services.tenancy.user_count(_of_tenant(caller, tenant), span), "next_page_id": None}


@router.get("/{tenant}/users/{user}", responses=says({200: tenancy.User}))
async def get_user(
    tenant: str, user: str, caller: CallerOf, services: ServicesOf, response: Response
) -> dict[str, Any]:
    """One user. Nothing of it changes once it is made."""
    id = _of_tenant(caller, tenant)
    tell_version(response, 1)
    return rendering.user_out(await services.tenancy.user(id, UserId(parse_uuid(user, "user"))))


@router.post("/{tenant}/api-keys", status_code=201, responses=says({201: tenancy.NewApiKey}))
async def create_key(
    tenant: str,
    body: schemas.KeyBody,
    caller: CallerOf,
    services: ServicesOf,
    response: Response,
    natural_id: NaturalIdOf,
) -> dict[str, Any]:
    """Make a key for the tenant, or for one of its users, once for each `Idempotency-Key`. The key is in this answer
    and nowhere else."""
    id = _of_tenant(caller, tenant, scope=Scope.WRITE)
    wanted = frozenset(body.scopes) if body.scopes is not None else ALL_SCOPES
    user = UserId(parse_uuid(body.user, "user")) if body.user is not None else None
    key, text = await services.tenancy.create_key(
        id,
        body.name,
        scopes=_at_most(wanted, caller),
        user=user,
        expires_at=_no_later(body.expires_at, caller),
        id=natural_id,
    )
    response.headers["cache-control"] = "no-store"
    return rendering.key_out(key, text)


@router.get("/{tenant}/api-keys", responses=says({200: tenancy.ApiKeyPage}))
async def list_keys(
    tenant: str,
    caller: CallerOf,
    services: ServicesOf,
    user: KeysOfUser,
    ids: IdsOf,
    paging: PagingOf,
    limit: Limit = MOST,
    sort_order: SortOrder = OLDEST_FIRST,
) -> dict[str, Any]:
    """The keys of a tenant, without their secrets, the oldest first unless `sort_order` says otherwise."""
    keys = await services.tenancy.keys(_of_tenant(caller, tenant))
    page, following = whole(
        [key for key in keys if user in (None, key.user)],
        lambda key: key.id,
        by=lambda key: f"{rfc3339(key.created_at)} {key.id}",
        ids=uuids(ids),
        paging=paging,
        limit=limit,
        sort_order=sort_order,
    )
    return {"items": [one and rendering.key_out(one) for one in page], "next_page_id": following}


@router.get("/{tenant}/api-keys/count", responses=says({200: operations.Count}))
async def count_keys(tenant: str, caller: CallerOf, services: ServicesOf, user: KeysOfUser) -> dict[str, Any]:
    """How many the list has under these filters."""
    keys = await services.tenancy.keys(_of_tenant(caller, tenant))
    return {"count": sum(1 for key in keys if user in (None, key.user)), "next_page_id": None}


@router.get("/{tenant}/api-keys/{key}", responses=says({200: tenancy.ApiKey}))
async def get_key(tenant: str, key: str, caller: CallerOf, services: ServicesOf, response: Response) -> dict[str, Any]:
    """One key, without its secret."""
    found = await services.tenancy.key(_of_tenant(caller, tenant), KeyId(parse_uuid(key, "key")))
    tell_version(response, found.version)
    return rendering.key_out(found)


@router.delete("/{tenant}/api-keys/{key}", status_code=204)
async def revoke_key(tenant: str, key: str, caller: CallerOf, services: ServicesOf, condition: ConditionOf) -> None:
    """Revoke a key, at once on every replica."""
    of = _of_tenant(caller, tenant, scope=Scope.WRITE)
    await services.tenancy.revoke_key(of, KeyId(parse_uuid(key, "key")), condition=condition)


def _at_most(wanted: frozenset[Scope], caller: Caller) -> frozenset[Scope]:
    """A key cannot make a key that may do more than itself."""
    return wanted & caller.scopes


def _no_later(wanted: datetime | None, caller: Caller) -> datetime | None:
    """Nor one that outlives it."""
    return min((moment for moment in (wanted, caller.expires_at) if moment is not None), default=None)
