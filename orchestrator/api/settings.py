"""Settings, secrets and git providers of the native API. A tenant's key writes the tenant's layer, a user's its own."""

from typing import Any

from fastapi import APIRouter, Response

from orchestrator.api import rendering, schemas
from orchestrator.api.answers import configuration, operations
from orchestrator.api.answers.declared import says
from orchestrator.api.auth import OwnerOf, ServicesOf
from orchestrator.api.conditions import ConditionOf, tell_version
from orchestrator.api.lists import MOST, IdsOf, Limit, whole
from orchestrator.api.paging import PagingOf
from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.git import GitProvider, check_host, check_provider_name, check_token
from orchestrator.domain.secrets import check_secret_name, check_secret_value
from orchestrator.domain.settings import wrap_secrets

router = APIRouter(prefix="/api/v2", tags=["configuration"])


@router.get("/settings", responses=says({200: configuration.Settings}))
async def get_settings(owner: OwnerOf, services: ServicesOf, response: Response) -> dict[str, Any]:
    """The settings of this layer, secrets hidden."""
    document, version = await services.layers.settings.read(owner.tenant, owner.user)
    tell_version(response, version)
    return rendering.settings_out(document)


@router.get("/settings/effective", responses=says({200: configuration.EffectiveSettings}))
async def get_effective(owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """What a conversation would run with, and for each value the layer that it came from."""
    document, origin = await services.effective.explain(owner.tenant, owner.user)
    return rendering.settings_out(document, origin)


@router.patch("/settings", responses=says({200: configuration.Settings}))
async def patch_settings(
    body: schemas.SettingsBody,
    owner: OwnerOf,
    services: ServicesOf,
    response: Response,
    condition: ConditionOf,
) -> dict[str, Any]:
    """Merge: what is absent stays, null removes, the mark of a hidden value means unchanged."""
    if body.limits is not None and owner.user is not None:
        body.limits.refuse_tenants_own("a user's")
    document, version = await services.layers.settings.change(
        owner.tenant, owner.user, wrap_secrets(body.change()), condition=condition
    )
    tell_version(response, version)
    return rendering.settings_out(document)


@router.get("/secrets", responses=says({200: configuration.SecretPage}))
async def list_secrets(
    owner: OwnerOf, services: ServicesOf, ids: IdsOf, paging: PagingOf, limit: Limit = MOST
) -> dict[str, Any]:
    """Names and descriptions, by name. Values are never given. `ids` are names."""
    entries = await services.layers.secrets.entries(owner.tenant, owner.user)
    page, following = whole(entries, lambda one: one.name, ids=ids, paging=paging, limit=limit)
    return {"items": [one and rendering.secret_out(one) for one in page], "next_page_id": following}


@router.get("/secrets/count", responses=says({200: operations.Count}))
async def count_secrets(owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """How many there are. (A secret of that name is read with `?ids=count`.)"""
    return {"count": len(await services.layers.secrets.entries(owner.tenant, owner.user)), "next_page_id": None}


@router.get("/secrets/{name}", responses=says({200: configuration.Secret}))
async def get_secret(name: str, owner: OwnerOf, services: ServicesOf, response: Response) -> dict[str, Any]:
    """One secret's name and description. Its value is never given."""
    entry = await services.layers.secrets.entry(owner.tenant, owner.user, check_secret_name(name))
    tell_version(response, entry.version)
    return rendering.secret_out(entry)


@router.put("/secrets/{name}", responses=says({200: configuration.Secret}))
async def put_secret(
    name: str,
    body: schemas.SecretBody,
    owner: OwnerOf,
    services: ServicesOf,
    response: Response,
    condition: ConditionOf,
) -> dict[str, Any]:
    """Make or replace a secret."""
    name, value = check_secret_name(name), check_secret_value(body.value)
    entry = await services.layers.secrets.put(
        owner.tenant, owner.user, name, value, body.description, condition=condition
    )
    tell_version(response, entry.version)
    return rendering.secret_out(entry)


@router.delete("/secrets/{name}", status_code=204)
async def delete_secret(name: str, owner: OwnerOf, services: ServicesOf, condition: ConditionOf) -> None:
    """Remove a secret."""
    await services.layers.secrets.delete(owner.tenant, owner.user, check_secret_name(name), condition=condition)


@router.get("/git-providers", responses=says({200: configuration.GitProviderPage}))
async def list_providers(
    owner: OwnerOf, services: ServicesOf, ids: IdsOf, paging: PagingOf, limit: Limit = MOST
) -> dict[str, Any]:
    """Providers with their hosts, by name. Tokens are never given. `ids` are names."""
    entries = await services.layers.providers.entries(owner.tenant, owner.user)
    page, following = whole(entries, lambda one: one.name, ids=ids, paging=paging, limit=limit)
    return {"items": [one and rendering.provider_out(one) for one in page], "next_page_id": following}


@router.get("/git-providers/count", responses=says({200: operations.Count}))
async def count_providers(owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """How many there are."""
    return {"count": len(await services.layers.providers.entries(owner.tenant, owner.user)), "next_page_id": None}


@router.get("/git-providers/{provider}", responses=says({200: configuration.GitProvider}))
async def get_provider(provider: str, owner: OwnerOf, services: ServicesOf, response: Response) -> dict[str, Any]:
    """One provider with its host. Its token is never given."""
    entry = await services.layers.providers.entry(owner.tenant, owner.user, check_provider_name(provider))
    tell_version(response, entry.version)
    return rendering.provider_out(entry)


@router.put("/git-providers/{provider}", responses=says({200: configuration.GitProvider}))
async def put_provider(
    provider: str,
    body: schemas.ProviderBody,
    owner: OwnerOf,
    services: ServicesOf,
    response: Response,
    condition: ConditionOf,
) -> dict[str, Any]:
    """Make or replace a provider. Without a token the stored one stays."""
    name = check_provider_name(provider)
    host = check_host(body.host, allow_http_hosts=services.http_hosts)
    token = check_token(body.token) if body.token and body.token.strip() else None
    if token is not None and await services.token_check.refused(GitProvider(name, token, host, body.user_id)):
        raise InvalidRequest(f"{name} says that this token is not valid", field="token", hint="make a new token there")
    stored = await services.layers.providers.put(
        owner.tenant, owner.user, name, token=token, host=host, user_id=body.user_id, condition=condition
    )
    tell_version(response, stored.version)
    return rendering.provider_out(stored)


@router.delete("/git-providers/{provider}", status_code=204)
async def delete_provider(provider: str, owner: OwnerOf, services: ServicesOf, condition: ConditionOf) -> None:
    """Remove a provider."""
    name = check_provider_name(provider)
    await services.layers.providers.delete(owner.tenant, owner.user, name, condition=condition)
