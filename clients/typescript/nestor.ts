// Types of Nestor's native API. Written by scripts/clients from /openapi.json: do not edit.

/** What the clock does. */
export type Act = "pause" | "stop" | "archive" | "delete" | "purge" | "restart";

/** What the actor showed: an API key of that kind, or a token that speaks for the same; or the session key of a runtime. */
export type ActorKind = "operator" | "tenant" | "user" | "runtime";

/** Labels by name, all that there are to be. */
export type AllLabelsBody = { [name: string]: string };

/** What would become of a start that is asked for now. */
export type Decision = "start" | "join" | "queue" | "pause" | "reject";

/** What should be; the workers and the reconciler make it so. */
export type Desired = "running" | "paused" | "stopped" | "deleted";

/** Why a runtime is kept, or will be. */
export type Hold = "starting" | "queued" | "in_use" | "agent_running" | "messages_waiting";

/** What an endpoint can be told of. The list is public. */
export type HookEvent = "conversation.created" | "conversation.status_changed" | "runtime.created" | "runtime.status_changed" | "runtime.ready" | "runtime.failed" | "message.delivered" | "message.accepted" | "quota.exceeded" | "budget.threshold_reached" | "endpoint.disabled";

/** Who a key speaks for. The text is the second part of the key itself: `nst_<kind>_<id>_<secret>`. */
export type KeyKind = "op" | "tenant" | "user";

export type OperationState = "running" | "succeeded" | "failed";

/** Where a conversation is. */
export type Phase = "pending" | "provisioning" | "configuring" | "ready" | "pausing" | "paused" | "resuming" | "stopping" | "stopped" | "deleting" | "failed";

/** What becomes of a start that finds its limit reached. */
export type Policy = "reject" | "queue" | "pause_oldest_idle";

/** Why a conversation is in its phase. The list is closed and public. */
export type Reason = "capacity" | "limit" | "image_pull" | "image_refused" | "image_start" | "repository_unavailable" | "credential_rejected" | "oom" | "disk_full" | "health_timeout" | "deadline" | "config_rejected" | "version_skew" | "engine_error" | "store_unavailable" | "runtime_lost" | "evicted" | "idle" | "expired" | "requested";

export type RestartPolicy = "never" | "on_failure";

/** What a key may do. A key without explicit scopes may do all of its tenant's. */
export type Scope = "read" | "write" | "secrets:reveal";

export type StageState = "waiting" | "running" | "succeeded" | "failed";

/** What a budget does that is reached, beside refusing starts. */
export type WhenReached = "refuse_starts" | "pause";

/** What became of a request. */
export type orchestrator__domain__audit__Outcome = "accepted" | "refused" | "failed";

/** What became of an attempt. */
export type orchestrator__domain__hooks__Outcome = "delivered" | "failed" | "given_up";

/** The model. Known fields beyond the typed ones go to the runtime as they are. */
export interface LlmBody {
  model?: string | null;
  api_key?: string | null;
  base_url?: string | null;
  temperature?: number | null;
  timeout?: number | null;
  num_retries?: number | null;
  max_output_tokens?: number | null;
  stream?: boolean | null;
  [name: string]: unknown;
}

export interface AgentSettingsBody {
  agent?: string | null;
  llm?: LlmBody | null;
  mcp_config?: { [name: string]: unknown } | null;
  [name: string]: unknown;
}

/** What the operator allows one tenant: 0 for no limit, null for what all are allowed; what is left out stays. */
export interface AllowanceBody {
  max_runtimes?: number | null;
  max_runtimes_per_user?: number | null;
  max_runtimes_per_key?: number | null;
  starts_per_minute?: number | null;
  starts_per_minute_per_user?: number | null;
  starts_per_minute_per_key?: number | null;
}

/** An API key without its text. */
export interface ApiKey {
  id: string;
  name: string;
  kind: KeyKind;
  /** The user that it speaks for; null: the tenant */
  user: string | null;
  scopes: Scope[];
  created_at: string;
  expires_at: string | null;
  revoked: boolean;
}

export interface ApiKeyPage {
  /** Null only in the place of one that was asked for by `ids` and is not there */
  items: (ApiKey | null)[];
  /** The `page_id` of the next page; null: this is the last */
  next_page_id: string | null;
}

/** Who asked. */
export interface AuditActor {
  kind: ActorKind;
  /** The API key, by its id; of a token an id that stands for its subject */
  key: string | null;
  /** The user that it speaks for, or acts for */
  user: string | null;
  /** The runtime whose session key was shown */
  runtime: string | null;
  /** The `sub` of the token that was sent; null: it was a key */
  subject: string | null;
}

/** The first thing that was changed. */
export interface AuditObject {
  /** Such as tenant, user, key, settings, secret, provider, conversation */
  kind: string;
  /** Its id or name; of a message that of its conversation */
  id: string | null;
  /** Whose layer it is in; null: the tenant's, or in none */
  user: string | null;
}

/** One request that changed something, was refused, or was told something secret. */
export interface AuditEntry {
  id: string;
  at: string;
  actor: AuditActor;
  /** Of the peer that sent it; behind a proxy of yours, that one's */
  address: string | null;
  /** The method */
  verb: string;
  /** The path, without its query */
  resource: string;
  /** Null where nothing changed that Nestor keeps */
  object: AuditObject | null;
  /** accepted; refused: nothing was done; failed: it broke off and may be done or not */
  outcome: orchestrator__domain__audit__Outcome;
  /** Of the problem that it was answered with */
  code: string | null;
  /** The X-Request-ID of its answer */
  request_id: string | null;
}

export interface AuditPage {
  items: AuditEntry[];
  /** The `page_id` of the next page; null: this is the last */
  next_page_id: string | null;
}

/** `environment` is for the shell of the runtime: its values are kept sealed and reach it with its keys. */
export interface BareRuntimeBody {
  name?: string | null;
  environment?: { [name: string]: string } | null;
  image?: string | null;
  size?: number | null;
  labels?: { [name: string]: string };
}

/** What may be used of models in a calendar month of UTC; null: no limit. */
export interface Budget {
  monthly_usd: number | null;
  /** Of prompts and answers together */
  monthly_tokens: number | null;
  /** By each user */
  monthly_usd_per_user: number | null;
  monthly_tokens_per_user: number | null;
  /** Percents that webhooks are told of when they are reached */
  thresholds: number[];
  /** Whether what runs is paused, beside refusing starts */
  when_reached: WhenReached;
}

/** What a tenant, and each of its users, may use of models in a calendar month of UTC: US dollars, and tokens of prompts and answers together. Null: as much as it likes; one of the four is to be given. Webhooks are told of each of the `thresholds`, in percent, that is reached. At 100 percent starts are refused; `when_reached` says whether conversations that run are paused as well. */
export interface BudgetBody {
  monthly_usd?: number | null;
  monthly_tokens?: number | null;
  monthly_usd_per_user?: number | null;
  monthly_tokens_per_user?: number | null;
  thresholds?: number[];
  when_reached?: WhenReached;
}

