"""A state server that answers late, or to a loop that has no time: behind a relay, a real one."""

import time
from collections.abc import Callable, Iterator

import anyio
import anyio.lowlevel
import pytest
from support.ports import lasting_port
from support.records import a_conversation
from support.relay import Relay, relay

from orchestrator.domain.errors import StoreUnavailable
from orchestrator.domain.ids import new_uuid
from orchestrator.state.funnel import Funnel, command, run
from orchestrator.state.redis_store import RedisStore

from .conftest import Run

pytestmark = pytest.mark.anyio
ECHO = command("ECHO", "here")
Way = tuple[Relay, Callable[[], int]]  #: and how many connections the server has taken so far


@pytest.fixture
def way(run_server: Run) -> Iterator[Way]:
    port = lasting_port()
    server = run_server("--port", str(port), "--bind", "127.0.0.1")
    with relay(port) as between, server.client() as client:
        yield between, lambda: client.info("stats")["total_connections_received"]


def funnel_over(between: Relay, *, timeout: float) -> Funnel:
    return Funnel(f"redis://127.0.0.1:{between.port}/0", timeout=timeout, connections=2, durable_within=1, name="slow")


async def test_what_came_while_the_loop_stalled_is_no_silence(way: Way) -> None:
    funnel = funnel_over(way[0], timeout=0.5)
    assert await funnel.one(ECHO) == "here"
    before = way[1]()
    for _ in range(5):
        replies: list[str] = []

        async def ask(replies: list[str] = replies) -> None:
            replies.append(await funnel.one(ECHO))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()  # it is sent
            time.sleep(0.8)  # noqa: ASYNC251 - longer than a call may take
        assert replies == ["here"]
        assert not funnel.silent
    assert way[1]() == before
    await funnel.close()


async def test_a_greeting_that_outlasts_its_call_is_there_for_the_next(way: Way) -> None:
    between, taken = way
    between.latency = 0.6
    funnel = funnel_over(between, timeout=1.0)
    before = taken()
    with pytest.raises(StoreUnavailable, match="in time"):  # greeting and answer take 1.2 seconds
        await funnel.one(ECHO)
    with pytest.raises(StoreUnavailable, match="in time"):  # nobody was answered yet: others do not wait as long
        await funnel.one(ECHO)
    await funnel.probe()
    assert taken() - before == 1
    await funnel.close()


async def test_a_connection_under_way_is_left_too_where_the_next_may_lead_elsewhere(way: Way, run_server: Run) -> None:
    between = way[0]
    port = lasting_port()
    run_server("--port", str(port), "--bind", "127.0.0.1")
    funnel = funnel_over(between, timeout=5)
    between.latency = 1.0
    failed: list[str] = []

    async def ask() -> None:
        with pytest.raises(StoreUnavailable) as refused:
            await funnel.one(ECHO)
        failed.append(refused.value.message)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask)
        await anyio.sleep(0.3)
        between.target, between.latency = port, 0
        await funnel.leave()
        assert (await funnel.one(command("INFO", "server")))["tcp_port"] == port
    assert failed == ["the state server cannot be reached"] * 3
    await funnel.close()


async def test_a_connection_that_is_only_slow_is_kept_and_its_server_not_called_silent(way: Way) -> None:
    between, taken = way
    funnel = funnel_over(between, timeout=1.0)
    assert await funnel.one(ECHO) == "here"
    before = taken()
    refused: list[str] = []

    async def ask(seconds: float) -> None:
        await anyio.sleep(seconds)
        try:
            assert await funnel.one(ECHO) == "here"
        except StoreUnavailable as exc:
            refused.append(exc.message)

    async with anyio.create_task_group() as tasks:
        between.latency = 0.8
        tasks.start_soon(ask, 0)
        tasks.start_soon(ask, 0.5)
        await anyio.sleep(0.4)
        between.latency = 1.3  # of the second call alone, which waits while the first is answered
    assert refused == ["the state server did not answer in time"]
    assert not funnel.silent
    between.latency = 0
    assert await funnel.one(ECHO) == "here"
    assert taken() == before
    await funnel.close()


async def test_a_script_that_is_new_to_a_slow_server_costs_one_more_answer(way: Way) -> None:
    between = way[0]
    funnel = funnel_over(between, timeout=2.0)
    assert await funnel.one(ECHO) == "here"
    between.latency = 0.7
    began = time.monotonic()
    await funnel.one(run("tenants_visit", ("x:due",), 1, 1000))
    assert 1.4 <= time.monotonic() - began < 2.0
    await funnel.close()


async def test_leases_of_many_tenants_are_claimed_before_the_first_of_them_ends(way: Way) -> None:
    between = way[0]
    store = RedisStore(f"redis://127.0.0.1:{between.port}/0")
    made = [(await store.conversations.create(a_conversation(new_uuid()))).id for _ in range(8)]
    assert await store.conversations.claim_due("other", lease_ms=1, limit=1) != []  # the scripts are known from now on
    await anyio.sleep(2.2)  # until its tenant may be visited again
    between.latency = 0.5
    claimed = await store.conversations.claim_due("one", lease_ms=2_500, limit=16)
    between.latency = 0
    rival = RedisStore(f"redis://127.0.0.1:{between.target}/0")
    assert [await rival.conversations.claim(one.tenant, one.conversation, "two", lease_ms=1) for one, _ in claimed] == [
        None
    ] * len(made)
    await store.close()
    await rival.close()
