"""The zygote's loop: takes requests on a unix socket, forks, and keeps how its children ended until somebody asks.

One thread, no event loop, nothing parsed but the verb: whatever happened here would be in every later runtime. It
refuses to fork when it has a second thread, because a lock that the other one holds would be held for ever in the
child. It ends by itself when nobody is connected and no child is left.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.zygote.child import Serve, live

LARGEST_MESSAGE = 256 << 10
_MOST_DESCRIPTORS = 8
_KEPT_ENDINGS = 4096
_IDLE_SECONDS = 10.0
_CREDENTIALS = struct.Struct("3i")


class Zygote:
    """Serves on `listener` until it is not needed any more.

    `serve` is what a forked runtime does, `kept` the variables that it shall have beside those of its request, and
    `about` what an orchestrator is told that says hello.
    """

    def __init__(
        self, listener: socket.socket, serve: Serve, *, kept: Mapping[str, str], about: Mapping[str, Any]
    ) -> None:
        self._listener = listener
        self._serve = serve
        self._kept = kept
        self._about = about
        self._connections: set[socket.socket] = set()
        self._endings: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._buffer = bytearray(LARGEST_MESSAGE)
        self._retired = False
        self._quiet_since = time.monotonic()
        self._idle_seconds = _IDLE_SECONDS
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)

    def run(self) -> None:
        """Returns when it may end."""
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while not self._finished():
            for key, _ in self._selector.select(self._patience()):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._woken:
                    with contextlib.suppress(BlockingIOError):
                        self._woken.recv(4096)
                else:
                    assert isinstance(key.fileobj, socket.socket)  # noqa: S101 - nothing else is registered
                    self._hear(key.fileobj)
            self._reap()

    # -- when to end

    def _needed(self) -> bool:
        return bool(self._connections) or _has_children()

    def _finished(self) -> bool:
        if self._retired and not _has_children():
            return True
        if self._needed():
            self._quiet_since = time.monotonic()
            return False
        return time.monotonic() - self._quiet_since >= self._idle_seconds

    def _patience(self) -> float | None:
        if self._needed():
            return None
        return max(0.0, self._quiet_since + self._idle_seconds - time.monotonic())

    # -- connections

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # gone again
        given = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(given)
        if uid != os.geteuid():
            connection.close()
            return
        connection.setblocking(False)
        self._connections.add(connection)
        self._selector.register(connection, selectors.EVENT_READ)

    def _drop(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        self._connections.discard(connection)
        connection.close()

    def _hear(self, connection: socket.socket) -> None:
        received: list[int] = []
        size = 0
        try:
            space = socket.CMSG_LEN(_MOST_DESCRIPTORS * struct.calcsize("i"))
            size, ancillary, flags, _ = connection.recvmsg_into([self._buffer], space, socket.MSG_CMSG_CLOEXEC)
            received = _descriptors(ancillary)
            if not size:
                self._drop(connection)
            elif flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                self._answer(connection, {"refused": "the message is too long"})
            else:
                self._answer(connection, self._obey(size, received))
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)
        finally:
            self._buffer[:size] = bytes(size)
            for descriptor in received:
                os.close(descriptor)

    def _answer(self, connection: socket.socket, answer: dict[str, Any]) -> None:
        connection.send(json.dumps(answer).encode())

    def _obey(self, size: int, received: Sequence[int]) -> dict[str, Any]:
        end = self._buffer.find(b"\n", 0, min(size, 16))
        verb = bytes(self._buffer[: max(end, 0)])
        body = memoryview(self._buffer)[end + 1 : size]
        match verb:
            case b"hello":
                self._idle_seconds = _IDLE_SECONDS
                return {"pid": os.getpid(), "threads": threads(), **self._about}
            case b"fork":
                return self._fork(body, received)
            case b"ending":
                return self._ending(bytes(body))
            case b"leave":
                # Whoever says so is about to hang up, and counts no more.
                self._idle_seconds = 0.0
                return {"leaving": len(self._connections) == 1 and not _has_children()}
            case b"retire":
                self._retired = True
                return {"retired": True}
        return {"refused": "unknown verb"}

    # -- children

    def _fork(self, body: memoryview, received: Sequence[int]) -> dict[str, Any]:
        if self._retired:
            return {"refused": "retired"}
        count = threads()
        if count != 1:
            return {"refused": "threads", "threads": count}
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._leave_behind()
            live(bytes(body), received, self._serve, self._kept)
        return {"forked": pid}

    def _leave_behind(self) -> None:
        """In the child: nothing of the zygote's may be closed later, when its number means something else."""
        for one in (*self._connections, self._listener, self._woken, self._wake):
            one.close()
        self._selector.close()

    def _reap(self) -> None:
        """Note how children ended. Orphans of runtimes come here as well, and are forgotten in their turn."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            started = _started(ended.si_pid)
            _, status = os.waitpid(ended.si_pid, 0)
            self._endings[(ended.si_pid, started)] = os.waitstatus_to_exitcode(status)
            while len(self._endings) > _KEPT_ENDINGS:
                self._endings.popitem(last=False)

    def _ending(self, body: bytes) -> dict[str, Any]:
        self._reap()  # it may have ended after the last look
        try:
            fields = json.loads(body)
            process = int(fields["pid"]), int(fields["started"])
        except (ValueError, KeyError, TypeError):
            return {"refused": "no process is named"}
        return {"code": self._endings.get(process)}


def threads() -> int:
    """How many threads this process has, as the kernel counts them."""
    return len(os.listdir("/proc/self/task"))


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _started(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found: list[int] = []
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            count = len(content) // struct.calcsize("i")
            found += struct.unpack(f"{count}i", content[: count * struct.calcsize("i")])
    return found
