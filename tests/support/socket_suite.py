"""The fuzzing client of the usual WebSocket test suite (`wstest`, for Python 2) against an echo, without and through
the front: `scripts/soak sockets --wstest COMMAND`. The suite is not installed by us.

A difference is a case whose behaviour, or close, the suite judges otherwise behind the front than without it. Where it
leaves a choice (`NON-STRICT`: the echo had not gone out when the fault came) the moment decides, so that counts as OK.
"""

import argparse
import asyncio
import contextlib
import json
import shlex
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from support.front_rig import SESSION_KEY, Rig


async def echo(socket: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in socket:
            await socket.send(message)


async def judged(command: str, name: str, url: str, cases: list[str], folder: Path) -> dict[str, Any]:
    """What the suite says of each case."""
    out = folder / name
    spec = {
        "outdir": str(out),
        "servers": [{"agent": name, "url": url}],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (folder / f"{name}.json").write_text(json.dumps(spec))
    process = await asyncio.create_subprocess_exec(
        *shlex.split(command),
        "-m",
        "fuzzingclient",
        "-s",
        str(folder / f"{name}.json"),
        stdout=asyncio.subprocess.DEVNULL,
    )
    if await process.wait():
        raise SystemExit(f"wstest ended with {process.returncode}")
    told: dict[str, Any] = json.loads((out / "index.json").read_text())[name]
    return told


async def compare(command: str, cases: list[str]) -> bool:
    """Print what was found; whether the front made no difference."""
    rig = Rig()
    with tempfile.TemporaryDirectory() as folder:
        async with serve(echo, "127.0.0.1", 0, max_size=None, ping_interval=None) as server:
            await rig.open()
            port = server.sockets[0].getsockname()[1]
            runtime = rig.publish(port).runtime
            try:
                direct = await judged(command, "direct", f"ws://127.0.0.1:{port}", cases, Path(folder))
                through = f"ws://127.0.0.1:{rig.port}/runtimes/{runtime}/?session_api_key={SESSION_KEY}"
                front = await judged(command, "front", through, cases, Path(folder))
            finally:
                await rig.close()
    verdicts = ("behavior", "behaviorClose", "remoteCloseCode")
    found = {
        name: [[str(one[name].get(what)).replace("NON-STRICT", "OK") for what in verdicts] for one in (direct, front)]
        for name in direct
    }
    differences = {name: pair for name, pair in found.items() if pair[0] != pair[1]}
    counts = Counter(pair[1][0] for pair in found.values())
    failed = [name for name, pair in found.items() if pair[1][0] == "FAILED"]
    told = {"cases": len(found), "front": counts, "failed": failed, "differences": differences}
    sys.stdout.write(json.dumps(told, indent=1) + "\n")
    return not differences and len(front) == len(direct) > 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wstest", required=True, help="how the suite is called")
    parser.add_argument("--cases", nargs="*", default=["*"])
    options = parser.parse_args()
    return 0 if uvloop.run(compare(options.wstest, options.cases)) else 1


if __name__ == "__main__":
    sys.exit(main())
