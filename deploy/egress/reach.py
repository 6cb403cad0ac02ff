"""Tells squid whether an address may reach a host: one line in (address, host, port), one line out.

The driver writes a file for each runtime, named by its address: a line for each host, `host:port`, where the host may
begin with `*.` for everything below it. No file means nothing. Standard library only; squid keeps a few of these.
"""

import sys
from pathlib import Path

ALLOW = Path("/allow")


def may(address: str, host: str, port: str, folder: Path = ALLOW) -> bool:
    """Whether the runtime at that address may reach that port of that host."""
    if not address.replace(".", "").isdigit():
        return False
    try:
        lines = (folder / address).read_text().split()
    except OSError:
        return False
    wanted = host.lower().rstrip(".")
    for line in lines:
        name, _, number = line.rpartition(":")
        if number != port:
            continue
        if name == wanted or (name.startswith("*.") and wanted.endswith(name[1:])):
            return True
    return False


def main() -> None:
    for line in sys.stdin:
        words = line.split()
        print("OK" if len(words) >= 3 and may(*words[:3]) else "ERR", flush=True)


if __name__ == "__main__":
    main()
