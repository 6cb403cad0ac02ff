"""What the operator chooses, from the environment and the flags of `nestor up`. Nothing else reads the environment.

Every variable starts with `NESTOR_`; one that is not known is refused by name, since a misspelt limit is no limit.
"""

import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from orchestrator.domain.admission import Allowance, OperatorLimits, Policy
from orchestrator.domain.audit import Keep
from orchestrator.domain.errors import Misconfigured
from orchestrator.domain.images import Catalogue
from orchestrator.domain.restarts import RestartPolicy, Restarts
from orchestrator.domain.retention import Span, Spans
from orchestrator.domain.spares import SIZES, Stock, stocks_of
from orchestrator.domain.step_seconds import step_seconds
from orchestrator.domain.tenancy import Scope

#: NESTOR_ variables that other parts read: the runtime inside its own process, and the project's scripts.
FOREIGN = frozenset({"NESTOR_RUNTIME", "NESTOR_CLAIM", "NESTOR_RUNTIME_ALLOW_OPEN", "NESTOR_PYTHON", "NESTOR_K8S_BIN"})
_ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::[0-9]{1,5})?")
_ADDRESS = re.compile(r"https?://(?:[\w.-]+|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?(?:/[^\s?#]*[^\s?#/])?")
_HOST = re.compile(r"[^\s/@]+")
_DOMAIN = re.compile(r"\w(?:[\w.-]*\w)?", re.ASCII)


