"""A version of a folder is the folder as it was, what two of them share is there once, and bounds hold."""

import io
import os
import stat
import tarfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime.machine import archives
from runtime.machine.files import Boundaries
from runtime.machine.objects import AT, OBJECTS, add, find, versions_in
from runtime.machine.versions import Bounds, FolderVersions, NoVersion

Content = dict[str, tuple[str, int, str]]


@dataclass
class Kept:
    """A folder, and where versions of it are kept; `anew` is what another life of the server sees."""

    work: Path
    place: Path

    def anew(self, **bounds: int) -> FolderVersions:
        limits = Bounds(bounds.pop("limit_bytes", 50_000_000), **bounds)
        return FolderVersions(self.place, self.work, Boundaries(private=[self.work / "private"]), limits)

    def objects(self) -> set[str]:
        return {path.name for path in (self.place / OBJECTS).glob("*/*")}

    def at(self, number: int) -> Content:
        """What a fork would be given."""
        version = find(self.place, number, read=True)
        assert version is not None, versions_in(self.place)
        return packed(lambda archive: add(archive, self.place, version, prefix="", root=self.work))

    def now(self) -> Content:
        folder = os.open(self.work, os.O_RDONLY | os.O_DIRECTORY)
        try:
            limits = Boundaries(private=[self.work / "private"])
            return packed(lambda archive: archives.add(archive, folder, limits, root=self.work))
        finally:
            os.close(folder)


