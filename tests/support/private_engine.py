"""A Docker engine of a test's own, beside the machine's: to be killed, stopped and started again with what runs on it.

Its storage is in memory, with small volumes, so that one can be really full. It changes no rule of the machine and has
a bridge that is made here: told to do without one, an engine removes that of the other engine.
"""

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from support import containers
from support.outside import run

_SECONDS = 60
VOLUMES_MEGABYTES = 64


class PrivateEngine:
    """`folder` is empty, and has a short path. Needs root."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bridge = f"npe{secrets.token_hex(3)}"
        self._process: subprocess.Popen[bytes] | None = None
        self.host = f"unix://{folder}/s"

    def start(self, *, live_restore: bool) -> None:
        """Have it running, and answering."""
        words = ["dockerd", "--data-root", f"{self._folder}/data", "--exec-root", f"{self._folder}/exec"]
        words += ["--pidfile", f"{self._folder}/pid", "--host", self.host, "--bridge", self._bridge]
        words += ["--iptables=false", "--ip6tables=false", *(["--live-restore"] if live_restore else [])]
        # One that was killed leaves both; where nobody reaps its containerd, the next one waits long for that.
        for left in ("pid", "exec/containerd/containerd.pid"):
            (self._folder / left).unlink(missing_ok=True)
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + _SECONDS
        while subprocess.run(["docker", "-H", self.host, "version"], capture_output=True, check=False).returncode:
            ended = self._process.poll() is not None or time.monotonic() > until
            assert not ended, (self._folder / "log").read_text()[-2000:]
            time.sleep(0.05)

    def end(self, number: signal.Signals) -> None:
        """End it by that signal, and wait until it has ended. What it runs may go on."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(_SECONDS)

    def freeze(self) -> None:
        """It hears nothing until `thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def take_image(self, name: str) -> None:
        """From the machine's engine."""
        with subprocess.Popen(["docker", "save", name], stdout=subprocess.PIPE) as saved:
            subprocess.run(["docker", "-H", self.host, "load"], stdin=saved.stdout, check=True, capture_output=True)

    def _close(self) -> None:
        self.thaw()
        with suppress(AssertionError, subprocess.TimeoutExpired):
            left = containers.docker("-H", self.host, "ps", "--all", "--quiet").split()
            if left:
                containers.docker("-H", self.host, "rm", "--force", *left)
        self.end(signal.SIGTERM)
        for process in self._of_ours():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def _of_ours(self) -> Iterator[int]:
        """What an engine that was killed leaves behind: its containerd and its shims, by the folder in their words."""
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if f"{self._folder}/exec/".encode() in entry.read_bytes():
                    yield int(entry.parent.name)


@contextmanager
def private_engine(folder: Path) -> Iterator[PrivateEngine]:
    """For the length of the block, running. Nothing of it is left afterwards."""
    made = PrivateEngine(folder)
    run("mount", "-t", "tmpfs", "-o", "size=2g", "nestor-test", str(folder))
    run("mount", "--make-shared", str(folder))  # else an engine mounts its own over it, without the volumes' below
    run("ip", "link", "add", made._bridge, "type", "bridge")
    try:
        run("ip", "addr", "add", f"10.215.{secrets.randbelow(255)}.1/24", "dev", made._bridge)
        run("ip", "link", "set", made._bridge, "up")
        volumes = folder / "data" / "volumes"
        volumes.mkdir(parents=True)
        run("mount", "-t", "tmpfs", "-o", f"size={VOLUMES_MEGABYTES}m", "nestor-test", str(volumes))
        made.start(live_restore=True)
        yield made
    finally:
        if made._process is not None:
            made._close()
        run("ip", "link", "delete", made._bridge)
        run("umount", "--lazy", str(folder))  # with all that is mounted below
        shutil.rmtree(folder)
