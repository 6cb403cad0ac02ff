"""What one step costs over few and over many conversations: it has to follow the work that is due, not the population.

    .venv/bin/python bench/conversations_scale.py [--sizes 1000,100000,1000000] [--rounds 5] [--seed 1]

For each size a state server of its own (redis-server, nothing on its disk) and an orchestrator over it in this
process: the shipped store, services and API, and the fake driver. The same number of live runtimes everywhere, half
of them paused; what grows are conversations at rest, four in five of one tenant. The sizes take turns in every round,
so that whatever else the machine does meets all of them. What looks at a bounded number of them is compared from that
number on. Printed for each step: commands of the state server (those of scripts included), CPU of state server and
orchestrator in microseconds, wall clock; medians over the rounds.
"""

import argparse
import asyncio
import gc
import logging
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import anyio
import structlog
import uvloop
from furnished import Site, furnish, open_site, resident
from population import fill, mould_of, witnessed
from servers import leave

from orchestrator.domain.clock import rfc3339
from orchestrator.domain.ids import ConversationId
from orchestrator.state import cursor
from orchestrator.state.journal.shipper import Shipper
from orchestrator.state.keys import DUE_TENANTS, TenantKeys

TENANTS = 21
TARGET = 1.5
FAR_MS = 24 * 3_600_000


async def nothing(site: Site) -> None:
    """No preparation."""


@dataclass(frozen=True)
class Step:
    """Something to be measured, `times` times in each round, after `before` was done."""

    name: str
    act: Callable[[Site], Awaitable[object]]
    times: int = 1
    before: Callable[[Site], Awaitable[None]] = nothing
    least: int = 0  #: it looks at so many where they are there: a smaller site is not compared with a larger one


@dataclass(frozen=True)
class Cost:
    """Of one step once."""

    commands: float
    server: float
    orchestrator: float
    wall: float

    @property
    def cpu(self) -> float:
        return self.server + self.orchestrator


async def measured(site: Site, step: Step) -> Cost:
    await step.before(site)
    gc.collect()
    commands, server = at_server(site)
    own, began = time.process_time(), time.perf_counter()
    for _ in range(step.times):
        await step.act(site)
    wall, own = time.perf_counter() - began, time.process_time() - own
    after, server_after = at_server(site)
    scale = 1e6 / step.times
    return Cost((after - commands) / step.times, (server_after - server) * scale, own * scale, wall * scale)


def at_server(site: Site) -> tuple[int, float]:
    """Commands without our own, and CPU seconds."""
    stats = site.redis.info("commandstats")
    calls = sum(entry["calls"] for name, entry in stats.items() if name != "cmdstat_info")
    cpu = site.redis.info("cpu")
    return calls, cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"]


def quiet(site: Site) -> None:
    """Nothing is due soon: what is live has its rounds later."""
    later = int(time.time() * 1000) + FAR_MS
    for owner in site.owners:
        due = TenantKeys(owner.tenant).due
        for id, score in site.redis.zrange(due, 0, 400, withscores=True):
            if score < later - FAR_MS + 3_600_000:
                site.redis.zadd(due, {id: later})
        site.redis.zadd(DUE_TENANTS, {owner.tenant: later})


