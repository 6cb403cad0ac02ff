"""What one runtime is made of, and whether it is dormant.

`build_app` makes one `RuntimeState` and puts it on `app.state.runtime`; routes get it by `runtime_state`. A runtime
that starts with an init key is dormant: it has no stores and no conversations until `initialize`, so that a spare holds
no tenant's data and nobody's request can reach what is not there yet.
"""

import asyncio
import enum
import hmac
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from pydantic import SecretStr

from runtime.boot import InitKey
from runtime.configuration.agent_profiles import AgentProfileStore
from runtime.configuration.profiles import ProfileStore
from runtime.configuration.store import SettingsStore
from runtime.conversations.live_secrets import held
from runtime.conversations.service import ConversationService
from runtime.fence import FenceKeeper, StaleFence
from runtime.machine import account
from runtime.machine.commands import Commands
from runtime.machine.files import Boundaries
from runtime.secrets.masking import Mask
from runtime.secrets.providers import GitProviderStore
from runtime.secrets.store import SecretStore
from runtime.settings import RuntimeSettings
from runtime.store.cipher import Cipher
from runtime.store.files import private_directory

if TYPE_CHECKING:
    from runtime.webhooks.service import Webhooks

log = structlog.get_logger()


NO_KEY = "no OH_SECRET_KEY: secrets are kept in memory only, and are gone after a restart"
WRONG_KEY = "what is stored cannot be opened with this OH_SECRET_KEY; it reads as unset and is left as it is"
OPEN_FILE = (
    "holds keys of this server, and the agent's commands can read it: set them in the environment, or close the file "
    "to the agent's user"
)
OTHER_KEY = (
    "values that another OH_SECRET_KEY sealed read as unset; they are kept, where the record was changed since in "
    "conversation.sealed-with-another-key"
)


class Stage(enum.StrEnum):
    """Where a runtime is between its start and its first request."""

    DORMANT = "dormant"  #: waiting for POST /api/init
    INITIALIZING = "initializing"  #: opening the stores, loading conversations
    READY = "ready"  #: serving


class Dormant(Exception):
    """The runtime has no stores yet: it waits for POST /api/init, or is working on it."""


class NotDormant(Exception):
    """Somebody initialised this runtime already, or is about to."""


class InitFailed(Exception):
    """Initialisation failed and the runtime is dormant again; the log has the reason under `error_id`."""

    def __init__(self, error_id: str) -> None:
        super().__init__(f"initialisation failed, error_id {error_id}")
        self.error_id = error_id


class SessionKeys:
    """The keys that open this runtime. Comparison takes the same time whichever key matches, or none."""

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        self._keys = [key.get_secret_value().encode() for key in keys]

    @property
    def is_open(self) -> bool:
        """Whether no key is configured, so that every request passes."""
        return not self._keys

    def accepts(self, candidate: str | None) -> bool:
        """Whether a request with this key may pass."""
        if self.is_open:
            return True
        # A WebSocket's auth frame is JSON, which lets half a surrogate pair through: a wrong key, not an exception.
        given = (candidate or "").encode(errors="surrogatepass")
        return any([hmac.compare_digest(given, key) for key in self._keys])  # noqa: C419 # a generator would stop early

    def ticket(self) -> str | None:
        """What a browser keeps instead of a key, to read workspace files; None when no key is configured. It is good
        for as long as the key that it was made from."""
        return _ticket(self._keys[0]) if self._keys else None

    def digest_key(self) -> bytes | None:
        """Under which stored values are digested; None when no key is configured."""
        return hmac.digest(self._keys[0], b"digests of configuration", "sha256") if self._keys else None

    def accepts_ticket(self, candidate: str | None) -> bool:
        """Whether this is the ticket of a key."""
        given = (candidate or "").encode(errors="surrogatepass")
        return any([hmac.compare_digest(given, _ticket(key).encode()) for key in self._keys])  # noqa: C419


def _ticket(key: bytes) -> str:
    return hmac.new(key, b"workspace files, read only", "sha256").hexdigest()


@dataclass(frozen=True)
class Parts:
    """Everything that exists only in a runtime that is not dormant."""

    cipher: Cipher
    settings_store: SettingsStore
    secret_store: SecretStore
    git_providers: GitProviderStore
    profiles: ProfileStore
    agent_profiles: AgentProfileStore
    conversations: ConversationService
    commands: Commands
    boundaries: Boundaries
    fence: FenceKeeper
    webhooks: "Webhooks | None"


