"""What there is to choose from: tools, models, skills, hooks, forms of settings (contract 3.2, 7.4)."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError

from runtime.api.bodies import Body
from runtime.api.dependencies import StateDependency
from runtime.api.place import checked
from runtime.configuration.forms import form_of
from runtime.configuration.record import AgentSettings, ConversationSettings
from runtime.conversations.definition import DEFAULT_TOOLS
from runtime.conversations.hooks import HookConfig
from runtime.conversations.tools import KNOWN_TOOLS
from runtime.machine import account
from runtime.skills.loader import project_skills, user_skills

router = APIRouter(tags=["Catalogue"])

_TOOLS = {
    "terminal": "Run commands in one persistent shell.",
    "file_editor": "Look at files and change them.",
    "task_tracker": "Keep a list of tasks.",
}
_PRICES = "model_prices_and_context_window_backup.json"
_HOOKS_FILE = ".openhands/hooks.json"
_CAPITALS = re.compile("[A-Z]")
_MOST_HOOK_BYTES = 1 << 20


class SkillsWanted(Body):
    load_public: bool = True
    load_user: bool = True
    load_project: bool = True
    load_org: bool = True
    project_dir: str | None = Field(default=None, max_length=4096)


class ProjectWanted(Body):
    project_dir: str | None = Field(default=None, max_length=4096)


@router.get("/tools/")
async def tools() -> list[str]:
    return list(KNOWN_TOOLS)


@router.get("/tools/catalog")
async def tool_catalog() -> JSONResponse:
    found = [
        {
            "name": name,
            "user_selectable": True,
            "usable": True,
            "description": _TOOLS.get(name, ""),
            "in_default_set": name in DEFAULT_TOOLS,
        }
        for name in KNOWN_TOOLS
    ]
    return JSONResponse({"tools": found})


@router.get("/llm/providers")
async def providers() -> JSONResponse:
    """Every provider that the model library knows."""
    return JSONResponse({"providers": sorted(await asyncio.to_thread(_models))})


@router.get("/llm/models")
async def models(provider: str | None = None) -> JSONResponse:
    """Every model of the library's own list, or those of one provider."""
    known = await asyncio.to_thread(_models)
    wanted = known.get(provider, ()) if provider is not None else [one for found in known.values() for one in found]
    return JSONResponse({"models": sorted(wanted)})


@router.get("/llm/models/verified")
async def verified_models() -> JSONResponse:
    """None: nobody has verified models with this runtime, and a list of guesses would say that somebody had."""
    return JSONResponse({"models": {}})


@router.post("/skills")
async def skills(state: StateDependency, body: SkillsWanted) -> JSONResponse:
    """Skills of the project and the user. Public ones and those of an organisation would have to be fetched: none."""
    own = await account.in_thread(user_skills, account.home()) if body.load_user else []
    project = []
    if body.load_project and body.project_dir is not None:
        project = await account.in_thread(project_skills, checked(state, body.project_dir))
    by_name = {skill.name: skill for skill in (*own, *project)}  # a project's own comes first
    sources = {"public": 0, "user": len(own), "project": len(project), "org": 0, "sandbox": 0}
    return JSONResponse({"skills": [skill.shown for skill in by_name.values()], "sources": sources})


@router.post("/hooks")
async def hooks(state: StateDependency, body: ProjectWanted) -> JSONResponse:
    """The hooks that a project asks for in its own file; they run only when a conversation is started with them."""
    if body.project_dir is None:
        return JSONResponse({"hook_config": None})
    path = checked(state, f"{checked(state, body.project_dir)}/{_HOOKS_FILE}")  # also where the links in it lead
    content = await account.in_thread(_bounded, path)
    if content is None:
        return JSONResponse({"hook_config": None})
    try:
        found = HookConfig.model_validate(_inner(json.loads(content)))
    except (ValueError, ValidationError):
        raise HTTPException(422, f"{_HOOKS_FILE} of the project is not a hook configuration") from None
    return JSONResponse({"hook_config": found.model_dump(mode="json", by_alias=True)})


@router.get("/settings/agent-schema")
async def agent_schema() -> JSONResponse:
    return JSONResponse(_form(AgentSettings))


@router.get("/settings/conversation-schema")
async def conversation_schema() -> JSONResponse:
    return JSONResponse(_form(ConversationSettings))


@cache
def _form(model: type[BaseModel]) -> dict[str, Any]:
    return form_of(model)


@cache
def _models() -> dict[str, list[str]]:
    """By provider, read from the list that the library brings; the library itself is not imported."""
    found = importlib.util.find_spec("litellm")
    folders = list(found.submodule_search_locations or ()) if found is not None else []
    known: dict[str, list[str]] = {}
    for folder in folders:
        listed = json.loads((Path(folder) / _PRICES).read_bytes())
        for name, entry in listed.items():
            if name != "sample_spec" and isinstance(entry, dict) and entry.get("mode") in ("chat", "responses"):
                known.setdefault(str(entry.get("litellm_provider")), []).append(name)
    return known


def _bounded(path: Path) -> bytes | None:
    try:
        if not path.is_file() or path.stat().st_size > _MOST_HOOK_BYTES:
            return None
        return path.read_bytes()
    except OSError:
        return None


def _inner(content: Any) -> Any:
    """The file may name its points as Claude Code does, below `hooks`, or as the wire does."""
    given = content.get("hooks", content) if isinstance(content, dict) else content
    if not isinstance(given, dict):
        return given
    return {_CAPITALS.sub(lambda match: f"_{match[0].lower()}", key).lstrip("_"): value for key, value in given.items()}
