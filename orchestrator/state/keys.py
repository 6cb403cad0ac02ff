"""Every key in Redis is built here and nowhere else; none is parsed back.

A tenant's keys begin with `t:{<tenant>}`. The braces are a hash tag: a cluster keeps all of a tenant's keys on one
slot, so that one script can check limits and write records together. What has to be found before the tenant is known,
or spans tenants, begins with `x:`; such a key is never in one script with a tenant's. Ids are UUIDs
(`domain/ids.py`), so they hold neither braces nor colons; caller-chosen text enters a key only as a hash.
"""

import hashlib
from dataclasses import dataclass

from orchestrator.domain.ids import ConversationId, HookId, KeyId, OperationId, RuntimeId, TenantId, UserId

INSTALLATION = "x:installation"
MASTER_CHECK = "x:master_check"
TENANTS = "x:tenants"  #: sorted set, all scores 0: <creation ms>:<tenant>
OPERATOR_KEYS = "x:keys"  #: hash: key id -> key
EPOCH = "x:epoch"  #: string: random, written once. Where it is missing the server has lost what it kept
REBUILD = "x:rebuild"  #: string with an expiry: who writes everything anew after a loss
REBUILD_BEGUN = "x:rebuild:begun"  #: string: a rebuild was begun and is not done, whoever does it
COMPARED = (
    "x:compared"  #: string: the run of the state server that was compared with the journal (`Restoring.compared`)
)
REPLICAS = "x:replicas"  #: sorted set: replica -> ms until which it counts as there
TAKEN = "x:taken:"  #: + what, string with an expiry: a replica does that just now
SLEEPERS = "x:sleepers"  #: set: ids of runtimes whose own ports are kept open although they are stopped
UNCLAIMED = "x:unclaimed"  #: set: names of runtimes that a rebuild found and could give to no record
ARCHIVE = "x:journal:archive"  #: string: the id of the journal's archive, the same for every replica
EVENT_ARCHIVE = "x:events:archive"  #: string: the same for the archive of events
JOURNAL_DUE = "x:journal:due"  #: sorted set: home of a journal -> ms at which somebody may look at it
HOUSE = "house"  #: the home of the journal that belongs to no tenant
HOUSE_JOURNAL = "x:journal"  #: stream, as a tenant's
HOUSE_AUDIT = "x:{audit}"  #: hash, as a tenant's `audit`, of what belongs to no tenant; with `:index` its index
CHANGED = "x:changed"  #: channel: ids of conversations whose record or event log changed
DUE_TENANTS = "x:due"  #: sorted set: tenant -> ms at which something of it may be due
HOOK_TENANTS = "x:hooks"  #: sorted set: tenant with endpoints -> ms at which its outbox may have something due
HOST_SLOTS = "x:host:slots"  #: sorted set: <tenant>/<conversation> -> ms at which its place on the host ends
HOST_STARTS = "x:host:starts"  #: sorted set of starts in the last minute -> ms
QUEUED_TENANTS = "x:queue"  #: sorted set: tenant with a queue -> ms at which it was served last, or came into line

#: Reviews: whose conversations at rest are to be looked at anew, as the times of the clock changed. One slot.
REVIEWS = "x:{reviews}"  #: sorted set: tenant, <tenant>/<user>, or * for all tenants -> ms at which somebody may go on
REVIEWS_AT = f"{REVIEWS}:at"  #: hash: the same -> the entry of the list that was looked at last
REVIEWED_FOR = f"{REVIEWS}:for"  #: string: the operator's times for which all were looked at last

#: The warm pool: what spares there are, and whose those are that were bound. The braces keep it on one slot.
SPARES = "x:{spares}"
SPARE_PREFIX = f"{SPARES}:of:"  #: + name, hash: kind, state, reference, address, init key (sealed), whose it is
SPARE_KINDS = f"{SPARES}:kinds"  #: set: kinds of which there may be spares
SPARES_UNBOUND = f"{SPARES}:unbound"  #: set: names of all that are nobody's, those included that are made or removed
SPARES_LEAVING = f"{SPARES}:leaving"  #: set: names of those that are to be removed
SPARES_BOUND = f"{SPARES}:bound"  #: hash: <tenant>/<conversation> -> name
SPARE_COUNTS = f"{SPARES}:counts"  #: hash: hits, misses, and when one of a kind was reserved last
SPARES_MAKING = f"{SPARES}:making:"  #: + kind, sorted set: name -> ms by which it is to be ready
SPARES_READY = f"{SPARES}:ready:"  #: + kind, sorted set: name -> ms since when


def key_owner(id: KeyId) -> str:
    """String: the tenant whose key this is, empty for an operator's."""
    return f"x:key:{id}"


def route(runtime: RuntimeId) -> str:
    """Hash: tenant and conversation of a runtime."""
    return f"x:runtime:{runtime}"


def idempotency(scope: str, key: str) -> str:
    """Hash with an expiry: the answer of a request. Scope and key are callers' text of any length."""
    digest = hashlib.sha256(f"{len(scope)}|{scope}|{key}".encode("utf-8", "surrogatepass")).hexdigest()
    return f"x:idempotency:{digest}"


@dataclass(frozen=True)
class Journaled:
    """Where a change is noted in the same step: a stream, and the index that names streams with something in them."""

    home: str
    stream: str
    index: str = JOURNAL_DUE

    @property
    def tail(self) -> str:
        """String: the last sequence of the archive's chain that this server knows to be in it."""
        return f"{self.stream}:tail"


