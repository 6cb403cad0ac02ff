"""Tenants, users and API keys."""

from typing import Annotated

from pydantic import Field

from orchestrator.api.answers.base import MISSING, Answer, Moment, NextPage, Version
from orchestrator.domain.spending import WhenReached
from orchestrator.domain.tenancy import KeyKind, Scope


class GrantedImage(Answer):
    """An image that a tenant's new conversations may use."""

    name: str
    id: Annotated[str, Field(description="The engine's own, a digest of all that is in it")]


class Budget(Answer):
    """What may be used of models in a calendar month of UTC; null: no limit."""

    monthly_usd: float | None
    monthly_tokens: Annotated[int | None, Field(description="Of prompts and answers together")]
    monthly_usd_per_user: Annotated[float | None, Field(description="By each user")]
    monthly_tokens_per_user: int | None
    thresholds: Annotated[list[int], Field(description="Percents that webhooks are told of when they are reached")]
    when_reached: Annotated[WhenReached, Field(description="Whether what runs is paused, beside refusing starts")]


class Tenant(Answer):
    """A customer: owns users, keys, limits."""

    id: str
    name: str
    limits: Annotated[
        dict[str, int], Field(description="In the place of what all are allowed, by name; 0 for no limit")
    ]
    sizes: Annotated[list[int], Field(description="The first is for requests that name none; empty: as all")]
    images: Annotated[list[GrantedImage] | None, Field(description="Null: as all")]
    budget: Annotated[Budget | None, Field(description="Null: none")]
    version: Version
    created_at: Moment


class TenantPage(Answer):
    items: Annotated[list[Tenant | None], Field(description=MISSING)]
    next_page_id: NextPage


class User(Answer):
    """A person or service of a tenant."""

    id: str
    name: str
    external_id: Annotated[str | None, Field(description="The tenant's own name for it")]
    tenant: str
    created_at: Moment


class UserPage(Answer):
    items: Annotated[list[User | None], Field(description=MISSING)]
    next_page_id: NextPage


class ApiKey(Answer):
    """An API key without its text."""

    id: str
    name: str
    kind: KeyKind
    user: Annotated[str | None, Field(description="The user that it speaks for; null: the tenant")]
    scopes: list[Scope]
    created_at: Moment
    expires_at: Moment | None
    revoked: bool


class NewApiKey(ApiKey):
    """An API key with its text, which is shown this once."""

    key: str


class ApiKeyPage(Answer):
    items: Annotated[list[ApiKey | None], Field(description=MISSING)]
    next_page_id: NextPage
