"""Tenants, users, API keys, and the caller that a request was sent by."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.domain.ids import KeyId, TenantId, UserId
from orchestrator.domain.spending import Budget


class KeyKind(enum.StrEnum):
    """Who a key speaks for. The text is the second part of the key itself: `nst_<kind>_<id>_<secret>`."""

    OPERATOR = "op"
    TENANT = "tenant"
    USER = "user"


class Scope(enum.StrEnum):
    """What a key may do. A key without explicit scopes may do all of its tenant's."""

    READ = "read"
    WRITE = "write"
    REVEAL = "secrets:reveal"


ALL_SCOPES: frozenset[Scope] = frozenset(Scope)


@dataclass(frozen=True)
class Tenant:
    id: TenantId
    name: str
    created_at: datetime
    #: What the operator allows this tenant in the place of what all are allowed (`domain/admission.py`, `Allowance`); 0
    #: for no limit.
    limits: Mapping[str, int] = field(default_factory=dict)
    #: The sizes of runtimes that its requests may ask for, in the place of those that all may (`domain/spares.py`). The
    #: first is that of a request which names none. Empty: as all.
    sizes: tuple[int, ...] = ()
    #: The images that its new conversations may use, ids by name; None: those that all may.
    images: Mapping[str, str] | None = None
    budget: Budget | None = None  #: what it may spend in a month; None: as much as it likes
    version: int = 1  #: grows with each change


@dataclass(frozen=True)
class User:
    id: UserId
    tenant: TenantId
    name: str
    external_id: str | None
    created_at: datetime


@dataclass(frozen=True)
class ApiKey:
    """A key as it is stored: the secret part only as a hash."""

    id: KeyId
    kind: KeyKind
    tenant: TenantId | None  #: None for an operator key
    user: UserId | None
    name: str
    secret_hash: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None = None
    revoked: bool = False

    @property
    def version(self) -> int:
        """The only change of a key is its end."""
        return 2 if self.revoked else 1


@dataclass(frozen=True)
class Caller:
    """Who sent this request. Made once, at the edge."""

    kind: KeyKind
    tenant: TenantId | None
    user: UserId | None
    scopes: frozenset[Scope]
    key: KeyId  #: of a token's caller: an id that stands for its subject
    expires_at: datetime | None = None
    subject: str | None = None  #: of the token that was sent in the place of a key
