"""Settings, secrets and git providers of the native API. A tenant's key writes the tenant's layer, a user's its own."""

from typing import Any

from fastapi import APIRouter, Response

from orchestrator.api import rendering, schemas
from orchestrator.api.answers import configuration
from orchestrator.api.answers.declared import says
from orchestrator.api.auth import OwnerOf, ServicesOf
from orchestrator.api.conditions import IfMatch, etag, version_in
from orchestrator.domain.errors import Conflict, InvalidRequest, PreconditionFailed
from orchestrator.domain.git import GitProvider, check_host, check_provider_name
from orchestrator.domain.secrets import SecretText, check_secret_name, check_secret_value
from orchestrator.domain.settings import wrap_secrets

router = APIRouter(prefix="/api/v2", tags=["configuration"])


@router.get("/settings", responses=says({200: configuration.Settings}))
async def get_settings(owner: OwnerOf, services: ServicesOf, response: Response) -> dict[str, Any]:
    """The settings of this layer, secrets hidden."""
    document, version = await services.layers.settings.read(owner.tenant, owner.user)
    response.headers["etag"] = etag(version)
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
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Merge: what is absent stays, null removes, the mark of a hidden value means unchanged."""
    expected = version_in(if_match)
    if body.limits is not None and owner.user is not None:
        body.limits.refuse_tenants_own("a user's")
    try:
        document, version = await services.layers.settings.change(
            owner.tenant, owner.user, wrap_secrets(body.change()), expected_version=expected
        )
    except Conflict as exc:
        if expected is None:
            raise
        raise PreconditionFailed(exc.message, hint=exc.hint) from None
    response.headers["etag"] = etag(version)
    return rendering.settings_out(document)


@router.get("/secrets", responses=says({200: configuration.SecretPage}))
async def list_secrets(owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """Names and descriptions. Values are never given."""
    entries = await services.layers.secrets.entries(owner.tenant, owner.user)
    items = [{"name": item.name, "description": item.description, "version": item.version} for item in entries]
    return {"items": items, "next_page_id": None}


@router.put("/secrets/{name}", responses=says({200: configuration.Secret}))
async def put_secret(name: str, body: schemas.SecretBody, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """Make or replace a secret."""
    value = check_secret_value(body.value)
    entry = await services.layers.secrets.put(
        owner.tenant, owner.user, check_secret_name(name), value, body.description
    )
    return {"name": entry.name, "description": entry.description, "version": entry.version}


@router.delete("/secrets/{name}", status_code=204)
async def delete_secret(name: str, owner: OwnerOf, services: ServicesOf) -> None:
    """Remove a secret."""
    await services.layers.secrets.delete(owner.tenant, owner.user, check_secret_name(name))


@router.get("/git-providers", responses=says({200: configuration.GitProviderPage}))
async def list_providers(owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """Providers with their hosts. Tokens are never given."""
    entries = await services.layers.providers.entries(owner.tenant, owner.user)
    items = [{"provider": item.name, "host": item.host, "user_id": item.user_id} for item in entries]
    return {"items": items, "next_page_id": None}


@router.put("/git-providers/{provider}", responses=says({200: configuration.GitProvider}))
async def put_provider(
    provider: str, body: schemas.ProviderBody, owner: OwnerOf, services: ServicesOf
) -> dict[str, Any]:
    """Make or replace a provider. Without a token the stored one stays."""
    name = check_provider_name(provider)
    host = check_host(body.host, allow_http_hosts=services.http_hosts)
    token = SecretText(body.token.strip()) if body.token and body.token.strip() else None
    if token is not None and await services.token_check.refused(GitProvider(name, token, host, body.user_id)):
        raise InvalidRequest(f"{name} says that this token is not valid", field="token", hint="make a new token there")
    await services.layers.providers.put(owner.tenant, owner.user, name, token=token, host=host, user_id=body.user_id)
    return {"provider": name, "host": host, "user_id": body.user_id}


@router.delete("/git-providers/{provider}", status_code=204)
async def delete_provider(provider: str, owner: OwnerOf, services: ServicesOf) -> None:
    """Remove a provider."""
    await services.layers.providers.delete(owner.tenant, owner.user, check_provider_name(provider))
