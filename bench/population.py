"""A state server of its own full of conversations, for `bench/conversations_scale.py`.

Each kind is made once through the API and taken to where it rests; all the others are that record again, written key
by key as it lies there, with ids, times and sealed keys of their own. `witnessed` proves that one of those cannot be
told from another one that the API made. Not written: the operation (ended ones are gone after a day) and the files of
the event log.
"""

import json
import os
import re
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import hiredis
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from furnished import KINDS, Site

from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.domain.secrets import SecretText, new_secret
from orchestrator.security import envelope
from orchestrator.security.master_keys import NONCE_BYTES, encode
from orchestrator.security.session_keys import hash_key, mint_session
from orchestrator.state.cursor import member, milliseconds
from orchestrator.state.journal.entry import Entry
from orchestrator.state.keys import TenantKeys, route

_AT_ONCE = 1000


@dataclass
class Mould:
    """All that the state server holds of one conversation: as commands, and its last entry in the journal."""

    values: dict[str, str]  #: what is another one's own, by what it is
    commands: list[str]
    pieces: list[bytes]
    entry: list[str]


async def mould_of(site: Site, id: str) -> Mould:
    tenant = site.big.tenant
    t = TenantKeys(tenant)
    record = await site.house.store.conversations.get(tenant, ConversationId(id))
    assert record is not None
    assert record.runtime is not None
    runtime = record.runtime
    values = {
        "id": id,
        "tenant": tenant,
        "runtime": runtime.id,
        "user": str(record.user),
        "key": str(record.key),
        "operation": str(record.operation),
        "created": _text(record.created_at),
        "created_ms": f"{milliseconds(record.created_at):013d}",
        "hash": runtime.session_key_hash,
        "session": runtime.session_key_sealed,
        "inner": runtime.inner_key_sealed,
        "state": runtime.state_key_sealed,
    }
    assert all(values.values()), values
    commands: list[tuple[str, ...]] = []
    for key in sorted([*site.redis.scan_iter(f"{t.conversation(record.id)}*", count=1000), route(runtime.id)]):
        match site.redis.type(key):
            case "hash":
                commands.append(("HSET", key, *(part for pair in site.redis.hgetall(key).items() for part in pair)))
            case "stream":
                for entry, fields in site.redis.xrange(key):
                    commands.append(("XADD", key, entry, *(part for pair in fields.items() for part in pair)))
            case other:
                raise AssertionError(f"{key} is a {other}")
    listed = member(record.created_at, record.id)
    for index in (t.conversations, t.user_conversations(record.user)) if record.user else ():
        assert site.redis.zscore(index, listed) == 0
        commands.append(("ZADD", index, "0", listed))
    if (score := site.redis.zscore(t.due, id)) is not None:
        values["due"] = f"{int(score):013d}"
        commands.append(("ZADD", t.due, values["due"], id))
    commands.append(("HINCRBY", t.phases, record.phase, "1"))
    noted = [fields for _, fields in site.redis.xrange(t.journal.stream) if fields["id"] == id]
    body = [fields["body"] for fields in noted if fields["kind"] == "conversation"][-1]
    texts = [_resp(command) for command in commands]
    return Mould(values, texts, [piece.encode() for piece in _cut("".join(texts), values)], _cut(body, values))


def _text(moment: datetime) -> str:
    """As records have it; with all six digits, so that every other one is as long."""
    text = moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    assert len(text) == 27, text
    return text


def _resp(command: tuple[str, ...]) -> str:
    return f"*{len(command)}\r\n" + "".join(f"${len(part.encode())}\r\n{part}\r\n" for part in command)


def _cut(text: str, values: dict[str, str]) -> list[str]:
    """`text` cut at the values: every second piece is the name of one."""
    names = {value: name for name, value in values.items()}
    pieces = re.split("(" + "|".join(map(re.escape, names)) + ")", text)
    pieces[1::2] = [names[value] for value in pieces[1::2]]
    return pieces


def _uuid(random: Random) -> str:
    raw = f"{random.getrandbits(128):032x}"
    return f"{raw[:8]}-{raw[8:12]}-4{raw[13:16]}-8{raw[17:20]}-{raw[20:]}"


async def fill(site: Site, moulds: dict[str, Mould], count: int, random: Random, *, journal: bool) -> None:
    """Write `count` conversations: four in five of the first tenant, the rest of the others in turn."""
    used = site.redis.info("memory")["used_memory"]
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(site.address))
    now = datetime.now(UTC)
    kinds, shares = list(moulds), [KINDS[kind] for kind in moulds]
    left = count
    while left:
        share = min(_AT_ONCE, left)
        owner = site.big if random.random() < 0.8 else random.choice(site.owners[1:])
        cipher = await site.house.services.sealer._data_key(owner.tenant, 1, create=True)
        text: list[bytes] = []
        commands = 0
        entries: list[Entry] = []
        for _ in range(share):
            mould = moulds[random.choices(kinds, shares)[0]]
            id, runtime = _uuid(random), RuntimeId(_uuid(random))
            session = mint_session(runtime)
            made = (now - timedelta(seconds=random.uniform(86_400, 90 * 86_400))).replace(
                microsecond=random.randrange(1, 1_000_000)
            )
            own = {
                "id": id,
                "tenant": owner.tenant,
                "runtime": runtime,
                "user": random.choice(owner.users),
                "key": owner.key_id,
                "operation": _uuid(random),
                "created": _text(made),
                "created_ms": f"{milliseconds(made):013d}",
                "hash": hash_key(session.open()),
                "due": f"{int(now.timestamp() * 1000) + random.randrange(6 * 3_600_000, 30 * 3_600_000):013d}",
            }
            for name, value in (("session", session), ("inner", new_secret()), ("state", new_secret())):
                own[name] = _sealed(cipher, owner.tenant, f"{id}/{name}", value)
            text.append(_poured(mould.pieces, {name: value.encode() for name, value in own.items()}, b""))
            entries.append(Entry("conversation", id, _poured(mould.entry, own, "")))
            commands += len(mould.commands)
        _send(client, b"".join(text), commands)
        if journal:
            archive = site.house.shipper.archive
            await archive.append(owner.tenant, entries, after=await archive.tail(owner.tenant))
        if len(site.resting) < 20_000:
            site.resting += [(owner.tenant, entry.id) for entry in entries[:200]]
        left -= share
    client.close()
    site.count = count
    site.bytes_each = (site.redis.info("memory")["used_memory"] - used) / count


