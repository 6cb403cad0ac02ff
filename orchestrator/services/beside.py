"""What need not wait for one another: done at the same time, and its failure told as if it had been done alone."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


async def beside(*works: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """All of `works`, at the same time. Raises what the first one to fail raises, by itself and not in a group; the
    others are cancelled then."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for work in works:
                tasks.create_task(work())
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
