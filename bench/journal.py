"""What the journal costs: accepted creates against a real state server, without an archive and with one.

    .venv/bin/python bench/journal.py [creates] [writers]

The state server syncs every write (as the embedded one does); each way runs over a fresh one. "waits": a create is
answered when the archive has it as well, as `nestor up` does it. At the end the archive is read back and counted.
"""

import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import anyio

from orchestrator.domain.conversation import Conversation, RuntimeRecord, StartRequest
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId, new_uuid
from orchestrator.state.embedded import EmbeddedServer
from orchestrator.state.journal.entry import Entry, Tail
from orchestrator.state.journal.files import FileArchive
from orchestrator.state.redis_store import RedisStore

NOW = datetime(2026, 1, 2, tzinfo=UTC)
TENANT = TenantId(new_uuid())


def a_conversation() -> Conversation:
    return Conversation(
        id=ConversationId(new_uuid()),
        tenant=TENANT,
        user=None,
        request=StartRequest(repository="owner/name", initial_message="hello " * 20),
        created_at=NOW,
        updated_at=NOW,
        phase_since=NOW,
        runtime=RuntimeRecord(RuntimeId(new_uuid()), generation=0),
    )


async def measure(creates: int, writers: int, *, archived: bool) -> None:
    folder = Path(tempfile.mkdtemp(prefix="nst-", dir="/tmp"))
    seconds: list[float] = []
    try:
        async with EmbeddedServer(folder) as server, AsyncExitStack() as stack:
            store = RedisStore(server.url)
            stack.push_async_callback(store.close)
            archive = FileArchive(folder / "journal")
            stack.push_async_callback(archive.close)
            shipper = store.archive_to(archive) if archived else None
            await store.check()

            async def write() -> None:
                for _ in range(creates // writers):
                    began = time.perf_counter()
                    await store.conversations.create(a_conversation())
                    seconds.append(time.perf_counter() - began)

            async with anyio.create_task_group() as tasks:
                if shipper is not None:
                    tasks.start_soon(shipper.run)
                    await anyio.sleep(0.1)
                began = time.perf_counter()
                async with anyio.create_task_group() as work:
                    for _ in range(writers):
                        work.start_soon(write)
                total = time.perf_counter() - began
                tasks.cancel_scope.cancel()
            tell("with an archive, waits" if archived else "without an archive", seconds, total, writers)
            if archived:
                folded, tail = await archive.read(TENANT)
                assert len(list(folded.of("conversation"))) == len(seconds), "something accepted is not in the archive"
                size = sum(file.stat().st_size for file in (folder / "journal" / TENANT).iterdir())
                print(f"{'':26} {tail.sequence} entries, {size / tail.sequence:.0f} bytes each, all of them read back")
                for kept in (1_000, 50_000):
                    await flat(archive, kept)
    finally:
        shutil.rmtree(folder)


async def flat(archive: FileArchive, appended: int) -> None:
    """An append to a chain of that length, and the first one of a replica that was just started."""
    home, tail = new_uuid(), Tail()
    body = "x" * 900
    for _ in range(appended // 500):
        tail = await archive.append(home, [Entry("conversation", new_uuid(), body) for _ in range(500)], after=tail)
    times = []
    for _ in range(50):
        began = time.perf_counter()
        tail = await archive.append(home, [Entry("conversation", new_uuid(), body)], after=tail)
        times.append(time.perf_counter() - began)
    again = FileArchive(archive.folder)
    began = time.perf_counter()
    await again.append(home, [Entry("conversation", new_uuid(), body)], after=tail)
    first = time.perf_counter() - began
    await again.close()
    median = statistics.median(times) * 1000
    print(
        f"{'':26} append behind {appended} entries: {median:.2f} ms, the first one after a start {first * 1000:.1f} ms"
    )


def tell(what: str, seconds: list[float], total: float, writers: int) -> None:
    ranked = sorted(seconds)
    p50, p95 = ranked[len(ranked) // 2] * 1000, ranked[int(len(ranked) * 0.95)] * 1000
    rate = len(ranked) / total
    print(f"{what:26} {writers:3} writers: p50 {p50:6.2f} ms, p95 {p95:6.2f} ms, {rate:6.0f} creates/s")


async def main() -> None:
    creates = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    for writers in [int(sys.argv[2])] if len(sys.argv) > 2 else [1, 16]:
        await measure(creates, writers, archived=False)
        await measure(creates, writers, archived=True)


if __name__ == "__main__":
    asyncio.run(main())
