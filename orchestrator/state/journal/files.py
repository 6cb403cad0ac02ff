"""The archive as files: a folder for each home, in it segments `<first sequence>.jsonl` and at most one snapshot.

An append is one write and one fsync under a lock on the home's folder, so several replicas may share the folder (on one
machine, or on a file system with working locks). A crash in the middle of a write leaves half a line at the end, which
nobody was told of and the next append cuts off. Everything else that does not fit the chain is damage, told and left.
"""

import asyncio
import contextlib
import fcntl
import os
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from orchestrator.state.journal import entry
from orchestrator.state.journal.archive import ArchiveUnavailable, Checked, DamagedArchive, Overtaken
from orchestrator.state.journal.compacting import compacted
from orchestrator.state.journal.entry import BrokenChain, Entry, Tail
from orchestrator.state.journal.folded import Folded
from orchestrator.state.new_file import sync_folder, write_new

T = TypeVar("T")
SEGMENT_BYTES = 4 * 1024 * 1024
_SEGMENT = re.compile(r"\d{16}\.jsonl")
_SNAPSHOT = re.compile(r"snapshot-(\d{16})\.jsonl")
_HOME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_KNOWN_TAILS = 10_000
_THREADS = 4


@dataclass(frozen=True)
class _End:
    """A tail, and the files that it was read from as they were then: as long as there are no others, and the last has
    not grown, it still holds."""

    tail: Tail
    path: Path | None
    size: int
    snapshot: Path | None


