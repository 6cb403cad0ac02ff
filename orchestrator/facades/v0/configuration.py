"""The older configuration calls (V0), for scripts that know them: settings, git providers, secrets.

A thin translation over the same layers as the native API; shapes and words are those of nested-config.md 3 to 5.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from orchestrator.api.auth import Owner, OwnerOf, ServicesOf
from orchestrator.api.context import Services
from orchestrator.api.json_values import check_json
from orchestrator.domain.errors import InvalidRequest, NotFound
from orchestrator.domain.git import GitProvider, check_host, check_provider_name, check_token
from orchestrator.domain.secrets import SecretText, check_secret_name, check_secret_value, deep_redact
from orchestrator.domain.settings import wrap_secrets
from orchestrator.facades.answers import V1Route
from orchestrator.facades.flat import flat_settings
from orchestrator.facades.v0.configuration_bodies import (
    BulkSecrets,
    FlatSettings,
    OneSecret,
    ProviderItem,
    SecretRename,
    provider_items,
)

router = APIRouter(prefix="/api", tags=["older configuration calls"], route_class=V1Route)


@router.post("/settings")
async def post_settings(body: FlatSettings, owner: OwnerOf, services: ServicesOf) -> dict[str, str]:
    """Store the flat record. Null or absent model fields keep what is stored."""
    await services.layers.settings.change(owner.tenant, owner.user, wrap_secrets(body.change()))
    return {"message": "Settings stored"}


@router.get("/settings")
async def get_settings(owner: OwnerOf, services: ServicesOf) -> JSONResponse:
    """The flat record, keys hidden; 404 before the first POST."""
    document, version = await services.layers.settings.read(owner.tenant, owner.user)
    if version == 0:
        return _refused("Settings not found", 404)
    providers = await services.layers.providers.entries(owner.tenant, owner.user)
    return JSONResponse(_flat(document) | {"provider_tokens_set": {item.name: item.host for item in providers}})


@router.post("/add-git-providers")
async def add_git_providers(request: Request, owner: OwnerOf, services: ServicesOf) -> JSONResponse:
    """Both forms; the map that is sent replaces the stored one, an item without token keeps its token."""
    items = provider_items(await _json(request))
    for name, item in items.items():
        token = _token(item)
        if token is None:
            continue
        provider = GitProvider(name, token, _host(item, services), item.user_id)
        if await services.token_check.refused(provider):
            return _refused(f"Invalid token. Please make sure it is a valid {name} token.", 401)
    await _replace_providers(items, owner, services)
    return JSONResponse({"message": "Git providers stored"})


@router.post("/unset-provider-tokens")
async def unset_provider_tokens(owner: OwnerOf, services: ServicesOf) -> dict[str, str]:
    """Forget every provider of this layer."""
    await _replace_providers({}, owner, services)
    return {"message": "Unset Git provider tokens"}


@router.get("/secrets")
async def list_secrets(owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """Names and descriptions, never values."""
    entries = await services.layers.secrets.entries(owner.tenant, owner.user)
    return {"custom_secrets": [{"name": item.name, "description": item.description} for item in entries]}


@router.post("/secrets")
async def post_secrets(request: Request, owner: OwnerOf, services: ServicesOf) -> JSONResponse:
    """One secret (201; a taken name is 400), or several at once (`{"secrets": {...}}`, 200)."""
    body = await _json(request)
    if "secrets" in body:
        return await _post_several(_parsed(BulkSecrets, body), owner, services)
    one = _parsed(OneSecret, body)
    name, value = check_secret_name(one.name), check_secret_value(one.value)
    if not await services.layers.secrets.create(owner.tenant, owner.user, name, value, one.description):
        return _taken(name)
    return JSONResponse({"message": "Secret created successfully"}, 201)


@router.put("/secrets/{name}")
async def rename_secret(name: str, body: SecretRename, owner: OwnerOf, services: ServicesOf) -> JSONResponse:
    """A new name or description; the value stays."""
    secrets = services.layers.secrets
    try:
        value = await secrets.open_one(owner.tenant, owner.user, _possible(name))
    except NotFound:
        return _refused(f"Secret with ID {name} not found", 404)
    new = check_secret_name(body.name)
    if new == name:
        await secrets.put(owner.tenant, owner.user, name, value, body.description)
    elif await secrets.create(owner.tenant, owner.user, new, value, body.description):
        await secrets.delete(owner.tenant, owner.user, name)
    else:
        return _taken(new)
    return JSONResponse({"message": "Secret updated successfully"})


@router.delete("/secrets/{name}")
async def delete_secret(name: str, owner: OwnerOf, services: ServicesOf) -> JSONResponse:
    """Remove a secret."""
    try:
        await services.layers.secrets.delete(owner.tenant, owner.user, _possible(name))
    except NotFound:
        return _refused(f"Secret with ID {name} not found", 404)
    return JSONResponse({"message": "Secret deleted successfully"})


async def _post_several(body: BulkSecrets, owner: Owner, services: Services) -> JSONResponse:
    """All or nothing: everything is checked before anything is stored. The same value again is no conflict."""
    wanted = {check_secret_name(name): check_secret_value(value) for name, value in body.secrets.items()}
    present = await services.layers.secrets.open_all(owner.tenant, owner.user)
    for name, value in wanted.items():
        if name in present and present[name] != value:
            return _taken(name)
    created = [name for name in wanted if name not in present]
    for name in created:
        await services.layers.secrets.put(owner.tenant, owner.user, name, wanted[name], None)
    existing = [name for name in wanted if name in present]
    return JSONResponse({"message": "Secrets stored", "created": created, "existing": existing})


async def _replace_providers(items: Mapping[str, ProviderItem], owner: Owner, services: Services) -> None:
    providers = services.layers.providers
    hosts = {check_provider_name(name): _host(item, services) for name, item in items.items()}
    present = {item.name for item in await providers.entries(owner.tenant, owner.user)}
    for name, item in items.items():
        token = _token(item)
        if token is not None or name in present:
            await providers.put(owner.tenant, owner.user, name, token=token, host=hosts[name], user_id=item.user_id)
    for name in present - set(items):
        with suppress(NotFound):  # another call, that sends another map, removed it first
            await providers.delete(owner.tenant, owner.user, name)


def _token(item: ProviderItem) -> SecretText | None:
    return check_token(item.token) if item.token and item.token.strip() else None


def _host(item: ProviderItem, services: Services) -> str | None:
    return check_host(item.host, allow_http_hosts=services.http_hosts)


def _possible(name: str) -> str:
    """`name`; one that no secret can have is as unknown as any other."""
    try:
        return check_secret_name(name)
    except InvalidRequest:
        raise NotFound("there is no such secret") from None


def _taken(name: str) -> JSONResponse:
    return _refused(f"Secret {name} already exists", 400)


def _refused(words: str, status: int) -> JSONResponse:
    """Under each of the names by which scripts of that generation look for it."""
    return JSONResponse({"error": words, "message": words, "detail": words}, status)


async def _json(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        raise InvalidRequest("the body is not JSON") from None
    if not isinstance(body, dict):
        raise InvalidRequest("the body is not a JSON object")
    check_json(body)
    return body


def _parsed(kind: Any, body: Mapping[str, Any]) -> Any:
    try:
        return kind.model_validate(body)
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"{field}: {first['msg']}", field=field) from None


def _flat(document: Mapping[str, Any]) -> dict[str, Any]:
    """Without any key: which are set is said beside it."""
    shown = flat_settings(document, lambda value: None if isinstance(value, SecretText) else deep_redact(value))
    keys = {"llm_api_key": None, "search_api_key": None, "sandbox_api_key": None}
    return (
        shown
        | keys
        | {
            "llm_api_key_set": bool(document.get("agent_settings", {}).get("llm", {}).get("api_key")),
            "search_api_key_set": bool(document.get("older", {}).get("search_api_key")),
        }
    )
