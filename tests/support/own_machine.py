"""A machine of a test's own, as far as Docker sees it: to be cut off from its power and booted again.

It has its own network, processes, mounts and `/run`, and an engine whose storage outlives a boot. What is killed with
it is everything that ran on it, and what is gone is what a boot takes away: bridges, rules, sockets, tmpfs. Needs root
and dockerd; the machine's own engine only gives the images.
"""

import ctypes
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from support.outside import run

_SECONDS = 60
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
#: $0 is the folder, $1 the group of all that it runs. The shell is process 1 and reaps; a boot finds an empty /run.
_BOOT = """
mkdir -p "$0/groups" && mount --rbind /sys/fs/cgroup "$0/groups" && mount -t sysfs sysfs /sys &&
mount --rbind "$0/groups" /sys/fs/cgroup && umount -l "$0/groups" && mount -t tmpfs tmpfs /run || exit
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
dockerd --data-root "$0/data" --exec-root /run/docker --pidfile /run/docker.pid --cgroup-parent "$1" \
  --host unix:///run/docker.sock --host "unix://$0/s" >>"$0/log" 2>&1 &
wait
"""


class OwnMachine:
    """`folder` is empty, and has a short path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._group = f"nestor-test-{secrets.token_hex(4)}"
        self._process: subprocess.Popen[bytes] | None = None
        self.host = f"unix://{folder}/s"

    def boot(self) -> None:
        """Have its engine answering. Containers that are to be restarted are on their way."""
        (self._folder / "s").unlink(missing_ok=True)
        words = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        words += ["sh", "-c", _BOOT, str(self._folder), f"/{self._group}"]
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log)
        until = time.monotonic() + _SECONDS
        while subprocess.run(["docker", "-H", self.host, "version"], capture_output=True, check=False).returncode:
            ended = self._process.poll() is not None or time.monotonic() > until
            assert not ended, (self._folder / "log").read_text()[-2000:]
            time.sleep(0.05)

    def cut(self) -> None:
        """No process of it runs any more, and none was asked."""
        assert self._process is not None
        os.kill(self._first(), signal.SIGKILL)
        self._process.wait(_SECONDS)
        self._remove_groups()

    def shut_down(self) -> None:
        """As a machine that is shut down: the engine is told to end, and ends what it runs."""
        assert self._process is not None
        engine = next(each for each in self._children(self._first()) if _name(each) == "dockerd")
        os.kill(engine, signal.SIGTERM)
        self._process.wait(2 * _SECONDS)  # its first process has waited for the engine
        self._remove_groups()

    def enter(self) -> None:
        """From here on this thread, and whatever it starts, is in the machine's network as it is since its boot."""
        with open(f"/proc/{self._first()}/ns/net") as network:
            entered = ctypes.CDLL(None, use_errno=True).setns(network.fileno(), _NEW_NETWORK)
        assert entered == 0, os.strerror(ctypes.get_errno())

    def take_images(self, names: Sequence[str]) -> None:
        """From the machine's engine."""
        with subprocess.Popen(["docker", "save", *names], stdout=subprocess.PIPE) as saved:
            subprocess.run(["docker", "-H", self.host, "load"], stdin=saved.stdout, check=True, capture_output=True)

    def _first(self) -> int:
        """Its process 1, as the tests' machine counts."""
        assert self._process is not None
        return self._children(self._process.pid)[0]

    def _children(self, process: int) -> list[int]:
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]

    def _remove_groups(self) -> None:
        """What the kernel keeps of its containers."""
        for top in Path("/sys/fs/cgroup").glob(f"*/{self._group}"):
            for folder, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):
                    os.rmdir(folder)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.cut()


def _name(process: int) -> str:
    return Path(f"/proc/{process}/comm").read_text().strip()


@contextmanager
def own_machine(folder: Path) -> Iterator[OwnMachine]:
    """For the length of the block, booted. Its storage is in memory; nothing of it is left afterwards."""
    made = OwnMachine(folder)
    run("mount", "-t", "tmpfs", "-o", "size=4g", "nestor-test", str(folder))
    try:
        made.boot()
        yield made
    finally:
        made.close()
        run("umount", "--lazy", str(folder))
        folder.rmdir()
