"""The bodies of the older configuration calls, and what they mean in nested settings (nested-config.md 3 to 5, 9)."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from orchestrator.api.json_values import check_json
from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.git import check_provider_name

#: A null or absent one of these keeps what is stored.
_KEPT = frozenset({"llm_api_key", "llm_model", "llm_base_url", "search_api_key", "user_consents_to_analytics"})
_LLM = {"llm_model": "model", "llm_api_key": "api_key", "llm_base_url": "base_url"}
_CONVERSATION = ("max_iterations", "confirmation_mode", "security_analyzer")


class OlderBody(BaseModel):
    """Unknown keys are ignored, as this generation of clients expects."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _can_be_kept(cls, value: Any) -> Any:
        return check_json(value)


class FlatSettings(OlderBody):
    """The flat record."""

    language: str | None = None
    agent: str | None = None
    max_iterations: int | None = None
    security_analyzer: str | None = None
    confirmation_mode: bool | None = None
    llm_model: str | None = None
    llm_api_key: str | None = None
    llm_base_url: Annotated[str, StringConstraints(pattern=r"^\s*(https?://[^\s@]+\s*)?$")] | None = None
    remote_runtime_resource_factor: int | None = None
    enable_default_condenser: bool | None = None
    condenser_max_size: int | None = Field(default=None, ge=20)
    enable_sound_notifications: bool | None = None
    enable_proactive_conversation_starters: bool | None = None
    enable_solvability_analysis: bool | None = None
    user_consents_to_analytics: bool | None = None
    sandbox_base_container_image: str | None = None
    sandbox_runtime_container_image: str | None = None
    mcp_config: dict[str, Any] | None = None
    search_api_key: str | None = None
    sandbox_api_key: str | None = None
    max_budget_per_task: float | None = None
    email: str | None = None
    email_verified: bool | None = None
    git_user_name: str | None = None
    git_user_email: str | None = None
    v1_enabled: bool | None = None

    def change(self) -> dict[str, Any]:
        """The same as a merge patch of the nested document: the record is replaced, but for the kept fields."""
        sent = {name: _blank_is_none(value) for name, value in self.model_dump().items()}
        llm = {nested: sent.pop(flat) for flat, nested in _LLM.items()}
        conversation = {name: sent.pop(name) for name in _CONVERSATION}
        agent = sent.pop("agent")
        older = {name: value for name, value in sent.items() if value is not None or name not in _KEPT}
        return {
            "agent_settings": {
                "agent": agent,
                "llm": {name: value for name, value in llm.items() if value is not None},
            },
            "conversation_settings": conversation,
            "older": older,
        }


class OneSecret(OlderBody):
    name: str
    value: str
    description: str | None = None


class BulkSecrets(OlderBody):
    secrets: dict[str, str]


class SecretRename(OlderBody):
    name: str
    description: str | None = None


class ProviderItem(OlderBody):
    token: str | None = None
    host: str | None = None
    user_id: str | None = None
    repositories: list[str] = []


def provider_items(body: Mapping[str, Any]) -> dict[str, ProviderItem]:
    """Either form as a map from provider to item. Both at once, none, a double or an unknown one: `InvalidRequest`."""
    if ("provider_tokens" in body) == ("providers" in body):
        raise InvalidRequest(
            "send either provider_tokens or providers", hint='{"provider_tokens": {"github": {"token": "..."}}}'
        )
    items: dict[str, ProviderItem] = {}
    for name, item in _pairs(body):
        if check_provider_name(name) in items:
            raise InvalidRequest(f"{name} is there twice", field="providers")
        try:
            items[name] = ProviderItem.model_validate(item)
        except ValidationError as exc:
            first = exc.errors(include_input=False, include_url=False)[0]
            raise InvalidRequest(f"{name}: {first['msg']}", field=f"providers.{name}") from None
    return items


def _pairs(body: Mapping[str, Any]) -> list[tuple[str, Any]]:
    tokens, listed = body.get("provider_tokens"), body.get("providers")
    if isinstance(tokens, Mapping):
        return list(tokens.items())
    if isinstance(listed, list) and listed and all(isinstance(item, Mapping) for item in listed):
        return [(str(item.get("type", "")), item) for item in listed]
    raise InvalidRequest(
        "the git providers have no known form", field="provider_tokens", hint="send a map or a list of objects"
    )


def _blank_is_none(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value
