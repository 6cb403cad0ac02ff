"""What folders take on the disk, told to an owner who has locked himself out of some."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.drivers import storage

MEGABYTE = 1_000_000
#: Root has to do without the right to read everything, as the orchestrator in compose does.
BOUND = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
TELL = """
import pathlib, sys
from orchestrator.drivers import storage
taken = storage.taken_by([pathlib.Path(sys.argv[1])])
print(taken and taken.bytes, taken and taken.whole)
"""


def told(place: Path) -> tuple[str, str]:
    """What its owner counts, and whether that is all."""
    words = [*BOUND, sys.executable, "-c", TELL, str(place)]
    taken, whole = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    return taken, whole


@pytest.mark.parametrize("mode", [0o000, 0o100, 0o200, 0o400])
def test_a_folder_that_nobody_may_read_counts_and_stays_as_it_is(tmp_path: Path, mode: int) -> None:
    closed = tmp_path / "closed"
    inner = closed / "also closed"
    inner.mkdir(parents=True)
    (inner / "large").write_bytes(b"x" * 5 * MEGABYTE)
    os.link(inner / "large", inner / "again")  # one file
    (closed / "away").symlink_to("/usr")
    for folder in (inner, closed):
        folder.chmod(mode)
    try:
        taken, whole = told(tmp_path)
        assert 5 * MEGABYTE <= int(taken) < 6 * MEGABYTE
        assert whole == "True"
        assert closed.stat().st_mode & 0o777 == mode
        closed.chmod(0o700)
        assert inner.stat().st_mode & 0o777 == mode
    finally:
        for folder in (closed, inner):
            folder.chmod(0o700)


def test_folders_that_lie_too_deep_beside_a_closed_one_are_too_much(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o000)
    script = f"import os; os.chdir({str(tmp_path)!r})\nfor _ in range(600): os.mkdir('d'); os.chdir('d')"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert told(tmp_path) == ("0", "False")
    (tmp_path / "closed").chmod(0o700)
    assert told(tmp_path)[1] == "True"  # then no one has to go in


def test_what_is_not_ours_to_look_into_is_not_known(tmp_path: Path) -> None:
    place = tmp_path / "closed" / "workspace"
    assert storage.taken_by([place]) is None
    place.mkdir(parents=True)
    place.parent.chmod(0o000)
    assert told(place) == ("None", "None")
    place.parent.chmod(0o700)
    assert told(place)[1] == "True"
