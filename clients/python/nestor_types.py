"""Types of Nestor's native API. Written by scripts/clients from /openapi.json: do not edit."""

from typing import Any, Literal, NotRequired, TypedDict

#: What the clock does.
Act = Literal["pause", "stop", "archive", "delete", "purge", "restart"]

#: What the actor showed: an API key of that kind, or a token that speaks for the same; or the session key of a
#: runtime.
ActorKind = Literal["operator", "tenant", "user", "runtime"]

#: Labels by name, all that there are to be.
AllLabelsBody = dict[str, str]

#: What would become of a start that is asked for now.
Decision = Literal["start", "join", "queue", "pause", "reject"]

#: What should be; the workers and the reconciler make it so.
Desired = Literal["running", "paused", "stopped", "deleted"]

#: Why a runtime is kept, or will be.
Hold = Literal["starting", "queued", "in_use", "agent_running", "messages_waiting"]

#: What an endpoint can be told of. The list is public.
HookEvent = Literal[
    "conversation.created",
    "conversation.status_changed",
    "runtime.created",
    "runtime.status_changed",
    "runtime.ready",
    "runtime.failed",
    "message.delivered",
    "message.accepted",
    "quota.exceeded",
    "budget.threshold_reached",
    "endpoint.disabled",
]

#: Who a key speaks for. The text is the second part of the key itself: `nst_<kind>_<id>_<secret>`.
KeyKind = Literal["op", "tenant", "user"]

OperationState = Literal["running", "succeeded", "failed"]

#: Where a conversation is.
Phase = Literal[
    "pending",
    "provisioning",
    "configuring",
    "ready",
    "pausing",
    "paused",
    "resuming",
    "stopping",
    "stopped",
    "deleting",
    "failed",
]

#: What becomes of a start that finds its limit reached.
Policy = Literal["reject", "queue", "pause_oldest_idle"]

#: Why a conversation is in its phase. The list is closed and public.
Reason = Literal[
    "capacity",
    "limit",
    "image_pull",
    "image_refused",
    "image_start",
    "repository_unavailable",
    "credential_rejected",
    "oom",
    "disk_full",
    "health_timeout",
    "deadline",
    "config_rejected",
    "version_skew",
    "engine_error",
    "store_unavailable",
    "runtime_lost",
    "evicted",
    "idle",
    "expired",
    "requested",
]

RestartPolicy = Literal["never", "on_failure"]

#: What a key may do. A key without explicit scopes may do all of its tenant's.
Scope = Literal["read", "write", "secrets:reveal"]

StageState = Literal["waiting", "running", "succeeded", "failed"]

#: What a budget does that is reached, beside refusing starts.
WhenReached = Literal["refuse_starts", "pause"]

#: What became of a request.
orchestrator__domain__audit__Outcome = Literal["accepted", "refused", "failed"]

#: What became of an attempt.
orchestrator__domain__hooks__Outcome = Literal["delivered", "failed", "given_up"]


class LlmBody(TypedDict):
    """The model. Known fields beyond the typed ones go to the runtime as they are. Other fields may be there."""

    model: NotRequired[str | None]
    api_key: NotRequired[str | None]
    base_url: NotRequired[str | None]
    temperature: NotRequired[float | None]
    timeout: NotRequired[float | None]
    num_retries: NotRequired[int | None]
    max_output_tokens: NotRequired[int | None]
    stream: NotRequired[bool | None]


class AgentSettingsBody(TypedDict):
    """Other fields may be there."""

    agent: NotRequired[str | None]
    llm: NotRequired[LlmBody | None]
    mcp_config: NotRequired[dict[str, Any] | None]


class AllowanceBody(TypedDict):
    """What the operator allows one tenant: 0 for no limit, null for what all are allowed; what is left out stays."""

    max_runtimes: NotRequired[int | None]
    max_runtimes_per_user: NotRequired[int | None]
    max_runtimes_per_key: NotRequired[int | None]
    starts_per_minute: NotRequired[int | None]
    starts_per_minute_per_user: NotRequired[int | None]
    starts_per_minute_per_key: NotRequired[int | None]


class ApiKey(TypedDict):
    """An API key without its text."""

    id: str
    name: str
    kind: KeyKind
    #: The user that it speaks for; null: the tenant
    user: str | None
    scopes: list[Scope]
    created_at: str
    expires_at: str | None
    revoked: bool


