"""What a state server holds, noted in its journal anew: for a server that is older than its journal, or outlived it.

Used once, at a start at which the server names no archive. No other replica may change anything meanwhile.
"""

import json
from collections.abc import AsyncIterator

from orchestrator.domain.ids import ConversationId, TenantId, UserId
from orchestrator.state import cursor as cursors
from orchestrator.state import keys, records, spending
from orchestrator.state.funnel import Call, Funnel, command, noted
from orchestrator.state.journal.entry import Entry
from orchestrator.state.journal.stream import house_note
from orchestrator.state.keys import TenantKeys

_PAGE = 200


async def export(funnel: Funnel) -> int:
    """Note every object; answers how many. Shipping is the shipper's work."""
    count = 0
    for id, text in (await funnel.one(command("HGETALL", keys.OPERATOR_KEYS))).items():
        await funnel.one(house_note("key", id, text))
    after = "-"
    while True:
        page = await funnel.one(command("ZRANGEBYLEX", keys.TENANTS, after, "+", "LIMIT", 0, _PAGE))
        for member in page:
            async for entry in _of_tenant(funnel, TenantKeys(TenantId(cursors.member_id(member)))):
                await funnel.one(_note(TenantKeys(TenantId(cursors.member_id(member))), entry))
                count += 1
        if len(page) < _PAGE:
            return count
        after = f"({page[-1]}"


def _note(t: TenantKeys, entry: Entry) -> Call:
    fields = ("kind", entry.kind, "id", entry.id, "body", entry.body or "")
    return noted(command("XADD", t.journal.stream, "*", *fields), t.journal)


async def _of_tenant(funnel: Funnel, t: TenantKeys) -> AsyncIterator[Entry]:
    text = await funnel.one(command("GET", t.tenant))
    if text is None:
        return
    yield Entry("tenant", t.journal.home, text)
    users: dict[str, str] = await funnel.one(command("HGETALL", t.users))
    for kind, found in (
        ("user", users),
        ("key", await _all(funnel, t.api_keys)),
        ("data_key", await _all(funnel, t.data_keys)),
        ("hook", await _all(funnel, t.hooks)),
        ("audit", await _all(funnel, t.audit)),
    ):
        for id, body in found.items():
            yield Entry(kind, id, body)
    for user in (None, *map(UserId, users)):
        layer = user or ""
        sealed, version = await funnel.one(command("HMGET", t.settings(user), "sealed", "version"))
        if sealed is not None:
            yield Entry("settings", layer, f"{version}:{sealed}")
        for month in spending.months_kept():
            if ledger := await _all(funnel, t.ledger(month, user)):
                yield Entry("spent", f"{layer}|{month}", spending.ledger_body(ledger))
        for kind, home in (("secret", t.secrets(user)), ("provider", t.providers(user))):
            for name, value in (await _all(funnel, home)).items():
                if name != "#":
                    yield Entry(kind, f"{layer}|{name}", value)
    for member in await funnel.one(command("ZRANGE", t.conversations, 0, -1)):
        async for entry in _of_conversation(funnel, t, ConversationId(cursors.member_id(member))):
            yield entry


async def _of_conversation(funnel: Funnel, t: TenantKeys, id: ConversationId) -> AsyncIterator[Entry]:
    parts = await funnel.one(command("HMGET", t.conversation(id), *records.PARTS))
    if parts[0] is None:
        return
    yield Entry("conversation", id, json.dumps(parts))
    if (used := spending.used_body(await funnel.one(spending.used_fields(t, id)))) is not None:
        yield Entry("used", id, used)
    inbox = await _all(funnel, t.inbox(id))
    waiting = set(await funnel.one(command("ZRANGE", t.waiting(id), 0, -1)))
    for name, content in inbox.items():
        kind, _, sequence = name.partition(":")
        if kind == "content":
            yield Entry("message", f"{id}|{sequence}", json.dumps([inbox[f"of:{sequence}"], content]))
            if sequence not in waiting:
                yield Entry("delivered", f"{id}|{sequence}", "")
    for operation in await funnel.one(command("SMEMBERS", t.running_operations(id))):
        body = await funnel.one(command("HGET", f"{t.operation_prefix}{operation}", "text"))
        if body is not None:
            yield Entry("operation", operation, body)


async def _all(funnel: Funnel, key: str) -> dict[str, str]:
    found: dict[str, str] = await funnel.one(command("HGETALL", key))
    return found
