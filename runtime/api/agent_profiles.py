"""Agent profiles: named agents, saved, shown, renamed, taken over into the settings or a conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from fastapi import APIRouter, HTTPException
from fastapi.responses import JSONResponse
from starlette.requests import Request

from runtime.api.dependencies import StateDependency
from runtime.api.parsing import json_object, refused, validated
from runtime.api.profiles import Name, Renamed
from runtime.configuration.agent_profiles import AgentProfile, agent_settings, dangling
from runtime.configuration.profiles import ProfileExists, ProfileNotFound
from runtime.configuration.record import AgentSettings
from runtime.state import RuntimeState
from runtime.store.exposure import Exposure, render

router = APIRouter(tags=["Agent profiles"])


@router.get("/agent-profiles")
async def every(state: StateDependency) -> JSONResponse:
    shown = ("id", "name", "agent_kind", "revision", "llm_profile_ref", "mcp_server_refs")
    found = [profile.model_dump(mode="json", include=set(shown)) for profile in state.agent_profiles.all().values()]
    active = state.settings_store.read().active_agent_profile_id
    return JSONResponse({"profiles": found, "active_agent_profile_id": active})


@router.get("/agent-profiles/{name}")
async def get(state: StateDependency, name: Name) -> JSONResponse:
    return JSONResponse({"name": name, "profile": _found(state, name).model_dump(mode="json")})


@router.post("/agent-profiles/{name}")
async def save(request: Request, state: StateDependency, name: Name) -> JSONResponse:
    """Save it, or replace the one of that name. The model that it names need not be there yet."""
    profile = validated(AgentProfile, await json_object(request))
    await asyncio.to_thread(state.agent_profiles.put, name, profile)
    return _told(name, "saved", 201)


@router.delete("/agent-profiles/{name}")
def delete(state: StateDependency, name: Name) -> JSONResponse:
    id = str(_found(state, name).id)
    state.agent_profiles.delete(name)
    if state.settings_store.read().active_agent_profile_id == id:
        state.settings_store.change(lambda record: record.model_copy(update={"active_agent_profile_id": None}))
    return _told(name, "deleted")


@router.post("/agent-profiles/{name}/rename")
def rename(state: StateDependency, name: Name, body: Renamed) -> JSONResponse:
    try:
        state.agent_profiles.rename(name, body.new_name)
    except ProfileNotFound as error:
        raise HTTPException(404, f"Agent profile '{name}' not found") from error
    except ProfileExists as error:
        raise HTTPException(409, f"Agent profile '{body.new_name}' already exists") from error
    return _told(body.new_name, f"renamed from '{name}'")


@router.post("/agent-profiles/{profile_id}/activate")
def activate(state: StateDependency, profile_id: UUID) -> JSONResponse:
    """From now on the settings have this agent."""
    profile, settings = launched(state, profile_id)
    update = {"active_agent_profile_id": str(profile.id), "agent_settings": settings}
    state.settings_store.change(lambda record: record.model_copy(update=update))
    message = f"Agent profile '{profile.name}' activated and applied to current settings"
    return JSONResponse({"id": str(profile.id), "message": message, "agent_settings_applied": True})


@router.post("/agent-profiles/{name}/materialize")
async def materialize(state: StateDependency, name: Name) -> JSONResponse:
    """What an agent of this profile would have now, without its keys, and what it lacks."""
    profile, current = _found(state, name), state.settings_store.read()
    llm = state.profiles.all().get(profile.llm_profile_ref)
    missing = dangling(profile, current)
    errors = [f"LLM profile '{profile.llm_profile_ref}' not found"] if llm is None else []
    errors += [f"MCP server '{server}' not found" for server in missing]
    resolved = None if errors else agent_settings(profile, state.profiles, current)
    diagnostics: dict[str, Any] = {
        "agent_kind": profile.agent_kind,
        "valid": not errors,
        "errors": errors,
        "llm_profile_ref": profile.llm_profile_ref,
        "llm_profile_resolved": llm is not None,
        "llm_api_key_set": llm is not None and llm.api_key is not None,
        "mcp_server_refs": profile.mcp_server_refs,
        "resolved_mcp_config_keys": [] if resolved is None else list(resolved.mcp_config),
        "dangling_mcp_server_refs": missing,
        "resolved_settings": None if resolved is None else render(resolved, Exposure.REDACTED, state.cipher),
    }
    return JSONResponse(diagnostics)


def launched(state: RuntimeState, id: UUID, *, model: str | None = None) -> tuple[AgentProfile, AgentSettings]:
    """The profile and what its agent has, with the model of another LLM profile where one is named. Raises
    HTTPException: 404 for an unknown one, 422 for one that names a model or a server that is not there."""
    try:
        profile = state.agent_profiles.by_id(id)
    except ProfileNotFound:
        raise HTTPException(404, f"Agent profile '{id}' not found") from None
    if model is not None:
        profile = profile.model_copy(update={"llm_profile_ref": model})
    try:
        return profile, agent_settings(profile, state.profiles, state.settings_store.read())
    except ProfileNotFound as error:
        raise refused("agent_profile_id", f"{error}: agent profile '{profile.name}' or its start names it") from None


def with_agent(state: RuntimeState, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, Any] | None]:
    """A start request with its profile's agent in it, and what the conversation says of that profile. Raises
    HTTPException."""
    id = body.get("agent_profile_id")
    additions = body.get("agent_launch_additions")
    model = additions.get("llm_profile_ref") if isinstance(additions, Mapping) else None
    if model is not None and (id is None or not isinstance(model, str)):
        raise refused("agent_launch_additions", "llm_profile_ref is the name of a profile, and needs agent_profile_id")
    if id is None:
        return body, None
    if body.get("agent") is not None or body.get("agent_settings") is not None:
        raise refused("agent_profile_id", "give one of agent, agent_settings and agent_profile_id")
    try:
        profile, settings = launched(state, UUID(str(id)), model=model)
    except ValueError:
        raise refused("agent_profile_id", "agent_profile_id is no UUID") from None
    told = {
        "agent_profile_id": str(profile.id),
        "revision": profile.revision,
        "secret_refs": None,
        "llm_profile_ref": profile.llm_profile_ref,
    }
    given = {name: value for name, value in body.items() if name != "agent_profile_id"}
    return {**given, "agent_settings": settings}, told


def _found(state: RuntimeState, name: str) -> AgentProfile:
    try:
        return state.agent_profiles.get(name)
    except ProfileNotFound:
        raise HTTPException(404, f"Agent profile '{name}' not found") from None


def _told(name: str, what: str, status: int = 200) -> JSONResponse:
    return JSONResponse({"name": name, "message": f"Agent profile '{name}' {what}"}, status)
