"""Conversations and bare runtimes: in lists, and alone with all that is known of them."""

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.api.answers.base import MISSING, Answer, Moment, NextPage, Version
from orchestrator.api.answers.operations import Cost, Why
from orchestrator.domain.conversation import Desired, Phase, Reason
from orchestrator.domain.retention import Act
from orchestrator.services.holding import Hold

Status = Literal["starting", "running", "paused", "stopped", "failed"]
ConfigurationPart = Literal["settings", "git_providers", "secrets"]
Url = Annotated[str | None, Field(description="Of its agent server; null while it is neither ready nor paused")]
SessionKey = Annotated[
    str | None, Field(description="For `X-Session-API-Key` at `url`; null in lists and for keys that may only read")
]
Generation = Annotated[int, Field(description="Grows each time a runtime is made for it; 0: none was yet")]


class Image(Answer):
    """The image that it stays on."""

    name: str
    id: Annotated[str, Field(description="The engine's own, a digest of all that is in it")]
    canary: Annotated[bool, Field(description="It fell into the share that tries a new image out")]


class RuntimeOfConversation(Answer):
    """The runtime of a conversation."""

    id: str
    generation: Generation
    url: Url
    session_key: SessionKey


class ForkOf(Answer):
    """What it goes on from."""

    conversation: str
    at: Annotated[int, Field(description="The number of the last event that it took; 0: none")]
    workspace: Annotated[
        Literal["snapshot", "event", "current"],
        Field(description="That of the snapshot, as it was at event `at`, or as it was when it was copied"),
    ]
    snapshot: Annotated[str | None, Field(description="Null: of none")]


class _Record(Why):
    id: str
    user: Annotated[str | None, Field(description="Whose it is; null: the tenant's own")]
    labels: dict[str, str]
    phase: Phase
    status: Annotated[Status, Field(description="The phase in fewer words")]
    desired: Annotated[Desired, Field(description="What it is being brought to")]
    attempt: int
    restart_at: Annotated[Moment | None, Field(description="It died, and starts again by itself then")]
    version: Version
    fence: int
    image: Annotated[Image | None, Field(description="Null until it is known, and where runtimes have no images")]
    size: Annotated[int, Field(description="How many times the smallest runtime it is")]
    operation: Annotated[str | None, Field(description="The last one on it")]
    archived_at: Annotated[Moment | None, Field(description="Its workspace is gone since then, its log is kept")]
    purge_at: Annotated[Moment | None, Field(description="Deleted; until then it can be brought back")]
    created_at: Moment
    updated_at: Moment
    phase_since: Moment


class ConversationSummary(_Record):
    """A conversation as lists show it."""

    title: str | None
    repository: str | None
    branch: str | None
    git_provider: str | None
    fork_of: Annotated[ForkOf | None, Field(description="Null: it is no fork")]
    runtime: RuntimeOfConversation | None


class RuntimeSummary(_Record):
    """A bare runtime as lists show it."""

    name: Annotated[str | None, Field(description="The only one of its user that has it")]
    generation: Generation
    url: Url
    session_key: SessionKey


class Idle(Answer):
    """When it will be paused unless it is used."""

    pause_after_seconds: Annotated[float | None, Field(description="Null: never")]
    unused_since: Moment
    pauses_at: Annotated[Moment | None, Field(description="Null: not while nothing changes")]


class ScheduledAct(Answer):
    """What the clock will do to it if nothing changes."""

    act: Act
    at: Moment
    reason: Reason


class PastFailure(Why):
    """One of its last failures."""

    at: Moment
    generation: int
    attempt: int
    restarted: Annotated[bool, Field(description="It started again by itself")]


class ConfigurationNames(Answer):
    """What the runtime was given, by name alone."""

    settings: Annotated[list[str], Field(description="JSON pointers into the runtime's settings")]
    git_providers: list[str]
    secrets: list[str]


class ConfigurationDrift(Answer):
    """The last change of its configuration that somebody made in the runtime."""

    parts: list[ConfigurationPart]
    seen_at: Moment
    repaired_at: Annotated[Moment | None, Field(description="Null: it is still there")]
    repair_at: Annotated[Moment, Field(description="When this one, or else the next one, may be repaired")]
    repairs: Annotated[int, Field(description="Since the start")]


class ConfigurationTrouble(Answer):
    """Why the wanted configuration is not in the runtime yet."""

    problem: str
    tries: int
    retry_at: Moment


class Configuration(Answer):
    """What the runtime holds beside what is wanted."""

    held: str | None
    digest: str | None
    wanted: str
    current: Annotated[bool, Field(description="It holds what is wanted")]
    names: ConfigurationNames
    pushed_at: Moment
    compared: Annotated[Literal["values", "names"] | None, Field(description="What drift is looked for in")]
    drifted: list[ConfigurationPart]
    drift: ConfigurationDrift | None
    trouble: ConfigurationTrouble | None


class Queued(Answer):
    """Where in the tenant's queue its start waits."""

    place: int
    until: Moment


class StuckUndo(Answer):
    """What could not be undone yet; it is tried again every few seconds."""

    step: str
    problem: str


class _Details(Answer):
    idle: Annotated[Idle | None, Field(description="Null while it is not ready")]
    holds: Annotated[list[Hold], Field(description="What keeps it from being put to rest now")]
    schedule: Annotated[list[ScheduledAct], Field(description="The next first")]
    failures: Annotated[list[PastFailure], Field(description="The latest first")]
    configuration: Annotated[Configuration | None, Field(description="Null while no runtime was configured")]
    queue: Annotated[Queued | None, Field(description="Null: it does not wait")]
    stuck: list[StuckUndo]


class Conversation(ConversationSummary, _Details):
    """A conversation: the durable thing a user asks for, with all that is known of it."""

    cost: Annotated[Cost, Field(description="In all its life; a fork's begins with nothing")]


class Runtime(RuntimeSummary, _Details):
    """A bare runtime, with all that is known of it."""


class ConversationPage(Answer):
    items: Annotated[list[ConversationSummary | None], Field(description=MISSING)]
    next_page_id: NextPage


class RuntimePage(Answer):
    items: Annotated[list[RuntimeSummary | None], Field(description=MISSING)]
    next_page_id: NextPage