/** The last change of its configuration that somebody made in the runtime. */
export interface ConfigurationDrift {
  parts: ("settings" | "git_providers" | "secrets")[];
  seen_at: string;
  /** Null: it is still there */
  repaired_at: string | null;
  /** When this one, or else the next one, may be repaired */
  repair_at: string;
  /** Since the start */
  repairs: number;
}

/** What the runtime was given, by name alone. */
export interface ConfigurationNames {
  /** JSON pointers into the runtime's settings */
  settings: string[];
  git_providers: string[];
  secrets: string[];
}

/** Why the wanted configuration is not in the runtime yet. */
export interface ConfigurationTrouble {
  problem: string;
  tries: number;
  retry_at: string;
}

/** What the runtime holds beside what is wanted. */
export interface Configuration {
  held: string | null;
  digest: string | null;
  wanted: string;
  /** It holds what is wanted */
  current: boolean;
  names: ConfigurationNames;
  pushed_at: string;
  /** What drift is looked for in */
  compared: "values" | "names" | null;
  drifted: ("settings" | "git_providers" | "secrets")[];
  drift: ConfigurationDrift | null;
  trouble: ConfigurationTrouble | null;
}

/** What was used of models, as the runtimes told it. */
export interface Cost {
  /** US dollars, in steps of a millionth */
  usd: number;
  prompt_tokens: number;
  completion_tokens: number;
}

/** What it goes on from. */
export interface ForkOf {
  conversation: string;
  /** The number of the last event that it took; 0: none */
  at: number;
  /** That of the snapshot, as it was at event `at`, or as it was when it was copied */
  workspace: "snapshot" | "event" | "current";
  /** Null: of none */
  snapshot: string | null;
}

/** When it will be paused unless it is used. */
export interface Idle {
  /** Null: never */
  pause_after_seconds: number | null;
  unused_since: string;
  /** Null: not while nothing changes */
  pauses_at: string | null;
}

/** The image that it stays on. */
export interface Image {
  name: string;
  /** The engine's own, a digest of all that is in it */
  id: string;
  /** It fell into the share that tries a new image out */
  canary: boolean;
}

/** One of its last failures. */
export interface PastFailure {
  reason: Reason;
  message: string;
  hint: string;
  retryable: boolean;
  /** The step of provisioning that failed */
  step: string | null;
  /** The last lines that the runtime printed */
  log_tail: string[];
  at: string;
  generation: number;
  attempt: number;
  /** It started again by itself */
  restarted: boolean;
}

/** Where in the tenant's queue its start waits. */
export interface Queued {
  place: number;
  until: string;
}

/** The runtime of a conversation. */
export interface RuntimeOfConversation {
  id: string;
  /** Grows each time a runtime is made for it; 0: none was yet */
  generation: number;
  /** Of its agent server; null while it is neither ready nor paused */
  url: string | null;
  /** For `X-Session-API-Key` at `url`; null in lists and for keys that may only read */
  session_key: string | null;
}

/** What the clock will do to it if nothing changes. */
export interface ScheduledAct {
  act: Act;
  at: string;
  reason: Reason;
}

/** What could not be undone yet; it is tried again every few seconds. */
export interface StuckUndo {
  step: string;
  problem: string;
}

/** A conversation: the durable thing a user asks for, with all that is known of it. */
export interface Conversation {
  reason: Reason;
  message: string;
  hint: string;
  retryable: boolean;
  /** The step of provisioning that failed */
  step: string | null;
  /** The last lines that the runtime printed */
  log_tail: string[];
  id: string;
  /** Whose it is; null: the tenant's own */
  user: string | null;
  labels: { [name: string]: string };
  phase: Phase;
  /** The phase in fewer words */
  status: "starting" | "running" | "paused" | "stopped" | "failed";
  /** What it is being brought to */
  desired: Desired;
  attempt: number;
  /** It died, and starts again by itself then */
  restart_at: string | null;
  /** Grows with each change */
  version: number;
  fence: number;
  /** Null until it is known, and where runtimes have no images */
  image: Image | null;
  /** How many times the smallest runtime it is */
  size: number;
  /** The last one on it */
  operation: string | null;
  /** Its workspace is gone since then, its log is kept */
  archived_at: string | null;
  /** Deleted; until then it can be brought back */
  purge_at: string | null;
  created_at: string;
  updated_at: string;
  phase_since: string;
  title: string | null;
  repository: string | null;
  branch: string | null;
  git_provider: string | null;
  /** Null: it is no fork */
  fork_of: ForkOf | null;
  runtime: RuntimeOfConversation | null;
  /** Null while it is not ready */
  idle: Idle | null;
  /** What keeps it from being put to rest now */
  holds: Hold[];
  /** The next first */
  schedule: ScheduledAct[];
  /** The latest first */
  failures: PastFailure[];
  /** Null while no runtime was configured */
  configuration: Configuration | null;
  /** Null: it does not wait */
  queue: Queued | null;
  stuck: StuckUndo[];
  /** In all its life; a fork's begins with nothing */
  cost: Cost;
}

export interface ConversationSettingsBody {
  max_iterations?: number | null;
  confirmation_mode?: boolean | null;
  security_analyzer?: string | null;
  [name: string]: unknown;
}

/** Times, 0 for never, each below the operator's cap: unused for so long, a runtime is paused; lived or paused for so long, it is stopped; at rest for so long, a conversation is archived or deleted. `restart`: whether a runtime that died starts again by itself, within the operator's number. The others are a tenant's own, below the operator's: how many runtimes may run at once and how many starts a minute may bring (0: as many as the operator allows), and what becomes of a start that is one too many. */
export interface LimitsBody {
  idle_pause_seconds?: number | null;
  max_life_seconds?: number | null;
  stop_paused_seconds?: number | null;
  archive_seconds?: number | null;
  delete_seconds?: number | null;
  max_runtimes?: number | null;
  max_runtimes_per_user?: number | null;
  max_runtimes_per_key?: number | null;
  starts_per_minute?: number | null;
  starts_per_minute_per_user?: number | null;
  starts_per_minute_per_key?: number | null;
  when_full?: Policy | null;
  restart?: RestartPolicy | null;
  restart_max?: number | null;
  restart_window_seconds?: number | null;
}

/** A merge patch: what is absent stays, null removes. */
export interface SettingsBody {
  agent_settings?: AgentSettingsBody | null;
  conversation_settings?: ConversationSettingsBody | null;
  limits?: LimitsBody | null;
}