class FileArchive:
    """See `archive.Archive`. Work that waits for the disk runs in threads of its own."""

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = folder
        self._segment_bytes = segment_bytes
        self._ends: OrderedDict[str, _End] = OrderedDict()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="journal")

    async def identity(self) -> str:
        return await self._run(self._identity)

    async def homes(self) -> Sequence[str]:
        return await self._run(self._homes)

    async def tail(self, home: str) -> Tail:
        return (await self._run(lambda: self._end(home))).tail

    async def append(self, home: str, entries: Sequence[Entry], *, after: Tail) -> Tail:
        return await self._run(lambda: self._append(home, entries, after))

    async def read(self, home: str) -> tuple[Folded, Tail]:
        folded, tail, _ = await self._run(lambda: self._read(home))
        return folded, tail

    async def since(self, home: str, sequence: int) -> Sequence[Entry] | None:
        return await self._run(lambda: self._since(home, sequence))

    async def check(self, home: str) -> Checked:
        folded, tail, segments = await self._run(lambda: self._read(home))
        return Checked(home, tail.sequence, len(folded), segments)

    async def compact(self, home: str, *, at_least: int) -> bool:
        return await self._run(lambda: self._compact(home, at_least))

    async def close(self) -> None:
        self._pool.shutdown(wait=False)

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except OSError as exc:
            raise ArchiveUnavailable(
                f"the journal in {self.folder} cannot be used: {exc.strerror}",
                hint="check space, owner and mode of that folder",
            ) from exc

    def _identity(self) -> str:
        path = self.folder / "identity"
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            write_new(path, secrets.token_hex(16).encode())
        return path.read_text(encoding="ascii")

    def _homes(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        return sorted(item.name for item in self.folder.iterdir() if item.is_dir() and _HOME.fullmatch(item.name))

    def _home(self, home: str) -> Path:
        if not _HOME.fullmatch(home):
            raise ValueError("a journal's home is an id")
        return self.folder / home

    @contextlib.contextmanager
    def _locked(self, home: str) -> Iterator[Path]:
        folder = self._home(home)
        if not folder.is_dir():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(self.folder)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield folder
        finally:
            os.close(descriptor)

    def _append(self, home: str, entries: Sequence[Entry], after: Tail) -> Tail:
        with self._locked(home) as folder:
            end = self._end(home)
            if end.tail != after:
                raise Overtaken
            lines, tail = entry.chained(after, entries)
            path = end.path
            if path is None or end.size >= self._segment_bytes:
                path = folder / f"{after.sequence + 1:016d}.jsonl"
            size = _append_to(path, b"".join(lines), at=end.size if path == end.path else 0)
            self._remember(home, _End(tail, path, size, end.snapshot))
            return tail

    def _end(self, home: str) -> _End:
        known = self._ends.get(home)
        segments = _live(self._home(home))
        last = segments[-1] if segments else None
        same = known is not None and (known.path, known.snapshot) == (last, _snapshot(self._home(home)))
        if known is not None and same and (last is None or _size(last) == known.size):
            return known
        grown = same and known is not None and last is not None and _size(last) > known.size > 0
        end = self._grown_end(known, last) if grown and known and last else self._found_end(home, segments)
        self._remember(home, end)
        return end

    def _grown_end(self, known: _End, last: Path) -> _End:
        """Another replica has appended: only what came since is read."""
        with last.open("rb") as file:
            file.seek(known.size)
            lines = _whole_lines(file.read()).splitlines(keepends=True)
        try:
            _, tail = entry.unchained(known.tail, lines)
        except BrokenChain as exc:
            raise DamagedArchive(str(exc), f"{last}:{exc.line} behind byte {known.size}") from exc
        return _End(tail, last, known.size + sum(map(len, lines)), known.snapshot)

    def _found_end(self, home: str, segments: Sequence[Path]) -> _End:
        """From the last lines alone, so that it costs the same however much was ever appended."""
        snapshot = place = _snapshot(self._home(home))
        last = segments[-1] if segments else None
        try:
            for place in reversed(segments):
                lines = _whole_lines(place.read_bytes()).splitlines(keepends=True)
                if lines:
                    size = sum(map(len, lines)) if place == last else 0
                    return _End(entry.end_of(lines), last, size, snapshot)
            place = snapshot
            if snapshot is None:
                return _End(Tail(), last, 0, None)
            with snapshot.open("rb") as file:
                return _End(entry.head_of_snapshot(file.readline()), last, 0, snapshot)
        except BrokenChain as exc:
            raise DamagedArchive(str(exc), f"{place}:{exc.line}") from exc

    def _remember(self, home: str, end: _End) -> None:
        self._ends[home] = end
        self._ends.move_to_end(home)
        while len(self._ends) > _KNOWN_TAILS:
            self._ends.popitem(last=False)

    def _read(self, home: str) -> tuple[Folded, Tail, int]:
        folded, tail = Folded(), Tail()
        folder = self._home(home)
        snapshot = _snapshot(folder)
        segments = _live(folder)
        place = snapshot
        try:
            if snapshot is not None:
                entries, tail = entry.of_snapshot(snapshot.read_bytes())
                folded.add(entries)
            for place in segments:
                content = place.read_bytes()
                if place == segments[-1]:
                    content = _whole_lines(content)
                entries, tail = entry.unchained(tail, content.splitlines(keepends=True))
                folded.add(entries)
        except BrokenChain as exc:
            raise DamagedArchive(str(exc), f"{place}:{exc.line}") from exc
        return folded, tail, sum(1 for segment in segments if _size(segment)) + (snapshot is not None)

    def _since(self, home: str, sequence: int) -> list[Entry] | None:
        segments = _live(self._home(home))
        # From the last segment that begins at or before the first one wanted; its own beginning is taken as it is.
        first = max((place for place, one in enumerate(segments) if int(one.stem) <= sequence + 1), default=None)
        if first is None:
            return [] if self._end(home).tail.sequence <= sequence else None
        content = b"".join(segment.read_bytes() for segment in segments[first:])
        return entry.behind(sequence, _whole_lines(content).splitlines(keepends=True))

    def _compact(self, home: str, at_least: int) -> bool:
        """Appends go on meanwhile, in a segment behind those that are compacted."""
        with self._alone(home) as alone:
            if not alone:
                return False
            with self._locked(home) as folder:
                segments, before = _live(folder), _snapshot(folder)
                if sum(map(_size, segments)) < max(at_least, _size(before) if before else 0):
                    return False
                tail = self._closed(home, folder)
                segments = [segment for segment in segments if int(segment.stem) <= tail.sequence]
            compacted(before, segments, folder / f"snapshot-{tail.sequence:016d}.jsonl", tail)
            with self._locked(home) as folder:
                self._ends.pop(home, None)
                older = _snapshots(folder)[:-1]
                for old in [*older, *(one for one in _segments(folder) if int(one.stem) <= tail.sequence)]:
                    old.unlink()
                sync_folder(folder)
            return True

    def _closed(self, home: str, folder: Path) -> Tail:
        """Let every replica append to a new segment from now on. Answers where that begins."""
        end = self._end(home)
        if end.path is not None and end.size:
            _append_to(end.path, b"", at=end.size)  # without the half line of a crash
            _append_to(folder / f"{end.tail.sequence + 1:016d}.jsonl", b"", at=0)
            self._ends.pop(home, None)
        return end.tail

    @contextlib.contextmanager
    def _alone(self, home: str) -> Iterator[bool]:
        """Whether nobody else compacts that home."""
        folder = self._home(home)
        if not folder.is_dir():
            yield False
            return
        descriptor = os.open(folder / "compacting", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            alone = True
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                alone = False
            yield alone
        finally:
            os.close(descriptor)


def _segments(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(item for item in folder.iterdir() if _SEGMENT.fullmatch(item.name))


def _live(folder: Path) -> list[Path]:
    """Segments that the snapshot does not hold: others are left when a crash came before their removal."""
    snapshot = _snapshot(folder)
    through = int(snapshot.stem.partition("-")[2]) if snapshot is not None else 0
    return [segment for segment in _segments(folder) if int(segment.stem) > through]


def _snapshots(folder: Path) -> list[Path]:
    return sorted(item for item in folder.iterdir() if _SNAPSHOT.fullmatch(item.name)) if folder.is_dir() else []


def _snapshot(folder: Path) -> Path | None:
    """The newest: an older one is left when a crash came before its removal."""
    found = _snapshots(folder)
    return found[-1] if found else None


def _size(path: Path) -> int:
    return path.stat().st_size


def _whole_lines(content: bytes) -> bytes:
    return content[: content.rfind(b"\n") + 1]


def _append_to(path: Path, content: bytes, *, at: int) -> int:
    """Write `content` at the end, which is `at`: what lies behind is half a line of a crash. Answers the new size."""
    fresh = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, at)
        try:
            written = 0
            while written < len(content):
                written += os.pwrite(descriptor, content[written:], at + written)
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, at)  # a full disk: leave no half line behind
            raise
    finally:
        os.close(descriptor)
    if fresh:
        sync_folder(path.parent)
    return at + len(content)
