"""Commands of callers: started, listened to, stopped, and kept with what they printed (contract 7.1).

Every command is one file of JSON lines, its own line first. Finished ones are read again after a restart; what was
running then is gone, and says so. How much is kept is bounded: the oldest finished commands go first.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog

from runtime.events.clock import utc_now, zulu
from runtime.machine import account
from runtime.machine.guard import Guard
from runtime.machine.process import Command
from runtime.secrets.masking import Mask, MaskedStream
from runtime.store.files import private_directory

log = structlog.get_logger()

Record = dict[str, Any]
Listener = Callable[[Record], None]
#: by name of the stream: what came since the last output, and how it is masked
Pieces = dict[str, tuple[list[str], MaskedStream]]

CHUNK_CHARACTERS = 1 << 20
KEPT_CHARACTERS = 64 << 20
#: of one command: what came first goes first, also while it runs
KEPT_OF_ONE = 16 << 20
KEPT_COMMANDS = 10_000
_LOST = "The runtime stopped while this command ran."


class UnknownCommand(Exception):
    """No command, or no event of one, has this id."""


@dataclass
class Kept:
    """One command with its outputs, in order."""

    command: Record
    outputs: list[Record] = field(default_factory=list)
    running: Command | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)
    characters: int = 0

    @property
    def events(self) -> list[Record]:
        return [self.command, *self.outputs]


class Commands:
    """All commands of this runtime. Single event loop. `mask` answers what must not be kept or shown, up to date.

    `adopts`: a folder that a caller has just made to run commands in is taken as the agent's (`account.adopt`).
    """

    def __init__(
        self,
        folder: Path,
        *,
        directory: Path,
        environment: Callable[[], Mapping[str, str]],
        mask: Callable[[], Mask],
        retention_seconds: float | None = None,
        adopts: bool = False,
    ) -> None:
        self._folder = folder
        self._directory = directory
        self._environment = environment
        self._mask = mask
        self._retention = retention_seconds
        self._adopts = adopts
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._by_event: dict[str, Record] = {}
        self._characters = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: set[Listener] = set()
        self._guard = Guard()

    async def open(self) -> None:
        """Read what an earlier life kept. Raises OSError."""
        for kept in await asyncio.to_thread(self._read_all):
            self._add(kept)
        self._trim()

    async def close(self) -> None:
        """End every command."""
        await asyncio.gather(*(kept.running.stop() for kept in self._kept.values() if kept.running is not None))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10)
        await asyncio.to_thread(self._guard.close)

    # -- what callers do

    async def start(self, command: str, *, directory: str | None, seconds: int) -> Record:
        """Start it; answers its record at once."""
        record = {
            "command": command,
            "cwd": directory,
            "timeout": seconds,
            "id": uuid4().hex,
            "timestamp": zulu(utc_now()),
            "kind": "BashCommand",
        }
        kept = Kept(record, characters=len(command))
        self._forget_old()
        self._add(kept)
        await asyncio.to_thread(self._write, kept, record)
        self._tell(record)
        task = asyncio.create_task(self._run(kept, Path(directory) if directory else self._directory, seconds))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return record

    async def execute(self, command: str, *, directory: str | None, seconds: int) -> Record:
        """Start it and wait for its end; answers its last output."""
        record = await self.start(command, directory=directory, seconds=seconds)
        kept = self._kept[record["id"]]
        await kept.done.wait()
        return kept.outputs[-1]

    async def stop(self, command_id: str) -> None:
        """End it and everything that it started. Ended already: fine. Raises UnknownCommand."""
        kept = self._kept.get(command_id)
        if kept is None:
            raise UnknownCommand
        if kept.running is not None:
            await kept.running.stop()
        await kept.done.wait()

    def get(self, event_id: str) -> Record:
        """Raises UnknownCommand."""
        found = self._by_event.get(event_id)
        if found is None:
            raise UnknownCommand
        return found

    def events(self, command_id: str | None) -> Iterable[Record]:
        """Those of one command, or of all, oldest first."""
        if command_id is not None:
            kept = self._kept.get(command_id)
            return kept.events if kept is not None else []
        return sorted((event for kept in self._kept.values() for event in kept.events), key=_when)

    async def clear(self) -> int:
        """Forget every finished command; answers how many events that were."""
        gone = [kept for kept in self._kept.values() if kept.done.is_set()]
        for kept in gone:
            self._drop(kept)
        await asyncio.to_thread(self._remove, gone)
        return sum(len(kept.events) for kept in gone)

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Every event from now on, until the answer is called."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    # -- one command

    async def _run(self, kept: Kept, directory: Path, seconds: int) -> None:
        pieces: Pieces = {name: ([], MaskedStream(self._mask())) for name in ("stdout", "stderr")}
        size = 0

        def take(name: str, text: str) -> None:
            nonlocal size
            pieces[name][0].append(text)
            size += len(text)
            if size >= CHUNK_CHARACTERS:
                size = 0
                self._output(kept, pieces, None)

        running = Command(take, self._guard)
        try:
            if directory == self._directory:
                await account.in_thread(directory.mkdir, parents=True, exist_ok=True)
            elif self._adopts:
                await asyncio.to_thread(account.adopt, directory)
            await running.start(kept.command["command"], directory=directory, environment=self._environment())
            kept.running = running
            status = await running.wait(seconds)
        except OSError as error:
            pieces["stderr"][0].append(f"{directory}: {error.strerror}\n")
            status = -1
        except asyncio.CancelledError:
            await running.stop()
            raise
        finally:
            kept.running = None
        self._output(kept, pieces, status)
        try:
            await asyncio.to_thread(self._write, kept, *kept.outputs)
        except OSError as error:
            log.warning("commands.not_kept", error=error.strerror)
        kept.done.set()
        self._trim()

    def _output(self, kept: Kept, pieces: Pieces, status: int | None) -> None:
        self._mask()  # learns what became secret since
        texts: dict[str, str] = {}
        for name, (found, stream) in pieces.items():
            texts[name] = stream.feed("".join(found)) + (stream.rest() if status is not None else "")
            found.clear()
        event = {
            "id": uuid4().hex,
            "timestamp": zulu(utc_now()),
            "command_id": kept.command["id"],
            "order": kept.outputs[-1]["order"] + 1 if kept.outputs else 0,
            "exit_code": status,
            "stdout": texts["stdout"] or None,
            "stderr": texts["stderr"] or None,
            "kind": "BashOutput",
        }
        kept.outputs.append(event)
        grown = size(event)
        kept.characters += grown
        self._characters += grown
        self._by_event[event["id"]] = event
        while kept.characters > KEPT_OF_ONE and len(kept.outputs) > 1:
            first = kept.outputs.pop(0)
            kept.characters -= size(first)
            self._characters -= size(first)
            del self._by_event[first["id"]]
        self._tell(event)

    def _tell(self, event: Record) -> None:
        for listener in list(self._listeners):
            listener(event)

    # -- what is kept

    def _add(self, kept: Kept) -> None:
        self._kept[kept.command["id"]] = kept
        self._characters += kept.characters
        for event in kept.events:
            self._by_event[event["id"]] = event

    def _drop(self, kept: Kept) -> None:
        del self._kept[kept.command["id"]]
        self._characters -= kept.characters
        for event in kept.events:
            del self._by_event[event["id"]]

    def _trim(self) -> None:
        gone = []
        for kept in list(self._kept.values()):
            if self._characters <= KEPT_CHARACTERS and len(self._kept) <= KEPT_COMMANDS:
                break
            if kept.done.is_set():
                self._drop(kept)
                gone.append(kept)
        self._remove(gone)

    def _forget_old(self) -> None:
        if self._retention is None:
            return
        oldest = time.time() - self._retention
        gone = [kept for kept in self._kept.values() if kept.done.is_set() and _when(kept.events[-1]) < oldest]
        for kept in gone:
            self._drop(kept)
        self._remove(gone)

    def _write(self, kept: Kept, *events: Record) -> None:
        private_directory(self._folder)
        path = self._folder / f"{kept.command['id']}.jsonl"
        with open(path, "a", encoding="utf-8", opener=_private) as file:
            file.writelines(json.dumps(event) + "\n" for event in events)

    def _remove(self, gone: Iterable[Kept]) -> None:
        for kept in gone:
            (self._folder / f"{kept.command['id']}.jsonl").unlink(missing_ok=True)

    def _read_all(self) -> list[Kept]:
        if not self._folder.is_dir():
            return []
        found = [kept for path in self._folder.glob("*.jsonl") if (kept := _read(path)) is not None]
        return sorted(found, key=lambda kept: _when(kept.command))


def _read(path: Path) -> Kept | None:
    """What an earlier life wrote, None for a file that holds no command. A line that a crash tore is left out."""
    events: list[Record] = []
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                events.append(json.loads(line))
    except (OSError, ValueError):
        log.warning("commands.damaged", file=path.name)
    if not events or events[0].get("kind") != "BashCommand" or events[0].get("id") != path.stem:
        return None
    kept = Kept(events[0], events[1:])
    if not kept.outputs or kept.outputs[-1]["exit_code"] is None:
        lost = {
            "id": uuid4().hex,
            "timestamp": zulu(utc_now()),
            "command_id": kept.command["id"],
            "order": kept.outputs[-1]["order"] + 1 if kept.outputs else 0,
            "exit_code": -1,
            "stdout": None,
            "stderr": _LOST,
            "kind": "BashOutput",
        }
        kept.outputs.append(lost)
    kept.characters = len(kept.command["command"]) + sum(size(event) for event in kept.outputs)
    kept.done.set()
    return kept


def size(event: Record) -> int:
    """In characters of output."""
    return len(event.get("stdout") or "") + len(event.get("stderr") or "")


def _when(event: Record) -> float:
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