class Steps:
    """What is measured. Chosen conversations come from the seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._created: list[tuple[Site, str]] = []
        self._deep: dict[int, str] = {}

    def all(self) -> list[Step]:
        return [
            Step("create (POST, journaled)", self.create, 20),
            Step("create: what is due is claimed", self.claim, 20),
            Step("purge: reap tick, 16 due", self.tick, 1, self.deleted),
            Step("get one", self.get, 20),
            Step("list, first page of 100", self.first_page, 5),
            Step("list, a page in the middle", self.deep_page, 5),
            Step("list, one user's", self.users_page, 5),
            Step("list, made in the hours around a moment", self.page_between, 5),
            Step("list, a batch of 100 ids", self.batch, 5),
            Step("list, a label that all have", self.label_of_all, 5),
            Step("list, a label that none has (2,000 looked at)", self.label_of_none, 2, least=2_500),
            Step("count, deleted ones too (one step)", self.count, 20),
            Step("count, by label (5,000 looked at)", self.count_by_label, 1, least=6_250),
            Step("dry run of admission", self.dry_run, 10),
            Step("worker tick, nothing due", self.idle_tick, 20),
            Step("reap tick, 16 at rest due", self.tick, 1, self.poked),
            Step("deliver: message, then its round", self.deliver, 5),
            Step("reconcile tick, first", self.reconcile, 1),
            Step("reconcile tick, second", self.reconcile, 1),
            Step("review, a page of 100 after a change of times", self.review, 1, self.review_asked),
            Step("queue tick, nobody waits", self.queue, 20),
            Step("webhook tick, nothing due", self.hooks, 20),
            Step("activity of 100 written", self.activity, 1),
            Step("journal tick, 100 noted", self.journal, 1, self.noted),
            Step("journal tick, one noted, with a look at its size", self.journal_looks, 1, self.one_noted),
            Step("journal sweep, a page", self.sweep, 1),
        ]

    async def create(self, site: Site) -> None:
        body = {"repository": "owner/name", "title": "A title"}
        user = self._random.choice(site.big.users)
        answer = await site.call("POST", "/api/v2/conversations", site.big.key, body, user=user)
        self._created.append((site, answer["id"]))

    async def claim(self, site: Site) -> None:
        ((lease, _),) = await site.house.store.conversations.claim_due("bench", lease_ms=15_000, limit=1)
        await site.house.store.conversations.settle(lease, due_in_ms=None)

    async def deleted(self, site: Site) -> None:
        quiet(site)
        for of, id in [pair for pair in self._created if pair[0] is site][:16]:
            self._created.remove((of, id))
            await site.call("DELETE", f"/api/v2/conversations/{id}?purge=true", site.big.key)

    async def poked(self, site: Site) -> None:
        of_big = [pair for pair in site.resting if pair[0] == site.big.tenant]
        for tenant, id in self._random.sample(of_big, 16):  # of one: a tick shares its places out among tenants
            await site.house.store.conversations.poke(tenant, ConversationId(id))

    async def tick(self, site: Site) -> None:
        async with anyio.create_task_group() as tasks:
            claimed = await site.house.workers.tick(tasks)
        assert claimed == 16, claimed

    async def idle_tick(self, site: Site) -> None:
        async with anyio.create_task_group() as tasks:
            assert await site.house.workers.tick(tasks) == 0
        await site.house.store.conversations.next_due_ms()

    async def get(self, site: Site) -> None:
        tenant, id = self._random.choice(site.resting)
        owner = next(owner for owner in site.owners if owner.tenant == tenant)
        await site.call("GET", f"/api/v2/conversations/{id}", owner.key)

    async def first_page(self, site: Site) -> None:
        assert len((await site.call("GET", "/api/v2/conversations", site.big.key))["items"]) == 100

    async def deep_page(self, site: Site) -> None:
        index = TenantKeys(site.big.tenant).conversations
        place = site.redis.zcard(index) // 2
        (entry,) = site.redis.zrange(index, place, place)
        of = ("/api/v2/conversations", "", site.big.tenant, "")
        mark = site.house.services.page_marks.sign(cursor.encode(entry), of)
        page = await site.call("GET", f"/api/v2/conversations?page_id={mark}", site.big.key)
        assert len(page["items"]) == 100

    async def users_page(self, site: Site) -> None:
        user = self._random.choice(site.big.users)
        page = await site.call("GET", "/api/v2/conversations?limit=10", site.big.key, user=user)
        assert len(page["items"]) == 10 or site.count < 10_000

    async def page_between(self, site: Site) -> None:
        index = TenantKeys(site.big.tenant).conversations
        place = site.redis.zcard(index) // 2
        (entry,) = site.redis.zrange(index, place, place)
        until = rfc3339(datetime.fromtimestamp(int(entry[:13]) / 1000, UTC))
        query = f"created_at__lt={until}&created_at__gte=2000-01-01T00:00:00Z"
        assert len((await site.call("GET", f"/api/v2/conversations?{query}", site.big.key))["items"]) == 100

    async def batch(self, site: Site) -> None:
        ids = self._random.sample([id for tenant, id in site.resting if tenant == site.big.tenant], 100)
        query = "&".join(f"ids={id}" for id in ids)
        page = await site.call("GET", f"/api/v2/conversations?{query}", site.big.key)
        assert [one["id"] for one in page["items"]] == ids

    async def label_of_all(self, site: Site) -> None:
        page = await site.call("GET", "/api/v2/conversations?label=team:one&limit=50", site.big.key)
        assert len(page["items"]) == 50

    async def label_of_none(self, site: Site) -> None:
        page = await site.call("GET", "/api/v2/conversations?label=team:none", site.big.key)
        assert page["items"] == []

    async def count(self, site: Site) -> None:
        told = await site.call("GET", "/api/v2/conversations/count?deleted=true", site.big.key)
        assert told["count"] >= site.count // 2

    async def count_by_label(self, site: Site) -> None:
        told = await site.call("GET", "/api/v2/conversations/count?label=team:one", site.big.key)
        assert told["count"] > 100

    async def dry_run(self, site: Site) -> None:
        await site.call("POST", "/api/v2/conversations?dry_run=true", site.big.key, {"repository": "owner/name"})

    async def deliver(self, site: Site) -> None:
        id = self._random.choice(site.ready)
        await site.call("POST", f"/api/v2/conversations/{id}/messages", site.big.key, {"content": "more"})
        async with anyio.create_task_group() as tasks:
            assert await site.house.workers.tick(tasks) == 1
        quiet(site)

    async def reconcile(self, site: Site) -> None:
        before = site.driver.changes
        assert await site.house.reconciler.tick() == 0
        assert site.driver.changes == before, "an engine call that changes something"

    async def review_asked(self, site: Site) -> None:
        quiet(site)
        await site.house.store.reviews.ask(site.big.tenant, None)

    async def review(self, site: Site) -> None:
        assert await site.house.reviewing.tick() is not None

    async def queue(self, site: Site) -> None:
        async with anyio.create_task_group() as tasks:
            assert not await site.house.queue.tick(tasks)

    async def hooks(self, site: Site) -> None:
        async with anyio.create_task_group() as tasks:
            assert not await site.house.hooks.tick(tasks)

    async def activity(self, site: Site) -> None:
        for tenant, id in self._random.sample(site.resting, 100):
            site.house.activity.touch(tenant, ConversationId(id))
        await site.house.activity.flush()

    async def noted(self, site: Site, count: int = 100) -> None:
        await self.journal(site)
        stream = TenantKeys(site.big.tenant).journal
        (last,) = site.redis.xrevrange(stream.stream, "+", "-", 1) or [None]
        body = "x" * 2000 if last is None else last[1].get("body", "x" * 2000)
        for number in range(count):
            site.redis.xadd(stream.stream, {"kind": "noted", "id": str(number), "body": body})
        site.redis.zadd(stream.index, {stream.home: 0})

    async def one_noted(self, site: Site) -> None:
        await self.noted(site, 1)

    async def journal(self, site: Site) -> None:
        await site.house.shipper.tick()

    async def journal_looks(self, site: Site) -> None:
        shipper = Shipper(site.house.shipper._streams, site.house.shipper.archive, look_every=1)
        await shipper.tick()

    async def sweep(self, site: Site) -> None:
        await site.house.shipper.sweep()
        site.redis.delete("x:journal:due")


async def prepared(stack: AsyncExitStack, folder: Path, size: int, options: argparse.Namespace) -> Site:
    began = time.perf_counter()
    random = Random(options.seed)
    site = await stack.enter_async_context(open_site(folder / str(size)))
    kinds = await furnish(site, tenants=TENANTS, live=options.live)
    moulds = {kind: await mould_of(site, first) for kind, (first, _) in kinds.items()}
    await site.house.shipper.tick()
    compared = await witnessed(site, moulds, kinds, random)
    await fill(site, moulds, size, random, journal=options.journal)
    quiet(site)
    made, memory = time.perf_counter() - began, resident()
    print(
        f"{size:>9,} conversations at rest, {options.live} live: {site.bytes_each:,.0f} bytes each in the state server "
        f"({site.redis.info('memory')['used_memory_human']} in all), orchestrator {resident() / 2**20:.0f} MiB; "
        f"{compared} fields as the API writes them; made in {made:.0f} s",
        flush=True,
    )
    if options.journal:
        began, spent = time.perf_counter(), time.process_time()
        assert await site.house.shipper.archive.compact(site.big.tenant, at_least=1)
        spent, entries = time.process_time() - spent, int(size * 0.8)
        print(
            f"{'':9} the large tenant's journal made one snapshot: {time.perf_counter() - began:.1f} s, "
            f"{spent / entries * 1e6:.0f} us CPU an entry, {(resident() - memory) / 2**20:+.0f} MiB",
            flush=True,
        )
    return site


async def run(options: argparse.Namespace) -> None:
    folder = Path(tempfile.mkdtemp(prefix="nst-", dir="/tmp"))
    try:
        async with AsyncExitStack() as stack:
            sites = [await prepared(stack, folder, size, options) for size in options.sizes]
            gc.collect()
            gc.freeze()
            before = resident()
            steps = Steps(options.seed).all()
            found: dict[str, list[list[Cost]]] = {step.name: [[] for _ in sites] for step in steps}
            least = {step.name: step.least for step in steps}
            for number in range(options.rounds + 1):
                for step in steps:
                    for place, site in enumerate(sites):
                        cost = await measured(site, step)
                        quiet_after(site, step)
                        if number:  # the first round is for warming up
                            found[step.name][place].append(cost)
            tell(found, least, options)
            print(f"orchestrator(s): {(resident() - before) / 2**20:+.1f} MiB over all that was measured")
    finally:
        shutil.rmtree(folder)


def quiet_after(site: Site, step: Step) -> None:
    if "create" not in step.name or "claimed" in step.name:
        quiet(site)


def tell(found: dict[str, list[list[Cost]]], least: dict[str, int], options: argparse.Namespace) -> None:
    sizes = " / ".join(f"{size:,}" for size in options.sizes)
    print(f"\nmedians of {options.rounds} rounds, seed {options.seed}, at {sizes} conversations")
    print(
        f"{'':50} {'commands':>20} {'server CPU us':>22} {'own CPU us':>26} {'wall ms':>22}  last/first: CPU, commands"
    )
    for name, by_size in found.items():

        def row(part: str, by_size: list[list[Cost]] = by_size) -> list[float]:
            return [statistics.median(getattr(cost, part) for cost in costs) for costs in by_size]

        cpu, commands = row("cpu"), row("commands")
        fits = [place for place, size in enumerate(options.sizes) if size >= least[name]]
        first = fits[0] if fits else -1
        ratio = cpu[-1] / cpu[first]
        many = commands[-1] / commands[first] if commands[first] else 1.0
        parts = [
            " ".join(f"{value:.0f}" for value in commands),
            " ".join(f"{value:.0f}" for value in row("server")),
            " ".join(f"{value:.0f}" for value in row("orchestrator")),
            " ".join(f"{value / 1000:.2f}" for value in row("wall")),
        ]
        parts.append(f"{ratio:.2f}, {many:.2f}{'' if ratio <= TARGET else ' MISS'}")
        print(f"{name:50} {parts[0]:>16} {parts[1]:>18} {parts[2]:>22} {parts[3]:>20} {parts[4]:>26}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = "1000,100000,1000000"
    parser.add_argument("--sizes", type=lambda text: [int(part) for part in text.split(",")], default=sizes)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--live", type=int, default=200)
    parser.add_argument("--no-journal", dest="journal", action="store_false", help="leave the journal's archive empty")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, leave)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(options))


if __name__ == "__main__":
    main()