export interface ConversationBody {
  id?: string | null;
  title?: string | null;
  repository?: string | null;
  branch?: string | null;
  git_provider?: string | null;
  initial_message?: string | null;
  settings?: SettingsBody | null;
  secrets?: { [name: string]: string } | null;
  image?: string | null;
  size?: number | null;
  labels?: { [name: string]: string };
}

/** A conversation as lists show it. */
export interface ConversationSummary {
  reason: Reason;
  message: string;
  hint: string;
  retryable: boolean;
  /** The step of provisioning that failed */
  step: string | null;
  /** The last lines that the runtime printed */
  log_tail: string[];
  id: string;
  /** Whose it is; null: the tenant's own */
  user: string | null;
  labels: { [name: string]: string };
  phase: Phase;
  /** The phase in fewer words */
  status: "starting" | "running" | "paused" | "stopped" | "failed";
  /** What it is being brought to */
  desired: Desired;
  attempt: number;
  /** It died, and starts again by itself then */
  restart_at: string | null;
  /** Grows with each change */
  version: number;
  fence: number;
  /** Null until it is known, and where runtimes have no images */
  image: Image | null;
  /** How many times the smallest runtime it is */
  size: number;
  /** The last one on it */
  operation: string | null;
  /** Its workspace is gone since then, its log is kept */
  archived_at: string | null;
  /** Deleted; until then it can be brought back */
  purge_at: string | null;
  created_at: string;
  updated_at: string;
  phase_since: string;
  title: string | null;
  repository: string | null;
  branch: string | null;
  git_provider: string | null;
  /** Null: it is no fork */
  fork_of: ForkOf | null;
  runtime: RuntimeOfConversation | null;
}

export interface ConversationPage {
  /** Null only in the place of one that was asked for by `ids` and is not there */
  items: (ConversationSummary | null)[];
  /** The `page_id` of the next page; null: this is the last */
  next_page_id: string | null;
}

/** How many a list has. */
export interface Count {
  count: number;
  /** Null: these are all; else there are more, which the same call counts from this `page_id` on */
  next_page_id: string | null;
}

/** One attempt to tell an event. */
export interface Delivery {
  id: string;
  event_id: string;
  type: string;
  sequence: number | null;
  /** Null: it is about no conversation */
  conversation_id: string | null;
  attempt: number;
  state: orchestrator__domain__hooks__Outcome;
  /** Of the receiver's answer; null: there was none */
  status: number | null;
  problem: string | null;
  milliseconds: number;
  at: string | null;
}

export interface DeliveryPage {
  /** Null only in the place of one that was asked for by `ids` and is not there */
  items: (Delivery | null)[];
  /** The `page_id` of the next page; null: this is the last */
  next_page_id: string | null;
}

/** A title of null removes it. */
export interface DescriptionBody {
  labels?: { [name: string]: string | null };
  title?: string | null;
}

/** One limit as it stands. */
export interface LimitStanding {
  /** Such as tenant.runtimes */
  rule: string;
  /** Dollars where the rule is of dollars, else a whole number */
  limit: number;
  current: number;
  /** Of budgets: within this one, such as 2026-03 */
  month?: string;
  /** Of starts: within so many seconds */
  window_seconds?: number;
}

/** What would become of a start that is asked for now. */
export interface DryRun {
  decision: Decision;
  when_full: Policy;
  /** The limit that refuses it, or would */
  rule: string | null;
  limit: number | null;
  current: number | null;
  /** Seconds until there may be room, if known */
  retry_after: number | null;
  /** In the queue, from 1 */
  place: number | null;
  /** Conversations that would be paused for it */
  would_pause: string[];
  /** How many wait already */
  waiting: number;
  limits: LimitStanding[];
}

/** The settings that a conversation would run with. */
export interface EffectiveSettings {
  /** Model and agent; what is secret is hidden */
  agent_settings: { [name: string]: unknown };
  conversation_settings: { [name: string]: unknown };
  /** Those that were chosen here, by name */
  limits: { [name: string]: unknown };
  llm_api_key_is_set: boolean;
  /** For each value the layer that it came from */
  origin: { [name: string]: string };
}

/** One entry of a folder. */
export interface Entry {
  name: string;
  kind: "file" | "folder" | "link" | "other";
  /** Bytes, of a file */
  size: number | null;
  modified_at: string;
  /** Of a file */
  etag: string | null;
}

export interface EntryPage {
  items: Entry[];
  /** The `page_id` of the next page; null: this is the last */
  next_page_id: string | null;
}

/** One event of a conversation's log. */
export interface Event {
  sequence: number;
  /** As the agent server wrote it */
  event: { [name: string]: unknown };
}

export interface EventPage {
  /** Null only in the place of one that was asked for by `ids` and is not there */
  items: (Event | null)[];
  /** The `after` of the next page; null: the end of what is there */
  next_page_id: string | null;
}

/** `at`: the number of the last event that the fork takes; left out: of all that are there now. `snapshot`: the one whose log and workspace it takes. */
export interface ForkBody {
  id?: string | null;
  title?: string | null;
  at?: number | null;
  snapshot?: string | null;
  labels?: { [name: string]: string };
}

/** A git provider without its token. */
export interface GitProvider {
  provider: string;
  /** Null: the provider's own */
  host: string | null;
  user_id: string | null;
  /** Grows with each change */
  version: number;
}

export interface GitProviderPage {
  /** Null only in the place of one that was asked for by `ids` and is not there */
  items: (GitProvider | null)[];
  /** The `page_id` of the next page; null: this is the last */
  next_page_id: string | null;
}

/** An image that a tenant's new conversations may use. */
export interface GrantedImage {
  name: string;
  /** The engine's own, a digest of all that is in it */
  id: string;
}

/** Images by address, or as `data:` addresses; the limit of the whole body bounds them. */
export interface ImagePart {
  type: "image";
  image_urls: string[];
}

export interface TextPart {
  type: "text";
  text: string;
}

export interface InboxMessageBody {
  content: string | (TextPart | ImagePart)[];
  client_id?: string | null;
}

export interface KeyBody {
  name: string;
  scopes?: Scope[] | null;
  user?: string | null;
  expires_at?: string | null;
}

/** What is absent stays; null removes one. */
export interface LabelsBody {
  labels?: { [name: string]: string | null };
}

/** A link to one port, or one path of the workspace, without its address. */
export interface Link {
  id: string;
  port: number | null;
  path: string | null;
  user: string | null;
  /** Of the runtime that it opens; of another it opens nothing */
  generation: number;
  created_at: string;
  expires_at: string;
}

/** One of `port` and `path`. `expires_in` in seconds, up to 30 days. */
export interface LinkBody {
  port?: number | null;
  path?: string | null;
  expires_in?: number;
}

