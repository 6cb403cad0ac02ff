"""What a curious agent would run: look for values in every process and file that its shell can read.

`python3 canary_hunt.py TARGETS FINDINGS FOLDER...`: TARGETS is JSON of name -> value with every byte's bits turned,
so that the file does not hold what is looked for. FINDINGS gets one line a finding, and a last line in the end. A child
that holds the value called "held" shows that memory is really looked at.
"""

import contextlib
import ctypes
import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CHUNK = 4 << 20
LIBRARY = ctypes.CDLL(None, use_errno=True)
_SEIZE = 0x4206


def turned(text: str) -> bytes:
    return bytes(byte ^ 0xFF for byte in bytes.fromhex(text))


def pieces(path: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The content in pieces that overlap, so that no value is cut."""
    overlap = b""
    with open(path, "rb", buffering=0) as stream:
        stream.seek(start)
        while end is None or start < end:
            piece = stream.read(CHUNK if end is None else min(CHUNK, end - start))
            if not piece:
                return
            yield overlap + piece
            overlap = piece[-256:]
            start += len(piece)


def processes() -> Iterator[tuple[str, bytes]]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        for name in ("environ", "cmdline", "auxv"):
            try:
                yield f"/proc/{pid}/{name}", Path(f"/proc/{pid}/{name}").read_bytes()
            except OSError:
                continue
        yield from memory(pid)
        yield from opened(pid)


def memory(pid: str) -> Iterator[tuple[str, bytes]]:
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return
    for start, end in re.findall(r"^([0-9a-f]+)-([0-9a-f]+) rw", maps, re.MULTILINE):
        yield from copied(int(pid), int(start, 16), min(int(end, 16), int(start, 16) + CHUNK))
        try:
            for piece in pieces(f"/proc/{pid}/mem", int(start, 16), int(end, 16)):
                yield f"/proc/{pid}/mem", piece
        except (OSError, ValueError, OverflowError):
            continue


def copied(pid: int, start: int, end: int) -> Iterator[tuple[str, bytes]]:
    """The beginning of a range by the other way to it, process_vm_readv."""
    room = ctypes.create_string_buffer(end - start)
    local = (ctypes.c_size_t * 2)(ctypes.addressof(room), end - start)
    remote = (ctypes.c_size_t * 2)(start, end - start)
    count = LIBRARY.process_vm_readv(pid, local, 1, remote, 1, 0)
    if count > 0:
        yield f"process_vm_readv of {pid}", room.raw[:count]


def traceable() -> Iterator[str]:
    """Words of the processes that can be traced: nothing in them is closed. Asked in a child, whose end frees them."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        asking = os.fork()
        if not asking:
            os._exit(LIBRARY.ptrace(_SEIZE, int(pid), None, None) == 0)
        if os.waitstatus_to_exitcode(os.waitpid(asking, 0)[1]):
            with contextlib.suppress(OSError):
                yield Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()


def sockets(folders: list[str]) -> Iterator[tuple[str, bytes]]:
    """What answers on the unix sockets that lie there."""
    lying = [os.path.join(place, name) for folder in folders for place, _, names in os.walk(folder) for name in names]
    for path in filter(is_socket, lying):
        for asked in (b"", b"{}\n", b"GET /api/settings HTTP/1.0\r\n\r\n"):
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(path)
                connection.sendall(asked)
                connection.shutdown(socket.SHUT_WR)
                yield f"socket {path}", connection.recv(1 << 20)


def is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False


def opened(pid: str) -> Iterator[tuple[str, bytes]]:
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for number in numbers:
        path = f"/proc/{pid}/fd/{number}"
        try:
            if stat.S_ISREG(os.stat(path).st_mode):
                for piece in pieces(path):
                    yield path, piece
        except OSError:
            continue


def files(folders: list[str], besides: set[str]) -> Iterator[tuple[str, bytes]]:
    for folder in folders:
        for place, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(place, name)
                try:
                    if path not in besides and stat.S_ISREG(os.lstat(path).st_mode):
                        for piece in pieces(path):
                            yield path, piece
                except OSError:
                    continue


def main(targets: str, findings: str, *folders: str) -> None:
    wanted = {name: turned(text) for name, text in json.loads(Path(targets).read_text()).items()}
    seen: set[str] = set()
    looked = 0
    child = subprocess.Popen(["sleep", "1000"], env={"PATH": os.environ["PATH"], "HELD": wanted["held"].decode()})
    seen |= {f"traceable: {words}" for words in traceable()}
    for source in (processes(), files(list(folders), {findings}), sockets(list(folders))):
        for place, content in source:
            looked += 1
            seen |= {f"{name} in {place}" for name, value in wanted.items() if value in content}
    child.kill()
    child.wait()
    Path(findings).write_text("\n".join([*sorted(seen), f"looked at {looked} pieces"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
