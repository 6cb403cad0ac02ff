"""Writing an empty state server anew from the archive: the house, then tenant by tenant. Of one that was set back, or
lost its last moments: those of whom it lacks something.

Used by `services/rebuild.py`, which decides what became of conversations whose runtimes still run, and by nobody else.
It has connections of its own, since all others refuse to work on a server without its epoch; the epoch is written last,
by which everybody else goes on.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from orchestrator.domain.conversation import Conversation, Desired, Kind, Phase, name_of, put_to_rest, slot_of
from orchestrator.domain.errors import StoreUnavailable, Unreadable
from orchestrator.domain.ids import ConversationId, KeyId, OperationId, TenantId, UserId, message_event_id, new_uuid
from orchestrator.domain.operation import Stage
from orchestrator.state import cursor as cursors
from orchestrator.state import keys, records, reviews
from orchestrator.state.audit import written_in
from orchestrator.state.funnel import Call, Funnel, command, run, run_of
from orchestrator.state.hooks import QUEUE_BYTES, wanted_text
from orchestrator.state.journal.archive import Archive
from orchestrator.state.journal.folded import Folded
from orchestrator.state.journal.stream import Streams, journal_of
from orchestrator.state.keys import TenantKeys
from orchestrator.state.spares import rebound
from orchestrator.state.spending import ledger_calls, ledgers_of, months_kept, used_call, used_nothing

log = structlog.get_logger(__name__)
LOCK_MS = 15_000
_COMMANDS_A_BATCH = 500
_LONGEST_STREAM = 1_000_000
_ENDS = "ends"  #: of what `keys.REBUILD_BEGUN` holds
_BEGINNING = datetime.fromtimestamp(0, UTC)  #: for what cannot be read: so neither when it was made
_AT_REST = frozenset({Phase.STOPPED, Phase.FAILED})


@dataclass(frozen=True)
class Known:
    """What the archive says of one tenant."""

    tenant: TenantId
    folded: Folded
    conversations: Sequence[Conversation]
    unreadable: Sequence[ConversationId]  #: written by a newer version, or damaged: put back as they are
    sequence: int  #: of the last entry


class Restoring:
    """One replica's hands on an empty state server."""

    def __init__(self, funnel: Funnel, archive: Archive) -> None:
        self._funnel = funnel
        self._archive = archive

    async def epoch(self) -> str | None:
        """What is written there now."""
        found: str | None = await self._funnel.one(command("GET", keys.EPOCH))
        return found

    async def is_lost(self) -> bool:
        """Whether the server is empty although there was something, or is being filled. A server that was never used
        has an empty archive; one that only lacks the epoch (an older version wrote it) still knows its installation."""
        epoch, installation, begun = await self._funnel.batch(
            *(command("GET", key) for key in (keys.EPOCH, keys.INSTALLATION, keys.REBUILD_BEGUN))
        )
        if epoch is not None:
            return False
        return begun is not None or (installation is None and bool(await self._archive.homes()))

    async def forget(self) -> None:
        """Let the server count as empty, so that what it holds is replaced."""
        await self._send([command("DEL", keys.EPOCH, keys.INSTALLATION)])

    async def server(self) -> str:
        """Which run of which server this is; empty where it does not say. Raises `StoreUnavailable` for a replica: what
        it holds is another's."""
        about: Mapping[str, Any] = await self._funnel.one(command("INFO")) or {}
        if about.get("role", "master") != "master":
            await self._funnel.leave()
            raise StoreUnavailable("the state server is a replica")
        return run_of(about.items())

    async def is_compared(self, server: str) -> bool:
        """Whether this run was compared with the journal already, by whatever replica."""
        return server != "" and await self._funnel.one(command("GET", keys.COMPARED)) == server

    async def compared(self, server: str, *, leap: bool) -> None:
        """It was, and knows all that was accepted. Leases are in no journal: with `leap`, what it granted in moments
        that it has lost is below every fence that it grants from now on."""
        streams, after = Streams(self._funnel), ""
        while leap and (entries := await streams.tenants(after, limit=_COMMANDS_A_BATCH)):
            eras = [TenantKeys(TenantId(cursors.member_id(entry))).era for entry in entries]
            await self._send([command("SET", era, server) for era in eras])
            after = entries[-1]
        await self._send([command("SET", keys.COMPARED, server)])

    async def set_back(self) -> None:
        """It lacks the end of some journals: everybody waits, and who is first (`begin`) writes those anew."""
        await self._send([command("SET", keys.REBUILD_BEGUN, _ENDS), command("DEL", keys.EPOCH)])

    async def lacks_ends_only(self) -> bool:
        """What the rebuild that was begun is about."""
        return bool(await self._funnel.one(command("GET", keys.REBUILD_BEGUN)) == _ENDS)

    async def behind(self) -> list[str]:
        """Homes whose archive holds something that this server does not know: it was set back, or the end of its file
        was lost. What is in a stream still was archived by somebody who could not say so any more; that is no loss."""
        return [home for home in await self._archive.homes() if await self._is_behind(home)]

    async def _is_behind(self, home: str) -> bool:
        streams = Streams(self._funnel)
        while True:
            known = await streams.known_tail(home)
            if (await self._archive.tail(home)).sequence <= (known or 0):
                return False
            waiting = {one.entry for one in await streams.read(home, limit=_LONGEST_STREAM)}
            newer = await self._archive.since(home, known or 0)
            if newer is not None and all(entry in waiting for entry in newer):
                return False
            if await streams.known_tail(home) == known:  # else somebody archived meanwhile
                return True

    async def begin(self, owner: str) -> bool:
        """Be the one who rebuilds, for `LOCK_MS`, or again for as long; False while another one is."""
        call = run("rebuild_hold", (keys.REBUILD, keys.EPOCH), owner, LOCK_MS)
        return bool(await self._funnel.one(call))

    async def house(self, *, whole: bool) -> None:
        """What belongs to no tenant: the installation, the check of the master key, operators' keys. `whole`: it begins
        a rebuild of everything."""
        folded, tail = await self._archive.read(keys.HOUSE)
        calls = [command("SET", keys.REBUILD_BEGUN, 1)] if whole else []
        calls.append(command("DEL", keys.HOUSE_JOURNAL))
        for name, value in folded.of("house"):
            calls.append(command("SET", {"installation": keys.INSTALLATION}.get(name, keys.MASTER_CHECK), value))
        for id, text in folded.of("key"):
            calls += [command("SET", f"x:key:{id}", ""), command("HSET", keys.OPERATOR_KEYS, id, text)]
        calls.append(command("SET", keys.ARCHIVE, await self._archive.identity()))
        await self._send([*calls, command("SET", journal_of(keys.HOUSE).tail, tail.sequence)])

    async def tenants(self) -> Sequence[TenantId]:
        """Everyone of whom the archive knows."""
        return [TenantId(home) for home in await self._archive.homes() if home != keys.HOUSE]

    async def read(self, tenant: TenantId) -> Known:
        """Raises `DamagedArchive`."""
        folded, tail = await self._archive.read(tenant)
        conversations: list[Conversation] = []
        unreadable: list[ConversationId] = []
        for id, body in folded.of("conversation"):
            try:
                conversations.append(records.conversation_from(json.loads(body)))
            except Unreadable:
                unreadable.append(ConversationId(id))
        return Known(tenant, folded, conversations, unreadable, tail.sequence)

    async def write(
        self,
        known: Known,
        conversations: Sequence[Conversation],
        unwound: Iterable[tuple[Conversation, str]],
        *,
        keep_events: bool,
    ) -> None:
        """Everything of a tenant, with `conversations` as they are to be. `unwound` names the runtime of a start that
        was under way: whoever claims it removes that first. What was there before is removed: it came after the loss,
        and was answered to nobody; where only the end was lost, `keep_events`."""
        t = TenantKeys(known.tenant)
        await self._clear(t, keep_events=keep_events)
        calls: list[Call] = [*self._who(t, known.folded)]
        calls += self._configuration(t, known.folded)
        calls += self._hooks(t, known.folded)
        calls += self._audit(t, known.folded)
        calls += self._spent(t, known.folded)
        live = {conversation.id for conversation in conversations}
        raw = {id: body for id, body in known.folded.of("conversation") if id not in live}
        for conversation in conversations:
            calls += self._conversation(t, conversation)
        for id, body in raw.items():
            calls += self._unreadable(t, ConversationId(id), json.loads(body))
        calls += [used_call(t, ConversationId(id), body) for id, body in known.folded.of("used")]
        calls += self._inboxes(t, known.folded)
        calls += self._operations(t, known.folded)
        for conversation, name in unwound:
            saga = t.saga(conversation.id)
            calls.append(command("HSET", saga, "#", 1, "place:create", 1, "note:create", name))
        if conversations:
            calls.append(run("tenant_wake", (keys.DUE_TENANTS,), known.tenant, 0))
            calls.append(reviews.asked(known.tenant, None))  # when those at rest are due next is not in the journal
        # Last: a tenant that was written in part counts as behind still.
        await self._send([*calls, command("SET", t.journal.tail, known.sequence)])

    async def unclaimed(self, names: Sequence[str]) -> None:
        """Runtimes that belong to no record: kept, named, and removed by nobody but an operator."""
        calls = [command("DEL", keys.UNCLAIMED)]
        if names:
            calls.append(command("SADD", keys.UNCLAIMED, *names))
        await self._send(calls)

    async def finish(self) -> str:
        """Write the epoch: from now on everybody goes on. Answers it."""
        _, epoch, _ = await self._funnel.batch(
            command("SET", keys.EPOCH, new_uuid(), "NX"),
            command("GET", keys.EPOCH),
            command("DEL", keys.REBUILD, keys.REBUILD_BEGUN),
        )
        return str(epoch)

    async def close(self) -> None:
        await self._funnel.close()

    async def _clear(self, t: TenantKeys, *, keep_events: bool) -> None:
        members = await self._funnel.one(command("ZRANGE", t.conversations, 0, -1))
        calls = []
        for member in members:
            id = ConversationId(cursors.member_id(member))
            own = (t.inbox(id), t.waiting(id), t.saga(id), t.running_operations(id))
            events = () if keep_events else (t.events(id),)
            calls.append(command("UNLINK", t.conversation(id), *own, *events))
        for hook in await self._funnel.one(command("HKEYS", t.hooks)):
            calls.append(run("hook_delete", (t.hooks, t.hooks_wanted, t.hook_prefix, t.journal.stream), hook, ""))
        fixed = (t.users, t.user_index, t.external_ids, t.api_keys, t.data_keys, t.due, t.conversations, t.generations)
        admission = (t.slots, t.starts, t.queue, t.evictions)
        layer = (t.settings(None), t.secrets(None), t.providers(None), t.phases, t.runtimes, t.names)
        told = (t.journal.stream, t.audit, t.audit_index, *ledgers_of(t, None))
        await self._send([*calls, command("UNLINK", t.tenant, *told, *fixed, *admission, *layer)])

    def _who(self, t: TenantKeys, folded: Folded) -> Iterable[Call]:
        for id, text in folded.of("tenant"):
            tenants = records.readable(records.tenant_from, [text])  # one that cannot be read goes back as it is
            yield command("ZADD", keys.TENANTS, 0, cursors.member(tenants[0].created_at if tenants else _BEGINNING, id))
            yield command("SET", t.tenant, text)
        for id, text in folded.of("user"):
            user = UserId(id)
            layer = (t.settings(user), t.secrets(user), t.providers(user), t.user_conversations(user))
            yield command("UNLINK", *layer, t.user_runtimes(user), f"{t.slots}:user:{id}", f"{t.starts}:user:{id}")
            yield command("UNLINK", *ledgers_of(t, user))
            yield command("HSET", t.users, id, text)
            users = records.readable(records.user_from, [text])
            yield command("ZADD", t.user_index, 0, cursors.member(users[0].created_at if users else _BEGINNING, id))
            if users and users[0].external_id:
                yield command("HSET", t.external_ids, users[0].external_id, id)
        for id, text in folded.of("key"):
            yield command("UNLINK", f"{t.slots}:key:{id}", f"{t.starts}:key:{id}")
            yield command("SET", keys.key_owner(KeyId(id)), t.journal.home)
            yield command("HSET", t.api_keys, id, text)

    def _configuration(self, t: TenantKeys, folded: Folded) -> Iterable[Call]:
        for version, wrapped in folded.of("data_key"):
            yield command("HSET", t.data_keys, version, wrapped)
        for layer, body in folded.of("settings"):
            version, _, sealed = body.partition(":")
            yield command("HSET", t.settings(_user(layer)), "version", version, "sealed", sealed)
        places: dict[str, int] = {}
        for kind in ("secret", "provider"):
            for id, value in folded.of(kind):
                layer, _, name = id.partition("|")
                home = t.secrets(_user(layer)) if kind == "secret" else t.providers(_user(layer))
                places[home] = max(places.get(home, 0), int(value.partition(":")[0]))
                yield command("HSET", home, name, value)
        for home, last in places.items():
            yield command("HSET", home, "#", last)

    def _hooks(self, t: TenantKeys, folded: Folded) -> Iterable[Call]:
        """What waited for them is lost, and they are told so. Numbers go on above all that were given before: no
        tenant is told of a thousand things in each second of its life."""
        now = int(datetime.now(UTC).timestamp() * 1000)
        for id, text in folded.of("hook"):
            yield command("HSET", t.hooks, id, text)
            yield command("HSET", f"{t.hook_prefix}#", "sequence", now)
            for endpoint in records.readable(records.hook_from, [text]):
                if wanted := wanted_text(endpoint, QUEUE_BYTES):
                    yield command("HSET", t.hooks_wanted, id, wanted)
                    yield run("hook_lost", (t.hook_prefix,), id)
                    yield command("ZADD", keys.HOOK_TENANTS, 0, t.journal.home)

    def _audit(self, t: TenantKeys, folded: Folded) -> Iterable[Call]:
        """One that cannot be read has no place in the list, and is left to the journal."""
        for id, text in folded.of("audit"):
            for entry in written_in([text]):
                yield command("HSET", t.audit, id, text)
                yield command("ZADD", t.audit_index, 0, cursors.member(entry.at, id))

    def _spent(self, t: TenantKeys, folded: Folded) -> Iterable[Call]:
        kept = frozenset(months_kept())
        for id, body in folded.of("spent"):
            user, _, month = id.partition("|")
            if month in kept:  # who spends nothing more leaves its last one in the journal
                yield from ledger_calls(t, month, _user(user), body)

    def _conversation(self, t: TenantKeys, conversation: Conversation) -> Iterable[Call]:
        member = cursors.member(conversation.created_at, conversation.id)
        fields = records.conversation_parts(conversation)
        key = t.conversation(conversation.id)
        pairs = [part for pair in fields.items() for part in pair]
        yield command("HSET", key, "member", member, "user", conversation.user or "", *pairs, *used_nothing())
        yield command("HINCRBY", t.phases, conversation.phase, 1)
        yield command("ZADD", t.conversations, 0, member)
        if conversation.user is not None:
            yield command("ZADD", t.user_conversations(conversation.user), 0, member)
        if conversation.kind is Kind.RUNTIME:
            yield command("ZADD", t.runtimes, 0, member)
            if conversation.user is not None:
                yield command("ZADD", t.user_runtimes(conversation.user), 0, member)
        if name := name_of(conversation):
            yield command("HSET", key, "name", name)
            if conversation.desired is not Desired.DELETED:
                yield command("HSET", t.names, name, conversation.id)
        if slot_of(conversation.phase) == "hold":
            yield from self._slot(t, conversation)
        if conversation.phase not in _AT_REST or conversation.desired is Desired.DELETED:
            yield command("ZADD", t.due, 0, conversation.id)
        if conversation.runtime is not None:
            route = keys.route(conversation.runtime.id)
            yield command("HSET", route, "tenant", conversation.tenant, "conversation", conversation.id)
            if conversation.phase is Phase.STOPPED and conversation.runtime.public_port and put_to_rest(conversation):
                yield command("SADD", keys.SLEEPERS, conversation.runtime.id)
            if conversation.runtime.spare:
                whose = (conversation.tenant, conversation.id, conversation.runtime.generation)
                yield rebound(conversation.runtime.spare, *whose)

    def _slot(self, t: TenantKeys, conversation: Conversation) -> Iterable[Call]:
        """What `admission.lua` counts a conversation by whose runtime runs; used now, as far as anybody can know."""
        user, key = conversation.user or "", conversation.key or ""
        yield command("HSET", t.conversation(conversation.id), "slot_user", user, "slot_key", key)
        yield command("ZADD", t.slots, int(datetime.now(UTC).timestamp() * 1000), conversation.id)
        for scope, of in (("user", user), ("key", key)):
            if of:
                yield command("SADD", f"{t.slots}:{scope}:{of}", conversation.id)

    def _unreadable(self, t: TenantKeys, id: ConversationId, parts: Sequence[str]) -> Iterable[Call]:
        """As it is; listed at the very beginning of time, since when it was made cannot be read either."""
        fields = [part for pair in zip(records.PARTS, parts, strict=False) for part in pair]
        member = cursors.member(_BEGINNING, id)
        yield command("HSET", t.conversation(id), "member", member, "user", "", *fields)
        yield command("ZADD", t.conversations, 0, member)

    def _inboxes(self, t: TenantKeys, folded: Folded) -> Iterable[Call]:
        delivered = {id for id, _ in folded.of("delivered")}
        last: dict[str, int] = {}
        for id, body in folded.of("message"):
            conversation, _, sequence = id.partition("|")
            client, content = json.loads(body)
            inbox = t.inbox(ConversationId(conversation))
            last[inbox] = max(last.get(inbox, 0), int(sequence))
            fields = (f"client:{client}", sequence, f"content:{sequence}", content, f"of:{sequence}", client)
            event = message_event_id(ConversationId(conversation), client)
            yield command("HSET", inbox, *fields, f"event:{event}", client)
            if id not in delivered:
                yield command("ZADD", t.waiting(ConversationId(conversation)), sequence, sequence)
                yield command("ZADD", t.due, 0, conversation)
        for inbox, highest in last.items():
            yield command("HSET", inbox, "#", highest)

    def _operations(self, t: TenantKeys, folded: Folded) -> Iterable[Call]:
        """Those that had not ended: their stages begin anew."""
        now = int(datetime.now(UTC).timestamp() * 1000)
        for id, text in folded.of("operation"):
            fields = json.loads(text)
            stages = [(f"stage:{name}", records.stage_text(Stage(name))) for name in fields["stages"]]
            key, conversation = t.operation(OperationId(id)), ConversationId(fields["conversation"])
            pairs = [part for stage in stages for part in stage]
            yield command("HSET", key, "state", "running", "text", text, "updated_ms", now, *pairs)
            yield command("SADD", t.running_operations(conversation), id)
            yield command("ZADD", t.due, 0, conversation)

    async def _send(self, calls: Sequence[Call]) -> None:
        for start in range(0, len(calls), _COMMANDS_A_BATCH):
            await self._funnel.batch(*calls[start : start + _COMMANDS_A_BATCH])


def _user(layer: str) -> UserId | None:
    return UserId(layer) if layer else None