class ApiKeyPage(TypedDict):
    #: Null only in the place of one that was asked for by `ids` and is not there
    items: list[ApiKey | None]
    #: The `page_id` of the next page; null: this is the last
    next_page_id: str | None


class AuditActor(TypedDict):
    """Who asked."""

    kind: ActorKind
    #: The API key, by its id; of a token an id that stands for its subject
    key: str | None
    #: The user that it speaks for, or acts for
    user: str | None
    #: The runtime whose session key was shown
    runtime: str | None
    #: The `sub` of the token that was sent; null: it was a key
    subject: str | None


class AuditObject(TypedDict):
    """The first thing that was changed."""

    #: Such as tenant, user, key, settings, secret, provider, conversation
    kind: str
    #: Its id or name; of a message that of its conversation
    id: str | None
    #: Whose layer it is in; null: the tenant's, or in none
    user: str | None


class AuditEntry(TypedDict):
    """One request that changed something, was refused, or was told something secret."""

    id: str
    at: str
    actor: AuditActor
    #: Of the peer that sent it; behind a proxy of yours, that one's
    address: str | None
    #: The method
    verb: str
    #: The path, without its query
    resource: str
    #: Null where nothing changed that Nestor keeps
    object: AuditObject | None
    #: accepted; refused: nothing was done; failed: it broke off and may be done or not
    outcome: orchestrator__domain__audit__Outcome
    #: Of the problem that it was answered with
    code: str | None
    #: The X-Request-ID of its answer
    request_id: str | None


class AuditPage(TypedDict):
    items: list[AuditEntry]
    #: The `page_id` of the next page; null: this is the last
    next_page_id: str | None


class BareRuntimeBody(TypedDict):
    """`environment` is for the shell of the runtime: its values are kept sealed and reach it with its keys."""

    name: NotRequired[str | None]
    environment: NotRequired[dict[str, str] | None]
    image: NotRequired[str | None]
    size: NotRequired[int | None]
    labels: NotRequired[dict[str, str]]


class Budget(TypedDict):
    """What may be used of models in a calendar month of UTC; null: no limit."""

    monthly_usd: float | None
    #: Of prompts and answers together
    monthly_tokens: int | None
    #: By each user
    monthly_usd_per_user: float | None
    monthly_tokens_per_user: int | None
    #: Percents that webhooks are told of when they are reached
    thresholds: list[int]
    #: Whether what runs is paused, beside refusing starts
    when_reached: WhenReached


class BudgetBody(TypedDict):
    """What a tenant, and each of its users, may use of models in a calendar month of UTC: US dollars, and tokens of
    prompts and answers together. Null: as much as it likes; one of the four is to be given. Webhooks are told of each
    of the `thresholds`, in percent, that is reached. At 100 percent starts are refused; `when_reached` says whether
    conversations that run are paused as well."""

    monthly_usd: NotRequired[float | None]
    monthly_tokens: NotRequired[int | None]
    monthly_usd_per_user: NotRequired[float | None]
    monthly_tokens_per_user: NotRequired[int | None]
    thresholds: NotRequired[list[int]]
    when_reached: NotRequired[WhenReached]


class ConfigurationDrift(TypedDict):
    """The last change of its configuration that somebody made in the runtime."""

    parts: list[Literal["settings", "git_providers", "secrets"]]
    seen_at: str
    #: Null: it is still there
    repaired_at: str | None
    #: When this one, or else the next one, may be repaired
    repair_at: str
    #: Since the start
    repairs: int


class ConfigurationNames(TypedDict):
    """What the runtime was given, by name alone."""

    #: JSON pointers into the runtime's settings
    settings: list[str]
    git_providers: list[str]
    secrets: list[str]


class ConfigurationTrouble(TypedDict):
    """Why the wanted configuration is not in the runtime yet."""

    problem: str
    tries: int
    retry_at: str


class Configuration(TypedDict):
    """What the runtime holds beside what is wanted."""

    held: str | None
    digest: str | None
    wanted: str
    #: It holds what is wanted
    current: bool
    names: ConfigurationNames
    pushed_at: str
    #: What drift is looked for in
    compared: Literal["values", "names"] | None
    drifted: list[Literal["settings", "git_providers", "secrets"]]
    drift: ConfigurationDrift | None
    trouble: ConfigurationTrouble | None


class Cost(TypedDict):
    """What was used of models, as the runtimes told it."""

    #: US dollars, in steps of a millionth
    usd: float
    prompt_tokens: int
    completion_tokens: int


