"""What need not wait for one another: done at the same time, and its failure told as if it had been done alone."""

from collections.abc import Awaitable, Callable

import anyio


async def beside(*works: Callable[[], Awaitable[object]]) -> None:
    """All of `works`, at the same time. Raises what the first one to fail raises, by itself and not in a group; the
    others are cancelled then."""
    failures: list[Exception] = []
    try:
        async with anyio.create_task_group() as tasks:

            async def kept(work: Callable[[], Awaitable[object]]) -> None:
                try:
                    await work()
                except Exception as exc:  # noqa: BLE001 - raised below
                    failures.append(exc)
                    tasks.cancel_scope.cancel()

            for work in works:
                tasks.start_soon(kept, work)
    except BaseExceptionGroup as group:  # what ends a process is told as it is
        raise group.exceptions[0] from None
    if failures:
        raise failures[0]
