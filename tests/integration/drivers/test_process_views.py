"""A runtime that was forked isolates itself; it must see exactly what bubblewrap would have shown it."""

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.zygotes import ZygoteProcess, zygote_at

from orchestrator.drivers.namespaces import HOSTNAME, Namespaces, PrivateFolders, probe
from orchestrator.drivers.process_birth import SYSTEM_PATH
from orchestrator.drivers.process_interpreter import ask
from orchestrator.drivers.process_zygote_probe import tried

SUPPORT = Path(__file__).parents[2] / "support"
LOOKING = (
    "-c",
    f"import sys; sys.path.append({str(SUPPORT)!r}); import seen_inside\n"
    "from runtime.zygote.__main__ import main\n"
    "main(serve=lambda _: seen_inside.look() or 0, preload=lambda: ())",
)
#: Who has no rights on the machine and a number of its own, although the files stay those of whoever runs the tests.
UNPRIVILEGED = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
PROGRAM = [sys.executable, "-I", "-m", "runtime.zygote"]


@pytest.fixture
def folders(tmp_path: Path) -> PrivateFolders:
    made = [tmp_path / name for name in ("workspace", "state", "temporary", "home")]
    for folder in made:
        folder.mkdir(mode=0o700)
    return PrivateFolders(*made)


@pytest.fixture
def namespaces(tmp_path: Path, folders: PrivateFolders) -> Namespaces:
    shown = tmp_path / "shown"
    (shown / "covered folder").mkdir(parents=True)
    (shown / "covered").write_text("never-inside")
    (shown / "kept").write_text("seen")
    interpreter = ask(sys.executable)
    readable = [*interpreter.folders, *interpreter.package, shown]
    hidden = [shown / "covered folder", shown / "covered"]
    return probe(SYSTEM_PATH, readable=readable, hidden=hidden, scratch=folders.state)


def executed(prefix: Sequence[str], namespaces: Namespaces, folders: PrivateFolders) -> dict[str, Any]:
    code = (SUPPORT / "seen_inside.py").read_text()
    command = namespaces.wrap([sys.executable, "-I", "-c", code], folders=folders)
    subprocess.run([*prefix, *command], env={"PATH": SYSTEM_PATH}, check=True)
    return taken(folders)


def forked(zygote: ZygoteProcess, namespaces: Namespaces, folders: PrivateFolders) -> dict[str, Any]:
    view = {"hostname": HOSTNAME, "steps": [list(step) for step in namespaces.steps(folders)]}
    one = zygote.fork(zygote.folder / "one", view=view, directory="/state")
    watch = os.pidfd_open(one.pid)
    try:
        assert one.let_go() == ""
        assert select.select([watch], [], [], 20)[0], "it did not end"
    finally:
        os.close(watch)
        one.close()
    return taken(folders)


def taken(folders: PrivateFolders) -> dict[str, Any]:
    path = folders.state / "seen"
    found: dict[str, Any] = json.loads(path.read_text())
    path.unlink()
    return found


def compare(by_bubblewrap: dict[str, Any], by_itself: dict[str, Any]) -> None:
    machine = {name: os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "pid", "ipc", "uts")}
    for found in (by_bubblewrap, by_itself):
        seen = found.pop("namespaces")
        assert [name for name, link in machine.items() if seen[name] == link] == []
        # Where root starts it, bubblewrap leaves rights that could be had again but for NO_NEW_PRIVS; ours are gone.
        bounds = [found["status"].pop("CapBnd"), found["first"].pop("CapBnd")]
    assert bounds == ["0" * 16] * 2
    for name, value in by_bubblewrap.items():
        assert by_itself[name] == value, name
    assert by_itself.keys() == by_bubblewrap.keys()


@pytest.mark.parametrize("prefix", [(), UNPRIVILEGED], ids=["as we are", "unprivileged"])
def test_a_forked_runtime_sees_what_bubblewrap_would_show_it(
    prefix: Sequence[str], namespaces: Namespaces, folders: PrivateFolders, tmp_path: Path
) -> None:
    found = executed(prefix, namespaces, folders)
    assert len(found["mounts"]) > 15
    assert found["mounting"] != 0
    assert (found["status"]["Uid"].split()[0] == "1000") == bool(prefix)
    with zygote_at(tmp_path / "zygote", LOOKING, prefix=prefix) as zygote:
        compare(found, forked(zygote, namespaces, folders))


@pytest.mark.parametrize(
    ("prefix", "inside"),
    [((), True), (UNPRIVILEGED, True), ((), False)],
    ids=["as we are", "unprivileged", "where root cannot make views from inside"],
)
def test_what_is_imported_in_a_covered_zygote_sees_no_key_and_its_runtimes_see_the_same(
    prefix: Sequence[str], inside: bool, namespaces: Namespaces, folders: PrivateFolders, tmp_path: Path
) -> None:
    data, key = tmp_path, tmp_path.parent / f"{tmp_path.name}-key"
    (data / "master.key").write_text("never-inside")
    key.write_text("never-inside")
    kept = [folders.workspace, folders.state, folders.temporary, folders.home, tmp_path / "shown"]
    (folders.workspace / "mine").write_text("seen")
    words = ["--cover", str(data), "--cover-file", str(key)]
    words += [word for path in kept for word in ("--keep", str(path))]
    code = (
        f"import sys; sys.path.append({str(SUPPORT)!r}); import around_cover, seen_inside\nfrom pathlib import Path\n"
        "from runtime.zygote import cover\n"
        f"if not {inside}: cover._can_make_views_from_inside = lambda: False\n"
        f"def preload():\n"
        f" seen = [*map(str, Path({str(data)!r}).rglob('*')), Path({str(key)!r}).read_text()]\n"
        f" return [*(f'way: {{way}}' for way in around_cover.ways_around({str(data)!r})), *seen]\n"
        "from runtime.zygote.__main__ import main\n"
        "main(serve=lambda _: seen_inside.look() or 0, preload=preload)"
    )
    found = executed(prefix, namespaces, folders)
    with zygote_at(tmp_path.parent / f"{tmp_path.name}-zygote", ("-c", code), prefix=prefix, words=words) as zygote:
        seen = zygote.about["missing"]  # what stands in for imports tells what it saw
        assert str(folders.workspace / "mine") in seen
        assert seen[-1] == ""
        assert [path for path in seen if "key" in path] == []
        ways = [line for line in seen if line.startswith("way: ")]
        with_rights = os.geteuid() == 0 and not inside
        assert ways == (["way: unmount"] if with_rights else [])
        compare(found, forked(zygote, namespaces, folders))


def test_the_probe_takes_the_steps_and_says_why_it_could_not(namespaces: Namespaces, folders: PrivateFolders) -> None:
    assert tried(PROGRAM, namespaces, folders.state) == ""
    shutil.rmtree(folders.home)
    missing = Namespaces("bwrap", readable=[], hidden=[])
    missing.steps = lambda _: [["ro-bind", str(folders.home), "/home/agent"]]  # type: ignore[method-assign]
    assert "No such file" in tried(PROGRAM, missing, folders.state)
    missing.steps = lambda _: [["overlay", "/"]]  # type: ignore[method-assign]
    assert "overlay is no step" in tried(PROGRAM, missing, folders.state)
    assert "could not be run" in tried(["/nowhere/python"], namespaces, folders.state)
