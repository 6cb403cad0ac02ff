"""Calls that hang: their callers go on, they keep no place, and whoever comes after one of them waits for its end."""

import asyncio
import gc
import threading
from typing import Any

import anyio
import pytest

from orchestrator.domain.errors import DriverUnavailable
from orchestrator.drivers.calls import Calls

pytestmark = pytest.mark.anyio


async def test_a_thread_that_hangs_holds_up_its_own_thing_alone() -> None:
    calls, released, done = Calls("the engine", at_once=1, seconds=0.05, turn_seconds=5), threading.Event(), []

    def late() -> None:
        released.wait()
        done.append("late")

    with pytest.raises(DriverUnavailable, match=r"did not answer within 0\.05 seconds"):
        await calls.in_thread(late, of="a")
    assert calls.abandoned == 1
    assert await calls.in_thread(lambda: "other", of="b") == "other"  # the only place is free again

    async def after() -> None:
        await calls.in_thread(lambda: done.append("after"), of="a", seconds=5)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(after)
        await anyio.wait_all_tasks_blocked()
        assert done == []
        released.set()
    assert done == ["late", "after"]
    assert calls.abandoned == 0


async def test_what_does_not_end_is_told_and_bounded() -> None:
    calls, released = Calls("the engine", most_abandoned=2, seconds=0.05, turn_seconds=0.05), threading.Event()
    try:
        for _ in range(2):
            with pytest.raises(DriverUnavailable):
                await calls.in_thread(released.wait, of=f"thing {calls.abandoned}")
        with pytest.raises(DriverUnavailable, match="2 calls of it hang"):
            await calls.in_thread(lambda: None)
    finally:
        released.set()
    with anyio.fail_after(30):
        while calls.abandoned:
            await anyio.sleep(0.01)
    await calls.in_thread(lambda: None)


async def test_an_earlier_call_that_does_not_end_is_no_reason_to_wait_for_long() -> None:
    calls, released = Calls("the engine", seconds=0.05, turn_seconds=0.05), threading.Event()
    with pytest.raises(DriverUnavailable):
        await calls.in_thread(released.wait, of="a")
    with pytest.raises(DriverUnavailable, match="an earlier call of the engine for a has not ended"):
        await calls.in_thread(lambda: None, of="a", seconds=5)
    released.set()


async def test_a_cancelled_caller_goes_at_once_and_a_failure_comes_to_whoever_waits() -> None:
    calls, released = Calls("the engine"), threading.Event()
    with anyio.move_on_after(0.05) as scope:
        await calls.in_thread(released.wait)
    assert scope.cancelled_caught
    assert calls.abandoned == 1
    released.set()
    with pytest.raises(ZeroDivisionError):
        await calls.in_thread(lambda: 1 // 0)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_failure_in_the_moment_in_which_nobody_waits_any_more_is_no_line_of_the_log() -> None:
    loop, told = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda loop, context: told.append(context["message"]))
    answers: list[asyncio.Future[Any]] = [loop.create_future()]
    waiting = asyncio.ensure_future(Calls("the engine").run(lambda: answers[0]))
    await anyio.wait_all_tasks_blocked()
    answers.pop().set_exception(DriverUnavailable("too late"))
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    del waiting
    gc.collect()
    assert told == []
