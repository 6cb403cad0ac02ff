"""Entries of the audit log."""

from typing import Annotated

from pydantic import Field

from orchestrator.api.answers.base import Answer, Moment, NextPage
from orchestrator.domain.audit import ActorKind, Outcome


class AuditActor(Answer):
    """Who asked."""

    kind: ActorKind
    key: Annotated[
        str | None, Field(description="The API key, by its id; of a token an id that stands for its subject")
    ]
    user: Annotated[str | None, Field(description="The user that it speaks for, or acts for")]
    runtime: Annotated[str | None, Field(description="The runtime whose session key was shown")]
    subject: Annotated[str | None, Field(description="The `sub` of the token that was sent; null: it was a key")]


class AuditObject(Answer):
    """The first thing that was changed."""

    kind: Annotated[str, Field(description="Such as tenant, user, key, settings, secret, provider, conversation")]
    id: Annotated[str | None, Field(description="Its id or name; of a message that of its conversation")]
    user: Annotated[str | None, Field(description="Whose layer it is in; null: the tenant's, or in none")]


class AuditEntry(Answer):
    """One request that changed something, was refused, or was told something secret."""

    id: str
    at: Moment
    actor: AuditActor
    address: Annotated[str | None, Field(description="Of the peer that sent it; behind a proxy of yours, that one's")]
    verb: Annotated[str, Field(description="The method")]
    resource: Annotated[str, Field(description="The path, without its query")]
    object: Annotated[AuditObject | None, Field(description="Null where nothing changed that Nestor keeps")]
    outcome: Annotated[
        Outcome, Field(description="accepted; refused: nothing was done; failed: it broke off and may be done or not")
    ]
    code: Annotated[str | None, Field(description="Of the problem that it was answered with")]
    request_id: Annotated[str | None, Field(description="The X-Request-ID of its answer")]


class AuditPage(Answer):
    items: list[AuditEntry]
    next_page_id: NextPage
