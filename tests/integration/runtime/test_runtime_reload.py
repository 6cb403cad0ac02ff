"""`python -m runtime --reload`: a change of the code is served, no connection refused, nothing left over."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.runtimes import eventually

PACKAGE = Path(__file__).parents[3] / "runtime"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    shutil.copytree(PACKAGE, tmp_path / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "runtime"


@pytest.fixture
def server(source: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(source.parent), "OH_SESSION_API_KEYS_0": "key"}
    with (source.parent / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "runtime", "--reload", "--port", "0"],
            cwd=source.parent,
            env=environment,
            stderr=log,
            group=54321 if os.geteuid() == 0 else None,  # root's files are root's in any case; the group tells
        )
        yield process
    if process.poll() is None:
        process.terminate()  # its child ends with it
    process.wait(30)


def said(source: Path) -> str:
    return (source.parent / "log").read_text()


def address(source: Path) -> str:
    eventually(lambda: "runtime.listening" in said(source), 60)
    line = next(line for line in said(source).splitlines() if "runtime.listening" in line)
    return "http://" + line.partition("address=")[2].split()[0]


def version(url: str) -> str:
    return str(httpx.get(f"{url}/server_info", timeout=60, trust_env=False).json()["version"])


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_change_is_served_and_a_broken_one_is_waited_out(source: Path, server: subprocess.Popen[bytes]) -> None:
    url = address(source)
    assert version(url) == "1.58.0"
    health = source / "api" / "health.py"
    good = health.read_text()
    health.write_text(good.replace('VERSION = "1.58.0"', 'VERSION = "changed"'))
    eventually(lambda: "runtime.reloading" in said(source))
    eventually(lambda: version(url) == "changed", 60)  # asked all the time, and never refused
    health.write_text("this is no Python\n")
    eventually(lambda: "runtime.reload_failed" in said(source), 60)
    health.write_text(good.replace('VERSION = "1.58.0"', 'VERSION = "mended"'))
    eventually(lambda: version(url) == "mended", 60)
    (child,) = children(server.pid)
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0
    assert not Path(f"/proc/{child}").exists()


def test_the_parent_hides_its_environment_too(source: Path, server: subprocess.Popen[bytes]) -> None:
    address(source)
    found = Path(f"/proc/{server.pid}/environ").stat()
    assert (found.st_uid, found.st_gid) == (0, 0)  # the kernel gives the files of a process that hides to root
    assert "Max core file size        0                    0" in Path(f"/proc/{server.pid}/limits").read_text()


def test_what_cannot_start_ends_at_once() -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "runtime", "--reload", "--boot-key-fd", "0"], capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 2
    assert "an init key is good for one start" in refused.stderr
