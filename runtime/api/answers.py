"""Shared by the routes of conversations and events: ids in paths, refusals as HTTP errors, JSON as text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated
from uuid import UUID

from fastapi import HTTPException, Path
from fastapi.responses import Response

from runtime.conversations.agents import CapacityFull
from runtime.conversations.availability import ELSEWHERE
from runtime.conversations.library import ConversationNotFound
from runtime.conversations.ownership import OwnedElsewhere
from runtime.conversations.runs import AlreadyRunning
from runtime.conversations.workspaces import WorkspaceUnusable

ConversationId = Annotated[UUID, Path(description="With or without dashes.")]

NOT_FOUND = "Not Found"
ALREADY_RUNNING = "Conversation already running. Wait for completion or pause first."
CAPACITY = "Too many conversations are running. Wait until one has ended and start the run again."


@contextmanager
def refusals() -> Iterator[None]:
    """Turns what the service raises into the contract's answers."""
    try:
        yield
    except ConversationNotFound:
        raise HTTPException(404, NOT_FOUND) from None
    except OwnedElsewhere:
        raise HTTPException(409, ELSEWHERE) from None
    except AlreadyRunning:
        raise HTTPException(409, ALREADY_RUNNING) from None
    except CapacityFull:
        raise HTTPException(429, CAPACITY, headers={"Retry-After": "5"}) from None
    except WorkspaceUnusable as error:
        raise HTTPException(422, str(error)) from None


def json_text(body: bytes) -> Response:
    """An answer whose JSON exists already: log lines are sent as they were stored."""
    return Response(body, media_type="application/json")
