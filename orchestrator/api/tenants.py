"""Tenants, users and API keys: what the operator does, and what a tenant may see of itself."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from orchestrator.api import rendering, schemas
from orchestrator.api.answers import tenancy
from orchestrator.api.answers.declared import says
from orchestrator.api.auth import CallerOf, ServicesOf, operator
from orchestrator.api.idempotency import NaturalIdOf
from orchestrator.domain.errors import Forbidden, InvalidRequest, NotFound
from orchestrator.domain.ids import KeyId, TenantId, UserId, parse_uuid
from orchestrator.domain.tenancy import ALL_SCOPES, Caller, KeyKind, Scope
from orchestrator.services.images import NO_IMAGES

router = APIRouter(prefix="/api/v2/tenants", tags=["tenants"])
OperatorOf = Annotated[Caller, Depends(operator)]
Limit = Annotated[int, Query(ge=1, le=100)]


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
    _: OperatorOf, services: ServicesOf, page_id: str | None = None, limit: Limit = 100
) -> dict[str, Any]:
    """Tenants, oldest first."""
    page = await services.tenancy.tenants(cursor=page_id, limit=limit)
    return {"items": [rendering.tenant_out(item) for item in page.items], "next_page_id": page.next_cursor}


@router.get("/{tenant}", responses=says({200: tenancy.Tenant}))
async def get_tenant(tenant: str, caller: CallerOf, services: ServicesOf) -> dict[str, Any]:
    """One tenant."""
    return rendering.tenant_out(await services.tenancy.tenant(_of_tenant(caller, tenant)))


@router.patch("/{tenant}", responses=says({200: tenancy.Tenant}))
async def change_tenant(
    tenant: str, body: schemas.TenantPatchBody, _: OperatorOf, services: ServicesOf
) -> dict[str, Any]:
    """Give one tenant other limits than all have, other sizes of runtimes, or other images. The tenant itself may go
    below its limits, never above."""
    id, limits = TenantId(parse_uuid(tenant, "tenant")), body.limits.model_dump(exclude_unset=True)
    sizes = (body.sizes or []) if "sizes" in body.model_fields_set else None
    granted = None
    if "images" in body.model_fields_set and services.images is None:
        raise InvalidRequest(NO_IMAGES, field="images", hint="leave images out")
    if body.images is not None and services.images is not None:
        granted = await services.images.grant(body.images)
    changed = await services.tenancy.limit_tenant(id, limits, sizes=sizes)
    if "images" in body.model_fields_set:
        changed = await services.tenancy.allow_images(id, granted)
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
    tenant: str, caller: CallerOf, services: ServicesOf, page_id: str | None = None, limit: Limit = 100
) -> dict[str, Any]:
    """Users of a tenant."""
    page = await services.tenancy.users(_of_tenant(caller, tenant), cursor=page_id, limit=limit)
    return {"items": [rendering.user_out(item) for item in page.items], "next_page_id": page.next_cursor}


@router.get("/{tenant}/users/{user}", responses=says({200: tenancy.User}))
async def get_user(tenant: str, user: str, caller: CallerOf, services: ServicesOf) -> dict[str, Any]:
    """One user."""
    id = _of_tenant(caller, tenant)
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
async def list_keys(tenant: str, caller: CallerOf, services: ServicesOf) -> dict[str, Any]:
    """The keys of a tenant, without their secrets."""
    keys = await services.tenancy.keys(_of_tenant(caller, tenant))
    return {"items": [rendering.key_out(key) for key in keys], "next_page_id": None}


@router.delete("/{tenant}/api-keys/{key}", status_code=204)
async def revoke_key(tenant: str, key: str, caller: CallerOf, services: ServicesOf) -> None:
    """Revoke a key, at once on every replica."""
    await services.tenancy.revoke_key(_of_tenant(caller, tenant, scope=Scope.WRITE), KeyId(parse_uuid(key, "key")))


def _at_most(wanted: frozenset[Scope], caller: Caller) -> frozenset[Scope]:
    """A key cannot make a key that may do more than itself."""
    return wanted & caller.scopes


def _no_later(wanted: datetime | None, caller: Caller) -> datetime | None:
    """Nor one that outlives it."""
    return min((moment for moment in (wanted, caller.expires_at) if moment is not None), default=None)
