"""A runtime that may be sent anything: a real process that can reach neither the machine's files nor any network.

Its root is read-only, /workspace, /state, /tmp and the home are folders of the test, its processes are its own, and it
has no network but the listening socket that the test made. So commands, paths and addresses need no taming.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from orchestrator.drivers.namespaces import PrivateFolders, probe, readable_for
from tests.support.runtimes import KEY, SECRET_KEY, eventually

ROOT = Path(__file__).parents[2]


@contextmanager
def contained_runtime(folder: Path) -> Iterator[tuple[str, Path]]:
    """The address, and the file of its log."""
    parts = [folder / name for name in ("workspace", "state", "temporary", "home")]
    for part in parts:
        part.mkdir(parents=True)
    command = [sys.executable, "-m", "runtime"]
    readable = [*readable_for(command, os.environ["PATH"]), ROOT / "runtime"]
    namespaces = probe(os.environ["PATH"], readable=readable, hidden=(), scratch=parts[2])
    with socket.create_server(("127.0.0.1", 0)) as listener, (folder / "log").open("wb") as log:
        command += ["--listen-fd", str(listener.fileno())]
        wrapper, *rest = namespaces.wrap(command, folders=PrivateFolders(*parts))
        process = subprocess.Popen(
            [wrapper, "--unshare-net", "--die-with-parent", *rest],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "HOME": "/home/agent",
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "OH_PERSISTENCE_DIR": "/state/persistence",
                "OH_CONVERSATIONS_PATH": "/state/conversations",
                "OH_BASH_EVENTS_DIR": "/state/bash_events",
                "OH_WORKSPACE_PATH": "/workspace",
                "OH_SESSION_API_KEYS_0": KEY,
                "OH_SECRET_KEY": SECRET_KEY,
            },
            pass_fds=(listener.fileno(),),
            stdout=log,
            stderr=log,
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            eventually(lambda: _ready(process, url, folder / "log"), 60)
            yield url, folder / "log"
        finally:
            process.terminate()
            process.wait(30)


def _ready(process: subprocess.Popen[bytes], url: str, log: Path) -> bool:
    assert process.poll() is None, log.read_text()[-3000:]
    try:
        return httpx.get(f"{url}/ready", timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
