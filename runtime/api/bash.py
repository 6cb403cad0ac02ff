"""Commands of callers over HTTP (contract 7.1). The public client polls ten times a second, so the search is cheap."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import islice
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from runtime.api.bodies import MOST_IDS, Body
from runtime.api.dependencies import StateDependency
from runtime.api.parsing import refused
from runtime.api.place import PlaceDependency
from runtime.events.clock import micros_of
from runtime.machine.commands import Record, UnknownCommand

router = APIRouter(tags=["Bash"])

_NOT_FOUND = HTTPException(404, "Not Found")


class Wanted(Body):
    """A command to run; `timeout` in seconds."""

    command: str = Field(min_length=1, max_length=1_000_000)
    cwd: str | None = Field(default=None, max_length=4096)
    timeout: int = Field(default=300, ge=0, le=86_400)


@router.post("/bash/start_bash_command")
async def start(state: StateDependency, place: PlaceDependency, body: Wanted) -> JSONResponse:
    """Start it; its output is read by the search."""
    record = await state.commands.start(body.command, directory=body.cwd or _own(place), seconds=body.timeout)
    return JSONResponse({**record, "cwd": body.cwd})


@router.post("/bash/execute_bash_command")
async def execute(state: StateDependency, place: PlaceDependency, body: Wanted) -> JSONResponse:
    """Start it and wait for its end."""
    last = await state.commands.execute(body.command, directory=body.cwd or _own(place), seconds=body.timeout)
    return JSONResponse(last)


@router.post("/bash/bash_commands/{command_id}/stop")
async def stop(state: StateDependency, place: PlaceDependency, command_id: UUID) -> JSONResponse:
    try:
        await state.commands.stop(command_id.hex)
    except UnknownCommand:
        raise _NOT_FOUND from None
    return JSONResponse({"success": True})


@router.get("/bash/bash_events/search")
async def search(
    state: StateDependency,
    place: PlaceDependency,
    kind__eq: Literal["BashCommand", "BashOutput"] | None = None,
    command_id__eq: UUID | None = None,
    timestamp__gte: datetime | None = None,
    timestamp__lt: datetime | None = None,
    order__gt: int | None = None,
    sort_order: Literal["TIMESTAMP", "TIMESTAMP_DESC"] = "TIMESTAMP",
    page_id: str | None = None,
    limit: Annotated[int, Query(gt=0, le=100)] = 100,
) -> JSONResponse:
    def wanted(event: Record) -> bool:
        if kind__eq is not None and event["kind"] != kind__eq:
            return False
        if order__gt is not None and event.get("order", -1) <= order__gt:
            return False
        return _within(event, timestamp__gte, timestamp__lt)

    command = command_id__eq.hex if command_id__eq is not None else None
    found = [event for event in state.commands.events(command) if wanted(event)]
    if sort_order == "TIMESTAMP_DESC":
        found.reverse()
    first = 0
    if page_id is not None:
        first = next((place for place, event in enumerate(found) if event["id"] == page_id), -1)
        if first < 0:
            raise HTTPException(400, "page_id names no event of this search; start again without it")
    page = list(islice(found, first, first + limit + 1))
    following = page[limit]["id"] if len(page) > limit else None
    return JSONResponse({"items": page[:limit], "next_page_id": following})


@router.get("/bash/bash_events/")
async def several(request: Request, state: StateDependency, place: PlaceDependency) -> JSONResponse:
    """The events of the ids in the body, a JSON array; null for a miss."""
    try:
        ids = json.loads(await request.body())
    except (ValueError, RecursionError):
        ids = None
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids) or len(ids) > MOST_IDS:
        raise refused(None, f"the body must be a JSON array of up to {MOST_IDS} event ids")
    return JSONResponse([_found(state, one) for one in ids])


@router.get("/bash/bash_events/{event_id}")
async def get(state: StateDependency, place: PlaceDependency, event_id: str) -> JSONResponse:
    found = _found(state, event_id)
    if found is None:
        raise _NOT_FOUND
    return JSONResponse(found)


@router.delete("/bash/bash_events")
async def clear(state: StateDependency, place: PlaceDependency) -> JSONResponse:
    """Forget every command that has ended."""
    return JSONResponse({"cleared_count": await state.commands.clear()})


def _own(place: PlaceDependency) -> str | None:
    """None for the runtime's own: its service knows it."""
    return str(place.directory) if place.conversation is not None else None


def _found(state: StateDependency, event_id: str) -> dict[str, Any] | None:
    try:
        return state.commands.get(event_id.replace("-", ""))
    except UnknownCommand:
        return None


def _within(event: Record, since: datetime | None, before: datetime | None) -> bool:
    if since is None and before is None:
        return True
    at = micros_of(datetime.fromisoformat(event["timestamp"]))
    return (since is None or at >= micros_of(since)) and (before is None or at < micros_of(before))
