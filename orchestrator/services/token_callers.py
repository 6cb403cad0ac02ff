"""Whom a token of the operator's own issuer speaks for: a user of a tenant, with scopes. Never the operator.

The tenant has to be there. Its user is the one whose external id the token names, or whose id; where the operator wants
it, one who is not there yet is made. Both are looked up at each request. The caller has an id in the place of a key's:
the same for every token of one subject, so that rates and idempotency keys are a subject's.
"""

import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from orchestrator.domain.clock import Clock
from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.ids import KeyId, TenantId, UserId, new_uuid, parse_uuid
from orchestrator.domain.tenancy import Caller, KeyKind, Scope, User
from orchestrator.security.tokens import refused
from orchestrator.state.base import Tenants

_SPACE = uuid.UUID("6f6b4a52-3f0e-5d0c-9a55-6a6a0d1a7f41")
LONGEST_NAME = 200  #: characters, as external ids may have


@dataclass(frozen=True)
class Reading:
    """Which claims say what. `user` empty: a token speaks for its whole tenant."""

    tenant: str
    user: str
    scopes: str
    default_scopes: frozenset[Scope]  #: of a token without that claim
    makes_users: bool


class TokenCallers:
    def __init__(
        self, claims: Callable[[str], Awaitable[Mapping[str, Any]]], reading: Reading, store: Tenants, clock: Clock
    ) -> None:
        self._claims = claims
        self._reading = reading
        self._store = store
        self._clock = clock

    async def caller(self, text: str) -> Caller:
        """Raises `Unauthenticated`, `KeysUnavailable`."""
        claims = await self._claims(text)
        subject = _name(claims, "sub")
        tenant = await self._tenant(claims)
        user = await self._user(tenant, _name(claims, self._reading.user)) if self._reading.user else None
        spoken = json.dumps([claims["iss"], tenant, user, subject])
        return Caller(
            KeyKind.TENANT if user is None else KeyKind.USER,
            tenant,
            user,
            self._scopes(claims),
            KeyId(str(uuid.uuid5(_SPACE, spoken))),
            datetime.fromtimestamp(claims["exp"], UTC),
            subject,
        )

    async def _tenant(self, claims: Mapping[str, Any]) -> TenantId:
        try:
            id = TenantId(parse_uuid(_name(claims, self._reading.tenant)))
        except InvalidRequest:
            id = None
        if id is None or await self._store.tenant(id) is None:
            raise refused(f"its {self._reading.tenant} is no tenant here")
        return id

    async def _user(self, tenant: TenantId, name: str) -> UserId:
        if (found := await self._store.external_user(tenant, name)) is not None:
            return found.id
        try:
            found = await self._store.user(tenant, UserId(parse_uuid(name)))
        except InvalidRequest:
            found = None
        if found is None and self._reading.makes_users:
            found = await self._store.add_user(User(UserId(new_uuid()), tenant, name, name, self._clock.now()))
        if found is None:
            raise refused(f"its {self._reading.user} is no user of its tenant")
        return found.id

    def _scopes(self, claims: Mapping[str, Any]) -> frozenset[Scope]:
        """Names that are not ours are another program's."""
        if self._reading.scopes not in claims:
            return self._reading.default_scopes
        value = claims[self._reading.scopes]
        named = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
        return frozenset(scope for scope in Scope if scope in named)


def _name(claims: Mapping[str, Any], claim: str) -> str:
    value = claims.get(claim)
    if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_NAME or not value.isprintable():
        raise refused(f"its {claim} is no text of 1 to {LONGEST_NAME} printable characters")
    return value
