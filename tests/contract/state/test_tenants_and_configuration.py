"""Tenants, users, API keys; settings, secrets, providers, data keys by layer."""

from dataclasses import replace
from datetime import timedelta

import anyio
import pytest

from orchestrator.domain.ids import KeyId, TenantId, UserId, new_uuid
from orchestrator.domain.secrets import SecretText
from orchestrator.domain.tenancy import ALL_SCOPES, ApiKey, KeyKind, Scope, Tenant, User
from orchestrator.security.envelope import Envelope, MasterKeys
from orchestrator.state.base import Span, Store, StoredProvider, StoredSecret

from .conftest import MOMENT, House

pytestmark = pytest.mark.anyio
TENANT, USER = TenantId(new_uuid()), UserId(new_uuid())


def a_user(external_id: str | None = None, tenant: TenantId = TENANT) -> User:
    return User(UserId(new_uuid()), tenant, "Ümit", external_id, MOMENT)


def a_key(tenant: TenantId | None = TENANT, **fields: object) -> ApiKey:
    key = ApiKey(KeyId(new_uuid()), KeyKind.TENANT, tenant, None, "ci", "hash", ALL_SCOPES, MOMENT)
    return replace(key, **fields)  # type: ignore[arg-type]


async def test_tenants_come_back_in_pages_oldest_first(house: House) -> None:
    made = [Tenant(TenantId(new_uuid()), f"t{n}", MOMENT + timedelta(seconds=n)) for n in range(5)]
    for tenant in reversed(made):
        await house.store.tenants.add_tenant(tenant)
    assert await house.other.tenants.tenant(made[0].id) == made[0]
    assert await house.other.tenants.tenant(TenantId(new_uuid())) is None
    seen: list[Tenant] = []
    page = await house.other.tenants.list_tenants(cursor=None, limit=2)
    seen += page.items
    while page.next_cursor is not None:
        page = await house.other.tenants.list_tenants(cursor=page.next_cursor, limit=2)
        seen += page.items
    assert seen == made
    last = await house.other.tenants.list_tenants(cursor=None, limit=2, oldest_first=False)
    rest = await house.other.tenants.list_tenants(cursor=last.next_cursor, limit=9, oldest_first=False)
    assert [*last.items, *rest.items] == made[::-1]


async def test_a_tenant_is_one_by_its_id(house: House) -> None:
    first = Tenant(TenantId(new_uuid()), "acme", MOMENT)
    assert await house.store.tenants.add_tenant(first) == first
    again = Tenant(first.id, "acme", MOMENT + timedelta(seconds=1))
    assert await house.other.tenants.add_tenant(again) == first
    assert (await house.store.tenants.list_tenants(cursor=None, limit=10)).items == [first]


async def test_a_tenant_that_is_there_is_changed(house: House) -> None:
    tenant = Tenant(TenantId(new_uuid()), "a", MOMENT, {"max_runtimes": 1})
    assert not await house.store.tenants.change_tenant(tenant, expected_version=1)
    assert await house.store.tenants.tenant(tenant.id) is None
    await house.store.tenants.add_tenant(tenant)
    changed = replace(tenant, limits={"max_runtimes": 5}, version=2)
    assert await house.store.tenants.change_tenant(changed, expected_version=1)
    assert not await house.other.tenants.change_tenant(replace(tenant, version=2), expected_version=1)
    assert await house.other.tenants.tenant(tenant.id) == changed


async def test_tenants_and_users_are_counted_and_found(house: House) -> None:
    store, early = house.store.tenants, Span(None, MOMENT)
    tenants = [Tenant(TenantId(new_uuid()), "t", MOMENT + timedelta(seconds=n)) for n in (-1, 0, 1)]
    for one in tenants:
        await store.add_tenant(one)
    assert (await store.count_tenants(), await store.count_tenants(early)) == (3, 1)
    assert (await store.list_tenants(cursor=None, limit=9, span=early)).items == tenants[:1]
    user = await store.add_user(a_user("ext"))
    newest = await store.list_tenants(cursor=None, limit=1, oldest_first=False)
    assert newest.items == tenants[-1:]
    assert (await store.count_users(TENANT), await store.count_users(TENANT, Span(user.created_at))) == (1, 1)
    assert await store.count_users(tenants[0].id) == 0
    assert (await store.list_users(TENANT, cursor=None, limit=9, oldest_first=False)).items == [user]
    assert await store.external_user(TENANT, "ext") == user
    assert await store.external_user(tenants[0].id, "ext") is None


async def test_what_changed_since_is_not_removed(house: House) -> None:
    c, name = house.store.configuration, "A"
    assert await c.put_secret(TENANT, None, StoredSecret(name, None, "s", 1), expected_version=0)
    assert not await c.delete_secret(TENANT, None, name, expected_version=2)
    assert await c.delete_secret(TENANT, None, name, expected_version=1)
    assert not await c.delete_secret(TENANT, None, name, expected_version=1)
    assert await c.put_provider(TENANT, None, StoredProvider("github", None, None, "s", 1), expected_version=0)
    assert not await c.delete_provider(TENANT, None, "github", expected_version=0)
    assert await c.delete_provider(TENANT, None, "github", expected_version=1)