export interface LinkPage {
  /** Null only in the place of one that was asked for by `ids` and is not there */
  items: (Link | null)[];
  /** The `page_id` of the next page; null: this is the last */
  next_page_id: string | null;
}

/** The last lines that an agent server printed, without any value that it was given. */
export interface Logs {
  lines: string[];
  /** False: it is gone, and these were kept of the latest that failed */
  live: boolean;
}

/** The receipt of a message. */
export interface Message {
  /** Its `client_id` */
  id: string;
  state: "queued" | "delivered" | "accepted" | "undeliverable";
  /** In the inbox */
  sequence: number;
  /** In the event log, once it is `accepted` */
  event_sequence?: number;
}

export interface MessagePage {
  /** Null only in the place of one that was asked for by `ids` and is not there */
  items: (Message | null)[];
  /** The `after` of the next page; null: the end of what is there */
  next_page_id: string | null;
}

/** An API key with its text, which is shown this once. */
export interface NewApiKey {
  id: string;
  name: string;
  kind: KeyKind;
  /** The user that it speaks for; null: the tenant */
  user: string | null;
  scopes: Scope[];
  created_at: string;
  expires_at: string | null;
  revoked: boolean;
  key: string;
}

/** A link with its address, which is the credential and is shown this once. */
export interface NewLink {
  id: string;
  port: number | null;
  path: string | null;
  user: string | null;
  /** Of the runtime that it opens; of another it opens nothing */
  generation: number;
  created_at: string;
  expires_at: string;
  url: string;
}

/** One of those that sign, without its value. */
export interface WebhookSecret {
  /** Grows with each rotation */
  number: number;
  expires_at: string | null;
}

/** A webhook with its new secret, which is shown this once. */
export interface NewWebhook {
  id: string;
  url: string;
  /** Empty: all */
  events: HookEvent[];
  description: string;
  enabled: boolean;
  /** requested, gone or failing */
  disabled_reason: string | null;
  secrets: WebhookSecret[];
  /** Events that are not delivered yet */
  waiting: number;
  waiting_bytes: number;
  /** In a row */
  failures: number;
  failing_since: string | null;
  next_attempt_at: string | null;
  /** Grows with each change */
  version: number;
  created_at: string;
  updated_at: string;
  secret: string;
}

/** One named stage of an operation. */
export interface Stage {
  name: string;
  state: StageState;
  started_at: string | null;
  /** How long it took; null while it has not ended */
  seconds: number | null;
  message?: string;
}

/** A reason with all that a person needs to act on it. */
export interface Why {
  reason: Reason;
  message: string;
  hint: string;
  retryable: boolean;
  /** The step of provisioning that failed */
  step: string | null;
  /** The last lines that the runtime printed */
  log_tail: string[];
}

/** One long piece of work; kept 24 hours after it ended. */
export interface Operation {
  id: string;
  /** start, restart, resume, pause, stop, delete, undelete and others */
  kind: string;
  state: OperationState;
  /** What it is on; or `runtime` */
  conversation?: string;
  /** The bare runtime that it is on */
  runtime?: string;
  /** Null also where another operation took its place */
  failure: Why | null;
  stages: Stage[];
  created_at: string;
  updated_at: string;
}

export interface ProblemErrors {
  field: string;
  message: string;
  type: string;
}

/** Why there is no runtime, of one that failed: as its record has it */
export interface ProblemCause {
  reason: string;
  message: string;
  hint: string;
  retryable: boolean;
  step: string | null;
  log_tail: string[];
}

/** Why not (RFC 9457). `code` is stable and for programs, `detail` for people. */
export interface Problem {
  /** urn:nestor:problem:<code> */
  type: string;
  title: string;
  status: number;
  /** urn:nestor:request:<request_id> */
  instance?: string;
  detail: string;
  /** `detail` again, for clients of the older generation */
  error: string;
  /** `detail` again, for clients of the older generation */
  message?: string;
  code: string;
  /** The X-Request-ID of the answer, under which the log has it */
  request_id: string | null;
  /** Whether the same request may work later */
  retryable: boolean;
  /** Seconds, as in the header Retry-After */
  retry_after?: number;
  /** What to do */
  hint?: string;
  /** Which field of the request is wrong */
  field?: string;
  /** Every field that is wrong */
  errors?: ProblemErrors[];
  /** Which limit is reached, such as tenant.runtimes */
  rule?: string;
  /** Dollars where the rule is of dollars, else a whole number */
  limit?: number;
  current?: number;
  /** When what was spent of a budget counts from 0 */
  resets_at?: string;
  conversation?: string;
  operation?: string;
  /** Why there is no runtime, of one that failed: as its record has it */
  cause?: ProblemCause;
}

export interface ProviderBody {
  token?: string | null;
  host?: string | null;
  user_id?: string | null;
}

/** Events that are told once more. */
export interface Redeliveries {
  /** How many */
  queued: number;
  first_sequence: number | null;
  last_sequence: number | null;
  /** False: older ones are not in the delivery log any more */
  complete: boolean;
}

/** An event that is told once more. */
export interface Redelivery {
  event_id: string;
  type: string;
  state: "queued";
}

export interface Rotation {
  overlap_seconds?: number;
}

/** A bare runtime, with all that is known of it. */
export interface Runtime {
  reason: Reason;
  message: string;
  hint: string;
  retryable: boolean;
  /** The step of provisioning that failed */
  step: string | null;
  /** The last lines that the runtime printed */
  log_tail: string[];
  id: string;
  /** Whose it is; null: the tenant's own */
  user: string | null;
  labels: { [name: string]: string };
  phase: Phase;
  /** The phase in fewer words */
  status: "starting" | "running" | "paused" | "stopped" | "failed";
  /** What it is being brought to */
  desired: Desired;
  attempt: number;
  /** It died, and starts again by itself then */
  restart_at: string | null;
  /** Grows with each change */
  version: number;
  fence: number;
  /** Null until it is known, and where runtimes have no images */
  image: Image | null;
  /** How many times the smallest runtime it is */
  size: number;
  /** The last one on it */
  operation: string | null;
  /** Its workspace is gone since then, its log is kept */
  archived_at: string | null;
  /** Deleted; until then it can be brought back */
  purge_at: string | null;
  created_at: string;
  updated_at: string;
  phase_since: string;
  /** The only one of its user that has it */
  name: string | null;
  /** Grows each time a runtime is made for it; 0: none was yet */
  generation: number;
  /** Of its agent server; null while it is neither ready nor paused */
  url: string | null;
  /** For `X-Session-API-Key` at `url`; null in lists and for keys that may only read */
  session_key: string | null;
  /** Null while it is not ready */
  idle: Idle | null;
  /** What keeps it from being put to rest now */
  holds: Hold[];
  /** The next first */
  schedule: ScheduledAct[];
  /** The latest first */
  failures: PastFailure[];
  /** Null while no runtime was configured */
  configuration: Configuration | null;
  /** Null: it does not wait */
  queue: Queued | null;
  stuck: StuckUndo[];
}