class RuntimeState:
    """The runtime's parts and stage. Properties that need a live runtime raise Dormant in one that is not."""

    def __init__(self, settings: RuntimeSettings, *, init_key: InitKey | None = None, rehearsing: bool = False) -> None:
        """One that is `rehearsing` asks nobody: the library for models is left alone, neither imported nor its
        connections closed, and what receivers of webhooks would be told is dropped."""
        self.settings = settings
        self._rehearsing = rehearsing
        self.session_keys = SessionKeys(settings.session_api_keys)
        self.init_key = init_key
        self.init_error: str | None = None
        self.stage = Stage.DORMANT if init_key is not None else Stage.INITIALIZING
        self.started_at = time.monotonic()
        self._parts: Parts | None = None

    @property
    def deferred(self) -> bool:
        """Whether this runtime started dormant, whatever it is now."""
        return self.init_key is not None

    @property
    def cipher(self) -> Cipher:
        return self._live.cipher

    @property
    def settings_store(self) -> SettingsStore:
        return self._live.settings_store

    @property
    def secret_store(self) -> SecretStore:
        return self._live.secret_store

    @property
    def git_providers(self) -> GitProviderStore:
        return self._live.git_providers

    @property
    def profiles(self) -> ProfileStore:
        return self._live.profiles

    @property
    def agent_profiles(self) -> AgentProfileStore:
        return self._live.agent_profiles

    @property
    def conversations(self) -> ConversationService:
        return self._live.conversations

    @property
    def commands(self) -> Commands:
        return self._live.commands

    @property
    def fence(self) -> FenceKeeper:
        return self._live.fence

    @property
    def boundaries(self) -> Boundaries:
        return self._live.boundaries

    @property
    def _live(self) -> Parts:
        if self._parts is None:
            raise Dormant
        return self._parts

    def warnings(self) -> list[str]:
        """What an operator must know of a runtime that serves nevertheless; `/ready` shows it."""
        stores: dict[str, SettingsStore | SecretStore | GitProviderStore | ProfileStore | AgentProfileStore] = {
            "settings": self.settings_store,
            "secrets": self.secret_store,
            "git providers": self.git_providers,
            "profiles": self.profiles,
            "agent profiles": self.agent_profiles,
        }
        closed = [name for name, store in stores.items() if not store.readable]
        found = []
        if not self.cipher.available:
            found.append(NO_KEY)
        if closed:
            found.append(f"{', '.join(closed)}: {WRONG_KEY}")
        if count := self.conversations.folders.sealed_otherwise:
            found.append(f"conversations ({count}): {OTHER_KEY}")
        if (weakness := account.weakness()) is not None:
            found.append(weakness)
        if (file := self.settings.key_file) is not None and account.may_read(file):
            found.append(f"{file} {OPEN_FILE}")
        return found

    @property
    def uptime_seconds(self) -> float:
        return time.monotonic() - self.started_at

    @property
    def idle_seconds(self) -> float:
        """Time since the last event of any conversation, or since the start."""
        last = self._parts.conversations.idle_since() if self._parts is not None else None
        return time.monotonic() - (last if last is not None else self.started_at)

    async def activate(self, settings: RuntimeSettings, *, fence: str | None = None) -> None:
        """Open the stores and start the conversations. Raises what they raise, and StaleFence where a holder with a
        higher fence has been here before; then there is nothing half-open."""
        self.stage = Stage.INITIALIZING
        parts = await asyncio.to_thread(_opened, settings, fence, rehearsing=self._rehearsing)
        try:
            await parts.conversations.start()
            await parts.commands.open()
        except BaseException:
            await parts.conversations.stop()
            if parts.webhooks is not None:
                await parts.webhooks.close()
            raise
        if parts.webhooks is not None:
            parts.webhooks.start()
        self.settings = settings
        self.session_keys = SessionKeys(settings.session_api_keys)
        self._parts = parts
        self.stage = Stage.READY
        if not self.cipher.available:
            log.warning("runtime.secrets_in_memory_only", hint="set OH_SECRET_KEY to keep them over a restart")
        log.info("runtime.ready", seconds=round(time.monotonic() - self.started_at, 3))

    async def initialize(self, settings: RuntimeSettings, *, fence: str | None = None) -> None:
        """Wake a dormant runtime and forget its init key. `fence` is the caller's, a number.

        Raises NotDormant; or InitFailed or StaleFence, and is dormant again. Of several calls at once the first wins.
        """
        if self.stage is not Stage.DORMANT:
            raise NotDormant
        try:
            await self.activate(settings, fence=fence)
        except StaleFence:
            self.stage = Stage.DORMANT
            raise
        except Exception as exc:  # the request's edge: whatever failed, the caller must be able to try again
            self.stage = Stage.DORMANT
            self.init_error = str(uuid.uuid4())
            log.error("runtime.init_failed", error_id=self.init_error, exc_info=True)
            raise InitFailed(self.init_error) from exc
        except BaseException:  # cancelled: never stay between the stages, where nobody can start it again
            self.stage = Stage.DORMANT
            raise
        self.init_error = None
        if self.init_key is not None:
            self.init_key.forget()

    async def stop(self) -> None:
        """End runs and shells. Idempotent; does nothing in a dormant runtime."""
        if self._parts is not None:
            await self._parts.commands.close()
            if self._parts.webhooks is not None:
                await self._parts.conversations.agents.end_runs()  # what they said last is still sent
                await self._parts.webhooks.close()
            await self._parts.conversations.stop()


