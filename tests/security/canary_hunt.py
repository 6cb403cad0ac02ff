"""What a curious agent would run: look for values in every process and file that its shell can read.

`python3 canary_hunt.py TARGETS FINDINGS FOLDER...`: TARGETS is JSON of name -> value with every byte's bits turned,
so that the file does not hold what is looked for. FINDINGS gets one line a finding, and a last line in the end. A child
that holds the value called "held" shows that memory is really looked at.
"""

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CHUNK = 4 << 20


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
        for name in ("environ", "cmdline"):
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
        try:
            for piece in pieces(f"/proc/{pid}/mem", int(start, 16), int(end, 16)):
                yield f"/proc/{pid}/mem", piece
        except (OSError, ValueError, OverflowError):
            continue


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
    for source in (processes(), files(list(folders), {findings})):
        for place, content in source:
            looked += 1
            seen |= {f"{name} in {place}" for name, value in wanted.items() if value in content}
    child.kill()
    child.wait()
    Path(findings).write_text("\n".join([*sorted(seen), f"looked at {looked} pieces"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
