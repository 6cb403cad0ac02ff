"""Handlers that block, in a thread of asyncio's own.

The framework runs a plain function in a thread of a library of which nothing else here is used before, and loading that
took a third of the first call that configures a runtime. So what a start calls is brought into threads by this.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def in_thread(handler: Callable[P, T]) -> Callable[P, Awaitable[T]]:
    """`handler`, as a coroutine function with the same parameters."""

    @wraps(handler)
    async def handle(*arguments: P.args, **named: P.kwargs) -> T:
        return await asyncio.to_thread(handler, *arguments, **named)

    return handle