def _opened(settings: RuntimeSettings, fence: str | None, *, rehearsing: bool) -> Parts:
    """In one thread, because each change of threads is waited for. Raises OSError, StaleFence."""
    parts = _open(settings, rehearsing=rehearsing)
    if fence is not None:
        parts.fence.admit(fence)
    return parts


def _open(settings: RuntimeSettings, *, rehearsing: bool) -> Parts:
    directory = private_directory(settings.persistence_dir)
    private_directory(settings.conversations_path)  # a start that fails is told; a conversation that fails comes late
    cipher = Cipher(settings.secret_key, settings.previous_secret_keys)
    settings_store = SettingsStore(directory, cipher)
    secret_store = SecretStore(directory, cipher)
    git_providers = GitProviderStore(directory, cipher)
    profiles = ProfileStore(directory, cipher)
    boundaries = Boundaries(private=_own_folders(settings))
    webhooks = _webhooks(settings, rehearsing=rehearsing)
    conversations = ConversationService(
        settings=settings,
        cipher=cipher,
        settings_store=settings_store,
        secret_store=secret_store,
        git_providers=git_providers,
        profiles=profiles,
        boundaries=boundaries,
        outward=webhooks,
        asks_models=not rehearsing,
    )
    if webhooks is not None:
        webhooks.attach(conversations)
    commands = Commands(
        settings.bash_events_dir,
        directory=settings.workspace_path,
        environment=lambda: {**conversations.agent_environment(), **_of_callers(settings)},
        mask=_HeldValues(
            settings_store, secret_store, git_providers, profiles, conversations, settings.never_shown
        ).mask,
        retention_seconds=settings.bash_events_retention_seconds,
        adopts=settings.generation is None,
    )
    fence = FenceKeeper(directory)
    return Parts(
        cipher=cipher,
        settings_store=settings_store,
        secret_store=secret_store,
        git_providers=git_providers,
        profiles=profiles,
        agent_profiles=AgentProfileStore(directory, cipher),
        conversations=conversations,
        commands=commands,
        boundaries=boundaries,
        fence=fence,
        webhooks=webhooks,
    )


def _of_callers(settings: RuntimeSettings) -> dict[str, str]:
    """What callers' commands find in their environment beside the agent's: a program of theirs that is a client of this
    server needs its port, too."""
    given = {name: value.get_secret_value() for name, value in settings.command_variables.items()}
    if given and settings.listen_port is not None:
        given["AGENT_SERVER_PORT"] = str(settings.listen_port)
    return given


def _webhooks(settings: RuntimeSettings, *, rehearsing: bool) -> "Webhooks | None":
    if not settings.webhooks:
        return None
    from runtime.webhooks.sender import Dropping, Sender  # most runtimes have none, and need not know how it is done
    from runtime.webhooks.service import Webhooks

    return Webhooks(settings, sender=Dropping if rehearsing else Sender)


def _own_folders(settings: RuntimeSettings) -> list[Path]:
    """What callers' file routes do not open: unless the workspace itself is in it, which must stay readable."""
    workspace = settings.workspace_path.resolve()
    others = (settings.conversations_path.resolve(), settings.bash_events_dir.resolve())
    files = [settings.key_file.resolve()] if settings.key_file is not None else []
    shut = (folder for folder in others if folder not in workspace.parents)
    return [settings.persistence_dir.resolve(), *shut, *files]


class _HeldValues:
    """Hides what the user of this runtime has stored, as it is at that moment, and whatever it was before; and what its
    conversations were given."""

    def __init__(
        self,
        settings: SettingsStore,
        secrets: SecretStore,
        providers: GitProviderStore,
        profiles: ProfileStore,
        conversations: ConversationService,
        configured: Sequence[SecretStr],
    ) -> None:
        self._settings = settings
        self._secrets = secrets
        self._providers = providers
        self._profiles = profiles
        self._conversations = conversations
        self._mask = Mask()
        self._mask.add(configured)

    def mask(self) -> Mask:
        found = [
            *held(self._settings.read().agent_settings),
            *(value for llm in self._profiles.all().values() for value in held(llm)),
            *(provider.token for provider in self._providers.all().values()),
            *(self._secrets.get(entry.name) for entry in self._secrets.entries()),
            *self._conversations.secret_values(),
        ]
        self._mask.add(value for value in found if value is not None)
        return self._mask
