"""What a large file of a workspace costs on its way: `PUT`, `GET` and an archive by the API, beside the same through
the proxy (`runtime.url`), in one run.

    python bench/files.py [--megabytes 1000]

Told are seconds, megabytes a second, and how much more memory than before the orchestrator and the runtime took at
their peak. A peak above its limit ends in `*`, and so does the program, with status 1: memory must not grow with the
file.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from proxy import forget_peak, memory
from servers import tree
from support.processes import OPERATOR_KEY, orchestrator_at

MOST_MEGABYTES = 32.0
PIECE = b"\0\xff" * (128 << 10)
MODEL = {"agent_settings": {"llm": {"model": "openai/none", "api_key": "sk-none"}}}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=1000)
    megabytes = parser.parse_args().megabytes
    with (
        tempfile.TemporaryDirectory(prefix="nst-") as folder,
        orchestrator_at(Path(folder) / "data") as nestor,
        httpx.Client(base_url=nestor.url, timeout=600, trust_env=False) as http,
    ):
        key = tenant(http)
        own = {"Authorization": f"Bearer {key}"}
        made = http.post("/api/v2/conversations?wait=ready&timeout=120", json={}, headers=own).json()
        api = f"{nestor.url}/api/v2/conversations/{made['id']}/files"
        runtime = made["runtime"]
        direct = f"{runtime['url']}/api/conversations/{made['id']}/files"
        inner = {"X-Session-API-Key": runtime["session_key"]}
        over = [
            one
            for name, base, headers in (("api", api, own), ("proxy", direct, inner))
            for one in measured(http, nestor.pid, name, base, headers, megabytes)
        ]
    return 1 if any(over) else 0


def tenant(http: httpx.Client) -> str:
    operator = {"Authorization": f"Bearer {OPERATOR_KEY}"}
    id = http.post("/api/v2/tenants", json={"name": "bench"}, headers=operator).json()["id"]
    key: str = http.post(f"/api/v2/tenants/{id}/api-keys", json={"name": "bench"}, headers=operator).json()["key"]
    http.patch("/api/v2/settings", json=MODEL, headers={"Authorization": f"Bearer {key}"}).raise_for_status()
    return key


def measured(
    http: httpx.Client, pid: int, name: str, base: str, headers: Mapping[str, str], megabytes: int
) -> Iterator[bool]:
    """A line for each way; whether it took too much memory."""
    pieces = max(1, megabytes * 1_000_000 // len(PIECE))

    def put() -> int:
        body = (PIECE for _ in range(pieces))
        http.put(f"{base}/large", content=body, headers=dict(headers)).raise_for_status()
        return pieces * len(PIECE)

    def get(query: str = "") -> int:
        with http.stream("GET", f"{base}{query}", headers=dict(headers)) as answer:
            answer.raise_for_status()
            return sum(len(piece) for piece in answer.iter_raw())

    for way, act in (("put", put), ("get", lambda: get("/large")), ("tar", lambda: get("?archive=tar"))):
        processes = tree(pid)
        before = {one: memory(one) for one in processes}
        for one in processes:
            forget_peak(one)
        began = time.perf_counter()
        moved = act() / 1_000_000
        seconds = time.perf_counter() - began
        grown = max(memory(one, "VmHWM") - before[one] for one in processes)
        over = grown > MOST_MEGABYTES
        print(
            f"{name:<6}{way:<5}{moved:8.0f} MB {seconds:8.2f} s {moved / seconds:8.0f} MB/s "
            f"{grown:8.1f} MB more at the peak{'*' if over else ''}",
            flush=True,
        )
        yield over


if __name__ == "__main__":
    sys.exit(main())