class ForkOf(TypedDict):
    """What it goes on from."""

    conversation: str
    #: The number of the last event that it took; 0: none
    at: int
    #: That of the snapshot, as it was at event `at`, or as it was when it was copied
    workspace: Literal["snapshot", "event", "current"]
    #: Null: of none
    snapshot: str | None


class Idle(TypedDict):
    """When it will be paused unless it is used."""

    #: Null: never
    pause_after_seconds: float | None
    unused_since: str
    #: Null: not while nothing changes
    pauses_at: str | None


class Image(TypedDict):
    """The image that it stays on."""

    name: str
    #: The engine's own, a digest of all that is in it
    id: str
    #: It fell into the share that tries a new image out
    canary: bool


class PastFailure(TypedDict):
    """One of its last failures."""

    reason: Reason
    message: str
    hint: str
    retryable: bool
    #: The step of provisioning that failed
    step: str | None
    #: The last lines that the runtime printed
    log_tail: list[str]
    at: str
    generation: int
    attempt: int
    #: It started again by itself
    restarted: bool


class Queued(TypedDict):
    """Where in the tenant's queue its start waits."""

    place: int
    until: str


class RuntimeOfConversation(TypedDict):
    """The runtime of a conversation."""

    id: str
    #: Grows each time a runtime is made for it; 0: none was yet
    generation: int
    #: Of its agent server; null while it is neither ready nor paused
    url: str | None
    #: For `X-Session-API-Key` at `url`; null in lists and for keys that may only read
    session_key: str | None


class ScheduledAct(TypedDict):
    """What the clock will do to it if nothing changes."""

    act: Act
    at: str
    reason: Reason


class StuckUndo(TypedDict):
    """What could not be undone yet; it is tried again every few seconds."""

    step: str
    problem: str


class Conversation(TypedDict):
    """A conversation: the durable thing a user asks for, with all that is known of it."""

    reason: Reason
    message: str
    hint: str
    retryable: bool
    #: The step of provisioning that failed
    step: str | None
    #: The last lines that the runtime printed
    log_tail: list[str]
    id: str
    #: Whose it is; null: the tenant's own
    user: str | None
    labels: dict[str, str]
    phase: Phase
    #: The phase in fewer words
    status: Literal["starting", "running", "paused", "stopped", "failed"]
    #: What it is being brought to
    desired: Desired
    attempt: int
    #: It died, and starts again by itself then
    restart_at: str | None
    #: Grows with each change
    version: int
    fence: int
    #: Null until it is known, and where runtimes have no images
    image: Image | None
    #: How many times the smallest runtime it is
    size: int
    #: The last one on it
    operation: str | None
    #: Its workspace is gone since then, its log is kept
    archived_at: str | None
    #: Deleted; until then it can be brought back
    purge_at: str | None
    created_at: str
    updated_at: str
    phase_since: str
    title: str | None
    repository: str | None
    branch: str | None
    git_provider: str | None
    #: Null: it is no fork
    fork_of: ForkOf | None
    runtime: RuntimeOfConversation | None
    #: Null while it is not ready
    idle: Idle | None
    #: What keeps it from being put to rest now
    holds: list[Hold]
    #: The next first
    schedule: list[ScheduledAct]
    #: The latest first
    failures: list[PastFailure]
    #: Null while no runtime was configured
    configuration: Configuration | None
    #: Null: it does not wait
    queue: Queued | None
    stuck: list[StuckUndo]
    #: In all its life; a fork's begins with nothing
    cost: Cost


class ConversationSettingsBody(TypedDict):
    """Other fields may be there."""

    max_iterations: NotRequired[int | None]
    confirmation_mode: NotRequired[bool | None]
    security_analyzer: NotRequired[str | None]


