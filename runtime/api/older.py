"""Configuration calls of the older orchestrators: flat settings, git providers, secrets one by one or in bulk.

All of them write the same stores as the newer routes. Bodies and answers are those of contract nested-config.md 3 to 5.
"""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import SecretStr, field_validator, model_validator

from runtime.api.bodies import Body, check_json
from runtime.api.dependencies import StateDependency
from runtime.api.threads import in_thread
from runtime.configuration.merge import SettingsInvalid, with_diffs
from runtime.configuration.older import FlatFields, translated
from runtime.secrets.names import check_name, check_value
from runtime.secrets.providers import PROVIDERS, GitProvider, check_host
from runtime.secrets.store import NameTaken, SecretNotFound
from runtime.store.exposure import OptionalSecret

router = APIRouter(tags=["Older configuration"])
#: what every start asks for (`app.STARTING`)
starting = APIRouter(tags=["Older configuration"])


class FlatSettings(FlatFields):
    """The flat settings record as it is sent. The diffs are our own: what the flat record cannot say is merged in the
    same write, as `PATCH /api/settings` would, and the answer says that it was."""

    agent_settings_diff: dict[str, Any] | None = None
    conversation_settings_diff: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, value: Any) -> Any:
        check_json(value)
        return value


@starting.post("/settings")
@in_thread
def store_settings(state: StateDependency, body: FlatSettings) -> JSONResponse:
    diffs = (body.agent_settings_diff, body.conversation_settings_diff)
    try:
        state.settings_store.change(lambda record: with_diffs(translated(record, body), *diffs, state.cipher))
    except SettingsInvalid as exc:
        return JSONResponse({"detail": str(exc), "errors": exc.problems}, 422)
    told = {"diffs": "merged"} if any(diff is not None for diff in diffs) else {}
    return JSONResponse({"message": "Settings stored", **told})


class ProviderItem(Body):
    """One provider of the map form. A blank host is the provider's public one."""

    token: OptionalSecret = None
    host: str | None = None
    user_id: str | None = None
    repositories: tuple[str, ...] = ()

    @field_validator("host")
    @classmethod
    def _host(cls, host: str | None) -> str | None:
        return check_host(host) if host is not None and host.strip() else None


class TypedProviderItem(ProviderItem):
    """One provider of the list form."""

    type: str


class ProvidersBody(Body):
    """Both forms of the call; `named` is the one form that the rest of the code sees. `keep_others` is our own: what is
    not named stays."""

    provider_tokens: dict[str, ProviderItem] | None = None
    providers: list[TypedProviderItem] | None = None
    keep_others: bool = False

    @property
    def named(self) -> dict[str, ProviderItem]:
        return self.provider_tokens or {item.type: item for item in self.providers or []}

    @model_validator(mode="after")
    def _one_form(self) -> "ProvidersBody":
        if self.provider_tokens is not None and self.providers is not None:
            raise ValueError("give provider_tokens or providers, not both")
        if not self.named:
            raise ValueError("give at least one provider; POST /api/unset-provider-tokens removes all of them")
        if len(self.named) != len(self.providers or self.named):
            raise ValueError("each provider type may be given once")
        unknown = self.named.keys() - set(PROVIDERS)
        if unknown:
            raise ValueError(f"unknown git provider; known are {', '.join(PROVIDERS)}")
        return self


@starting.post("/add-git-providers")
@in_thread
def add_git_providers(state: StateDependency, body: ProvidersBody) -> JSONResponse:
    state.git_providers.replace(
        [
            GitProvider(name, item.token, item.host, item.user_id, item.repositories)
            for name, item in body.named.items()
        ],
        keep_others=body.keep_others,
    )
    return JSONResponse({"message": "Git providers stored"})


@router.post("/unset-provider-tokens")
def unset_provider_tokens(state: StateDependency) -> JSONResponse:
    state.git_providers.clear()
    return JSONResponse({"message": "Unset Git provider tokens"})


class NewSecrets(Body):
    """One secret (`name`, `value`, `description`) or many (`secrets`)."""

    name: str | None = None
    value: SecretStr | None = None
    description: str | None = None
    secrets: dict[str, SecretStr] | None = None

    @field_validator("name")
    @classmethod
    def _name(cls, name: str | None) -> str | None:
        return None if name is None else check_name(name)

    @field_validator("value")
    @classmethod
    def _value(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_value(value.get_secret_value())
        return value

    @field_validator("secrets")
    @classmethod
    def _bulk(cls, secrets: dict[str, SecretStr] | None) -> dict[str, SecretStr] | None:
        for name, value in (secrets or {}).items():
            check_name(name)
            check_value(value.get_secret_value())
        return secrets

    @model_validator(mode="after")
    def _one_form(self) -> "NewSecrets":
        single = self.name is not None or self.value is not None
        if single and self.secrets is not None:
            raise ValueError("give name and value, or secrets, not both")
        if self.secrets is None and (self.name is None or self.value is None):
            raise ValueError("give name and value, or secrets")
        return self


@starting.post("/secrets")
@in_thread
def create_secrets(state: StateDependency, body: NewSecrets) -> JSONResponse:
    try:
        if body.name is not None and body.value is not None:
            state.secret_store.create(body.name, body.value, description=body.description)
            return JSONResponse({"message": "Secret created successfully"}, 201)
        created, existing = state.secret_store.create_all(body.secrets or {})
    except NameTaken as exc:
        return JSONResponse({"message": str(exc)}, 400)
    return JSONResponse({"message": "Secrets stored", "created": created, "existing": existing})


@router.get("/secrets")
async def list_secrets(state: StateDependency) -> JSONResponse:
    entries = state.secret_store.entries()
    return JSONResponse({"custom_secrets": [{"name": item.name, "description": item.description} for item in entries]})


class SecretDescription(Body):
    """A new name and description; the value stays."""

    name: str
    description: str | None = None

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        return check_name(name)


@router.put("/secrets/{name}")
def describe_secret(state: StateDependency, name: str, body: SecretDescription) -> JSONResponse:
    try:
        state.secret_store.describe(name, new_name=body.name, description=body.description)
    except SecretNotFound:
        return _missing(name)
    except NameTaken as exc:
        return JSONResponse({"message": str(exc)}, 400)
    return JSONResponse({"message": "Secret updated successfully"})


@router.delete("/secrets/{name}")
def delete_secret(state: StateDependency, name: str) -> JSONResponse:
    try:
        state.secret_store.delete(name)
    except SecretNotFound:
        return _missing(name)
    return JSONResponse({"message": "Secret deleted successfully"})


def _missing(name: str) -> JSONResponse:
    return JSONResponse({"error": f"Secret with ID {name} not found"}, 404)
