"""What changed in a repository, over HTTP (contract 7.3)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import JSONResponse

from runtime.api.dependencies import StateDependency
from runtime.api.place import PlaceDependency, checked
from runtime.machine import account
from runtime.machine.repositories import Repository
from runtime.machine.safe_git import GitFailed

router = APIRouter(tags=["Git"])
T = TypeVar("T")

Ref = Annotated[str | None, Query(max_length=250)]


@router.get("/git/changes")
async def changes(state: StateDependency, place: PlaceDependency, path: str, ref: Ref = None) -> JSONResponse:
    """Against `ref`, else against where the work began. A folder that does not exist has no changes."""
    folder = checked(state, path)

    def look() -> list[dict[str, str]]:
        if not os.path.isdir(folder):
            return []
        return Repository.around(folder, state.conversations.agent_environment()).changes(folder, ref)

    return JSONResponse(await _asked(look))


@router.get("/git/diff")
async def diff(state: StateDependency, place: PlaceDependency, path: str, ref: Ref = None) -> JSONResponse:
    """One file before and after."""
    file = checked(state, path)
    environment = state.conversations.agent_environment()
    return JSONResponse(await _asked(lambda: Repository.around(file, environment).diff(file, ref)))


@router.get("/git/commits")
async def commits(
    state: StateDependency, place: PlaceDependency, path: str, limit: Annotated[int, Query(gt=0, le=500)] = 50
) -> JSONResponse:
    folder = checked(state, path)
    environment = state.conversations.agent_environment()
    return JSONResponse(await _asked(lambda: Repository.around(folder, environment).commits(limit)))


@router.get("/git/commits/{sha}/changes")
async def commit_changes(state: StateDependency, place: PlaceDependency, sha: str, path: str) -> JSONResponse:
    folder = checked(state, path)
    environment = state.conversations.agent_environment()
    return JSONResponse(await _asked(lambda: Repository.around(folder, environment).commit_changes(sha)))


async def _asked(work: Callable[[], T]) -> T:
    try:
        return await account.in_thread(work)
    except GitFailed as failure:
        raise HTTPException(400, str(failure)) from None