class LimitsBody(TypedDict):
    """Times, 0 for never, each below the operator's cap: unused for so long, a runtime is paused; lived or paused for
    so long, it is stopped; at rest for so long, a conversation is archived or deleted. `restart`: whether a runtime
    that died starts again by itself, within the operator's number. The others are a tenant's own, below the
    operator's: how many runtimes may run at once and how many starts a minute may bring (0: as many as the operator
    allows), and what becomes of a start that is one too many."""

    idle_pause_seconds: NotRequired[float | None]
    max_life_seconds: NotRequired[float | None]
    stop_paused_seconds: NotRequired[float | None]
    archive_seconds: NotRequired[float | None]
    delete_seconds: NotRequired[float | None]
    max_runtimes: NotRequired[int | None]
    max_runtimes_per_user: NotRequired[int | None]
    max_runtimes_per_key: NotRequired[int | None]
    starts_per_minute: NotRequired[int | None]
    starts_per_minute_per_user: NotRequired[int | None]
    starts_per_minute_per_key: NotRequired[int | None]
    when_full: NotRequired[Policy | None]
    restart: NotRequired[RestartPolicy | None]
    restart_max: NotRequired[int | None]
    restart_window_seconds: NotRequired[float | None]


class SettingsBody(TypedDict):
    """A merge patch: what is absent stays, null removes."""

    agent_settings: NotRequired[AgentSettingsBody | None]
    conversation_settings: NotRequired[ConversationSettingsBody | None]
    limits: NotRequired[LimitsBody | None]


class ConversationBody(TypedDict):
    id: NotRequired[str | None]
    title: NotRequired[str | None]
    repository: NotRequired[str | None]
    branch: NotRequired[str | None]
    git_provider: NotRequired[str | None]
    initial_message: NotRequired[str | None]
    settings: NotRequired[SettingsBody | None]
    secrets: NotRequired[dict[str, str] | None]
    image: NotRequired[str | None]
    size: NotRequired[int | None]
    labels: NotRequired[dict[str, str]]


class ConversationSummary(TypedDict):
    """A conversation as lists show it."""

    reason: Reason
    message: str
    hint: str
    retryable: bool
    #: The step of provisioning that failed
    step: str | None
    #: The last lines that the runtime printed
    log_tail: list[str]
    id: str
    #: Whose it is; null: the tenant's own
    user: str | None
    labels: dict[str, str]
    phase: Phase
    #: The phase in fewer words
    status: Literal["starting", "running", "paused", "stopped", "failed"]
    #: What it is being brought to
    desired: Desired
    attempt: int
    #: It died, and starts again by itself then
    restart_at: str | None
    #: Grows with each change
    version: int
    fence: int
    #: Null until it is known, and where runtimes have no images
    image: Image | None
    #: How many times the smallest runtime it is
    size: int
    #: The last one on it
    operation: str | None
    #: Its workspace is gone since then, its log is kept
    archived_at: str | None
    #: Deleted; until then it can be brought back
    purge_at: str | None
    created_at: str
    updated_at: str
    phase_since: str
    title: str | None
    repository: str | None
    branch: str | None
    git_provider: str | None
    #: Null: it is no fork
    fork_of: ForkOf | None
    runtime: RuntimeOfConversation | None


class ConversationPage(TypedDict):
    #: Null only in the place of one that was asked for by `ids` and is not there
    items: list[ConversationSummary | None]
    #: The `page_id` of the next page; null: this is the last
    next_page_id: str | None


class Count(TypedDict):
    """How many a list has."""

    count: int
    #: Null: these are all; else there are more, which the same call counts from this `page_id` on
    next_page_id: str | None


class Delivery(TypedDict):
    """One attempt to tell an event."""

    id: str
    event_id: str
    type: str
    sequence: int | None
    #: Null: it is about no conversation
    conversation_id: str | None
    attempt: int
    state: orchestrator__domain__hooks__Outcome
    #: Of the receiver's answer; null: there was none
    status: int | None
    problem: str | None
    milliseconds: int
    at: str | None


class DeliveryPage(TypedDict):
    #: Null only in the place of one that was asked for by `ids` and is not there
    items: list[Delivery | None]
    #: The `page_id` of the next page; null: this is the last
    next_page_id: str | None


class DescriptionBody(TypedDict):
    """A title of null removes it."""

    labels: NotRequired[dict[str, str | None]]
    title: NotRequired[str | None]


class LimitStanding(TypedDict):
    """One limit as it stands."""

    #: Such as tenant.runtimes
    rule: str
    #: Dollars where the rule is of dollars, else a whole number
    limit: float
    current: float
    #: Of budgets: within this one, such as 2026-03
    month: NotRequired[str]
    #: Of starts: within so many seconds
    window_seconds: NotRequired[int]


class DryRun(TypedDict):
    """What would become of a start that is asked for now."""

    decision: Decision
    when_full: Policy
    #: The limit that refuses it, or would
    rule: str | None
    limit: float | None
    current: float | None
    #: Seconds until there may be room, if known
    retry_after: float | None
    #: In the queue, from 1
    place: int | None
    #: Conversations that would be paused for it
    would_pause: list[str]
    #: How many wait already
    waiting: int
    limits: list[LimitStanding]