async def test_a_user_is_one_by_external_id(house: House) -> None:
    stored = await house.store.tenants.add_user(a_user("ext"))
    assert await house.other.tenants.add_user(a_user("ext")) == stored
    elsewhere = await house.store.tenants.add_user(a_user("ext", TenantId(new_uuid())))
    assert elsewhere.id != stored.id
    nameless = [await house.store.tenants.add_user(a_user()) for _ in range(2)]
    assert await house.store.tenants.user(TENANT, stored.id) == stored
    assert await house.store.tenants.user(elsewhere.tenant, stored.id) is None
    users = await house.store.tenants.list_users(TENANT, cursor=None, limit=10)
    assert {user.id for user in users.items} == {stored.id, *(user.id for user in nameless)}


async def test_twenty_at_once_with_one_external_id_make_one_user(house: House) -> None:
    got: set[UserId] = set()

    async def add(store: Store) -> None:
        got.add((await store.tenants.add_user(a_user("same"))).id)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(add, house.store if number % 2 else house.other)
    assert len(got) == 1
    assert len((await house.store.tenants.list_users(TENANT, cursor=None, limit=10)).items) == 1


async def test_keys_are_found_by_id_and_revoked_for_every_replica(house: House) -> None:
    key = a_key(scopes=frozenset({Scope.READ}), expires_at=MOMENT, user=USER, kind=KeyKind.USER)
    operator = a_key(None, kind=KeyKind.OPERATOR)
    later = a_key(created_at=MOMENT + timedelta(seconds=1))
    for one in (later, key, operator):
        await house.store.tenants.add_key(one)
    assert await house.other.tenants.key(key.id) == key
    assert await house.other.tenants.key(operator.id) == operator
    assert await house.other.tenants.key(KeyId(new_uuid())) is None
    assert list(await house.other.tenants.list_keys(TENANT)) == [key, later]
    assert not await house.store.tenants.revoke_key(TenantId(new_uuid()), key.id)
    assert not await house.store.tenants.revoke_key(TENANT, KeyId(new_uuid()))
    assert await house.store.tenants.revoke_key(TENANT, key.id)
    assert await house.store.tenants.revoke_key(TENANT, key.id)
    assert await house.other.tenants.key(key.id) == replace(key, revoked=True)


async def test_a_key_is_replaced_only_where_it_is_as_it_was_read(house: House) -> None:
    key = a_key()
    await house.store.tenants.add_key(key)
    after = replace(key, secret_hash="another")
    assert await house.other.tenants.replace_key(key, after)
    assert await house.store.tenants.key(key.id) == after
    assert not await house.store.tenants.replace_key(key, key)
    await house.store.tenants.revoke_key(TENANT, key.id)
    assert not await house.other.tenants.replace_key(after, key)
    assert await house.store.tenants.key(key.id) == replace(after, revoked=True)
    assert not await house.store.tenants.replace_key(unknown := a_key(), unknown)


@pytest.mark.parametrize("user", [None, USER], ids=["tenant", "user"])
async def test_settings_change_only_from_the_version_that_was_read(house: House, user: UserId | None) -> None:
    assert await house.store.configuration.settings(TENANT, user) == (None, 0)
    assert not await house.store.configuration.put_settings(TENANT, user, "x", expected_version=1)
    assert await house.store.configuration.put_settings(TENANT, user, "one", expected_version=0)
    assert not await house.other.configuration.put_settings(TENANT, user, "two", expected_version=0)
    assert await house.other.configuration.put_settings(TENANT, user, "two", expected_version=1)
    assert await house.store.configuration.settings(TENANT, user) == ("two", 2)
    other_layer = USER if user is None else None
    assert await house.store.configuration.settings(TENANT, other_layer) == (None, 0)


async def test_one_of_many_writers_of_a_version_wins(house: House) -> None:
    won: list[bool] = []

    async def put(store: Store, number: int) -> None:
        won.append(await store.configuration.put_settings(TENANT, None, f"{number}", expected_version=0))

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(put, house.store if number % 2 else house.other, number)
    assert won.count(True) == 1


async def test_secrets_keep_the_order_in_which_their_names_came(house: House) -> None:
    put, read = house.store.configuration.put_secret, house.other.configuration.secrets
    for name in ("ZULU", "ALPHA", "MIKE"):
        assert await put(TENANT, USER, StoredSecret(name, None, f"s1.1.{name}", 1), expected_version=0)
    changed = StoredSecret("ZULU", "a: description", "s1.1.new", 2)
    assert not await put(TENANT, USER, changed, expected_version=0)
    assert await put(TENANT, USER, changed, expected_version=1)
    assert [secret.name for secret in await read(TENANT, USER)] == ["ZULU", "ALPHA", "MIKE"]
    assert await house.other.configuration.secret(TENANT, USER, "ZULU") == changed
    assert await house.other.configuration.secret(TENANT, None, "ZULU") is None
    assert await house.store.configuration.delete_secret(TENANT, USER, "ZULU")
    assert not await house.store.configuration.delete_secret(TENANT, USER, "ZULU")
    assert not await put(TENANT, USER, changed, expected_version=2)
    assert await put(TENANT, USER, StoredSecret("ZULU", None, "s", 1), expected_version=0)
    assert [secret.name for secret in await read(TENANT, USER)] == ["ALPHA", "MIKE", "ZULU"]


