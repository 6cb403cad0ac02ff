"""Named agents of this runtime's user, kept in agent_profiles.json: a model by the name of its profile, tools, context.

A conversation can be started with one, the settings can take one over. What of the contract's record is not honoured
here (secrets and skills held back, meta profiles) is refused where it is saved, since to keep it and do otherwise would
show an agent what it was not to see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from runtime.configuration.profiles import ProfileExists, ProfileNotFound, ProfileStore
from runtime.configuration.record import (
    AgentContext,
    AgentSettings,
    CondenserSettings,
    SettingsRecord,
    ToolChoice,
    VerificationSettings,
)
from runtime.store.cipher import Cipher
from runtime.store.sealed import SealedRecord

_NOT_HONOURED = ("secret_refs", "disabled_skills", "public_skills", "meta_profile_ref")
Text = Annotated[str, StringConstraints(min_length=1, max_length=65536)]


class AgentProfile(BaseModel):
    """One agent. `llm_profile_ref` and `mcp_server_refs` are names, looked up when it is used; no servers named means
    all of the settings."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    schema_version: Annotated[int, Field(ge=1)] = 4
    agent_kind: Literal["openhands"] = "openhands"
    id: UUID = Field(default_factory=uuid4)
    name: str = ""
    revision: Annotated[int, Field(ge=0)] = 0
    llm_profile_ref: Annotated[str, Field(min_length=1, max_length=64)]
    mcp_server_refs: list[str] | None = None
    agent: str = "CodeActAgent"
    tools: list[ToolChoice] | None = None
    persona: Text | None = None
    system_message_suffix: Text | None = None
    condenser: CondenserSettings = Field(default_factory=CondenserSettings)
    verification: VerificationSettings = Field(default_factory=VerificationSettings)
    enable_classify_and_switch_llm_tool: Literal[False] = False
    tool_concurrency_limit: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="before")
    @classmethod
    def _honoured(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        for name in _NOT_HONOURED:
            if value.get(name):
                raise ValueError(f"{name} is not available in this runtime")
        return {key: given for key, given in value.items() if key not in _NOT_HONOURED}


class AgentProfilesRecord(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    profiles: dict[str, AgentProfile] = {}


class AgentProfileStore:
    """Reads never fail; changes raise StoreUnreadable and OSError."""

    def __init__(self, directory: Path, cipher: Cipher) -> None:
        self._record = SealedRecord(AgentProfilesRecord, directory / "agent_profiles.json", cipher)

    @property
    def readable(self) -> bool:
        """Whether everything that is stored can be read."""
        return self._record.readable

    def all(self) -> Mapping[str, AgentProfile]:
        """By name, in the order in which they were first saved."""
        return self._record.read().profiles

    def get(self, name: str) -> AgentProfile:
        """Raises ProfileNotFound."""
        try:
            return self.all()[name]
        except KeyError:
            raise ProfileNotFound(name) from None

    def by_id(self, id: UUID) -> AgentProfile:
        """Raises ProfileNotFound."""
        for profile in self.all().values():
            if profile.id == id:
                return profile
        raise ProfileNotFound(str(id))

    def put(self, name: str, profile: AgentProfile) -> None:
        """Save it under that name, or replace the one there, which keeps its id and counts on."""

        def saved(profiles: dict[str, AgentProfile]) -> dict[str, AgentProfile]:
            known = profiles.get(name)
            kept = {"id": known.id, "revision": known.revision + 1} if known is not None else {"revision": 0}
            return {**profiles, name: profile.model_copy(update={"name": name, **kept})}

        self._change(saved)

    def delete(self, name: str) -> None:
        """Raises ProfileNotFound."""

        def without(profiles: dict[str, AgentProfile]) -> dict[str, AgentProfile]:
            if name not in profiles:
                raise ProfileNotFound(name)
            return {key: profile for key, profile in profiles.items() if key != name}

        self._change(without)

    def rename(self, name: str, new_name: str) -> None:
        """Raises ProfileNotFound, ProfileExists. The same name: nothing happens."""

        def renamed(profiles: dict[str, AgentProfile]) -> dict[str, AgentProfile]:
            if name not in profiles:
                raise ProfileNotFound(name)
            if new_name in profiles and new_name != name:
                raise ProfileExists(new_name)
            moved = profiles[name].model_copy(update={"name": new_name})
            return {(new_name if key == name else key): (moved if key == name else p) for key, p in profiles.items()}

        self._change(renamed)

    def _change(self, make: Callable[[dict[str, AgentProfile]], dict[str, AgentProfile]]) -> None:
        self._record.change(lambda record: AgentProfilesRecord(profiles=make(record.profiles)))


def dangling(profile: AgentProfile, settings: SettingsRecord) -> list[str]:
    """MCP servers that it names and the settings do not have."""
    return [name for name in profile.mcp_server_refs or () if name not in settings.agent_settings.mcp_config]


def agent_settings(profile: AgentProfile, models: ProfileStore, settings: SettingsRecord) -> AgentSettings:
    """What an agent of this profile has now. Raises ProfileNotFound for a model or server that it names in vain."""
    missing = dangling(profile, settings)
    if missing:
        raise ProfileNotFound(missing[0])
    servers = settings.agent_settings.mcp_config
    named = servers if profile.mcp_server_refs is None else {name: servers[name] for name in profile.mcp_server_refs}
    return AgentSettings(
        agent=profile.agent,
        llm=models.get(profile.llm_profile_ref),
        tools=profile.tools,
        tool_concurrency_limit=profile.tool_concurrency_limit,
        mcp_config=named,
        persona=profile.persona,
        agent_context=AgentContext(system_message_suffix=profile.system_message_suffix),
        condenser=profile.condenser,
        verification=profile.verification,
    )
