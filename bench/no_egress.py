"""Starts on a machine that reaches nothing but itself: each gets ready, imports the model library and ends a turn.

    python bench/no_egress.py [--starts 50] [--peer PYTHON]

Needs root: everything happens in a network namespace without any route. Starts come alone and two at once, in turns.
The variable that makes the library keep to its own price map is set to the opposite: it has to be forced in code.
Prints how many starts failed, and how often anything of them tried to send to another machine, which the kernel counts.
Ends with status 1 unless both are none. With --peer the stock agent server is started instead.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from listeners import work_folder
from servers import Client, Kind, Server, free_port, leave, ours, peer

_INSIDE = "NESTOR_BENCH_INSIDE"
_TURN_SECONDS = 120


def enter() -> None:
    """Run this program again, in a namespace that has a loopback and nothing else."""
    os.environ[_INSIDE] = "1"
    command = 'ip link set lo up && exec "$@"'
    os.execvp("unshare", ["unshare", "--net", "sh", "-c", command, "sh", sys.executable, *sys.argv])  # noqa: S606


def routes() -> list[str]:
    """What leads anywhere else."""
    lines = Path("/proc/net/route").read_text().splitlines()[1:]
    return [line for line in lines if line.split()[0] != "lo"]


def sent_nowhere() -> int:
    """How many packets had no way out since the namespace was made."""
    names, counts = (line.split() for line in Path("/proc/net/snmp").read_text().splitlines()[:2])
    return int(counts[names.index("OutNoRoutes")])


def start(kind: Kind, model: str) -> None:
    """Raises whatever goes wrong on the way to a finished turn."""
    server = Server(kind)
    try:
        server.start()
        client = Client(server)
        llm = {"model": "openai/scripted", "api_key": "k", "base_url": model, "usage_id": "agent", "num_retries": 0}
        content = [{"type": "text", "text": 'SCRIPT:[{"text":"done"}]'}]
        body = {
            "agent": {"kind": "Agent", "llm": llm, "tools": []},
            "workspace": {"kind": "LocalWorkspace", "working_dir": work_folder(server, "start")},
            "initial_message": {"role": "user", "content": content, "run": True},
        }
        id = client.json("POST", "/api/conversations", body)["id"]
        until = time.monotonic() + _TURN_SECONDS
        while (status := client.json("GET", f"/api/conversations/{id}")["execution_status"]) != "finished":
            if status not in ("idle", "running") or time.monotonic() > until:
                raise RuntimeError(f"the turn is {status}")
            time.sleep(0.05)
        client.close()
    finally:
        server.stop()


def tried(kind: Kind, model: str, failures: list[str]) -> None:
    try:
        start(kind, model)
    except Exception as error:  # noqa: BLE001 # counted, whatever it is
        failures.append(f"{type(error).__name__}: {error}")
        print(f"FAILED: {failures[-1]}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=50)
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter that has the stock agent server")
    options = parser.parse_args()
    if _INSIDE not in os.environ:
        enter()
    signal.signal(signal.SIGTERM, leave)
    assert not routes(), "this namespace leads out"
    found = peer(options.peer) if options.peer else ours()
    kind = Kind(found.name, found.command, {**found.environment, "LITELLM_LOCAL_MODEL_COST_MAP": "False"})
    port = free_port()
    model = subprocess.Popen([sys.executable, "-P", "-m", "orchestrator.demo.model_server", "--port", str(port)])
    failures: list[str] = []
    pairs = done = 0
    began = time.monotonic()
    try:
        while done < options.starts:
            at_once = min(1 + (done % 3 > 0), options.starts - done)  # one alone, then two at once
            threads = [
                threading.Thread(target=tried, args=(kind, f"http://127.0.0.1:{port}/v1", failures))
                for _ in range(at_once)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            done += at_once
            pairs += at_once == 2
            print(f"{done} starts, {len(failures)} failed, {sent_nowhere()} packets out", flush=True)
    finally:
        model.terminate()
        model.wait()
    seconds = time.monotonic() - began
    print(
        f"{kind.name}: {done} starts, {pairs} times two at once, each with a turn: {len(failures)} failed; "
        f"{sent_nowhere()} packets for elsewhere; {seconds:.0f} s"
    )
    return int(bool(failures or sent_nowhere()))


if __name__ == "__main__":
    sys.exit(main())
