"""Settings, secrets and git providers."""

from typing import Annotated, Any

from pydantic import Field

from orchestrator.api.answers.base import MISSING, Answer, NextPage, Version

_HIDDEN = "what is secret is hidden"


class Settings(Answer):
    """The settings of one layer; what is secret is hidden by a mark, which means unchanged when it is sent back."""

    agent_settings: Annotated[dict[str, Any], Field(description=f"Model and agent; {_HIDDEN}")]
    conversation_settings: dict[str, Any]
    limits: Annotated[dict[str, Any], Field(description="Those that were chosen here, by name")]
    llm_api_key_is_set: bool


class EffectiveSettings(Settings):
    """The settings that a conversation would run with."""

    origin: Annotated[dict[str, str], Field(description="For each value the layer that it came from")]


class Secret(Answer):
    """A secret without its value."""

    name: str
    description: str | None
    version: Version


class SecretPage(Answer):
    items: Annotated[list[Secret | None], Field(description=MISSING)]
    next_page_id: NextPage


class GitProvider(Answer):
    """A git provider without its token."""

    provider: str
    host: Annotated[str | None, Field(description="Null: the provider's own")]
    user_id: str | None
    version: Version


class GitProviderPage(Answer):
    items: Annotated[list[GitProvider | None], Field(description=MISSING)]
    next_page_id: NextPage