class OrchestratorSettings(BaseSettings):
    """One field a variable; the docstring under each says its unit and why its default is what it is."""

    model_config = SettingsConfigDict(env_prefix="NESTOR_", extra="forbid", use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address to listen on. Loopback, because the process driver gives weaker isolation than containers."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes that serve the port together, each a replica, for more requests than one processor carries. Runtimes
    have no ports of their own then."""
    worker_socket: int | None = Field(default=None, ge=0)
    """Set by Nestor for each of several workers: the number of the listening socket that it was given."""
    data_dir: Path = Path("~/.nestor")
    """Everything that Nestor writes: state, key, volumes, logs."""
    driver: Literal["process", "docker", "fake"] = "process"
    """Where runtimes run. `fake` runs no agent: it is for trying out clients."""
    fake_engine: Path | None = None
    """Fake driver: the socket of a fake engine that several orchestrators share. Without it each has its own."""
    docker_host: str = "unix:///var/run/docker.sock"
    """Docker driver: where the engine listens."""
    runtime_image: str = "nestor-runtime:latest"
    """Docker driver: the image of runtimes whose request names none. `scripts/images` builds it."""
    allowed_images: str = ""
    """Docker driver: comma list of further images that a request may name, as `name`, `name@sha256:...` or the engine's
    id. Empty, because an image is code."""
    canary_image: str | None = None
    """Docker driver: a new image to try out before it becomes `runtime_image`."""
    canary_percent: float = Field(default=0.0, ge=0, le=100)
    """So many of a hundred new conversations whose request names no image begin on it, chosen by their ids."""
    pull_images: Literal["never", "missing"] = "never"
    """Docker driver: whether an image named here that the engine does not have is fetched from its registry when Nestor
    starts, and within two minutes when the engine loses it later. Never, because a name without a registry is anybody's
    on the public one. No start ever waits for one."""
    allowed_sizes: str = ""
    """Docker driver: comma list of sizes that a request may ask for besides 1: 2, 4, 8, so many times the memory,
    processors, processes, open files, log and disk. Empty, because a machine is finite. A tenant may be given
    others."""
    runtime_network: str | None = None
    """Docker driver: a bridge that exists, made with inter-container traffic off. Without it Nestor makes its own."""
    runtime_subnet: str | None = None
    """Docker driver: subnet of Nestor's first bridge, such as 10.213.0.0/22. Without it a free one of the pool."""
    runtime_pool: str = "10.214.0.0/16"
    """Docker driver: the address space of Nestor's bridges. An engine's own pools end at some thirty networks; this one
    has room for 64 shared ones, 512 of tenants or 4096 of conversations."""
    runtime_cells: Literal["shared", "tenant", "conversation"] = "shared"
    """Docker driver: which runtimes are on one bridge. On a shared one they do not reach one another either; another
    choice costs a tenth of a second a start."""
    egress: Literal["none", "allow-list", "open"] = "allow-list"
    """Docker driver: what runtimes reach outside of this machine: nothing; the hosts of the conversation's model and
    git providers and of `NESTOR_EGRESS_HOSTS`, through a forward proxy; or the public net without private, link-local
    and other inner networks. `NESTOR_RUNTIME_REACHES` holds for all of them. A list, because what an agent reads may
    tell it where to send what it knows."""
    egress_hosts: str = ""
    """Docker driver, allow-list: comma list of further hosts, with a port where it is not 443, such as `pypi.org` or
    `*.example.org:8443`. With each driver: the hosts from which runtimes may fetch a `LookupSecret`."""
    egress_image: str = "nestor-egress:latest"
    """Docker driver, allow-list: the image of the forward proxy. `scripts/images` builds it."""
    runtime_reaches: str = ""
    """Docker driver: comma list of what runtimes may reach although it is inside, such as a model server:
    `192.168.1.20:11434`, `10.20.0.0/24`. Addresses of this machine count too. Empty, because all tenants reach it."""
    network_rules: Literal["own", "outside"] = "own"
    """Docker driver: whether this process sets the machine's network rules, or `nestor netguard` does beside it."""
    runtime_disk_megabytes: int = Field(default=0, ge=0, le=1_000_000)
    """Docker driver: the most that workspace and state of one runtime may take together, in MB, times its size; 0 for
    no limit. It is looked at every ten seconds: one over it is ended, with the reason `disk_full`. No single file may
    be larger."""
    oci_runtime: str | None = None
    """Docker driver: the engine's OCI runtime for containers, such as runsc or kata. One that it does not have is
    refused; nothing falls back to another."""
    seccomp_profile: Path | None = None
    """Docker driver: a profile to use instead of the engine's own."""
    apparmor_profile: str | None = None
    """Docker driver: the name of a profile that this machine has loaded."""
    accept_weaker: str = ""
    """Docker driver: comma list of required rows of the hardening report that may be missing although there are several
    tenants; `all` for whatever it is; `untried` to save the seconds that the report takes. Empty, because each keeps
    tenants apart."""
    container: str | None = None
    """Docker driver, orchestrator in a container that is on a bridge: name or id of that container. Default: found by
    its host name, which is the engine's id of it unless somebody chose another."""
    data_volume: str | None = None
    """Docker driver, orchestrator in a container: the engine's volume that the data folder is on. Workspaces are
    folders of it then, so that they go when it goes."""
    allow_non_loopback: bool = False
    """Listen on another address than loopback although the process driver is used."""
    operator_key: SecretStr | None = None
    """The operator's API key, any text of 32 or more characters. Without it one is made at the first start."""
    jwt_keys: str | None = None
    """Where the keys are that tokens (JWT) of your own issuer are checked by: the address of its key set (JWKS), or the
    path of a file that holds one. https, or plain http on loopback and to `NESTOR_ALLOW_HTTP_HOSTS`. Without it no
    tokens are taken, only API keys."""
    jwt_issuer: str | None = None
    """The `iss` that a token has to have, to the letter. Needed with `NESTOR_JWT_KEYS`."""
    jwt_audience: str | None = None
    """What the `aud` of a token has to be or to hold. Needed with `NESTOR_JWT_KEYS`, because an issuer makes tokens for
    other programs as well."""
    jwt_tenant_claim: str = "tenant"
    """The claim with the id of the tenant."""
    jwt_user_claim: str = "sub"
    """The claim with the user of that tenant: its `external_id`, or its id. Empty: tokens speak for the whole tenant,
    as its own keys do."""
    jwt_scopes_claim: str = "scope"
    """The claim with scopes, as text with spaces between or as a list. What is no scope of Nestor's is passed over."""
    jwt_default_scopes: str = "read,write"
    """Comma list of the scopes of a token that has no such claim. Without `secrets:reveal`, which has to be named."""
    jwt_makes_users: bool = False
    """Make the user whom a token names when it is seen for the first time. Off, because a tenant's backend mostly makes
    its users."""
    jwt_leeway_seconds: int = Field(default=30, ge=0, le=300)
    """How far the issuer's clock may be from this one."""
    jwt_longest_seconds: int = Field(default=86_400, ge=60, le=31_536_000)
    """The longest that a token may be good for; one that is good for longer is refused. A day, because a token cannot
    be revoked by itself."""
    jwt_keys_seconds: int = Field(default=300, ge=10, le=86_400)
    """After so many seconds the keys are fetched again; at once when a token names one that is not known, at most every
    ten seconds."""
    jwt_keys_kept_seconds: int = Field(default=3600, ge=0, le=604_800)
    """For so many seconds more the last keys are good while new ones cannot be fetched."""
    redis_url: SecretStr | None = None
    """State server (redis:// or unix://). Without it Nestor starts one in the data folder."""
    journal_url: str | None = None
    """Where every accepted change is kept beside the state server: file:///folder or s3://bucket/prefix?endpoint=...
    Default: `journal` in the data folder. Replicas that share a state server have to share it."""
    events_url: str | None = None
    """Where event logs are kept beyond their last events: as `NESTOR_JOURNAL_URL`. Default: `events` in the data
    folder, or beside the journal where that has an address (`-events` behind its path). Replicas share it."""
    events_held: int = Field(default=1000, ge=10, le=100_000)
    """How many events of each conversation the state server holds; up to eight times that while the archive cannot be
    used, then runtimes keep theirs. A thousand, because readers mostly want the last ones."""
    events_held_kilobytes: int = Field(default=1024, ge=16, le=65_536)
    """The same by size, in KiB."""
    snapshots: int = Field(default=10, ge=0, le=1000)
    """How many snapshots a conversation may have; 0: none can be taken. They are in the archive of events."""
    snapshot_megabytes: int = Field(default=1000, ge=1, le=100_000)
    """How large one may be, of log and workspace together."""
    master_key: SecretStr | None = None
    """Key-encryption key, base64url of 32 bytes. Prefer the file: an environment is readable by others."""
    master_key_file: Path | None = None
    """File with one key a line, the current one first. Default: `master.key` in the data folder, made once."""
    public_url: str | None = None
    """The address that clients use, if it is not the one that is listened on."""
    runtime_facing: str | None = None
    """address:port of the listener to which runtimes tell their events. Default: a free port that is remembered, on
    loopback, or with containers on the address under which they see this machine. One that is given is insisted on."""
    runtime_facing_url: str | None = None
    """How runtimes reach that listener, where it is not by its own address."""
    domain: str | None = None
    """Wildcard domain for one host name a runtime, `{runtime_id}.{domain}`."""
    data_plane: Literal["embedded", "nginx"] = "embedded"
    """What carries the bytes between clients and runtimes: this process, or nginx, which it then runs as a child and
    which asks it where to. nginx and its Lua module have to be installed."""
    decision_cache: bool = True
    """nginx as the data plane: keep a decision for a quarter of a second. Without it nginx asks for each request, and
    what is revoked here is refused at once."""
    runtime_ports: bool = True
    """One loopback port for each runtime, so that clients that need a bare origin have one."""
    runtime_command: str | None = None
    """Another agent server for the process driver's runtimes; `{host}` and `{port}` are replaced."""
    stock_start: Literal["dormant", "configured"] = "dormant"
    """How an agent server gets its keys that is not Nestor's (`runtime_command`, or an image without Nestor's label):
    when it is bound, or as it starts. Dormant, because then its environment holds nothing of worth; a release that
    does not know `OH_DEFERRED_INIT` has to be configured."""
    namespaces: bool | None = None
    """Process driver: insist on bubblewrap namespaces (true), do without (false), or use them where they work."""
    zygote: Literal["auto", "off"] = "auto"
    """Process driver: fork runtimes from a process that has imported everything once (auto), or execute each (off).
    It holds some 250 MB as long as Nestor runs, and each runtime then some 40 MB of its own instead of 200."""
    allowed_origins: str = ""
    """Comma list of the origins of browser pages, as `https://app.example.org`, that may open sockets here and read
    answers of Nestor's own runtimes (CORS). Empty: pages of the same host only. Without a key they reach nothing."""
    sandbox_key: bool = True
    """Whether commands that callers run in a V1 sandbox find its session key in their environment, as programs there
    expect. It opens that sandbox and the secrets that are read through it; whatever runs there meanwhile under the
    same user, such as an agent, can find it in the environment of such a command."""
    allow_local_origins: bool | None = None
    """Whether pages that this machine's loopback serves may open sockets. Default: if Nestor listens on loopback."""
    connections_per_address: int | None = Field(default=None, ge=0)
    """Connections that one client address may have at once; 0 for any number, as behind a proxy that all come through.
    Default: a third of the descriptors that the process may open, so that one client cannot take all of them."""
    allow_http_hosts: str = ""
    """Comma list of hosts to which a git token may go over plain http, beside loopback."""
    allow_hook_hosts: str = ""
    """Comma list of hosts (names or addresses) to which webhooks may go although they are not on the public net, and
    by plain http. Empty, because whoever chooses an address could otherwise look into the operator's own network."""
    hook_seconds: float = Field(default=10.0, gt=0, le=60)
    """How long a webhook's receiver may take to answer."""
    hook_backoff_seconds: float = Field(default=5.0, gt=0, le=3600)
    """Rest of a webhook after its first failure; twice as long after each further one, with jitter: up to 15 minutes
    for the endpoint, up to 4 hours for one conversation of it."""
    hook_dead_seconds: float = Field(default=259_200.0, gt=0, le=31_536_000)
    """For how long a webhook may fail before it is disabled: three days, a long weekend."""
    lease_seconds: float = Field(default=15.0, gt=0.2, le=600)
    """How long a replica owns a conversation without renewing. Three renewals fit, so one lost call is harmless."""
    idle_pause_seconds: float = Field(default=1800.0, ge=0, le=31_536_000)
    """Seconds without use after which a runtime is paused, where the tenant's settings say nothing; 0 for never. An
    agent at work and an open socket are use."""
    idle_pause_max_seconds: float = Field(default=0.0, ge=0, le=31_536_000)
    """The longest time that a tenant, a user or a request may choose instead; 0 for any."""
    max_life_seconds: float = Field(default=0.0, ge=0, le=31_536_000)
    """A runtime is stopped (reason `expired`) after so long, also while its agent runs; 0 for never. For one that picks
    up a new image or new limits only when it is made anew."""
    max_life_max_seconds: float = Field(default=0.0, ge=0, le=31_536_000)
    """The longest that a tenant, a user or a request may choose instead; 0 for any. So for the next ones."""
    stop_paused_seconds: float = Field(default=86_400.0, ge=0, le=31_536_000)
    """A paused runtime is removed after so long; its next use makes it anew. A day, because a frozen one keeps its
    memory; 0 for never."""
    stop_paused_max_seconds: float = Field(default=0.0, ge=0, le=31_536_000)
    """Its cap."""
    archive_seconds: float = Field(default=0.0, ge=0, le=315_360_000)
    """Stopped or failed for so long, a conversation's workspace is removed: it can be read and not started. 0 for
    never, because nobody should lose work by a default."""
    archive_max_seconds: float = Field(default=0.0, ge=0, le=315_360_000)
    """Its cap."""
    delete_seconds: float = Field(default=0.0, ge=0, le=315_360_000)
    """Stopped or failed for so long, a conversation is deleted; 0 for never."""
    delete_max_seconds: float = Field(default=0.0, ge=0, le=315_360_000)
    """Its cap."""
    undelete_seconds: float = Field(default=600.0, ge=0, le=2_592_000)
    """How long a deletion can be undone; 0 for not at all."""
    drift_seconds: float = Field(default=60.0, ge=0, le=86_400)
    """How often a runtime that runs is asked whether it still holds the configuration that was pushed; 0 for never."""
    max_runtimes: int = Field(default=0, ge=0)
    """Runtimes that run at once on this host, of all tenants; 0 for any number. Paused ones are not counted."""
    starts_per_minute: int = Field(default=0, ge=0)
    """Starts within a minute on this host, of all tenants; 0 for any number."""
    tenant_max_runtimes: int = Field(default=0, ge=0)
    """The same for one tenant. It may lower this and the next ones for itself in its settings, and not raise them."""
    tenant_max_runtimes_per_user: int = Field(default=0, ge=0)
    """For each of a tenant's users."""
    tenant_max_runtimes_per_key: int = Field(default=0, ge=0)
    """For each API key: those that were started with it."""
    tenant_starts_per_minute: int = Field(default=0, ge=0)
    """Starts of a tenant within a minute."""
    tenant_starts_per_minute_per_user: int = Field(default=0, ge=0)
    """For each of a tenant's users."""
    tenant_starts_per_minute_per_key: int = Field(default=0, ge=0)
    """For each API key."""
    tenant_calls_per_second: int = Field(default=400, ge=0, le=100_000)
    """Calls of the API, of all replicas together, that one tenant may send with all of its keys; ten seconds' worth at
    once after a rest. Reads that clients poll while they wait, and what goes to a runtime, are not counted. 0 for any
    number. The default leaves room for others where one replica serves some hundred calls a second and a core."""
    calls_per_second_per_key: int = Field(default=200, ge=0, le=100_000)
    """The same for each API key."""
    when_full: Policy = Policy.REJECT
    """What becomes of a start over a limit where the tenant's settings say nothing: `reject`, because an answer at once
    is what clients without patience expect; `queue`; `pause_oldest_idle`."""
    queue_length: int = Field(default=100, ge=1, le=10_000)
    """How many starts of one tenant may wait."""
    queue_seconds: float = Field(default=600.0, gt=0, le=86_400)
    """How long a start may wait, until it fails with the reason `limit`."""
    restart: RestartPolicy = RestartPolicy.NEVER
    """Whether a runtime that died (out of memory, ended, gone) starts again by itself, where a tenant, user or request
    does not choose: `never`, because a start costs and may repeat what killed it; `on_failure`."""
    restart_max: int = Field(default=3, ge=0, le=10)
    """At most so many restarts within the window, then it fails with the reason; a tenant may choose fewer."""
    restart_window_seconds: float = Field(default=600.0, gt=0, le=86_400)
    """The window; a tenant may choose a longer one."""
    restart_backoff_seconds: float = Field(default=1.0, gt=0, le=60)
    """Before the first restart; each further one within the window waits twice as long, a minute at most."""
    audit_days: int = Field(default=90, ge=1, le=3650)
    """How long entries of a tenant's audit log are kept."""
    audit_entries: int = Field(default=20_000, ge=100, le=1_000_000)
    """How many of each tenant's; the oldest go first. A thousand take about half a megabyte of the state server."""
    warm_pool: int = Field(default=0, ge=0, le=1000)
    """Spares: runtimes that are started before anybody wants them, dormant, so that a conversation without a workspace
    starts in a fraction of the time. Of all replicas together; they come on top of `max_runtimes`. 0, which also
    removes those that are there: each costs the memory of an idle runtime. With Docker on the shared bridge only."""
    warm_pool_max: int = Field(default=0, ge=0, le=10_000)
    """The most spares that may exist, those included that are being made or removed; 0 for twice `warm_pool`."""
    warm_pools: str = ""
    """Spares of further kinds: comma list of image*size=minimum:maximum, as in `*2=1:3,registry/tools:1=2`. Without an
    image they are of `runtime_image`. Each has to be one that a request may ask for."""
    start_timeout: float = Field(default=180.0, gt=0, le=86_400)
    """Seconds from the first step of a start to ready, retries included."""
    step_seconds: str = ""
    """Comma list of step=seconds for single steps, as in `create=120,converse=300`. Each has a limit of its own, many
    times what it takes on a busy machine (docs/states.md); a slow engine or huge repositories may need more."""
    verify_git_tokens: bool = True
    """Ask the provider's API whether a token is valid when it is stored."""
    ephemeral: bool = False
    """Remove every runtime when the orchestrator ends. For demonstrations and tests."""
    log_format: Literal["console", "json"] = "console"
    """How log lines are written to standard error."""

    @field_validator("operator_key")
    @classmethod
    def _long_enough(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(key.get_secret_value()) < 32:
            raise ValueError("must have 32 or more characters")
        return key

    @field_validator("data_dir", "master_key_file", "seccomp_profile")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser().absolute()

    @field_validator("allowed_sizes")
    @classmethod
    def _sizes(cls, text: str) -> str:
        if wrong := sorted(_listed(text) - set(map(str, SIZES))):
            raise ValueError(f"there is no size {wrong[0][:20]}: a size is {', '.join(map(str, SIZES))}")
        return text

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, text: str) -> str:
        for origin in sorted(_listed(text)):
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin[:60]} is not an origin: scheme and host in lower case, a port, no path")
        return text

    @field_validator("public_url", "runtime_facing_url")
    @classmethod
    def _address(cls, url: str | None) -> str | None:
        if url is not None and not _ADDRESS.fullmatch(url):
            raise ValueError(f"{url[:60]!r} is no address: http or https, a host, a port, and no slash at its end")
        return url

    @field_validator("data_dir", "host", mode="before")
    @classmethod
    def _given(cls, value: Any) -> Any:
        if isinstance(value, str) and not value.strip():
            raise ValueError("it is empty: leave it out for its default")
        return value

    @field_validator("runtime_command")
    @classmethod
    def _words(cls, command: str | None) -> str | None:
        try:
            shlex.split(command or "")
        except ValueError as exc:
            raise ValueError(f"it cannot be told apart into words ({exc})") from None
        return command

    @field_validator("allow_http_hosts", "allow_hook_hosts", "egress_hosts")
    @classmethod
    def _hosts(cls, text: str) -> str:
        for host in sorted(_listed(text)):
            if not _HOST.fullmatch(host):
                raise ValueError(f"{host[:60]!r} is no host: no scheme, no path, no spaces")
        return text

    @field_validator("jwt_default_scopes")
    @classmethod
    def _scopes(cls, text: str) -> str:
        for scope in sorted(_listed(text) - set(Scope)):
            raise ValueError(f"{scope[:60]!r} is no scope; there are {', '.join(Scope)}")
        return text

    @field_validator("domain")
    @classmethod
    def _name(cls, domain: str | None) -> str | None:
        if domain is not None and not _DOMAIN.fullmatch(domain):
            raise ValueError(f"{domain[:60]!r} is no domain: a name without scheme, port and dots at its ends")
        return domain

    @field_validator("step_seconds")
    @classmethod
    def _steps(cls, text: str) -> str:
        step_seconds(text)
        return text

    @field_validator("warm_pools")
    @classmethod
    def _stocks(cls, text: str) -> str:
        stocks_of(text)
        return text

    @model_validator(mode="after")
    def _share(self) -> Self:
        if self.canary_percent and self.canary_image is None:
            raise ValueError("NESTOR_CANARY_PERCENT: there is no NESTOR_CANARY_IMAGE to try out")
        if self.canary_image is not None and self.driver != "docker":
            raise ValueError(f"NESTOR_CANARY_IMAGE: the {self.driver} driver has no images")
        return self

    @model_validator(mode="after")
    def _spares(self) -> Self:
        for stock in self.stocks:
            if stock.image is not None and (self.catalogue is None or stock.image not in self.catalogue.names):
                raise ValueError(
                    f"NESTOR_WARM_POOLS: no request may ask for image {stock.image}: see NESTOR_ALLOWED_IMAGES"
                )
            if stock.size not in self.sizes:
                raise ValueError(
                    f"NESTOR_WARM_POOLS: no request may ask for size {stock.size}: see NESTOR_ALLOWED_SIZES"
                )
        return self

    @model_validator(mode="after")
    def _jwt(self) -> Self:
        named = {name for name in self.model_fields_set if name.startswith("jwt_")}
        needed = ("jwt_keys", "jwt_issuer", "jwt_audience")
        missing = [f"NESTOR_{name.upper()}" for name in needed if not getattr(self, name)]
        if named and missing:
            raise ValueError(
                f"{', '.join(missing)}: needed where tokens are taken; leave out all of NESTOR_JWT_ or none"
            )
        if not self.jwt_tenant_claim or not self.jwt_scopes_claim:
            raise ValueError("NESTOR_JWT_TENANT_CLAIM and NESTOR_JWT_SCOPES_CLAIM: they name claims, and are not empty")
        return self

    @model_validator(mode="after")
    def _data_plane(self) -> Self:
        if self.data_plane == "nginx" and (self.workers > 1 or self.worker_socket is not None):
            raise ValueError("NESTOR_DATA_PLANE: nginx has workers of its own, so leave out NESTOR_WORKERS")
        return self

    @property
    def stocks(self) -> tuple[Stock, ...]:
        """How many spares of each kind. Raises `ValueError`."""
        most = self.warm_pool_max or 2 * self.warm_pool
        further = stocks_of(self.warm_pools)
        further = tuple(replace(one, image=None) if one.image == self.runtime_image else one for one in further)
        stocks = (Stock(None, 1, self.warm_pool, most), *self._canary_stock, *further)
        if len({stock.kind for stock in stocks}) < len(stocks):
            raise ValueError(
                "NESTOR_WARM_POOLS: one kind is there twice; NESTOR_WARM_POOL is the default image of size 1"
            )
        return stocks

    @property
    def _canary_stock(self) -> tuple[Stock, ...]:
        """Spares of the canary by its share, so that it is no slower than what it is compared with."""
        minimum = math.ceil(self.warm_pool * self.canary_percent / 100) if self.canary_image else 0
        return (Stock(self.canary_image, 1, minimum, 2 * minimum),) if minimum else ()

    @property
    def sizes(self) -> frozenset[int]:
        """The sizes that every tenant's requests may ask for."""
        return self.known_sizes & (frozenset(map(int, _listed(self.allowed_sizes))) | {1})

    @property
    def known_sizes(self) -> frozenset[int]:
        """Those that runtimes can have. A process has no limits that a size could be a multiple of."""
        return frozenset({1} if self.driver == "process" else SIZES)

    @property
    def spans(self) -> Spans:
        return Spans(
            idle_pause_seconds=Span(self.idle_pause_seconds, self.idle_pause_max_seconds),
            max_life_seconds=Span(self.max_life_seconds, self.max_life_max_seconds),
            stop_paused_seconds=Span(self.stop_paused_seconds, self.stop_paused_max_seconds),
            archive_seconds=Span(self.archive_seconds, self.archive_max_seconds),
            delete_seconds=Span(self.delete_seconds, self.delete_max_seconds),
        )

    @property
    def restarts(self) -> Restarts:
        return Restarts(self.restart, self.restart_max, self.restart_window_seconds, self.restart_backoff_seconds)

    @property
    def audit_kept(self) -> Keep:
        return Keep(self.audit_entries, timedelta(days=self.audit_days))

    @property
    def limits(self) -> OperatorLimits:
        return OperatorLimits(
            allowance=Allowance(
                max_runtimes=self.tenant_max_runtimes,
                max_runtimes_per_user=self.tenant_max_runtimes_per_user,
                max_runtimes_per_key=self.tenant_max_runtimes_per_key,
                starts_per_minute=self.tenant_starts_per_minute,
                starts_per_minute_per_user=self.tenant_starts_per_minute_per_user,
                starts_per_minute_per_key=self.tenant_starts_per_minute_per_key,
            ),
            host_runtimes=self.max_runtimes,
            host_starts_per_minute=self.starts_per_minute,
            when_full=self.when_full,
            queue_length=self.queue_length,
            queue_seconds=self.queue_seconds,
        )

    @property
    def jwt_scopes(self) -> frozenset[str]:
        return _listed(self.jwt_default_scopes)

    @property
    def http_hosts(self) -> frozenset[str]:
        return _listed(self.allow_http_hosts)

    @property
    def origins(self) -> frozenset[str]:
        return _listed(self.allowed_origins)

    @property
    def accepted(self) -> frozenset[str]:
        return _listed(self.accept_weaker)

    @property
    def reached_hosts(self) -> Sequence[str]:
        return sorted(_listed(self.egress_hosts))

    @property
    def hook_hosts(self) -> frozenset[str]:
        """As `security/outbound.py` spells hosts."""
        return frozenset(host.lower().strip("[]").removesuffix(".") for host in _listed(self.allow_hook_hosts))

    @property
    def catalogue(self) -> Catalogue | None:
        """The images of runtimes; None where those are made of none."""
        if self.driver != "docker":
            return None
        return Catalogue(self.runtime_image, _listed(self.allowed_images), self.canary_image, self.canary_percent)


