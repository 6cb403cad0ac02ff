"""Every accepted change is noted in the tenant's journal by the step that makes it, the same in both stores."""

import json
from dataclasses import replace

import pytest

from orchestrator.domain.conversation import Desired, Phase, RuntimeRecord
from orchestrator.domain.ids import KeyId, OperationId, RuntimeId, TenantId, UserId, new_uuid
from orchestrator.domain.operation import Operation, OperationState, Stage
from orchestrator.domain.tenancy import ALL_SCOPES, ApiKey, KeyKind, Tenant, User
from orchestrator.state import records
from orchestrator.state.base import Store, StoredProvider, StoredSecret
from orchestrator.state.journal.entry import Entry
from orchestrator.state.memory import MemoryStore

from .conftest import MOMENT, House, a_conversation

pytestmark = pytest.mark.anyio
TENANT = TenantId(new_uuid())
USER = UserId(new_uuid())


async def noted(house: House, tenant: TenantId = TENANT) -> list[Entry]:
    """What the journal holds of the tenant, JSON bodies in one spelling."""
    if house.raw is None:
        assert isinstance(house.store, MemoryStore)
        found = list(house.store.journal(tenant))
    else:
        entries = await house.raw.xrange(f"t:{{{tenant}}}:journal")
        found = [Entry(f[b"kind"].decode(), f[b"id"].decode(), _text(f.get(b"body"))) for _, f in entries]
    return [replace(entry, body=_spelt(entry)) for entry in found]


def _text(body: bytes | None) -> str | None:
    return None if body is None else body.decode("utf-8", "surrogatepass")


def _spelt(entry: Entry) -> str | None:
    if entry.body is None or entry.kind not in ("conversation", "message"):
        return entry.body
    return json.dumps(json.loads(entry.body))


async def test_tenants_users_and_keys(house: House) -> None:
    store = house.store
    tenant = Tenant(TENANT, "acme", MOMENT)
    user = User(USER, TENANT, "ann", "x-1", MOMENT)
    key = ApiKey(KeyId(new_uuid()), KeyKind.TENANT, TENANT, None, "k", "hash", ALL_SCOPES, MOMENT)
    await store.tenants.add_tenant(tenant)
    await store.tenants.add_user(user)
    await store.tenants.add_user(replace(user, id=UserId(new_uuid())))  # the same external id: nothing new
    await store.tenants.add_key(key)
    await store.tenants.revoke_key(TENANT, key.id)
    kinds = [(entry.kind, entry.id) for entry in await noted(house)]
    assert kinds == [("tenant", TENANT), ("user", USER), ("key", key.id), ("key", key.id)]
    bodies = [entry.body or "" for entry in await noted(house)]
    assert records.tenant_from(bodies[0]) == tenant
    assert records.user_from(bodies[1]) == user
    assert records.api_key_from(bodies[3]) == replace(key, revoked=True)


async def test_settings_secrets_providers_and_data_keys(house: House) -> None:
    c = house.store.configuration
    assert await c.put_settings(TENANT, None, "sealed-1", expected_version=0)
    assert not await c.put_settings(TENANT, None, "refused", expected_version=0)
    assert await c.put_settings(TENANT, USER, "sealed-u", expected_version=0)
    for name in ("A", "B"):
        assert await c.put_secret(TENANT, USER, StoredSecret(name, None, f"s-{name}", 1), expected_version=0)
    assert await c.put_secret(TENANT, USER, StoredSecret("A", "d", "s-A2", 2), expected_version=1)
    assert await c.delete_secret(TENANT, USER, "B")
    assert not await c.delete_secret(TENANT, USER, "B")
    assert await c.put_provider(TENANT, None, StoredProvider("github", None, None, "p", 1), expected_version=0)
    assert await c.add_data_key(TENANT, 1, "wrapped") == "wrapped"
    assert await c.add_data_key(TENANT, 1, "late") == "wrapped"
    assert await noted(house) == [
        Entry("settings", "", "1:sealed-1"),
        Entry("settings", USER, "1:sealed-u"),
        Entry("secret", f"{USER}|A", '1:1:{"description": null, "sealed": "s-A"}'),
        Entry("secret", f"{USER}|B", '2:1:{"description": null, "sealed": "s-B"}'),
        Entry("secret", f"{USER}|A", '1:2:{"description": "d", "sealed": "s-A2"}'),
        Entry("secret", f"{USER}|B", None),
        Entry("provider", "|github", '1:1:{"host": null, "user_id": null, "sealed": "p"}'),
        Entry("data_key", "1", "wrapped"),
    ]


