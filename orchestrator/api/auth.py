"""Who sent this request. The credential is looked for in the order of outer-api.md 1 and makes a `Caller`, once."""

from contextlib import suppress
from dataclasses import replace
from typing import Annotated

import anyio
from fastapi import Depends, Request
from starlette.requests import HTTPConnection

from orchestrator.api import audited
from orchestrator.api.context import Services, services_of
from orchestrator.api.polled import is_polled
from orchestrator.domain.errors import Forbidden, InvalidRequest, NotFound, StoreUnavailable, Unauthenticated
from orchestrator.domain.ids import TenantId, UserId, parse_uuid
from orchestrator.domain.tenancy import Caller, KeyKind, Scope

_FOR_TENANT, _NATIVE = "X-Act-As-Tenant", "/api/v2/"
STANDS_SECONDS = 0.7  #: for which a key that was good may be told more
KEY_HEADERS = ("x-api-key", "x-access-token", "x-session-api-key")


def credential(request: HTTPConnection) -> str:
    """The key as it was sent. Raises `Unauthenticated` when there is none."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    for name in KEY_HEADERS:
        if text := request.headers.get(name, "").strip():
            return text
    raise Unauthenticated("no API key was sent", hint="send `Authorization: Bearer <key>`")


async def caller_of(request: Request) -> Caller:
    """The caller; kept with the request, so that it is looked up once, and counted once. Raises `Unauthenticated`,
    `LimitReached`."""
    state = request.scope.setdefault("state", {})
    if "caller" not in state:
        services = services_of(request)
        known = await services.tenancy.authenticate(credential(request))
        if not is_polled(request.method, request.url.path):
            await services.call_rates.take(known)  # before the audit log knows it: a flood would fill that
        state["caller"] = await _acting(request, services, known)
    caller: Caller = state["caller"]
    audited.by(caller)
    return caller


async def _acting(request: HTTPConnection, services: Services, caller: Caller) -> Caller:
    """The operator may speak for a tenant of the native API by naming it, as that tenant's own key would. Raises
    `Forbidden` for anybody else, `InvalidRequest`."""
    named = request.headers.get(_FOR_TENANT)
    if not named or not request.url.path.startswith(_NATIVE):
        return caller
    if caller.kind is not KeyKind.OPERATOR:
        raise Forbidden("only the operator's key may name a tenant", hint=f"leave {_FOR_TENANT} out")
    try:
        tenant = await services.tenancy.tenant(TenantId(parse_uuid(named, _FOR_TENANT)))
    except NotFound:
        raise InvalidRequest(f"{_FOR_TENANT} names no tenant", field=_FOR_TENANT) from None
    return replace(caller, tenant=tenant.id)


CallerOf = Annotated[Caller, Depends(caller_of)]


async def operator(caller: CallerOf) -> Caller:
    """Only the operator."""
    if caller.kind is not KeyKind.OPERATOR:
        raise Forbidden("this takes the operator's key")
    return caller


class Owner:
    """Whose things this request is about: a tenant, and one of its users where the key or the header names one."""

    def __init__(self, caller: Caller, tenant: TenantId, user: UserId | None) -> None:
        self.caller = caller
        self.tenant = tenant
        self.user = user

    def require(self, scope: Scope) -> None:
        """Raises `Forbidden` unless the key has the scope."""
        if scope not in self.caller.scopes:
            raise Forbidden(f"this key lacks the scope {scope}", hint="make a key with that scope")


async def owner_of(request: Request, caller: CallerOf) -> Owner:
    """A tenant or user key speaks for itself; a tenant key may act for one of its users (`X-Act-As-User`), the
    operator's for a tenant (`X-Act-As-Tenant`)."""
    scope = Scope.READ if request.method in ("GET", "HEAD") else Scope.WRITE
    owner = await _owner(request, services_of(request), caller, scope)
    audited.acting_for(owner.user)
    return owner


async def owner_for(websocket: HTTPConnection, services: Services, key: str | None) -> Owner:
    """Whose socket this is, for reading: by this key, or by the one in its headers. Raises `Unauthenticated`,
    `Forbidden`, `InvalidRequest`."""
    known = await services.tenancy.authenticate(key if key is not None else credential(websocket))
    caller = await _acting(websocket, services, known)
    return await _owner(websocket, services, caller, Scope.READ)


async def _owner(request: HTTPConnection, services: Services, caller: Caller, scope: Scope) -> Owner:
    return await owner_as(services, caller, request.headers.get("x-act-as-user"), scope)


async def owner_as(services: Services, caller: Caller, act_as: str | None, scope: Scope) -> Owner:
    """Whose things a caller means, who may act for a user. Raises `Forbidden`, `InvalidRequest`."""
    if caller.tenant is None:
        raise Forbidden(
            "this takes a tenant's or a user's key",
            hint=f"make one with POST /api/v2/tenants/{{id}}/api-keys, or name the tenant in {_FOR_TENANT}",
        )
    owner = Owner(caller, caller.tenant, caller.user)
    if act_as:
        if caller.kind is KeyKind.USER:
            raise Forbidden("only a tenant's key may act for a user")
        try:
            user = await services.tenancy.user(caller.tenant, UserId(parse_uuid(act_as, "X-Act-As-User")))
        except NotFound:
            raise InvalidRequest("X-Act-As-User names no user of this tenant", field="X-Act-As-User") from None
        owner = Owner(caller, caller.tenant, user.id)
    owner.require(scope)
    return owner


class Standing:
    """Whether the key that opened a stream is still good. For streams, which last longer than an answer does: asked
    before each look for something new, so that a revoked key is told nothing more."""

    def __init__(self, connection: HTTPConnection, services: Services, key: str | None = None) -> None:
        self._connection = connection
        self._services = services
        self._key = key  #: None: it is in a header
        self._looked = anyio.current_time()

    async def check(self) -> None:
        """Looks it up where that was not done for a moment. Raises as `owner_for`, but nothing while the state server
        is away: nobody can revoke a key then either."""
        if anyio.current_time() - self._looked > STANDS_SECONDS:
            with suppress(StoreUnavailable):
                await owner_for(self._connection, self._services, self._key)
            self._looked = anyio.current_time()


async def standing_of(request: Request) -> Standing:
    """Of the key of this request."""
    return Standing(request, services_of(request))


OwnerOf = Annotated[Owner, Depends(owner_of)]
StandingOf = Annotated[Standing, Depends(standing_of)]
ServicesOf = Annotated[Services, Depends(services_of)]