class TenantKeys:
    """The keys of one tenant."""

    def __init__(self, tenant: TenantId) -> None:
        self._prefix = f"t:{{{tenant}}}"
        #: Stream of changes that are not in the archive yet.
        self.journal = Journaled(tenant, f"{self._prefix}:journal")
        #: Hash: entry id -> entry; the scripts find it and its index by the name of the journal (`journal.lua`).
        self.audit = f"{self.journal.stream}:audit"
        self.audit_index = f"{self.audit}:index"  #: sorted set, all scores 0: <ms>:<entry>
        self.tenant = f"{self._prefix}:tenant"  #: string
        self.users = f"{self._prefix}:users"  #: hash: user id -> user
        self.user_index = f"{self._prefix}:users:index"  #: sorted set, all scores 0: <creation ms>:<user>
        self.external_ids = f"{self._prefix}:users:external"  #: hash: external id -> user id
        self.api_keys = f"{self._prefix}:keys"  #: hash: key id -> key
        self.data_keys = f"{self._prefix}:dek"  #: hash: version -> wrapped data key
        self.generations = f"{self._prefix}:generations"  #: hash: user or '' -> generation of the layer
        self.era = f"{self._prefix}:era"  #: string: another one after every loss of leases: fences leap (`lease.lua`)
        self.due = f"{self._prefix}:due"  #: sorted set: conversation -> ms
        #: Sorted set: conversation that may have a running runtime -> ms of its last use; sets by user and key below.
        self.slots = f"{self._prefix}:slots"
        self.starts = (
            f"{self._prefix}:starts"  #: sorted set of starts in the last minute -> ms; by user and key below it
        )
        self.ledgers = f"{self.slots}:spent:"  #: the beginning of the keys that `ledger` names, for scripts
        self.queue = f"{self._prefix}:queue"  #: sorted set of conversations that wait for a slot, in order
        self.evictions = f"{self._prefix}:evictions"  #: sorted set: conversation that is to make room -> until ms
        self.conversations = f"{self._prefix}:conversations"  #: sorted set, all scores 0: <creation ms>:<conversation>
        self.runtimes = f"{self._prefix}:runtimes"  #: sorted set: those of `conversations` that are bare runtimes
        self.names = f"{self._prefix}:names"  #: hash: <user or ''>/<name of a bare runtime> -> who got it last
        self.phases = f"{self._prefix}:phases"  #: hash: phase -> how many conversations are in it
        self.hooks = f"{self._prefix}:hooks"  #: hash: endpoint id -> endpoint
        self.hooks_wanted = f"{self._prefix}:hooks:wanted"  #: hash: endpoint that listens -> what for (`outbox.lua`)
        #: Beginnings, for scripts that learn the id from the tenant's own data. As KEYS they name the right slot.
        self.conversation_prefix = f"{self._prefix}:c:"
        self.user_prefix = f"{self._prefix}:u:"
        self.hook_prefix = f"{self._prefix}:hook:"  #: of the keys that `outbox.lua` names
        self.operation_prefix = f"{self._prefix}:o:"

    def user_conversations(self, user: UserId) -> str:
        """Sorted set, as `conversations`."""
        return f"{self.user_prefix}{user}:conversations"

    def user_runtimes(self, user: UserId) -> str:
        """Sorted set, as `runtimes`."""
        return f"{self.user_prefix}{user}:runtimes"

    def ledger(self, month: str, user: UserId | None) -> str:
        """Hash with an expiry: what was spent in that month by the tenant, or one of its users (`spending.lua`)."""
        return f"{self.ledgers}{month}" if user is None else f"{self.ledgers}{month}:user:{user}"

    def settings(self, user: UserId | None) -> str:
        """Hash: sealed, version."""
        return f"{self._layer(user)}:settings"

    def secrets(self, user: UserId | None) -> str:
        """Hash: name -> JSON with version and place; `#` counts the places given."""
        return f"{self._layer(user)}:secrets"

    def providers(self, user: UserId | None) -> str:
        """Hash, as `secrets`."""
        return f"{self._layer(user)}:providers"

    def conversation(self, id: ConversationId) -> str:
        """Hash: the record in its parts (`records.py`), version, fence, lease."""
        return f"{self.conversation_prefix}{id}"

    def saga(self, id: ConversationId) -> str:
        """Hash: for each step its place, note and, if stuck, message and second since when."""
        return f"{self.conversation(id)}:saga"

    def inbox(self, id: ConversationId) -> str:
        """Hash: messages by sequence, sequence by client id; `#` is the last sequence."""
        return f"{self.conversation(id)}:inbox"

    def waiting(self, id: ConversationId) -> str:
        """Sorted set of the sequences not delivered yet."""
        return f"{self.conversation(id)}:waiting"

    def events(self, id: ConversationId) -> str:
        """Stream with ids `<sequence>-0`."""
        return f"{self.conversation(id)}:events"

    def running_operations(self, id: ConversationId) -> str:
        """Set of the ids of operations that have not ended."""
        return f"{self.conversation(id)}:operations"

    def operation(self, id: OperationId) -> str:
        """Hash: the operation without its stages, its state, and one field a stage."""
        return f"{self.operation_prefix}{id}"

    def calls(self, key: KeyId | None) -> str:
        """String with an expiry: the bucket of calls (`rate_take.lua`) of a key, or of the tenant with all of its
        keys."""
        return f"{self._prefix}:calls" if key is None else f"{self._prefix}:calls:{key}"

    def hook(self, id: HookId) -> str:
        """Hash: how the endpoint does and what waits for it."""
        return f"{self.hook_prefix}{id}"

    def hook_log(self, id: HookId) -> str:
        """Stream: its last attempts."""
        return f"{self.hook(id)}:log"

    def _layer(self, user: UserId | None) -> str:
        return f"{self._prefix}:tenant-layer" if user is None else f"{self.user_prefix}{user}"
