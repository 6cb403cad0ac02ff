"""The operator's configuration of one runtime: the environment and the config file are read here and nowhere else.

`load` is called once by `python -m runtime`; the result is passed to `build_app`. Variables are the contract's (1.4):
`OH_` and the field in upper case, in the grammar of `runtime.environment`; the environment wins over the file, field by
field. `OH_` variables of features that this runtime does not have are ignored.
"""

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, field_validator

from runtime import environment as variables
from runtime.secrets.names import credentials, is_secret_name
from runtime.webhooks.configuration import Webhooks

CONFIG_PATH_VARIABLE = "OPENHANDS_AGENT_SERVER_CONFIG_PATH"
DEFAULT_CONFIG_PATH = Path("workspace/openhands_agent_server_config.json")
#: known only at the start, or given at init alone
_NOT_CONFIGURED = frozenset({"listen_port", "listens_privately", "agent_variables", "command_variables", "key_file"})
#: fields of the config file that are keys, or may hold some
_KEYS = frozenset({"session_api_key", "session_api_keys", "secret_key", "previous_secret_keys", "webhooks"})
#: somebody's session key for a trial may be "test"; masking that would spoil every output and protect nothing
SHORTEST_MASKED_KEY = 16
#: variables whose name does not follow the rule, and the field that each sets
OTHER_VARIABLES: Mapping[str, str] = {
    "OH_PERSISTENCE_DIR": "persistence_dir",
    "OH_INTERNAL_SERVER_URL": "internal_server_url",
    "OH_GENERATION": "generation",
    "ALLOW_SET_CONVERSATION_ID": "allow_set_conversation_id",
    "NESTOR_RUNTIME_ALLOW_OPEN": "allow_open",
    "DOCKER_HOST_ADDR": "docker_host_address",
    "NESTOR_RUNTIME_AGENT_USER": "agent_user",
    "NESTOR_RUNTIME_VERSION_MEGABYTES": "version_megabytes",
    "LOG_JSON": "log_json",
}


class InvalidConfiguration(Exception):
    """The environment or the config file is wrong; the text names the field or variable and never holds its value."""


def _drop_blank(value: object) -> object:
    return [item for item in value if not _is_blank(item)] if isinstance(value, list | tuple) else value


def _blank_is_none(value: object) -> object:
    return None if _is_blank(value) else value


def _is_blank(value: object) -> bool:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    return isinstance(text, str) and not text.strip()


Keys = Annotated[tuple[SecretStr, ...], BeforeValidator(_drop_blank)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_drop_blank)]
OptionalText = Annotated[str | None, BeforeValidator(_blank_is_none)]


