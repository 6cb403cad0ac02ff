"""What the tests of the front share: a front on uvloop, and a runtime that keeps what it was sent."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.front_rig import Rig


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}  # as in production: its transports differ from asyncio's


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    try:
        await rig.open()
        yield rig
    finally:
        await rig.close()


@pytest.fixture
async def bare_rig() -> AsyncIterator[Rig]:
    """A rig that is not open yet, for tests with limits of their own."""
    rig = Rig()
    try:
        yield rig
    finally:
        await rig.close()


@pytest.fixture
async def recorder(rig: Rig) -> dict[str, Any]:
    """An upstream that keeps the exact bytes of every request without a body and answers 200."""
    seen: dict[str, Any] = {"requests": [], "connections": 0}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen["connections"] += 1
        while True:
            seen["requests"].append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    seen["port"] = await rig.raw(serve)
    return seen
