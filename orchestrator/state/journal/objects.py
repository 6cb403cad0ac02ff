"""The archive in object storage that speaks S3: one object for each append, named by the sequence that it begins with.

An append is a PUT that the storage refuses where the name is taken (`If-None-Match: *`), which is what keeps two
replicas apart; a storage without that is refused when it is first used.
"""

import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TypeVar

from orchestrator.state.bucket import Bucket, BucketFailed, NoObject
from orchestrator.state.journal import entry
from orchestrator.state.journal.archive import ArchiveUnavailable, Checked, DamagedArchive, Overtaken
from orchestrator.state.journal.entry import BrokenChain, Entry, Tail
from orchestrator.state.journal.folded import Folded

T = TypeVar("T")
_SEGMENT = re.compile(r"(\d{16})\.jsonl")
_SNAPSHOT = re.compile(r"snapshot-(\d{16})\.jsonl")
_KNOWN_TAILS = 10_000
_SHARE = 8  #: a compaction copies so many bytes for one appended at most; more would leave many small objects
_SETTING = "NESTOR_JOURNAL_URL"


class ObjectArchive:
    """See `archive.Archive`."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._where = bucket.where
        self._tails: OrderedDict[str, Tail] = OrderedDict()

    @classmethod
    def of_url(cls, url: str) -> "ObjectArchive":
        """See `Bucket.of_url`. Raises `Misconfigured`."""
        return cls(Bucket.of_url(url, setting=_SETTING))

    async def identity(self) -> str:
        return await self._run(self._identity)

    async def homes(self) -> Sequence[str]:
        return await self._run(self._bucket.folders)

    async def tail(self, home: str) -> Tail:
        known = self._tails.get(home)
        return known if known is not None else await self._run(lambda: self._found_tail(home))

    async def append(self, home: str, entries: Sequence[Entry], *, after: Tail) -> Tail:
        lines, tail = entry.chained(after, entries)
        name = f"{home}/{after.sequence + 1:016d}.jsonl"
        if not await self._run(lambda: self._bucket.put_new(name, b"".join(lines)) and self._is_live(home, after)):
            self._tails.pop(home, None)
            raise Overtaken
        self._remember(home, tail)
        return tail

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
        await self._bucket.close()

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await self._bucket.run(work)
        except (NoObject, BucketFailed) as exc:
            code = exc.code if isinstance(exc, BucketFailed) else "an object that was listed is gone"
            raise ArchiveUnavailable(
                f"the journal at {self._where} cannot be used ({code})",
                hint=f"check bucket, endpoint and credentials of {_SETTING}",
            ) from exc

    def _identity(self) -> str:
        """Made by a PUT that must not replace anything: a storage that takes the second one keeps nobody apart."""
        fresh = secrets.token_hex(16).encode()
        if self._bucket.put_new("identity", fresh) and self._bucket.put_new("identity", b"twice"):
            self._bucket.remove("identity")
            raise ArchiveUnavailable(f"the storage at {self._where} ignores If-None-Match, which the journal needs")
        return self._bucket.get("identity").decode("ascii")

    def _names(
        self, home: str, *, beginning: str = ""
    ) -> tuple[str | None, list[tuple[str, int]], list[tuple[str, int]]]:
        """The newest snapshot, the segments behind it, and everything older, each with its size."""
        found = self._bucket.sizes(f"{home}/{beginning}")
        sizes = {name.removeprefix(f"{home}/"): size for name, size in found.items()}
        snapshots = sorted(name for name in sizes if _SNAPSHOT.fullmatch(name))
        newest = snapshots[-1] if snapshots else None
        through = int(newest.removeprefix("snapshot-").removesuffix(".jsonl")) if newest else 0
        segments = sorted(name for name in sizes if _SEGMENT.fullmatch(name))
        live = [(name, sizes[name]) for name in segments if int(name.removesuffix(".jsonl")) > through]
        older = [name for name in [*segments, *snapshots] if name != newest and name not in dict(live)]
        return newest, live, [(name, sizes[name]) for name in older]

    def _found_tail(self, home: str) -> Tail:
        snapshot, segments, _ = self._names(home)
        place = segments[-1][0] if segments else snapshot
        if place is None:
            return Tail()
        lines = self._bucket.get(f"{home}/{place}").splitlines(keepends=True)
        try:
            tail = entry.end_of(lines) if segments else entry.head_of_snapshot(lines[0] if lines else b"")
        except BrokenChain as exc:
            raise DamagedArchive(str(exc), f"{self._where}{home}/{place}:{exc.line}") from exc
        self._remember(home, tail)
        return tail

    def _is_live(self, home: str, after: Tail) -> bool:
        """Whether what was just put is behind the newest snapshot. It is not when it follows a tail that was known for
        so long that a compaction has freed the name meanwhile: nobody would ever read it."""
        snapshot, _, _ = self._names(home, beginning="snapshot-")
        if snapshot is None or _through(snapshot) <= after.sequence:
            return True
        self._bucket.remove(f"{home}/{after.sequence + 1:016d}.jsonl")
        return False

    def _read(self, home: str) -> tuple[Folded, Tail, int]:
        folded, tail = Folded(), Tail()
        snapshot, segments, _ = self._names(home)
        place = snapshot or ""
        try:
            if snapshot is not None:
                entries, tail = entry.of_snapshot(self._bucket.get(f"{home}/{snapshot}"))
                folded.add(entries)
            for place, _size in segments:
                entries, tail = entry.unchained(tail, self._bucket.get(f"{home}/{place}").splitlines(keepends=True))
                folded.add(entries)
        except BrokenChain as exc:
            raise DamagedArchive(str(exc), f"{self._where}{home}/{place}:{exc.line}") from exc
        return folded, tail, len(segments) + (snapshot is not None)

    def _since(self, home: str, sequence: int) -> list[Entry] | None:
        _, segments, _ = self._names(home)
        first = max((place for place, (name, _) in enumerate(segments) if _through(name) <= sequence + 1), default=None)
        if first is None:
            return [] if self._found_tail(home).sequence <= sequence else None
        content = b"".join(self._bucket.get(f"{home}/{name}") for name, _ in segments[first:])
        return entry.behind(sequence, content.splitlines(keepends=True))

    def _compact(self, home: str, at_least: int) -> bool:
        snapshot, segments, older = self._names(home)
        appended = sum(size for _, size in segments)
        if appended < at_least:
            return False
        if snapshot is not None and appended * _SHARE < self._bucket.size(f"{home}/{snapshot}"):
            return False
        folded, tail, _ = self._read(home)
        # Appends may go on meanwhile: they are behind the snapshot, which holds what was read and is named by it.
        self._bucket.put_new(f"{home}/snapshot-{tail.sequence:016d}.jsonl", entry.snapshot(tail, folded.entries()))
        gone = [name for name, _ in [*segments, *older] if _through(name) <= tail.sequence]
        for name in [*gone, *([snapshot] if snapshot else [])]:
            self._bucket.remove(f"{home}/{name}")
        return True

    def _remember(self, home: str, tail: Tail) -> None:
        self._tails[home] = tail
        while len(self._tails) > _KNOWN_TAILS:
            self._tails.popitem(last=False)


def _through(name: str) -> int:
    """The first sequence of a segment, the last of a snapshot."""
    return int(name.removeprefix("snapshot-").removesuffix(".jsonl"))