def _sealed(cipher: AESGCM, tenant: TenantId, name: str, value: SecretText) -> str:
    """As `Envelope.seal` does it, without a task's turn for each; `witnessed` opens one."""
    nonce = os.urandom(NONCE_BYTES)
    place = envelope._place(tenant, None, "runtime-key", name, 1)
    return f"{envelope.SCHEME}.1.{encode(nonce + cipher.encrypt(nonce, value.open().encode(), place))}"


def _poured(pieces: list[Any], own: dict[str, Any], empty: Any) -> Any:
    filled = list(pieces)
    filled[1::2] = [own[name if isinstance(name, str) else name.decode()] for name in pieces[1::2]]
    return empty.join(filled)


def _send(client: socket.socket, text: bytes, replies: int) -> None:
    client.sendall(text)
    reader = hiredis.Reader()
    while replies:
        reader.feed(client.recv(65_536))
        while (reply := reader.gets()) is not False:
            assert not isinstance(reply, hiredis.ReplyError), reply
            replies -= 1


def stored(site: Site, tenant: str, id: str, runtime: str) -> dict[str, Any]:
    """All that the state server holds of a conversation, without what is its own: ids, times, keys."""
    t = TenantKeys(TenantId(tenant))
    found: dict[str, Any] = {}
    for key in [*site.redis.scan_iter(f"{t.conversation(ConversationId(id))}*", count=10_000), f"x:runtime:{runtime}"]:
        kind = site.redis.type(key)
        content: Any = site.redis.hgetall(key) if kind == "hash" else site.redis.xrange(key)
        content |= {"fence": "any"} if "fence" in content else {}
        found[plain(key)] = json.loads(plain(json.dumps([kind, site.redis.object("encoding", key), content])))
    for index in site.redis.scan_iter(f"t:{{{tenant}}}*conversations", count=10_000):
        held = [entry for entry in site.redis.zrange(index, 0, -1) if entry.endswith(id)]
        found |= {f"index {plain(index)}": [plain(entry) for entry in held]} if held else {}
    found["is due"] = site.redis.zscore(t.due, id) is not None
    return found


_OWN = {
    r"[0-9a-f]{64}": "<hash>",
    r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}": "<trace>",
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}": "<id>",
    r"s1\.1\.[\w-]+": "<sealed>",
    r"\d{4}-\d\d-\d\dT[\d:.]+Z?": "<time>",
    r"\b1[0-9]{12}\b": "<ms>",
    r"127\.0\.0\.1:\d+": "<address>",
}


def plain(text: str) -> str:
    """`text` with marks instead of what differs between any two conversations."""
    for pattern, mark in _OWN.items():
        text = re.sub(pattern, mark, text)
    return text


async def witnessed(site: Site, moulds: dict[str, Mould], kinds: dict[str, tuple[str, str]], random: Random) -> int:
    """Write one of each kind and compare it, field by field, with another one that the API made: what the state server
    holds and what the API says. Answers how many fields were compared. Raises AssertionError."""
    compared = 0
    for kind, mould in moulds.items():
        before = len(site.resting)
        await fill(site, {kind: mould}, 1, random, journal=False)
        tenant, id = site.resting.pop(before)
        owner = next(owner for owner in site.owners if owner.tenant == tenant)
        theirs = kinds[kind][1]
        ours_shown = await site.call("GET", f"/api/v2/conversations/{id}", owner.key)
        theirs_shown = await site.call("GET", f"/api/v2/conversations/{theirs}", site.big.key)
        ours = stored(site, tenant, id, ours_shown["runtime"]["id"])
        other = stored(site, site.big.tenant, theirs, theirs_shown["runtime"]["id"])
        assert ours == other, f"{kind}: {_difference(ours, other)}"
        for shown in (ours_shown, theirs_shown):
            del shown["fence"]  # how often a worker had it
        ours_shown, theirs_shown = (json.loads(plain(json.dumps(shown))) for shown in (ours_shown, theirs_shown))
        assert ours_shown == theirs_shown, f"{kind}: {_difference(ours_shown, theirs_shown)}"
        record = await site.house.store.conversations.get(tenant, ConversationId(id))
        assert record is not None
        key = await site.house.services.keys.session_key(record)
        assert key is not None
        assert record.runtime is not None
        assert hash_key(key.open()) == record.runtime.session_key_hash
        compared += len(ours_shown) + sum(len(value[-1]) if isinstance(value, list) else 1 for value in ours.values())
    return compared


def _difference(one: dict[str, Any], other: dict[str, Any]) -> list[Any]:
    return [(name, one.get(name), other.get(name)) for name in {*one, *other} if one.get(name) != other.get(name)]
