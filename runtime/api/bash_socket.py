"""The WebSocket of commands (contract 6.2): every command and its output as it comes; a client frame starts one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Depends, WebSocket, WebSocketDisconnect
from pydantic import ValidationError

from runtime.api.bash import Wanted
from runtime.api.dependencies import runtime_state
from runtime.api.socket_auth import NOT_READY, admit, close, is_late_auth, json_frame, receive_text, refuse, send
from runtime.events.clock import utc_now, zulu
from runtime.events.feed import SLOW_READER, Closing
from runtime.machine.commands import Record, size
from runtime.state import Dormant, RuntimeState

router = APIRouter()

_MOST_WAITING = 1000
_MOST_CHARACTERS_WAITING = 16 << 20
MOST_LISTENERS = 50
_TOO_MANY = Closing(1013, "Too many listeners")


@router.websocket("/sockets/bash-events")
async def bash_events(socket: WebSocket, state: Annotated[RuntimeState, Depends(runtime_state)]) -> None:
    mode = socket.query_params.get("resend_mode")
    if mode not in (None, "all"):
        await refuse(socket)
        return
    try:
        if await admit(socket, state):
            await _serve(socket, state, resend=mode == "all")
    except WebSocketDisconnect:
        return  # the client left; nothing is owed to it


async def _serve(socket: WebSocket, state: RuntimeState, *, resend: bool) -> None:
    try:
        commands = state.commands
    except Dormant:
        await close(socket, NOT_READY)
        return
    waiting = _Waiting()
    too_slow = asyncio.Event()

    def hear(event: Record) -> None:
        if not waiting.put(event):
            too_slow.set()

    if commands.listeners >= MOST_LISTENERS:
        await close(socket, _TOO_MANY)
        return
    past = list(commands.events(None)) if resend else []
    forget = commands.listen(hear)
    reader = asyncio.create_task(_read(socket, state))
    writer = asyncio.create_task(_write(socket, past, waiting))
    slow = asyncio.create_task(too_slow.wait())
    try:
        await asyncio.wait({reader, writer, slow}, return_when=asyncio.FIRST_COMPLETED)
        if too_slow.is_set() or (writer.done() and isinstance(writer.exception(), TimeoutError)):
            await close(socket, SLOW_READER)
    finally:
        forget()
        for task in (reader, writer, slow):
            task.cancel()
        with contextlib.suppress(WebSocketDisconnect):
            await asyncio.gather(reader, writer, slow, return_exceptions=True)


class _Waiting:
    """What one listener has still to take, bounded in number and in size."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[Record] = asyncio.Queue(_MOST_WAITING)
        self._characters = 0

    def put(self, event: Record) -> bool:
        """False when it is too much: then the event is not kept."""
        if self._events.full() or self._characters > _MOST_CHARACTERS_WAITING:
            return False
        self._characters += size(event)
        self._events.put_nowait(event)
        return True

    async def get(self) -> Record:
        event = await self._events.get()
        self._characters -= size(event)
        return event


async def _write(socket: WebSocket, past: list[Record], waiting: _Waiting) -> None:
    for event in past:
        await send(socket, json.dumps(event).encode())
    while True:
        await send(socket, json.dumps(await waiting.get()).encode())


async def _read(socket: WebSocket, state: RuntimeState) -> None:
    """Start what the client's frames ask for; one that asks for nothing gets an error, and the socket stays open."""
    while True:
        frame = json_frame(await receive_text(socket))
        if frame is not None and is_late_auth(frame):
            continue
        try:
            wanted = Wanted.model_validate(frame)
        except ValidationError as error:
            detail = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'frame'}: {one['msg']}" for one in error.errors())
            await send(socket, json.dumps(_error("ValidationError", detail)).encode())
            continue
        await state.commands.start(wanted.command, directory=wanted.cwd, seconds=wanted.timeout)


def _error(code: str, detail: str) -> Record:
    return {"id": uuid4().hex, "timestamp": zulu(utc_now()), "code": code, "detail": detail, "kind": "BashError"}