class EffectiveSettings(TypedDict):
    """The settings that a conversation would run with."""

    #: Model and agent; what is secret is hidden
    agent_settings: dict[str, Any]
    conversation_settings: dict[str, Any]
    #: Those that were chosen here, by name
    limits: dict[str, Any]
    llm_api_key_is_set: bool
    #: For each value the layer that it came from
    origin: dict[str, str]


class Entry(TypedDict):
    """One entry of a folder."""

    name: str
    kind: Literal["file", "folder", "link", "other"]
    #: Bytes, of a file
    size: int | None
    modified_at: str
    #: Of a file
    etag: str | None


class EntryPage(TypedDict):
    items: list[Entry]
    #: The `page_id` of the next page; null: this is the last
    next_page_id: str | None


class Event(TypedDict):
    """One event of a conversation's log."""

    sequence: int
    #: As the agent server wrote it
    event: dict[str, Any]


class EventPage(TypedDict):
    #: Null only in the place of one that was asked for by `ids` and is not there
    items: list[Event | None]
    #: The `after` of the next page; null: the end of what is there
    next_page_id: str | None


class ForkBody(TypedDict):
    """`at`: the number of the last event that the fork takes; left out: of all that are there now. `snapshot`: the
    one whose log and workspace it takes."""

    id: NotRequired[str | None]
    title: NotRequired[str | None]
    at: NotRequired[int | None]
    snapshot: NotRequired[str | None]
    labels: NotRequired[dict[str, str]]


class GitProvider(TypedDict):
    """A git provider without its token."""

    provider: str
    #: Null: the provider's own
    host: str | None
    user_id: str | None
    #: Grows with each change
    version: int


class GitProviderPage(TypedDict):
    #: Null only in the place of one that was asked for by `ids` and is not there
    items: list[GitProvider | None]
    #: The `page_id` of the next page; null: this is the last
    next_page_id: str | None


class GrantedImage(TypedDict):
    """An image that a tenant's new conversations may use."""

    name: str
    #: The engine's own, a digest of all that is in it
    id: str


class ImagePart(TypedDict):
    """Images by address, or as `data:` addresses; the limit of the whole body bounds them."""

    type: Literal["image"]
    image_urls: list[str]


class TextPart(TypedDict):
    type: Literal["text"]
    text: str


class InboxMessageBody(TypedDict):
    content: str | list[TextPart | ImagePart]
    client_id: NotRequired[str | None]


class KeyBody(TypedDict):
    name: str
    scopes: NotRequired[list[Scope] | None]
    user: NotRequired[str | None]
    expires_at: NotRequired[str | None]


class LabelsBody(TypedDict):
    """What is absent stays; null removes one."""

    labels: NotRequired[dict[str, str | None]]


class Link(TypedDict):
    """A link to one port, or one path of the workspace, without its address."""

    id: str
    port: int | None
    path: str | None
    user: str | None
    #: Of the runtime that it opens; of another it opens nothing
    generation: int
    created_at: str
    expires_at: str


class LinkBody(TypedDict):
    """One of `port` and `path`. `expires_in` in seconds, up to 30 days."""

    port: NotRequired[int | None]
    path: NotRequired[str | None]
    expires_in: NotRequired[int]


class LinkPage(TypedDict):
    #: Null only in the place of one that was asked for by `ids` and is not there
    items: list[Link | None]
    #: The `page_id` of the next page; null: this is the last
    next_page_id: str | None


class Logs(TypedDict):
    """The last lines that an agent server printed, without any value that it was given."""

    lines: list[str]
    #: False: it is gone, and these were kept of the latest that failed
    live: bool


class Message(TypedDict):
    """The receipt of a message."""

    #: Its `client_id`
    id: str
    state: Literal["queued", "delivered", "accepted", "undeliverable"]
    #: In the inbox
    sequence: int
    #: In the event log, once it is `accepted`
    event_sequence: NotRequired[int]


class MessagePage(TypedDict):
    #: Null only in the place of one that was asked for by `ids` and is not there
    items: list[Message | None]
    #: The `after` of the next page; null: the end of what is there
    next_page_id: str | None


