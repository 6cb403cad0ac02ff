"""Webhooks and their deliveries."""

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.api.answers.base import MISSING, Answer, Moment, NextPage, Version
from orchestrator.domain.hooks import HookEvent, Outcome


class WebhookSecret(Answer):
    """One of those that sign, without its value."""

    number: Annotated[int, Field(description="Grows with each rotation")]
    expires_at: Moment | None


class Webhook(Answer):
    """Where a tenant wants to be told, and how that does."""

    id: str
    url: str
    events: Annotated[list[HookEvent], Field(description="Empty: all")]
    description: str
    enabled: bool
    disabled_reason: Annotated[str | None, Field(description="requested, gone or failing")]
    secrets: list[WebhookSecret]
    waiting: Annotated[int, Field(description="Events that are not delivered yet")]
    waiting_bytes: int
    failures: Annotated[int, Field(description="In a row")]
    failing_since: Moment | None
    next_attempt_at: Moment | None
    version: Version
    created_at: Moment
    updated_at: Moment


class NewWebhook(Webhook):
    """A webhook with its new secret, which is shown this once."""

    secret: str


class WebhookPage(Answer):
    items: Annotated[list[Webhook | None], Field(description=MISSING)]
    next_page_id: NextPage


class Delivery(Answer):
    """One attempt to tell an event."""

    id: str
    event_id: str
    type: str
    sequence: int | None
    conversation_id: Annotated[str | None, Field(description="Null: it is about no conversation")]
    attempt: int
    state: Outcome
    status: Annotated[int | None, Field(description="Of the receiver's answer; null: there was none")]
    problem: str | None
    milliseconds: int
    at: Moment | None


class DeliveryPage(Answer):
    items: Annotated[list[Delivery | None], Field(description=MISSING)]
    next_page_id: NextPage


class Redelivery(Answer):
    """An event that is told once more."""

    event_id: str
    type: str
    state: Literal["queued"]


class Redeliveries(Answer):
    """Events that are told once more."""

    queued: Annotated[int, Field(description="How many")]
    first_sequence: int | None
    last_sequence: int | None
    complete: Annotated[bool, Field(description="False: older ones are not in the delivery log any more")]
