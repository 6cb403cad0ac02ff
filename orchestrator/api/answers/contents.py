"""What is in a conversation and its runtime: messages, events, files, links, what it uses and what it printed."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field

from orchestrator.api.answers.base import MISSING, Answer, Moment, NextAfter, NextPage


class Message(Answer):
    """The receipt of a message."""

    id: Annotated[str, Field(description="Its `client_id`")]
    state: Literal["queued", "delivered", "accepted", "undeliverable"]
    sequence: Annotated[int, Field(description="In the inbox")]
    event_sequence: NotRequired[Annotated[int, Field(description="In the event log, once it is `accepted`")]]


class MessagePage(Answer):
    items: Annotated[list[Message | None], Field(description=MISSING)]
    next_page_id: NextAfter


class Event(Answer):
    """One event of a conversation's log."""

    sequence: int
    event: Annotated[dict[str, Any], Field(description="As the agent server wrote it")]


class EventPage(Answer):
    items: Annotated[list[Event | None], Field(description=MISSING)]
    next_page_id: NextAfter


class Entry(Answer):
    """One entry of a folder."""

    name: str
    kind: Literal["file", "folder", "link", "other"]
    size: Annotated[int | None, Field(description="Bytes, of a file")]
    modified_at: Moment
    etag: Annotated[str | None, Field(description="Of a file")]


class EntryPage(Answer):
    items: list[Entry]
    next_page_id: NextPage


class Written(Answer):
    """A file that was written."""

    path: str
    size: Annotated[int, Field(description="Bytes")]


class Link(Answer):
    """A link to one port, or one path of the workspace, without its address."""

    id: str
    port: int | None
    path: str | None
    user: str | None
    generation: Annotated[int, Field(description="Of the runtime that it opens; of another it opens nothing")]
    created_at: Moment
    expires_at: Moment


class NewLink(Link):
    """A link with its address, which is the credential and is shown this once."""

    url: str


class LinkPage(Answer):
    items: Annotated[list[Link | None], Field(description=MISSING)]
    next_page_id: NextPage


class Snapshot(Answer):
    """Log and workspace of a conversation as they were together."""

    id: str
    at: Annotated[int, Field(description="The number of the last event of the log then; 0: there was none")]
    bytes: Annotated[int, Field(description="Of both together")]
    user: Annotated[str | None, Field(description="Who took it; null: the tenant")]
    created_at: Moment


class SnapshotPage(Answer):
    items: Annotated[list[Snapshot | None], Field(description=MISSING)]
    next_page_id: NextPage


class Usage(Answer):
    """What one runtime uses at this moment, and what it may use."""

    cpu_seconds: Annotated[float, Field(description="Since it was started")]
    memory_bytes: int
    memory_limit_bytes: int
    processes: int
    disk_bytes: Annotated[int | None, Field(description="Of workspace and state; null where that cannot be told")]
    size: Annotated[int, Field(description="How many times the smallest runtime it is")]
    cpu_limit: Annotated[float, Field(description="Processors")]
    processes_limit: int
    open_files_limit: Annotated[int, Field(description="Of each process")]
    log_limit_bytes: int
    disk_limit_bytes: Annotated[int | None, Field(description="Null: none")]


class Logs(Answer):
    """The last lines that an agent server printed, without any value that it was given."""

    lines: list[str]
    live: Annotated[bool, Field(description="False: it is gone, and these were kept of the latest that failed")]
