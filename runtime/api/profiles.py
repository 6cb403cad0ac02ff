"""Profiles: named models, saved, shown, renamed, taken over into the settings or a conversation."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header, HTTPException, Path
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.requests import Request

from runtime.api.answers import ConversationId, refusals
from runtime.api.bodies import Body
from runtime.api.dependencies import StateDependency
from runtime.api.parsing import json_object, validated
from runtime.api.settings import requested_exposure
from runtime.configuration.merge import unmasked
from runtime.configuration.profiles import ProfileExists, ProfileNotFound
from runtime.configuration.record import LlmSettings
from runtime.store.exposure import Exposure, Opening, render

log = structlog.get_logger()
router = APIRouter(tags=["Profiles"])

_RULE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Name = Annotated[str, Path(pattern=_RULE)]
_SECRETS = ("api_key", "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "extra_headers")


class Saved(Body):
    """`include_secrets` false: the model without its keys."""

    llm: LlmSettings
    include_secrets: bool = True


class Renamed(Body):
    new_name: Annotated[str, Field(pattern=_RULE)]


class Chosen(Body):
    profile_name: Annotated[str, Field(pattern=_RULE)]


@router.get("/profiles")
async def every(state: StateDependency) -> JSONResponse:
    found = [
        {
            "name": name,
            "model": llm.model,
            "base_url": llm.base_url,
            "provider_connection_id": None,
            "provider_connection_broken": False,
            "api_key_set": llm.api_key is not None,
        }
        for name, llm in state.profiles.all().items()
    ]
    return JSONResponse({"profiles": found, "active_profile": state.settings_store.read().active_profile})


@router.get("/profiles/{name}")
async def get(
    state: StateDependency, name: Name, x_expose_secrets: Annotated[str | None, Header()] = None
) -> JSONResponse:
    """The model, its keys as the header asks for them."""
    exposure = requested_exposure(state, x_expose_secrets)
    llm = _found(state, name)
    if exposure is Exposure.PLAINTEXT:
        log.warning("profile.exposed", profile=name)
    body = {"name": name, "config": render(llm, exposure, state.cipher), "api_key_set": llm.api_key is not None}
    return JSONResponse(body, headers={"Cache-Control": "no-store"})


@router.post("/profiles/{name}")
async def save(request: Request, state: StateDependency, name: Name) -> JSONResponse:
    """Save it, or replace the one of that name: then a key that comes back as the mask stays what it is. Tokens of this
    server are opened; an unreadable one is refused."""
    body = await json_object(request)
    if (stored := state.profiles.all().get(name)) is not None:
        body = unmasked({"llm": stored}, body)
    wanted = validated(Saved, body, opening=Opening(state.cipher))
    llm = wanted.llm if wanted.include_secrets else wanted.llm.model_copy(update=dict.fromkeys(_SECRETS))
    await asyncio.to_thread(state.profiles.put, name, llm)
    return _told(name, f"Profile '{name}' saved", 201)


@router.delete("/profiles/{name}")
def delete(state: StateDependency, name: Name) -> JSONResponse:
    try:
        state.profiles.delete(name)
    except ProfileNotFound as error:
        raise HTTPException(404, str(error)) from None
    if state.settings_store.read().active_profile == name:
        state.settings_store.change(lambda record: record.model_copy(update={"active_profile": None}))
    return _told(name, f"Profile '{name}' deleted")


@router.post("/profiles/{name}/rename")
def rename(state: StateDependency, name: Name, body: Renamed) -> JSONResponse:
    try:
        state.profiles.rename(name, body.new_name)
    except ProfileNotFound as error:
        raise HTTPException(404, str(error)) from None
    except ProfileExists as error:
        raise HTTPException(409, str(error)) from None
    if state.settings_store.read().active_profile == name:
        state.settings_store.change(lambda record: record.model_copy(update={"active_profile": body.new_name}))
    return _told(body.new_name, f"Profile '{name}' renamed to '{body.new_name}'")


@router.post("/profiles/{name}/activate")
def activate(state: StateDependency, name: Name) -> JSONResponse:
    """From now on the settings have this model."""
    llm = _found(state, name)
    state.settings_store.change(
        lambda record: record.model_copy(
            update={
                "active_profile": name,
                "agent_settings": record.agent_settings.model_copy(update={"llm": llm}),
            }
        )
    )
    message = f"Profile '{name}' activated and applied to current settings"
    return JSONResponse({"name": name, "message": message, "llm_applied": True})


@router.post("/profiles/{name}/validate")
async def validate(request: Request, state: StateDependency, name: Name) -> JSONResponse:
    """Whether the model could be saved under that name. No provider is asked."""
    validated(Saved, await json_object(request), opening=Opening(state.cipher))
    return JSONResponse({"valid": True, "error": None})


@router.post("/conversations/{conversation_id}/switch_profile")
async def switch_profile(state: StateDependency, conversation_id: ConversationId, body: Chosen) -> JSONResponse:
    """The profile's model from the next run on."""
    with refusals():
        state.conversations.record(conversation_id)
        llm = _found(state, body.profile_name)
        await state.conversations.switch_llm(conversation_id, llm)
    return JSONResponse({"success": True})


def _found(state: StateDependency, name: str) -> LlmSettings:
    try:
        return state.profiles.get(name)
    except ProfileNotFound as error:
        raise HTTPException(404, str(error)) from None


def _told(name: str, message: str, status: int = 200) -> JSONResponse:
    body: dict[str, Any] = {"name": name, "message": message}
    return JSONResponse(body, status)