class RuntimeSettings(BaseModel):
    """One runtime's configuration. `POST /api/init` makes a changed copy; nothing else changes it."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    #: any of them opens the API; none at all means open, which a non-loopback address refuses
    session_api_keys: Keys = ()
    #: seals stored secrets and the encrypted exposure; without one, secrets stay in memory
    secret_key: Annotated[SecretStr | None, BeforeValidator(_blank_is_none)] = None
    #: decrypt only, tried in order, so that a rotation needs no downtime
    previous_secret_keys: Keys = ()
    allow_cors_origins: Texts = ()
    #: the whole origin must match
    allow_cors_origin_regex: OptionalText = None
    #: a host name that browsers use to reach this machine from a container
    docker_host_address: OptionalText = None
    conversations_path: Path = Path("workspace/conversations")
    #: where the older conversation body works; the newer one names its own directory
    workspace_path: Path = Path("workspace/project")
    bash_events_dir: Path = Path("workspace/bash_events")
    #: how long finished commands are kept; None: as long as there is room
    bash_events_retention_seconds: float | None = None
    conversation_worktree_root: Path = Field(
        default_factory=lambda: Path(tempfile.gettempdir()) / "agent-server-worktrees"
    )
    #: served below /static without a key, and `/` leads there
    static_files_path: Path | None = None
    #: settings, secrets and git providers; one a tenant, since servers that share it share settings
    persistence_dir: Path = Field(default_factory=lambda: Path.home() / ".openhands")
    #: more runs at once are answered 429
    max_concurrent_runs: Annotated[int, Field(ge=1)] = 10
    #: a conversation that nobody used for so long leaves memory; half an hour of reading is not "idle" to its user
    conversation_idle_ttl_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1200
    #: how long a server owns its conversations without a sign of life, where several share a folder; 0: no leases
    lease_ttl_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 45
    #: the public address; its path becomes the root path
    web_url: OptionalText = None
    #: believe X-Forwarded-Proto: only behind a proxy that sets it
    trust_forwarded_headers: bool = False
    #: where conversations run; a container for each is the orchestrator's part
    conversation_runtime: Literal["local"] = "local"
    #: base of relative LookupSecret urls; by default this server's own loopback address
    internal_server_url: str = "http://127.0.0.1:8000"
    #: start dormant, with `secret_key` as the init key (the contract's own form; `--boot-key-fd` is the safer one)
    deferred_init: bool = False
    #: origins under which clients reach this runtime: LookupSecret urls there are answered in-process
    public_urls: Texts = ()
    #: other hosts (or host:port) that LookupSecret urls may name; none: only this server's own secrets
    lookup_secret_hosts: Texts = ()
    #: who is told of conversations
    webhooks: Annotated[Webhooks, BeforeValidator(lambda value: () if value is None else value)] = ()
    #: hosts that git may reach over plain http, beside loopback
    allow_http_hosts: Texts = ()
    #: which incarnation of its conversation's runtime this is; requests for another one are refused
    generation: int | None = None
    #: whether the older conversation body may choose its id
    allow_set_conversation_id: bool = False
    #: listen on other addresses than loopback without any key
    allow_open: bool = False
    #: whose the agent's shell is: `auto` (another user where that is possible), `same`, or a user's name or number
    agent_user: str = "auto"
    #: what versions of a conversation's workspace may take, so that a copy at one of its events has that of then; 0:
    #: none are taken. Of conversations alone that work in `workspace_path`, as others are not copied.
    version_megabytes: Annotated[int, Field(ge=0, le=100_000)] = 256
    log_json: bool = False
    #: whether only this machine can connect, set at start; then a runtime may be without keys
    listens_privately: bool = False
    #: what the agent's commands find in their environment beside the usual; `POST /api/init` alone can set it
    agent_variables: dict[str, SecretStr] = Field(default_factory=dict)
    #: what callers' own commands (`/api/bash`) find there beside those, and the agent's do not: all are credentials
    command_variables: dict[str, SecretStr] = Field(default_factory=dict)
    #: the port that this server listens on, set at start; a LookupSecret url to it on loopback is this server's own
    listen_port: int | None = None
    #: the config file, where it holds keys
    key_file: Path | None = None

    @field_validator("allow_cors_origin_regex")
    @classmethod
    def _is_expression(cls, text: str | None) -> str | None:
        try:
            re.compile(text or "")
        except re.error as exc:
            raise ValueError(f"is not a regular expression: {exc.msg}") from None
        return text

    @property
    def never_shown(self) -> tuple[SecretStr, ...]:
        """What is masked in all that leaves: what looks like a credential among the agent's variables, those of the
        callers' commands, what signs in at receivers, and the server's own keys, unless so short that they may be
        words."""
        keys = [*self.session_api_keys, *self.previous_secret_keys, self.secret_key or SecretStr("")]
        return (
            *(value for name, value in self.agent_variables.items() if is_secret_name(name)),
            *self.command_variables.values(),
            *(value for hook in self.webhooks for value in credentials(hook.headers)),
            *(key for key in keys if len(key.get_secret_value()) >= SHORTEST_MASKED_KEY),
        )

    @property
    def root_path(self) -> str:
        """The path under which the public address serves this runtime; empty for the root."""
        return urlsplit(self.web_url or "").path.rstrip("/")


def load(environment: Mapping[str, str], *, directory: Path) -> RuntimeSettings:
    """The settings from the config file (relative paths from `directory`) and the environment.

    Raises InvalidConfiguration, naming what is wrong.
    """
    said = _from_environment(environment)
    values = variables.merged(_from_file(environment, directory), said)
    if _has_no_key(values.get("session_api_keys", ())) and environment.get("SESSION_API_KEY", "").strip():
        values["session_api_keys"] = [environment["SESSION_API_KEY"]]
    fallbacks = (environment.get(name, "") for name in ("SESSION_API_KEY", "OH_SESSION_API_KEYS_0"))
    if not str(values.get("secret_key") or "").strip() and said.get("secret_key", "") is not None:
        values["secret_key"] = next((key for key in fallbacks if key.strip()), None)
    try:
        return RuntimeSettings.model_validate(values)
    except ValidationError as exc:
        raise InvalidConfiguration("; ".join(_told(error["loc"], error["msg"]) for error in exc.errors())) from None


def _has_no_key(keys: object) -> bool:
    """Whether a list of keys is empty or blank; what is no list is for the model to refuse."""
    return isinstance(keys, list | tuple) and all(_is_blank(key) for key in keys)


def _told(place: tuple[int | str, ...], message: str) -> str:
    return f"{'.'.join(str(part) for part in place)}: {message}"


def _from_file(environment: Mapping[str, str], directory: Path) -> dict[str, Any]:
    path = directory / environment.get(CONFIG_PATH_VARIABLE, str(DEFAULT_CONFIG_PATH))
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise InvalidConfiguration(f"the config file {path} cannot be read: {exc.strerror}") from exc
    except ValueError:
        raise InvalidConfiguration(f"the config file {path} is not JSON") from None
    if not isinstance(found, dict):
        raise InvalidConfiguration(f"the config file {path} must hold a JSON object")
    if isinstance(found.get("session_api_key"), str):  # the name of older releases
        found.setdefault("session_api_keys", [found["session_api_key"]])
    configured = {str(key): value for key, value in found.items() if key not in _NOT_CONFIGURED}
    return {**configured, "key_file": path} if any(found.get(name) for name in _KEYS) else configured


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    names = {name: f"OH_{name.upper()}" for name in RuntimeSettings.model_fields if name not in _NOT_CONFIGURED}
    try:
        found = variables.fields(RuntimeSettings, environment, names)
        others = {name: variable for variable, name in OTHER_VARIABLES.items()}
        return {**found, **variables.fields(RuntimeSettings, environment, others)}
    except variables.BadVariable as exc:
        raise InvalidConfiguration(str(exc)) from None
