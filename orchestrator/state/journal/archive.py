"""Where the journal lies for good: one chain for each home (a tenant, or the house), appended to and read whole.

Several replicas may append to one archive. Nobody owns a chain: an append names the tail that it follows, and is
refused when the chain is longer by now (`Overtaken`). So a replica that slept between reading a stream and writing it
changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from orchestrator.domain.errors import Misconfigured, NestorError, StoreUnavailable
from orchestrator.state.journal.entry import Entry, Tail
from orchestrator.state.journal.folded import Folded


class ArchiveUnavailable(StoreUnavailable):
    """The journal's files or bucket cannot be used now."""

    code = "journal_unavailable"


class Overtaken(Exception):
    """Another replica appended first: read again what is to be appended."""


class DamagedArchive(NestorError):
    """A chain is broken; `place` names the file or object, and the line."""

    code = "journal_damaged"

    def __init__(self, message: str, place: str) -> None:
        super().__init__(f"{place}: {message}", hint="bring that file back from a copy; nothing was changed")
        self.place = place


@dataclass(frozen=True)
class Checked:
    """What a check of one chain found, all of it in order."""

    home: str
    entries: int  #: ever appended
    objects: int  #: known now
    segments: int


class Archive(Protocol):
    """All methods raise `ArchiveUnavailable`; those that read raise `DamagedArchive`."""

    async def identity(self) -> str:
        """This archive's id, made once: how replicas know that they write the same one."""
        ...

    async def homes(self) -> Sequence[str]:
        """Every chain, in order."""
        ...

    async def tail(self, home: str) -> Tail:
        """The end of a chain. A half-written last line, which nobody was told of, is not counted."""
        ...

    async def append(self, home: str, entries: Sequence[Entry], *, after: Tail) -> Tail:
        """Put `entries` behind `after`, on disk when this returns. Raises `Overtaken`."""
        ...

    async def read(self, home: str) -> tuple[Folded, Tail]:
        """All that is known, every line of it checked."""
        ...

    async def since(self, home: str, sequence: int) -> Sequence[Entry] | None:
        """What was appended behind `sequence`; None where a compaction has taken it together with what was before."""
        ...

    async def compact(self, home: str, *, at_least: int) -> bool:
        """Replace what was appended by what is known, once `at_least` bytes were appended and a fixed part of what is
        known already: so each byte is copied a few times at most, however much there is. Answers whether it did."""
        ...

    async def check(self, home: str) -> Checked:
        """Read all of it, changing nothing."""
        ...

    async def close(self) -> None: ...


def folder_of(url: str) -> Path | None:
    """The folder of a `file:` address; None for any other."""
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return Path(parts.path)
    return None


def open_archive(url: str | None, default: Path) -> Archive:
    """The archive of NESTOR_JOURNAL_URL: `file:///folder`, `s3://bucket/prefix?endpoint=...&region=...`, or None for
    `default`. Raises `Misconfigured`."""
    from orchestrator.state.journal.files import FileArchive

    if url is None:
        return FileArchive(default)
    folder, parts = folder_of(url), urlsplit(url)
    if folder is not None:
        return FileArchive(folder)
    if parts.scheme == "s3" and parts.hostname and not (parts.username or parts.password):
        try:
            from orchestrator.state.journal.objects import ObjectArchive
        except ImportError:
            raise Misconfigured(
                "NESTOR_JOURNAL_URL names object storage, and the client for it is not installed",
                hint="install nestor[s3]",
            ) from None
        return ObjectArchive.of_url(url)
    raise Misconfigured(
        "NESTOR_JOURNAL_URL is not an address of a journal",
        hint="use file:///folder or s3://bucket/prefix?endpoint=https://host; credentials come from the environment",
    )
