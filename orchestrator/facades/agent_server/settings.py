"""Changes of settings and secrets by the agent server's calls, for the holder of an API key (agent-server.md 3).

They change the caller's layer, as the native calls do, and reach live runtimes from there. What is read comes from the
caller's home, which is configured with what is effective.
"""

from typing import Any

from fastapi import APIRouter

from orchestrator.api import rendering, schemas
from orchestrator.api.auth import OwnerOf, ServicesOf
from orchestrator.domain.errors import InvalidRequest, NotFound
from orchestrator.domain.secrets import check_secret_name, check_secret_value
from orchestrator.domain.settings import wrap_secrets
from orchestrator.facades.answers import V1Route

router = APIRouter(prefix="/api/settings", tags=["agent server"], route_class=V1Route)


class SettingsChange(schemas.Body):
    """The two parts that are kept here. Others of the agent server's are refused by name."""

    agent_settings_diff: schemas.AgentSettingsBody | None = None
    conversation_settings_diff: schemas.ConversationSettingsBody | None = None


class SecretItem(schemas.SecretBody):
    name: str


@router.patch("")
async def change(body: SettingsChange, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """Merge into the caller's layer; answers that layer, secrets hidden."""
    sent = body.model_dump(mode="json", exclude_unset=True)
    patch = {name.removesuffix("_diff"): value for name, value in sent.items() if value is not None}
    if not patch:
        raise InvalidRequest("nothing is given", hint="send agent_settings_diff or conversation_settings_diff")
    document, _ = await services.layers.settings.change(owner.tenant, owner.user, wrap_secrets(patch))
    return rendering.settings_out(document)


@router.put("/secrets")
async def put_secret(body: SecretItem, owner: OwnerOf, services: ServicesOf) -> dict[str, str | None]:
    """Make or replace a secret of the caller's layer."""
    name, value = check_secret_name(body.name), check_secret_value(body.value)
    entry = await services.layers.secrets.put(owner.tenant, owner.user, name, value, body.description)
    return {"name": entry.name, "description": entry.description}


@router.delete("/secrets/{name}")
async def delete_secret(name: str, owner: OwnerOf, services: ServicesOf) -> dict[str, bool]:
    """Remove one of the caller's layer; 404 when there is none."""
    try:
        await services.layers.secrets.delete(owner.tenant, owner.user, check_secret_name(name))
    except InvalidRequest:
        raise NotFound("there is no such secret") from None
    return {"deleted": True}