class NewApiKey(TypedDict):
    """An API key with its text, which is shown this once."""

    id: str
    name: str
    kind: KeyKind
    #: The user that it speaks for; null: the tenant
    user: str | None
    scopes: list[Scope]
    created_at: str
    expires_at: str | None
    revoked: bool
    key: str


class NewLink(TypedDict):
    """A link with its address, which is the credential and is shown this once."""

    id: str
    port: int | None
    path: str | None
    user: str | None
    #: Of the runtime that it opens; of another it opens nothing
    generation: int
    created_at: str
    expires_at: str
    url: str


class WebhookSecret(TypedDict):
    """One of those that sign, without its value."""

    #: Grows with each rotation
    number: int
    expires_at: str | None


class NewWebhook(TypedDict):
    """A webhook with its new secret, which is shown this once."""

    id: str
    url: str
    #: Empty: all
    events: list[HookEvent]
    description: str
    enabled: bool
    #: requested, gone or failing
    disabled_reason: str | None
    secrets: list[WebhookSecret]
    #: Events that are not delivered yet
    waiting: int
    waiting_bytes: int
    #: In a row
    failures: int
    failing_since: str | None
    next_attempt_at: str | None
    #: Grows with each change
    version: int
    created_at: str
    updated_at: str
    secret: str


class Stage(TypedDict):
    """One named stage of an operation."""

    name: str
    state: StageState
    started_at: str | None
    #: How long it took; null while it has not ended
    seconds: float | None
    message: NotRequired[str]


class Why(TypedDict):
    """A reason with all that a person needs to act on it."""

    reason: Reason
    message: str
    hint: str
    retryable: bool
    #: The step of provisioning that failed
    step: str | None
    #: The last lines that the runtime printed
    log_tail: list[str]


class Operation(TypedDict):
    """One long piece of work; kept 24 hours after it ended."""

    id: str
    #: start, restart, resume, pause, stop, delete, undelete and others
    kind: str
    state: OperationState
    #: What it is on; or `runtime`
    conversation: NotRequired[str]
    #: The bare runtime that it is on
    runtime: NotRequired[str]
    #: Null also where another operation took its place
    failure: Why | None
    stages: list[Stage]
    created_at: str
    updated_at: str


class ProblemErrors(TypedDict):
    field: str
    message: str
    type: str


class ProblemCause(TypedDict):
    """Why there is no runtime, of one that failed: as its record has it"""

    reason: str
    message: str
    hint: str
    retryable: bool
    step: str | None
    log_tail: list[str]


class Problem(TypedDict):
    """Why not (RFC 9457). `code` is stable and for programs, `detail` for people."""

    #: urn:nestor:problem:<code>
    type: str
    title: str
    status: int
    #: urn:nestor:request:<request_id>
    instance: NotRequired[str]
    detail: str
    #: `detail` again, for clients of the older generation
    error: str
    #: `detail` again, for clients of the older generation
    message: NotRequired[str]
    code: str
    #: The X-Request-ID of the answer, under which the log has it
    request_id: str | None
    #: Whether the same request may work later
    retryable: bool
    #: Seconds, as in the header Retry-After
    retry_after: NotRequired[int]
    #: What to do
    hint: NotRequired[str]
    #: Which field of the request is wrong
    field: NotRequired[str]
    #: Every field that is wrong
    errors: NotRequired[list[ProblemErrors]]
    #: Which limit is reached, such as tenant.runtimes
    rule: NotRequired[str]
    #: Dollars where the rule is of dollars, else a whole number
    limit: NotRequired[float]
    current: NotRequired[float]
    #: When what was spent of a budget counts from 0
    resets_at: NotRequired[str]
    conversation: NotRequired[str]
    operation: NotRequired[str]
    #: Why there is no runtime, of one that failed: as its record has it
    cause: NotRequired[ProblemCause]


class ProviderBody(TypedDict):
    token: NotRequired[str | None]
    host: NotRequired[str | None]
    user_id: NotRequired[str | None]


class Redeliveries(TypedDict):
    """Events that are told once more."""

    #: How many
    queued: int
    first_sequence: int | None
    last_sequence: int | None
    #: False: older ones are not in the delivery log any more
    complete: bool


class Redelivery(TypedDict):
    """An event that is told once more."""

    event_id: str
    type: str
    state: Literal["queued"]


class Rotation(TypedDict):
    overlap_seconds: NotRequired[float]