/** A bare runtime as lists show it. */
export interface RuntimeSummary {
  reason: Reason;
  message: string;
  hint: string;
  retryable: boolean;
  /** The step of provisioning that failed */
  step: string | null;
  /** The last lines that the runtime printed */
  log_tail: string[];
  id: string;
  /** Whose it is; null: the tenant's own */
  user: string | null;
  labels: { [name: string]: string };
  phase: Phase;
  /** The phase in fewer words */
  status: "starting" | "running" | "paused" | "stopped" | "failed";
  /** What it is being brought to */
  desired: Desired;
  attempt: number;
  /** It died, and starts again by itself then */
  restart_at: string | null;
  /** Grows with each change */
  version: number;
  fence: number;
  /** Null until it is known, and where runtimes have no images */
  image: Image | null;
  /** How many times the smallest runtime it is */
  size: number;
  /** The last one on it */
  operation: string | null;
  /** Its workspace is gone since then, its log is kept */
  archived_at: string | null;
  /** Deleted; until then it can be brought back */
  purge_at: string | null;
  created_at: string;
  updated_at: string;
  phase_since: string;
  /** The only one of its user that has it */
  name: string | null;
  /** Grows each time a runtime is made for it; 0: none was yet */
  generation: number;
  /** Of its agent server; null while it is neither ready nor paused */
  url: string | null;
  /** For `X-Session-API-Key` at `url`; null in lists and for keys that may only read */
  session_key: string | null;
}

export interface RuntimePage {
  /** Null only in the place of one that was asked for by `ids` and is not there */
  items: (RuntimeSummary | null)[];
  /** The `page_id` of the next page; null: this is the last */
  next_page_id: string | null;
}

/** A secret without its value. */
export interface Secret {
  name: string;
  description: string | null;
  /** Grows with each change */
  version: number;
}

export interface SecretBody {
  value: string;
  description?: string | null;
}

export interface SecretPage {
  /** Null only in the place of one that was asked for by `ids` and is not there */
  items: (Secret | null)[];
  /** The `page_id` of the next page; null: this is the last */
  next_page_id: string | null;
}

/** The settings of one layer; what is secret is hidden by a mark, which means unchanged when it is sent back. */
export interface Settings {
  /** Model and agent; what is secret is hidden */
  agent_settings: { [name: string]: unknown };
  conversation_settings: { [name: string]: unknown };
  /** Those that were chosen here, by name */
  limits: { [name: string]: unknown };
  llm_api_key_is_set: boolean;
}

/** Log and workspace of a conversation as they were together. */
export interface Snapshot {
  id: string;
  /** The number of the last event of the log then; 0: there was none */
  at: number;
  /** Of both together */
  bytes: number;
  /** Who took it; null: the tenant */
  user: string | null;
  created_at: string;
}

export interface SnapshotPage {
  /** Null only in the place of one that was asked for by `ids` and is not there */
  items: (Snapshot | null)[];
  /** The `page_id` of the next page; null: this is the last */
  next_page_id: string | null;
}

/** What was used of models in a calendar month, by all conversations, also those that are gone. */
export interface Spent {
  /** US dollars, in steps of a millionth */
  usd: number;
  prompt_tokens: number;
  completion_tokens: number;
  /** Such as 2026-03 */
  month: string;
  /** The first moment of the next month, in UTC */
  ends_at: string;
}

/** A customer: owns users, keys, limits. */
export interface Tenant {
  id: string;
  name: string;
  /** In the place of what all are allowed, by name; 0 for no limit */
  limits: { [name: string]: number };
  /** The first is for requests that name none; empty: as all */
  sizes: number[];
  /** Null: as all */
  images: GrantedImage[] | null;
  /** Null: none */
  budget: Budget | null;
  /** Grows with each change */
  version: number;
  created_at: string;
}

export interface TenantBody {
  name: string;
}

export interface TenantPage {
  /** Null only in the place of one that was asked for by `ids` and is not there */
  items: (Tenant | null)[];
  /** The `page_id` of the next page; null: this is the last */
  next_page_id: string | null;
}

/** What is left out stays. `sizes` are those that the tenant's conversations may have, the first for those that name none; null, or none: as all. `images` are those that its new conversations may use, each kept with what it stands for now; the first is for requests that name none, unless the installation's own is among them; null: as all. A `budget` takes the place of the one before; null: none. */
export interface TenantPatchBody {
  limits?: AllowanceBody;
  sizes?: number[] | null;
  images?: string[] | null;
  budget?: BudgetBody | null;
}

/** What a tenant, or the user that is asked for, has now. */
export interface TenantUsage {
  spent: Spent;
  /** Conversations and bare runtimes that run or are about to; none paused */
  runtimes: number;
  /** Starts in the tenant's queue */
  waiting: number;
  when_full: Policy;
  /** Those that hold for the next start with this key */
  limits: LimitStanding[];
}

/** Without `image`: what a new conversation would get. */
export interface UpgradeBody {
  image?: string | null;
}

/** What one runtime uses at this moment, and what it may use. */
export interface Usage {
  /** Since it was started */
  cpu_seconds: number;
  memory_bytes: number;
  memory_limit_bytes: number;
  processes: number;
  /** Of workspace and state; null where that cannot be told */
  disk_bytes: number | null;
  /** How many times the smallest runtime it is */
  size: number;
  /** Processors */
  cpu_limit: number;
  processes_limit: number;
  /** Of each process */
  open_files_limit: number;
  log_limit_bytes: number;
  /** Null: none */
  disk_limit_bytes: number | null;
}

/** A person or service of a tenant. */
export interface User {
  id: string;
  name: string;
  /** The tenant's own name for it */
  external_id: string | null;
  tenant: string;
  created_at: string;
}

export interface UserBody {
  name: string;
  external_id?: string | null;
}

export interface UserPage {
  /** Null only in the place of one that was asked for by `ids` and is not there */
  items: (User | null)[];
  /** The `page_id` of the next page; null: this is the last */
  next_page_id: string | null;
}

/** Where a tenant wants to be told, and how that does. */
export interface Webhook {
  id: string;
  url: string;
  /** Empty: all */
  events: HookEvent[];
  description: string;
  enabled: boolean;
  /** requested, gone or failing */
  disabled_reason: string | null;
  secrets: WebhookSecret[];
  /** Events that are not delivered yet */
  waiting: number;
  waiting_bytes: number;
  /** In a row */
  failures: number;
  failing_since: string | null;
  next_attempt_at: string | null;
  /** Grows with each change */
  version: number;
  created_at: string;
  updated_at: string;
}

