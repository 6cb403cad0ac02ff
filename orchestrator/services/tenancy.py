"""Tenants, users, API keys, and who a key speaks for."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from orchestrator.domain.clock import Clock
from orchestrator.domain.conditions import ALWAYS, Condition
from orchestrator.domain.errors import Conflict, InvalidRequest, NotApart, NotFound, Unauthenticated
from orchestrator.domain.ids import REPEATABLE_FOR, KeyId, TenantId, UserId, new_uuid
from orchestrator.domain.secrets import SecretText
from orchestrator.domain.spending import Budget
from orchestrator.domain.tenancy import ALL_SCOPES, ApiKey, Caller, KeyKind, Scope, Tenant, User
from orchestrator.security import session_keys
from orchestrator.security.tokens import is_token
from orchestrator.state.base import EVER, Page, Span, Tenants

_OPERATOR_ID = KeyId("00000000-0000-4000-8000-000000000001")
_TRIES = 8


@dataclass(frozen=True)
class TenantChange:
    """What the operator gives a tenant in the place of what all have. A limit of None, no sizes, and images of None:
    as all; a budget of None: none. What is left out stays."""

    limits: Mapping[str, int | None] = field(default_factory=dict)
    sizes: Sequence[int] | None = None  #: None: they stay
    images: Mapping[str, str] | None = None  #: ids by name
    with_images: bool = False  #: else they stay
    budget: Budget | None = None
    with_budget: bool = False  #: else it stays

    def of(self, present: Tenant) -> Tenant:
        merged = {**present.limits, **self.limits}
        return replace(
            present,
            limits={name: limit for name, limit in merged.items() if limit is not None},
            sizes=present.sizes if self.sizes is None else tuple(dict.fromkeys(self.sizes)),
            images=self.images if self.with_images else present.images,
            budget=self.budget if self.with_budget else present.budget,
        )


class Tenancy:
    """The use cases of operators and of tenants about who there is."""

    def __init__(
        self,
        store: Tenants,
        clock: Clock,
        *,
        operator_key: SecretText | None = None,
        refusal: Callable[[], str | None] = lambda: None,
        hint: Callable[[], str] = lambda: "",
        sizes: Collection[int] = (1,),
        by_token: Callable[[str], Awaitable[Caller]] | None = None,
    ) -> None:
        """`refusal` says why there may be no second tenant, `hint` what to do about it. `sizes` are those that runtimes
        can have here. `by_token`: whom a JWT speaks for; None where none is taken."""
        self._by_token = by_token
        self._sizes = sizes
        self._refusal = refusal
        self._hint = hint
        self._store = store
        self._clock = clock
        self._operator_key = operator_key

    async def ensure_operator_key(self) -> SecretText | None:
        """The operator key to show: a new one at the very first start without a configured one, otherwise None."""
        if self._operator_key is not None or await self._store.key(_OPERATOR_ID) is not None:
            return None
        key, text = _minted(KeyKind.OPERATOR, None, None, "operator", ALL_SCOPES, self._clock.now(), None, _OPERATOR_ID)
        await self._store.add_key(key)
        return text

    async def create_tenant(self, name: str, *, id: str | None = None) -> Tenant:
        """Raises `NotApart` for a second one where tenants would not be kept apart. `id` is that of a request which may
        be repeated: the tenant of this name that it made is answered again."""
        present = await self._store.tenant(TenantId(id)) if id is not None else None
        if present is not None and present.name == name:
            return present
        refusal = self._refusal()
        if refusal is not None and (await self._store.list_tenants(cursor=None, limit=1)).items:
            raise NotApart(f"there may be no second tenant: {refusal}", hint=self._hint())
        free = TenantId(id) if id is not None and present is None else TenantId(new_uuid())
        return await self._store.add_tenant(Tenant(free, name, self._clock.now()))

    async def tenant(self, id: TenantId) -> Tenant:
        """Raises `NotFound`."""
        found = await self._store.tenant(id)
        if found is None:
            raise NotFound("there is no such tenant")
        return found

    async def change_tenant(self, id: TenantId, wanted: TenantChange, *, condition: Condition = ALWAYS) -> Tenant:
        """Change what this tenant is allowed, all of it in one step. It counts from the next start on, sizes and images
        from the next conversation, and ends nothing. Raises `NotFound`, `PreconditionFailed`, `Conflict`,
        `InvalidRequest` for a size that runtimes cannot have here."""
        for size in wanted.sizes or ():
            if size not in self._sizes:
                known = ", ".join(map(str, sorted(self._sizes)))
                raise InvalidRequest(f"there is no size {size} here", field="sizes", hint=f"sizes are {known}")
        for _ in range(_TRIES):
            present = await self.tenant(id)
            condition.check(present.version, "the tenant")
            changed = wanted.of(present)
            if changed == present:
                return present
            changed = replace(changed, version=present.version + 1)
            if await self._store.change_tenant(changed, expected_version=present.version, at=self._clock.now()):
                return changed
        raise Conflict("the tenant is being changed by somebody else", hint="try again")

    async def tenants(
        self, *, cursor: str | None, limit: int, span: Span = EVER, oldest_first: bool = True
    ) -> Page[Tenant]:
        return await self._store.list_tenants(cursor=cursor, limit=limit, span=span, oldest_first=oldest_first)

    async def many_tenants(self, ids: Sequence[TenantId]) -> list[Tenant | None]:
        """In that order; None for one that is not there."""
        return [await self._store.tenant(id) for id in ids]

    async def tenant_count(self, span: Span = EVER) -> int:
        return await self._store.count_tenants(span)

    async def create_user(self, tenant: TenantId, name: str, external_id: str | None, *, id: str | None = None) -> User:
        """Idempotent by `external_id`. `id` is that of a request which may be repeated: the user of this name that it
        made is answered again."""
        await self.tenant(tenant)
        present = await self._store.user(tenant, UserId(id)) if id is not None else None
        if present is not None and (present.name, present.external_id) == (name, external_id):
            return present
        free = UserId(id) if id is not None and present is None else UserId(new_uuid())
        return await self._store.add_user(User(free, tenant, name, external_id, self._clock.now()))

    async def user(self, tenant: TenantId, id: UserId) -> User:
        """Raises `NotFound`."""
        found = await self._store.user(tenant, id)
        if found is None:
            raise NotFound("there is no such user")
        return found

    async def external_user(self, tenant: TenantId, external_id: str) -> User | None:
        """The one that has this name of the tenant's own."""
        await self.tenant(tenant)
        return await self._store.external_user(tenant, external_id)

    async def users(
        self, tenant: TenantId, *, cursor: str | None, limit: int, span: Span = EVER, oldest_first: bool = True
    ) -> Page[User]:
        await self.tenant(tenant)
        return await self._store.list_users(tenant, cursor=cursor, limit=limit, span=span, oldest_first=oldest_first)

    async def many_users(self, tenant: TenantId, ids: Sequence[UserId]) -> list[User | None]:
        """In that order; None for one that is not there."""
        await self.tenant(tenant)
        return [await self._store.user(tenant, id) for id in ids]

    async def user_count(self, tenant: TenantId, span: Span = EVER) -> int:
        await self.tenant(tenant)
        return await self._store.count_users(tenant, span)

    async def create_key(
        self,
        tenant: TenantId,
        name: str,
        *,
        scopes: frozenset[Scope],
        user: UserId | None,
        expires_at: datetime | None,
        id: str | None = None,
    ) -> tuple[ApiKey, SecretText]:
        """A key for the tenant, or for one of its users. The text is shown here and nowhere else, ever.

        `id` is that of a request which may be repeated. The key that it made not long ago gets another text: whoever
        asks again has never seen the first.
        """
        await self.tenant(tenant)
        if user is not None:
            await self.user(tenant, user)
        if expires_at is not None and expires_at <= self._clock.now():
            raise InvalidRequest("expires_at is in the past", field="expires_at")
        kind = KeyKind.USER if user is not None else KeyKind.TENANT
        wanted = partial(_minted, kind, tenant, user, name, scopes, self._clock.now(), expires_at)
        present = await self._store.key(KeyId(id)) if id is not None else None
        if id is not None and present is not None:
            key, text = wanted(KeyId(id))
            made_by_it = replace(present, secret_hash=key.secret_hash, created_at=key.created_at) == key
            if made_by_it and key.created_at - present.created_at < REPEATABLE_FOR:
                if await self._store.replace_key(present, key):
                    return key, text
                raise Conflict("the key was changed while it was made", hint="try again with another Idempotency-Key")
        key, text = wanted(KeyId(id) if id is not None and present is None else KeyId(new_uuid()))
        await self._store.add_key(key)
        return key, text

    async def key(self, tenant: TenantId, id: KeyId) -> ApiKey:
        """One of this tenant's. Raises `NotFound`."""
        await self.tenant(tenant)
        found = await self._store.key(id)
        if found is None or found.tenant != tenant:
            raise NotFound("there is no such key")
        return found

    async def keys(self, tenant: TenantId) -> Sequence[ApiKey]:
        await self.tenant(tenant)
        return await self._store.list_keys(tenant)

    async def revoke_key(self, tenant: TenantId, id: KeyId, *, condition: Condition = ALWAYS) -> None:
        """At once, on every replica. Raises `NotFound`, `PreconditionFailed`."""
        if condition.is_some:  # nothing else changes of a key: what is true now is true when it is revoked
            condition.check((await self.key(tenant, id)).version, "the key")
        if not await self._store.revoke_key(tenant, id):
            raise NotFound("there is no such key")

    async def authenticate(self, text: str) -> Caller:
        """Who sends this key, or this token where such are taken. Raises `Unauthenticated`, in the same words whatever
        is wrong with a key; `KeysUnavailable`."""
        if self._operator_key is not None and self._operator_key.matches(text):
            return Caller(KeyKind.OPERATOR, None, None, ALL_SCOPES, _OPERATOR_ID)
        if self._by_token is not None and is_token(text):
            return await self._by_token(text)
        refused = Unauthenticated("the API key is not valid", hint="send a valid key in `Authorization: Bearer`")
        parsed = session_keys.parse(text)
        if parsed is None:
            raise refused
        kind, id, secret = parsed
        stored = await self._store.key(KeyId(id))
        matches = session_keys.matches(secret, stored.secret_hash if stored else session_keys.hash_key(""))
        if stored is None or not matches or stored.kind != kind or stored.revoked or self._expired(stored):
            raise refused
        return Caller(stored.kind, stored.tenant, stored.user, stored.scopes, stored.id, stored.expires_at)

    def _expired(self, key: ApiKey) -> bool:
        return key.expires_at is not None and key.expires_at <= self._clock.now()


def _minted(
    kind: KeyKind,
    tenant: TenantId | None,
    user: UserId | None,
    name: str,
    scopes: frozenset[Scope],
    now: datetime,
    expires_at: datetime | None,
    id: KeyId,
) -> tuple[ApiKey, SecretText]:
    text = session_keys.mint(kind, id)
    parsed = session_keys.parse(text.open())
    if parsed is None:
        raise ValueError("a key that was just made must parse")
    secret_hash = session_keys.hash_secret(parsed[2])
    return ApiKey(id, kind, tenant, user, name, secret_hash, scopes, now, expires_at), text