class Runtime(TypedDict):
    """A bare runtime, with all that is known of it."""

    reason: Reason
    message: str
    hint: str
    retryable: bool
    #: The step of provisioning that failed
    step: str | None
    #: The last lines that the runtime printed
    log_tail: list[str]
    id: str
    #: Whose it is; null: the tenant's own
    user: str | None
    labels: dict[str, str]
    phase: Phase
    #: The phase in fewer words
    status: Literal["starting", "running", "paused", "stopped", "failed"]
    #: What it is being brought to
    desired: Desired
    attempt: int
    #: It died, and starts again by itself then
    restart_at: str | None
    #: Grows with each change
    version: int
    fence: int
    #: Null until it is known, and where runtimes have no images
    image: Image | None
    #: How many times the smallest runtime it is
    size: int
    #: The last one on it
    operation: str | None
    #: Its workspace is gone since then, its log is kept
    archived_at: str | None
    #: Deleted; until then it can be brought back
    purge_at: str | None
    created_at: str
    updated_at: str
    phase_since: str
    #: The only one of its user that has it
    name: str | None
    #: Grows each time a runtime is made for it; 0: none was yet
    generation: int
    #: Of its agent server; null while it is neither ready nor paused
    url: str | None
    #: For `X-Session-API-Key` at `url`; null in lists and for keys that may only read
    session_key: str | None
    #: Null while it is not ready
    idle: Idle | None
    #: What keeps it from being put to rest now
    holds: list[Hold]
    #: The next first
    schedule: list[ScheduledAct]
    #: The latest first
    failures: list[PastFailure]
    #: Null while no runtime was configured
    configuration: Configuration | None
    #: Null: it does not wait
    queue: Queued | None
    stuck: list[StuckUndo]


class RuntimeSummary(TypedDict):
    """A bare runtime as lists show it."""

    reason: Reason
    message: str
    hint: str
    retryable: bool
    #: The step of provisioning that failed
    step: str | None
    #: The last lines that the runtime printed
    log_tail: list[str]
    id: str
    #: Whose it is; null: the tenant's own
    user: str | None
    labels: dict[str, str]
    phase: Phase
    #: The phase in fewer words
    status: Literal["starting", "running", "paused", "stopped", "failed"]
    #: What it is being brought to
    desired: Desired
    attempt: int
    #: It died, and starts again by itself then
    restart_at: str | None
    #: Grows with each change
    version: int
    fence: int
    #: Null until it is known, and where runtimes have no images
    image: Image | None
    #: How many times the smallest runtime it is
    size: int
    #: The last one on it
    operation: str | None
    #: Its workspace is gone since then, its log is kept
    archived_at: str | None
    #: Deleted; until then it can be brought back
    purge_at: str | None
    created_at: str
    updated_at: str
    phase_since: str
    #: The only one of its user that has it
    name: str | None
    #: Grows each time a runtime is made for it; 0: none was yet
    generation: int
    #: Of its agent server; null while it is neither ready nor paused
    url: str | None
    #: For `X-Session-API-Key` at `url`; null in lists and for keys that may only read
    session_key: str | None


class RuntimePage(TypedDict):
    #: Null only in the place of one that was asked for by `ids` and is not there
    items: list[RuntimeSummary | None]
    #: The `page_id` of the next page; null: this is the last
    next_page_id: str | None


class Secret(TypedDict):
    """A secret without its value."""

    name: str
    description: str | None
    #: Grows with each change
    version: int


class SecretBody(TypedDict):
    value: str
    description: NotRequired[str | None]


class SecretPage(TypedDict):
    #: Null only in the place of one that was asked for by `ids` and is not there
    items: list[Secret | None]
    #: The `page_id` of the next page; null: this is the last
    next_page_id: str | None


class Settings(TypedDict):
    """The settings of one layer; what is secret is hidden by a mark, which means unchanged when it is sent back."""

    #: Model and agent; what is secret is hidden
    agent_settings: dict[str, Any]
    conversation_settings: dict[str, Any]
    #: Those that were chosen here, by name
    limits: dict[str, Any]
    llm_api_key_is_set: bool


class Snapshot(TypedDict):
    """Log and workspace of a conversation as they were together."""

    id: str
    #: The number of the last event of the log then; 0: there was none
    at: int
    #: Of both together
    bytes: int
    #: Who took it; null: the tenant
    user: str | None
    created_at: str