async def test_a_conversation_as_it_was_asked_for_and_as_it_became(house: House) -> None:
    store = house.store
    made = a_conversation(TENANT, USER)
    await store.conversations.create(made)
    await store.conversations.create(made)  # a repeat changes nothing
    assert await store.conversations.request(replace(made, desired=Desired.STOPPED), expected_version=1)
    taken = await store.conversations.claim(TENANT, made.id, "one", lease_ms=60_000)
    assert taken is not None
    lease, record = taken
    runtime = RuntimeRecord(RuntimeId(new_uuid()), 7, inner_key_sealed="s1.1.inner")
    record = await store.conversations.save(lease, replace(record, runtime=runtime), expected_version=record.version)
    record = await store.conversations.save(lease, replace(record, attempt=9), expected_version=record.version)
    record = await store.conversations.save(
        lease, replace(record, phase=Phase.PROVISIONING), expected_version=record.version
    )
    entries = await noted(house)
    assert [entry.kind for entry in entries] == ["conversation"] * 4, "attempt alone is not worth an entry"
    found = [records.conversation_from(json.loads(entry.body or "")) for entry in entries]
    assert found[0] == made
    assert found[1].desired is Desired.STOPPED
    assert found[2].runtime == runtime
    assert found[3] == record
    archived = replace(record, archived_at=MOMENT, was_ready=False)
    record = await store.conversations.save(lease, archived, expected_version=record.version)
    last = (await noted(house))[-1]
    assert records.conversation_from(json.loads(last.body or "")) == record, "that its workspace is gone is of use"
    await store.conversations.remove(lease)
    assert (await noted(house))[-1] == Entry("conversation", made.id, None)


async def test_messages_and_operations(house: House) -> None:
    store = house.store
    made = await store.conversations.create(a_conversation(TENANT))
    operation = Operation(
        OperationId(new_uuid()), TENANT, made.id, "start", OperationState.RUNNING, (Stage("a"),), MOMENT, MOMENT
    )
    await store.operations.create(operation)
    await store.operations.create(operation)
    await store.inbox.put(TENANT, made.id, client_id="c 1", content='ü "\x00', limit=10)
    await store.inbox.put(TENANT, made.id, client_id="c 1", content="again", limit=10)
    taken = await store.conversations.claim(TENANT, made.id, "one", lease_ms=60_000)
    assert taken is not None
    await store.inbox.delivered(taken[0], 1)
    await store.inbox.delivered(taken[0], 1)
    await store.operations.finish(TENANT, operation.id, OperationState.SUCCEEDED)
    await store.operations.finish(TENANT, operation.id, OperationState.FAILED)
    assert (await noted(house))[1:] == [
        Entry("operation", operation.id, records.operation_text(operation)),
        Entry("message", f"{made.id}|1", json.dumps(["c 1", 'ü "\x00'])),
        Entry("delivered", f"{made.id}|1", ""),
        Entry("operation", operation.id, None),
    ]


async def test_one_tenant_s_changes_are_in_no_other_s_journal(house: House) -> None:
    store: Store = house.store
    await store.conversations.create(a_conversation(TENANT))
    assert await noted(house, TenantId(new_uuid())) == []