def _listed(text: str) -> frozenset[str]:
    return frozenset(item.strip() for item in text.split(",") if item.strip())


class DemoSettings(BaseSettings):
    """The model that `nestor demo` uses instead of the scripted one, under the names that other tools use as well."""

    model_config = SettingsConfigDict(env_prefix="LLM_", extra="ignore")

    model: str | None = None
    api_key: SecretStr | None = None
    base_url: str | None = None


def load(overrides: Mapping[str, Any]) -> OrchestratorSettings:
    """The settings from flags (`overrides`, None meaning not given) over the environment over defaults.

    Raises `Misconfigured` naming the variable.
    """
    known = {f"NESTOR_{name.upper()}" for name in OrchestratorSettings.model_fields} | FOREIGN
    for name in os.environ:
        if name.startswith("NESTOR_") and name not in known:
            raise Misconfigured(f"unknown variable {name}", hint=f"known ones: {', '.join(sorted(known - FOREIGN))}")
    try:
        return OrchestratorSettings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        name = f"NESTOR_{str(first['loc'][0]).upper()}" if first["loc"] else "the configuration"
        raise Misconfigured(f"{name}: {first['msg']}") from None


_INHERITED = ("PATH", "HOME", "LANG", "TZ", "SSL_CERT_FILE", "HTTPS_PROXY", "NO_PROXY", "NESTOR_REDIS_URL")


def child_environment() -> dict[str, str]:
    """What a child process of ours needs of this environment to find its programs, and nothing else."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}