class SnapshotPage(TypedDict):
    #: Null only in the place of one that was asked for by `ids` and is not there
    items: list[Snapshot | None]
    #: The `page_id` of the next page; null: this is the last
    next_page_id: str | None


class Spent(TypedDict):
    """What was used of models in a calendar month, by all conversations, also those that are gone."""

    #: US dollars, in steps of a millionth
    usd: float
    prompt_tokens: int
    completion_tokens: int
    #: Such as 2026-03
    month: str
    #: The first moment of the next month, in UTC
    ends_at: str


class Tenant(TypedDict):
    """A customer: owns users, keys, limits."""

    id: str
    name: str
    #: In the place of what all are allowed, by name; 0 for no limit
    limits: dict[str, int]
    #: The first is for requests that name none; empty: as all
    sizes: list[int]
    #: Null: as all
    images: list[GrantedImage] | None
    #: Null: none
    budget: Budget | None
    #: Grows with each change
    version: int
    created_at: str


class TenantBody(TypedDict):
    name: str


class TenantPage(TypedDict):
    #: Null only in the place of one that was asked for by `ids` and is not there
    items: list[Tenant | None]
    #: The `page_id` of the next page; null: this is the last
    next_page_id: str | None


class TenantPatchBody(TypedDict):
    """What is left out stays. `sizes` are those that the tenant's conversations may have, the first for those that
    name none; null, or none: as all. `images` are those that its new conversations may use, each kept with what it
    stands for now; the first is for requests that name none, unless the installation's own is among them; null: as
    all. A `budget` takes the place of the one before; null: none."""

    limits: NotRequired[AllowanceBody]
    sizes: NotRequired[list[int] | None]
    images: NotRequired[list[str] | None]
    budget: NotRequired[BudgetBody | None]


class TenantUsage(TypedDict):
    """What a tenant, or the user that is asked for, has now."""

    spent: Spent
    #: Conversations and bare runtimes that run or are about to; none paused
    runtimes: int
    #: Starts in the tenant's queue
    waiting: int
    when_full: Policy
    #: Those that hold for the next start with this key
    limits: list[LimitStanding]


class UpgradeBody(TypedDict):
    """Without `image`: what a new conversation would get."""

    image: NotRequired[str | None]


class Usage(TypedDict):
    """What one runtime uses at this moment, and what it may use."""

    #: Since it was started
    cpu_seconds: float
    memory_bytes: int
    memory_limit_bytes: int
    processes: int
    #: Of workspace and state; null where that cannot be told
    disk_bytes: int | None
    #: How many times the smallest runtime it is
    size: int
    #: Processors
    cpu_limit: float
    processes_limit: int
    #: Of each process
    open_files_limit: int
    log_limit_bytes: int
    #: Null: none
    disk_limit_bytes: int | None


class User(TypedDict):
    """A person or service of a tenant."""

    id: str
    name: str
    #: The tenant's own name for it
    external_id: str | None
    tenant: str
    created_at: str


class UserBody(TypedDict):
    name: str
    external_id: NotRequired[str | None]


class UserPage(TypedDict):
    #: Null only in the place of one that was asked for by `ids` and is not there
    items: list[User | None]
    #: The `page_id` of the next page; null: this is the last
    next_page_id: str | None


class Webhook(TypedDict):
    """Where a tenant wants to be told, and how that does."""

    id: str
    url: str
    #: Empty: all
    events: list[HookEvent]
    description: str
    enabled: bool
    #: requested, gone or failing
    disabled_reason: str | None
    secrets: list[WebhookSecret]
    #: Events that are not delivered yet
    waiting: int
    waiting_bytes: int
    #: In a row
    failures: int
    failing_since: str | None
    next_attempt_at: str | None
    #: Grows with each change
    version: int
    created_at: str
    updated_at: str


class WebhookBody(TypedDict):
    url: str
    events: NotRequired[list[HookEvent]]
    description: NotRequired[str]


class WebhookChange(TypedDict):
    """What is absent stays."""

    url: NotRequired[str | None]
    events: NotRequired[list[HookEvent] | None]
    description: NotRequired[str | None]
    enabled: NotRequired[bool | None]


class WebhookPage(TypedDict):
    #: Null only in the place of one that was asked for by `ids` and is not there
    items: list[Webhook | None]
    #: The `page_id` of the next page; null: this is the last
    next_page_id: str | None


class Written(TypedDict):
    """A file that was written."""

    path: str
    #: Bytes
    size: int