def packed(write: Callable[[tarfile.TarFile], None]) -> Content:
    """What is in an archive: of each path its kind, mode and content."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=tarfile.PAX_FORMAT) as archive:
        write(archive)
    held.seek(0)
    found: Content = {}
    with tarfile.open(fileobj=held) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isreg() else None
            content = file.read().decode(errors="surrogateescape") if file is not None else member.linkname
            found[member.name] = (member.type.decode(), 0 if member.issym() else member.mode, content)
    return found


def take(folder: FolderVersions, since: int, *, closes: bool = True) -> None:
    folder.take(since, closes=closes, ended=threading.Event())


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    (tmp_path / "work").mkdir()
    return Kept(tmp_path / "work", tmp_path / "state" / "versions")


def test_each_number_has_the_folder_as_it_was_then(kept: Kept) -> None:
    folder, work = kept.anew(), kept.work
    (work / "a").write_text("one")
    (work / "deep" / "er").mkdir(parents=True)
    (work / "deep" / "er" / "b").write_text("b")
    (work / "deep" / "er" / "b").chmod(0o750)
    (work / "inner" / ".git").mkdir(parents=True)
    (work / "inner" / ".git" / "HEAD").write_text("ref")
    (work / "link").symlink_to("deep/er")
    (work / "whole").symlink_to(work / "a")
    (work / "outside").symlink_to("/etc/hostname")
    (work / "empty").mkdir(mode=0o700)
    os.mkfifo(work / "pipe")
    seen = {0: kept.now()}
    assert {name for name in seen[0] if "/" not in name} == {"a", "deep", "inner", "link", "whole", "outside", "empty"}
    take(folder, 0)

    def changed(number: int, change: Callable[[], object]) -> None:
        change()
        seen[number] = kept.now()
        take(folder, number)

    changed(5, lambda: (work / "a").write_text("two"))  # as long as before
    changed(6, lambda: (work / "deep" / "er" / "b").chmod(0o600))
    changed(7, lambda: (work / "deep" / "er" / "b").unlink())
    changed(8, lambda: ((work / "link").unlink(), (work / "link").write_text("a file now")))
    changed(9, lambda: ((work / "a").unlink(), (work / "a").mkdir(), (work / "a" / "in").write_text("it")))
    changed(10, lambda: (work / "inner" / ".git" / "HEAD").write_text("other"))
    changed(11, lambda: os.utime(work / "inner" / ".git" / "HEAD", (1, 1)))
    folder.extend(14)
    assert len({str(one) for one in seen.values()}) == 7  # but for times, the last two are one
    for number in range(15):
        assert kept.at(number) == seen[max(one for one in seen if one <= number)], number
    assert find(kept.place, 15) is None
    again = kept.anew()
    take(again, 20)
    assert (kept.at(14), kept.at(20)) == (seen[11], seen[11])
    assert [one.since for one in versions_in(kept.place)] == [0, 5, 6, 7, 8, 9, 10, 11]


def test_what_has_not_changed_is_neither_read_nor_written_again(kept: Kept) -> None:
    folder = kept.anew()
    for number in range(50):
        (kept.work / f"file{number}").write_text(f"content {number}")
    (kept.work / "folder").mkdir()
    (kept.work / "folder" / "one").write_text("one")
    take(folder, 0)
    before = {path: path.stat().st_ino for path in kept.place.rglob("*") if path.is_file()}
    for file in kept.work.glob("file*"):
        file.read_text()  # which may leave another time of reading
    take(folder, 3)
    [version] = versions_in(kept.place)
    assert (version.since, version.until) == (0, 3)
    (kept.work / "folder" / "one").write_text("two")
    take(folder, 4)
    after = {path: path.stat().st_ino for path in kept.place.rglob("*") if path.is_file() and path.parent.name != AT}
    new = after.keys() - before.keys()
    assert len(new) == 3  # the content, the list of its folder, and that of the folder above
    assert {path: after[path] for path in after.keys() - new} == {
        path: inode for path, inode in before.items() if path.parent.name != AT
    }


def test_a_change_within_a_tick_of_the_clock_is_seen(kept: Kept) -> None:
    folder = kept.anew()
    for number in range(30):
        (kept.work / "file").write_text(f"{number:04}")
        take(folder, number)
        assert kept.at(number)["file"][2] == f"{number:04}"


def test_hostile_names_and_what_is_private_stay_out_or_are_kept_as_they_are(kept: Kept) -> None:
    hostile = ["new\nline", "-rf", "..x", "\u00e9\u4e2d", "\x1b[31m", "a" * 255, '"', "\\"]
    for name in hostile:
        (kept.work / name).write_text(name)
    Path(os.fsdecode(os.fsencode(kept.work) + b"/\xff\xfe")).write_text("no text")
    (kept.work / "bytes").symlink_to(os.fsdecode(b"\xff/\xfe"))
    (kept.work / "private").mkdir()
    (kept.work / "private" / "key").write_text("of the server")
    take(kept.anew(), 0)
    assert kept.at(0) == kept.now()
    assert set(kept.at(0)) == {*hostile, "bytes"}


def test_a_folder_that_is_a_link_by_now_is_not_followed(kept: Kept, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_text("of somebody else")
    (kept.work / "folder").mkdir()
    (kept.work / "folder" / "file").write_text("own")
    folder = kept.anew()
    take(folder, 0)
    (kept.work / "folder" / "file").unlink()
    (kept.work / "folder").rmdir()
    (kept.work / "folder").symlink_to(tmp_path / "elsewhere")
    take(folder, 1)
    assert kept.at(1) == {"folder": ("2", 0, str(tmp_path / "elsewhere"))}


@pytest.mark.parametrize("much", ["bytes", "files", "depth", "disk"])
def test_too_much_is_no_version_and_leaves_the_others(kept: Kept, much: str) -> None:
    (kept.work / "file").write_text("small")
    bounds = {"limit_bytes": 1_000_000, "most": 40}
    folder = kept.anew(**bounds)
    take(folder, 0)
    before = kept.objects()
    if much == "bytes":
        (kept.work / "large").write_bytes(os.urandom(1_000_001))
    elif much == "files":
        for number in range(40):
            (kept.work / f"file{number}").touch()
    elif much == "depth":
        folder = kept.anew()
        here = kept.work
        for _ in range(203):
            here = here / "d"
            here.mkdir()
    else:
        folder = kept.anew(spare_bytes=1 << 60)
        (kept.work / "new").write_text("does not fit")
    with pytest.raises(NoVersion):
        take(folder, 3)
    assert kept.objects() == before
    assert (find(kept.place, 0) is None, find(kept.place, 2) is None, find(kept.place, 3)) == (False, False, None)


def test_a_sparse_file_counts_as_long_as_it_is(kept: Kept) -> None:
    with open(kept.work / "sparse", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(NoVersion):
        take(kept.anew(), 0)
    assert kept.objects() == set()


def test_the_oldest_go_first_and_nothing_stays_of_them(kept: Kept) -> None:
    folder = kept.anew(limit_bytes=1_000_000)
    (kept.work / "always").write_bytes(os.urandom(100_000))
    for number in range(20):
        (kept.work / "file").write_bytes(bytes([number]) * 200_000)
        take(folder, number)
        taken = sum(path.stat().st_size for path in (kept.place / OBJECTS).glob("*/*"))
        assert taken <= 1_000_000, number
    there = [number for number in range(20) if find(kept.place, number) is not None]
    assert there == list(range(there[0], 20))
    assert 2 <= len(there) < 6
    for number in there:
        assert kept.at(number)["file"][2] == chr(number) * 200_000
    named: dict[str, int] = {}
    for version in versions_in(kept.place):
        folder._objects.sizes(version.root, named)
    assert kept.objects() == set(named)


def test_many_small_files_count_for_their_places(kept: Kept) -> None:
    folder = kept.anew(limit_bytes=40 * 16 * 1024)
    for number in range(60):
        (kept.work / "file").write_text(str(number))
        take(folder, number)
        assert len(kept.objects()) + len(versions_in(kept.place)) <= 40, number
    assert (kept.at(59)["file"][2], find(kept.place, 0)) == ("59", None)


def test_what_a_crash_left_between_contents_and_version_is_removed(kept: Kept) -> None:
    folder = kept.anew()
    (kept.work / "file").write_text("one")
    take(folder, 0)
    before = kept.objects()
    (kept.work / "file").write_text("two, of which no version came")

    def struck(since: int, root: str) -> None:
        os._exit(9)

    folder._commit = struck  # type: ignore[method-assign]
    child = os.fork()
    if child == 0:
        take(folder, 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(kept.objects()) == len(before) + 2
    assert (kept.at(0)["file"][2], find(kept.place, 1)) == ("one", None)
    again = kept.anew()
    (kept.work / "file").write_text("three")
    take(again, 5, closes=False)
    assert len(kept.objects()) == len(before) + 2
    assert (kept.at(0)["file"][2], kept.at(5)["file"][2], find(kept.place, 1)) == ("one", "three", None)
    assert {path.name for path in kept.place.iterdir()} == {OBJECTS, AT}


def test_what_a_power_cut_has_damaged_is_not_given_out_and_is_made_anew(kept: Kept) -> None:
    folder = kept.anew()
    (kept.work / "file").write_text("one")
    (kept.work / "other").write_text("other")
    take(folder, 0)
    folder.extend(4)
    [lost] = [path for path in (kept.place / OBJECTS).glob("*/*") if path.read_bytes() == b"one"]
    lost.write_bytes(b"")
    assert find(kept.place, 2) is None
    take(kept.anew(), 5, closes=False)
    assert (find(kept.place, 2), kept.at(5)["file"][2]) == (None, "one")
    [turned] = [path for path in (kept.place / OBJECTS).glob("*/*") if path.read_bytes() == b"other"]
    turned.write_bytes(b"OTHER")
    assert (find(kept.place, 5) is None, find(kept.place, 5, read=True)) == (False, None)


def test_one_that_was_ended_is_not_there_and_leaves_nothing(kept: Kept) -> None:
    folder, ended = kept.anew(), threading.Event()
    (kept.work / "file").write_text("one")
    folder.end(ended)
    with pytest.raises(NoVersion):
        folder.take(0, closes=False, ended=ended)
    assert (kept.objects(), versions_in(kept.place)) == (set(), [])
    take(folder, 1)
    assert kept.at(1)["file"][2] == "one"


def test_what_is_kept_is_closed_to_others(kept: Kept) -> None:
    (kept.work / "file").write_text("one")
    take(kept.anew(), 0)
    for path in (kept.place, *kept.place.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path.parent.name == OBJECTS, path
