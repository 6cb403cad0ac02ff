"""A machine starts as many runtimes at once as it can, and no runtime keeps the others waiting for good."""

import anyio
import pytest

from orchestrator.drivers.docker_turns import Turns

pytestmark = pytest.mark.anyio


async def start(turns: Turns, name: str) -> None:
    async with turns.taking(name):
        pass


async def test_the_next_one_waits_until_somebody_says_that_one_is_over():
    turns, begun = Turns(1, longest_seconds=3600), []

    async def one(name: str) -> None:
        await start(turns, name)
        begun.append(name)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for name in ("first", "second", "third"):
                tasks.start_soon(one, name)
                await anyio.wait_all_tasks_blocked()
            assert begun == ["first"]
            turns.over("first")
            await anyio.wait_all_tasks_blocked()
            assert begun == ["first", "second"]
            turns.over("second")
            turns.over("second")
            turns.over("nobody")
    assert begun == ["first", "second", "third"]
    assert turns.taken == 1
    turns.over("third")
    assert turns.taken == 0


async def test_one_that_never_answers_keeps_the_others_for_a_moment_only():
    turns = Turns(1, longest_seconds=0.05)
    with anyio.fail_after(30):
        await start(turns, "silent")
        await start(turns, "next")
    assert turns.taken == 1


async def test_a_start_that_fails_or_is_cancelled_has_no_turn():
    turns = Turns(1, longest_seconds=3600)
    with pytest.raises(OSError, match="no"):
        async with turns.taking("broken"):
            raise OSError("no engine")
    async with turns.taking("held"):
        with anyio.move_on_after(0.05):  # in the queue
            await start(turns, "impatient")
        assert turns.taken == 1
    turns.over("held")
    with anyio.move_on_after(0.05):
        async with turns.taking("cancelled"):
            await anyio.sleep_forever()
    assert turns.taken == 0


async def test_a_second_try_of_the_same_one_has_the_turn_of_the_first():
    turns = Turns(1, longest_seconds=3600)
    with anyio.fail_after(30):
        await start(turns, "again")
        await start(turns, "again")
    assert turns.taken == 1
    turns.over("again")
    assert turns.taken == 0


def test_there_are_as_many_turns_as_processors_and_two_at_least(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert Turns()._limit.total_tokens == 8
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert Turns()._limit.total_tokens == 2
