"""Where a machine route works: the runtime's workspace, or under `/conversations/{id}/` that of the conversation.

The same routes are served under both (contract 7.5), so that clients with one runtime a conversation need not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from uuid import UUID

from fastapi import Depends, HTTPException, Request

from runtime.api.answers import ConversationId, refusals
from runtime.api.dependencies import StateDependency
from runtime.api.parsing import refused
from runtime.machine.files import BadPath, Missing


@dataclass(frozen=True)
class Place:
    """`directory`: where a command starts that names none."""

    directory: Path
    conversation: UUID | None


async def conversation(conversation_id: ConversationId) -> UUID:
    """The parameter of the scoped routes, for the document and for its check."""
    return conversation_id


def _place(request: Request, state: StateDependency) -> Place:
    given = request.path_params.get("conversation_id")
    if given is None:
        return Place(state.settings.workspace_path.absolute(), None)
    try:
        wanted = UUID(given)
    except ValueError:
        raise refused("conversation_id", "the id must be a UUID") from None
    with refusals():
        record = state.conversations.record(wanted)
    return Place(Path(record.workspace.working_dir), wanted)


PlaceDependency = Annotated[Place, Depends(_place)]


def checked(state: StateDependency, text: str) -> Path:
    """The path, when this server may use it: 400 with the reason otherwise."""
    try:
        return state.boundaries.checked(text)
    except BadPath as error:
        raise HTTPException(400, str(error)) from None


def told(error: BadPath) -> HTTPException:
    """404 for what is not there, 400 for what cannot be used."""
    return HTTPException(404 if isinstance(error, Missing) else 400, str(error))