async def test_deleted_secrets_leave_nothing_behind(house: House) -> None:
    before = await house.size()
    await house.store.configuration.put_secret(TENANT, None, StoredSecret("A", None, "s", 1), expected_version=0)
    await house.store.configuration.delete_secret(TENANT, None, "A")
    assert await house.size() == before


async def test_providers_are_stored_by_name(house: House) -> None:
    stored = StoredProvider("gitlab", "https://git.example.org:8443", "me", "s1.1.x", 1)
    assert await house.store.configuration.put_provider(TENANT, None, stored, expected_version=0)
    assert list(await house.other.configuration.providers(TENANT, None)) == [stored]
    assert list(await house.other.configuration.providers(TENANT, USER)) == []
    assert await house.store.configuration.delete_provider(TENANT, None, "gitlab")
    assert list(await house.other.configuration.providers(TENANT, None)) == []


async def test_the_first_data_key_of_a_version_stays(house: House) -> None:
    assert await house.store.configuration.data_key(TENANT, 1) is None
    assert await house.store.configuration.add_data_key(TENANT, 1, "first") == "first"
    assert await house.other.configuration.add_data_key(TENANT, 1, "second") == "first"
    assert await house.other.configuration.data_key(TENANT, 1) == "first"
    assert await house.other.configuration.data_key(TENANT, 2) is None


async def test_the_installation_and_the_check_value_are_made_once(house: House) -> None:
    assert await house.store.installation() == await house.other.installation()
    assert await house.store.master_check("first") == "first"
    assert await house.other.master_check("second") == "first"


async def test_no_value_is_stored_in_the_clear(house: House) -> None:
    master = MasterKeys([b"k" * 32])
    envelope, replica = Envelope(master, house.store.configuration), Envelope(master, house.other.configuration)
    plain = "very-secret-value-1234"
    sealed = await envelope.seal(TENANT, USER, "secret", "NAME", 1, SecretText(plain))
    secret = StoredSecret("NAME", None, sealed, 1)
    await house.store.configuration.put_secret(TENANT, USER, secret, expected_version=0)
    stored = await house.other.configuration.secret(TENANT, USER, "NAME")
    assert stored is not None
    assert (await replica.open(TENANT, USER, "secret", "NAME", 1, stored.sealed)).open() == plain
    if house.raw is None:
        assert plain not in repr(vars(house.store.configuration))
        return
    dumps = [await house.raw.dump(key) for key in await house.raw.keys("*")]
    assert dumps
    assert not any(plain.encode() in dump for dump in dumps)


async def test_two_replicas_that_seal_at_once_agree_on_the_data_key(house: House) -> None:
    master, tenant = MasterKeys([b"k" * 32]), TenantId(new_uuid())
    replicas = [Envelope(master, s.configuration) for s in (house.store, house.other)]
    sealed: list[str] = []

    async def seal(envelope: Envelope) -> None:
        sealed.append(await envelope.seal(tenant, None, "settings", "", 1, SecretText("x")))

    async with anyio.create_task_group() as tasks:
        for replica in replicas * 10:
            tasks.start_soon(seal, replica)
    for text in sealed:
        for replica in replicas:
            assert (await replica.open(tenant, None, "settings", "", 1, text)).open() == "x"


async def test_every_change_of_a_layer_has_another_generation(house: House) -> None:
    c, tenant, user, other = house.store.configuration, TenantId(new_uuid()), UserId(new_uuid()), UserId(new_uuid())
    seen = [await c.generation(tenant, user)]
    untouched = await c.generation(tenant, other)

    async def changed() -> None:
        now = await house.other.configuration.generation(tenant, user)
        assert now not in seen
        seen.append(now)

    assert await c.put_settings(tenant, user, "s", expected_version=0)
    await changed()
    assert await c.put_secret(tenant, user, StoredSecret("A", None, "s", 1), expected_version=0)
    await changed()
    assert await c.delete_secret(tenant, user, "A")
    await changed()
    assert await c.put_provider(tenant, user, StoredProvider("github", None, None, "p", 1), expected_version=0)
    await changed()
    assert await c.delete_provider(tenant, user, "github")
    await changed()
    assert not await c.put_settings(tenant, user, "late", expected_version=0)
    assert not await c.delete_secret(tenant, user, "A")
    assert await c.generation(tenant, user) == seen[-1]
    assert await c.generation(tenant, other) == untouched
    assert await c.put_settings(tenant, None, "s", expected_version=0)
    await changed()
    assert await c.generation(tenant, other) != untouched
    assert await c.generation(TenantId(new_uuid()), user) == seen[0]