export interface WebhookBody {
  url: string;
  events?: HookEvent[];
  description?: string;
}

/** What is absent stays. */
export interface WebhookChange {
  url?: string | null;
  events?: HookEvent[] | null;
  description?: string | null;
  enabled?: boolean | null;
}

export interface WebhookPage {
  /** Null only in the place of one that was asked for by `ids` and is not there */
  items: (Webhook | null)[];
  /** The `page_id` of the next page; null: this is the last */
  next_page_id: string | null;
}

/** A file that was written. */
export interface Written {
  path: string;
  /** Bytes */
  size: number;
}

/** Every call: what is in its path and its query, its body, and what it answers. */
export interface Calls {
  "GET /api/v2/audit": {
    query?: { "ids"?: string[] | null; "limit"?: number; "tenant"?: string | null; "at__gte"?: string | null; "at__lt"?: string | null; "user__eq"?: string | null; "key__eq"?: string | null; "verb__eq"?: string | null; "outcome__eq"?: "accepted" | "refused" | "failed" | null; "object_id__eq"?: string | null; "page_id"?: string | null };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: AuditPage;
  };
  "GET /api/v2/audit/count": {
    query?: { "tenant"?: string | null; "at__gte"?: string | null; "at__lt"?: string | null; "user__eq"?: string | null; "key__eq"?: string | null; "verb__eq"?: string | null; "outcome__eq"?: "accepted" | "refused" | "failed" | null; "object_id__eq"?: string | null; "page_id"?: string | null };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Count;
  };
  "GET /api/v2/conversations": {
    query?: { "limit"?: number; "sort_order"?: "CREATED_AT" | "CREATED_AT_DESC"; "title__contains"?: string | null; "updated_at__gte"?: string | null; "updated_at__lt"?: string | null; "phase__eq"?: Phase | null; "phase__in"?: Phase[] | null; "status__eq"?: "starting" | "running" | "paused" | "stopped" | "failed" | null; "status__in"?: ("starting" | "running" | "paused" | "stopped" | "failed")[] | null; "label"?: string[] | null; "deleted"?: boolean; "created_at__gte"?: string | null; "created_at__lt"?: string | null; "ids"?: string[] | null; "page_id"?: string | null };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: ConversationPage;
  };
  "POST /api/v2/conversations": {
    query?: { "wait"?: "ready" | null; "timeout"?: number; "dry_run"?: boolean };
    header?: { "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    body: ConversationBody;
    answer: Conversation | DryRun;
  };
  "GET /api/v2/conversations/count": {
    query?: { "title__contains"?: string | null; "updated_at__gte"?: string | null; "updated_at__lt"?: string | null; "phase__eq"?: Phase | null; "phase__in"?: Phase[] | null; "status__eq"?: "starting" | "running" | "paused" | "stopped" | "failed" | null; "status__in"?: ("starting" | "running" | "paused" | "stopped" | "failed")[] | null; "label"?: string[] | null; "deleted"?: boolean; "created_at__gte"?: string | null; "created_at__lt"?: string | null; "page_id"?: string | null };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Count;
  };
  "DELETE /api/v2/conversations/{conversation}": {
    path: { "conversation": string };
    query?: { "purge"?: boolean };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Conversation;
  };
  "GET /api/v2/conversations/{conversation}": {
    path: { "conversation": string };
    query?: { "deleted"?: boolean };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Conversation;
  };
  "PATCH /api/v2/conversations/{conversation}": {
    path: { "conversation": string };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    body: DescriptionBody;
    answer: Conversation;
  };
  "PUT /api/v2/conversations/{conversation}": {
    path: { "conversation": string };
    query?: { "wait"?: "ready" | null; "timeout"?: number; "dry_run"?: boolean };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    body: ConversationBody;
    answer: Conversation | DryRun;
  };
  "GET /api/v2/conversations/{conversation}/events": {
    path: { "conversation": string };
    query?: { "after"?: number; "page_id"?: number | null; "limit"?: number; "ids"?: string[] | null };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: EventPage;
  };
  "GET /api/v2/conversations/{conversation}/events/count": {
    path: { "conversation": string };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Count;
  };
  "GET /api/v2/conversations/{conversation}/events/stream": {
    path: { "conversation": string };
    query?: { "after"?: number };
    header?: { "last-event-id"?: string | null; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: string;
  };
  "GET /api/v2/conversations/{conversation}/files": {
    path: { "conversation": string };
    query?: { "path"?: string; "archive"?: "tar" | "tar.gz" | "zip" | null; "limit"?: number; "page_id"?: string | null };
    header?: { "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: string | Uint8Array | ArrayBuffer | EntryPage;
  };
  "DELETE /api/v2/conversations/{conversation}/files/{path}": {
    path: { "conversation": string; "path": string };
    query?: { "recursive"?: boolean };
    header?: { "if-match"?: string | null; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: void;
  };
  "GET /api/v2/conversations/{conversation}/files/{path}": {
    path: { "conversation": string; "path": string };
    query?: { "archive"?: "tar" | "tar.gz" | "zip" | null; "limit"?: number; "page_id"?: string | null };
    header?: { "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: string | Uint8Array | ArrayBuffer | EntryPage;
  };
  "PUT /api/v2/conversations/{conversation}/files/{path}": {
    path: { "conversation": string; "path": string };
    header?: { "if-match"?: string | null; "if-none-match"?: string | null; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    body?: string | Uint8Array | ArrayBuffer;
    answer: Written;
  };
  "POST /api/v2/conversations/{conversation}/fork": {
    path: { "conversation": string };
    query?: { "wait"?: "ready" | null; "timeout"?: number };
    header?: { "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    body?: ForkBody | null;
    answer: Conversation;
  };
  "PUT /api/v2/conversations/{conversation}/labels": {
    path: { "conversation": string };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    body: AllLabelsBody;
    answer: Conversation;
  };
  "GET /api/v2/conversations/{conversation}/links": {
    path: { "conversation": string };
    query?: { "limit"?: number; "sort_order"?: "CREATED_AT" | "CREATED_AT_DESC"; "ids"?: string[] | null; "page_id"?: string | null };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: LinkPage;
  };
  "POST /api/v2/conversations/{conversation}/links": {
    path: { "conversation": string };
    header?: { "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    body: LinkBody;
    answer: NewLink;
  };
  "GET /api/v2/conversations/{conversation}/links/count": {
    path: { "conversation": string };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Count;
  };
  "DELETE /api/v2/conversations/{conversation}/links/{link}": {
    path: { "conversation": string; "link": string };
    header?: { "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: void;
  };
  "GET /api/v2/conversations/{conversation}/logs": {
    path: { "conversation": string };
    query?: { "lines"?: number; "follow"?: boolean };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Logs | string;
  };
  "GET /api/v2/conversations/{conversation}/messages": {
    path: { "conversation": string };
    query?: { "after"?: number; "page_id"?: number | null; "limit"?: number; "ids"?: string[] | null };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: MessagePage;
  };
  "POST /api/v2/conversations/{conversation}/messages": {
    path: { "conversation": string };
    header?: { "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    body: InboxMessageBody;
    answer: Message;
  };
  "GET /api/v2/conversations/{conversation}/messages/count": {
    path: { "conversation": string };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Count;
  };
  "GET /api/v2/conversations/{conversation}/messages/{message}": {
    path: { "conversation": string; "message": string };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Message;
  };
  "POST /api/v2/conversations/{conversation}/pause": {
    path: { "conversation": string };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Conversation;
  };
  "POST /api/v2/conversations/{conversation}/resume": {
    path: { "conversation": string };
    query?: { "wait"?: "ready" | null; "timeout"?: number; "dry_run"?: boolean };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Conversation | DryRun;
  };
  "GET /api/v2/conversations/{conversation}/snapshots": {
    path: { "conversation": string };
    query?: { "limit"?: number; "sort_order"?: "CREATED_AT" | "CREATED_AT_DESC"; "ids"?: string[] | null; "page_id"?: string | null };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: SnapshotPage;
  };
  "POST /api/v2/conversations/{conversation}/snapshots": {
    path: { "conversation": string };
    header?: { "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Snapshot;
  };
  "GET /api/v2/conversations/{conversation}/snapshots/count": {
    path: { "conversation": string };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Count;
  };
  "DELETE /api/v2/conversations/{conversation}/snapshots/{snapshot}": {
    path: { "conversation": string; "snapshot": string };
    header?: { "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: void;
  };
  "POST /api/v2/conversations/{conversation}/start": {
    path: { "conversation": string };
    query?: { "wait"?: "ready" | null; "timeout"?: number; "dry_run"?: boolean };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Conversation | DryRun;
  };
  "POST /api/v2/conversations/{conversation}/stop": {
    path: { "conversation": string };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Conversation;
  };
  "POST /api/v2/conversations/{conversation}/undelete": {
    path: { "conversation": string };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Conversation;
  };
  "POST /api/v2/conversations/{conversation}/upgrade": {
    path: { "conversation": string };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    body?: UpgradeBody | null;
    answer: Conversation;
  };
  "GET /api/v2/conversations/{conversation}/usage": {
    path: { "conversation": string };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Usage;
  };
  "GET /api/v2/git-providers": {
    query?: { "limit"?: number; "ids"?: string[] | null; "page_id"?: string | null };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: GitProviderPage;
  };
  "GET /api/v2/git-providers/count": {
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Count;
  };
  "DELETE /api/v2/git-providers/{provider}": {
    path: { "provider": string };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: void;
  };
  "GET /api/v2/git-providers/{provider}": {
    path: { "provider": string };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: GitProvider;
  };
  "PUT /api/v2/git-providers/{provider}": {
    path: { "provider": string };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    body: ProviderBody;
    answer: GitProvider;
  };
  "GET /api/v2/operations/{operation}": {
    path: { "operation": string };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Operation;
  };
  "GET /api/v2/runtimes": {
    query?: { "limit"?: number; "sort_order"?: "CREATED_AT" | "CREATED_AT_DESC"; "name"?: string | null; "name__eq"?: string | null; "updated_at__gte"?: string | null; "updated_at__lt"?: string | null; "phase__eq"?: Phase | null; "phase__in"?: Phase[] | null; "status__eq"?: "starting" | "running" | "paused" | "stopped" | "failed" | null; "status__in"?: ("starting" | "running" | "paused" | "stopped" | "failed")[] | null; "label"?: string[] | null; "deleted"?: boolean; "created_at__gte"?: string | null; "created_at__lt"?: string | null; "ids"?: string[] | null; "page_id"?: string | null };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: RuntimePage;
  };
  "POST /api/v2/runtimes": {
    query?: { "wait"?: "ready" | null; "timeout"?: number; "dry_run"?: boolean };
    header?: { "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    body: BareRuntimeBody;
    answer: Runtime | DryRun;
  };
  "GET /api/v2/runtimes/count": {
    query?: { "updated_at__gte"?: string | null; "updated_at__lt"?: string | null; "phase__eq"?: Phase | null; "phase__in"?: Phase[] | null; "status__eq"?: "starting" | "running" | "paused" | "stopped" | "failed" | null; "status__in"?: ("starting" | "running" | "paused" | "stopped" | "failed")[] | null; "label"?: string[] | null; "deleted"?: boolean; "created_at__gte"?: string | null; "created_at__lt"?: string | null; "page_id"?: string | null };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Count;
  };
  "DELETE /api/v2/runtimes/{runtime}": {
    path: { "runtime": string };
    query?: { "purge"?: boolean };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Runtime;
  };
  "GET /api/v2/runtimes/{runtime}": {
    path: { "runtime": string };
    query?: { "deleted"?: boolean };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Runtime;
  };
  "PATCH /api/v2/runtimes/{runtime}": {
    path: { "runtime": string };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    body: LabelsBody;
    answer: Runtime;
  };
  "PUT /api/v2/runtimes/{runtime}/labels": {
    path: { "runtime": string };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    body: AllLabelsBody;
    answer: Runtime;
  };
  "GET /api/v2/runtimes/{runtime}/links": {
    path: { "runtime": string };
    query?: { "limit"?: number; "sort_order"?: "CREATED_AT" | "CREATED_AT_DESC"; "ids"?: string[] | null; "page_id"?: string | null };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: LinkPage;
  };
  "POST /api/v2/runtimes/{runtime}/links": {
    path: { "runtime": string };
    header?: { "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    body: LinkBody;
    answer: NewLink;
  };
  "GET /api/v2/runtimes/{runtime}/links/count": {
    path: { "runtime": string };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Count;
  };
  "DELETE /api/v2/runtimes/{runtime}/links/{link}": {
    path: { "runtime": string; "link": string };
    header?: { "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: void;
  };
  "GET /api/v2/runtimes/{runtime}/logs": {
    path: { "runtime": string };
    query?: { "lines"?: number; "follow"?: boolean };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Logs | string;
  };
  "POST /api/v2/runtimes/{runtime}/pause": {
    path: { "runtime": string };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Runtime;
  };
  "POST /api/v2/runtimes/{runtime}/resume": {
    path: { "runtime": string };
    query?: { "wait"?: "ready" | null; "timeout"?: number; "dry_run"?: boolean };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Runtime | DryRun;
  };
  "POST /api/v2/runtimes/{runtime}/start": {
    path: { "runtime": string };
    query?: { "wait"?: "ready" | null; "timeout"?: number; "dry_run"?: boolean };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Runtime | DryRun;
  };
  "POST /api/v2/runtimes/{runtime}/stop": {
    path: { "runtime": string };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Runtime;
  };
  "POST /api/v2/runtimes/{runtime}/undelete": {
    path: { "runtime": string };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Runtime;
  };
  "POST /api/v2/runtimes/{runtime}/upgrade": {
    path: { "runtime": string };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    body?: UpgradeBody | null;
    answer: Runtime;
  };
  "GET /api/v2/runtimes/{runtime}/usage": {
    path: { "runtime": string };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Usage;
  };
  "GET /api/v2/secrets": {
    query?: { "limit"?: number; "ids"?: string[] | null; "page_id"?: string | null };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: SecretPage;
  };
  "GET /api/v2/secrets/count": {
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Count;
  };
  "DELETE /api/v2/secrets/{name}": {
    path: { "name": string };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: void;
  };
  "GET /api/v2/secrets/{name}": {
    path: { "name": string };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Secret;
  };
  "PUT /api/v2/secrets/{name}": {
    path: { "name": string };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    body: SecretBody;
    answer: Secret;
  };
  "GET /api/v2/settings": {
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Settings;
  };
  "PATCH /api/v2/settings": {
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    body: SettingsBody;
    answer: Settings;
  };
  "GET /api/v2/settings/effective": {
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: EffectiveSettings;
  };
  "GET /api/v2/tenants": {
    query?: { "limit"?: number; "sort_order"?: "CREATED_AT" | "CREATED_AT_DESC"; "created_at__gte"?: string | null; "created_at__lt"?: string | null; "ids"?: string[] | null; "page_id"?: string | null };
    header?: { "If-None-Match"?: string };
    answer: TenantPage;
  };
  "POST /api/v2/tenants": {
    header?: { "Idempotency-Key"?: string };
    body: TenantBody;
    answer: Tenant;
  };
  "GET /api/v2/tenants/count": {
    query?: { "created_at__gte"?: string | null; "created_at__lt"?: string | null };
    header?: { "If-None-Match"?: string };
    answer: Count;
  };
  "GET /api/v2/tenants/{tenant}": {
    path: { "tenant": string };
    header?: { "If-None-Match"?: string };
    answer: Tenant;
  };
  "PATCH /api/v2/tenants/{tenant}": {
    path: { "tenant": string };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string };
    body: TenantPatchBody;
    answer: Tenant;
  };
  "GET /api/v2/tenants/{tenant}/api-keys": {
    path: { "tenant": string };
    query?: { "limit"?: number; "sort_order"?: "CREATED_AT" | "CREATED_AT_DESC"; "user__eq"?: string | null; "ids"?: string[] | null; "page_id"?: string | null };
    header?: { "If-None-Match"?: string };
    answer: ApiKeyPage;
  };
  "POST /api/v2/tenants/{tenant}/api-keys": {
    path: { "tenant": string };
    header?: { "Idempotency-Key"?: string };
    body: KeyBody;
    answer: NewApiKey;
  };
  "GET /api/v2/tenants/{tenant}/api-keys/count": {
    path: { "tenant": string };
    query?: { "user__eq"?: string | null };
    header?: { "If-None-Match"?: string };
    answer: Count;
  };
  "DELETE /api/v2/tenants/{tenant}/api-keys/{key}": {
    path: { "tenant": string; "key": string };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string };
    answer: void;
  };
  "GET /api/v2/tenants/{tenant}/api-keys/{key}": {
    path: { "tenant": string; "key": string };
    header?: { "If-None-Match"?: string };
    answer: ApiKey;
  };
  "GET /api/v2/tenants/{tenant}/users": {
    path: { "tenant": string };
    query?: { "limit"?: number; "sort_order"?: "CREATED_AT" | "CREATED_AT_DESC"; "external_id__eq"?: string | null; "created_at__gte"?: string | null; "created_at__lt"?: string | null; "ids"?: string[] | null; "page_id"?: string | null };
    header?: { "If-None-Match"?: string };
    answer: UserPage;
  };
  "POST /api/v2/tenants/{tenant}/users": {
    path: { "tenant": string };
    header?: { "Idempotency-Key"?: string };
    body: UserBody;
    answer: User;
  };
  "GET /api/v2/tenants/{tenant}/users/count": {
    path: { "tenant": string };
    query?: { "created_at__gte"?: string | null; "created_at__lt"?: string | null };
    header?: { "If-None-Match"?: string };
    answer: Count;
  };
  "GET /api/v2/tenants/{tenant}/users/{user}": {
    path: { "tenant": string; "user": string };
    header?: { "If-None-Match"?: string };
    answer: User;
  };
  "GET /api/v2/usage": {
    query?: { "month"?: string | null };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: TenantUsage;
  };
  "GET /api/v2/webhooks": {
    query?: { "limit"?: number; "sort_order"?: "CREATED_AT" | "CREATED_AT_DESC"; "ids"?: string[] | null; "page_id"?: string | null };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: WebhookPage;
  };
  "POST /api/v2/webhooks": {
    header?: { "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    body: WebhookBody;
    answer: NewWebhook;
  };
  "GET /api/v2/webhooks/count": {
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Count;
  };
  "DELETE /api/v2/webhooks/{webhook}": {
    path: { "webhook": string };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: void;
  };
  "GET /api/v2/webhooks/{webhook}": {
    path: { "webhook": string };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Webhook;
  };
  "PATCH /api/v2/webhooks/{webhook}": {
    path: { "webhook": string };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    body: WebhookChange;
    answer: Webhook;
  };
  "GET /api/v2/webhooks/{webhook}/deliveries": {
    path: { "webhook": string };
    query?: { "limit"?: number; "ids"?: string[] | null; "page_id"?: string | null };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: DeliveryPage;
  };
  "GET /api/v2/webhooks/{webhook}/deliveries/count": {
    path: { "webhook": string };
    header?: { "If-None-Match"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Count;
  };
  "POST /api/v2/webhooks/{webhook}/deliveries/{delivery}/redeliver": {
    path: { "webhook": string; "delivery": string };
    header?: { "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Redelivery;
  };
  "POST /api/v2/webhooks/{webhook}/redeliver": {
    path: { "webhook": string };
    query: { "from": number };
    header?: { "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Redeliveries;
  };
  "POST /api/v2/webhooks/{webhook}/rotate": {
    path: { "webhook": string };
    header?: { "If-Match"?: string | null; "If-None-Match"?: string | null; "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    body?: Rotation | null;
    answer: NewWebhook;
  };
  "POST /api/v2/webhooks/{webhook}/test": {
    path: { "webhook": string };
    header?: { "Idempotency-Key"?: string; "X-Act-As-Tenant"?: string; "X-Act-As-User"?: string };
    answer: Delivery;
  };
}
