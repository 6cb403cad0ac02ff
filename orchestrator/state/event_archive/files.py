"""Segments as files below a folder. Several replicas may share it; nothing is ever changed in place."""

import asyncio
import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from orchestrator.state.event_archive.places import EventsUnavailable, Missing
from orchestrator.state.new_file import sync_folder, write_new

T = TypeVar("T")
_THREADS = 4


class FilePlace:
    """See `places.Place`. Work that waits for the disk runs in threads of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="events")

    async def put(self, name: str, content: bytes) -> None:
        await self._run(lambda: self._put(name, content))

    async def put_new(self, name: str, content: bytes) -> None:
        await self._run(lambda: self._put_new(name, content))

    async def get(self, name: str, *, offset: int, length: int) -> bytes:
        return await self._run(lambda: self._get(name, offset, length))

    async def names(self, folder: str) -> Sequence[str]:
        return await self._run(lambda: self._names(folder))

    async def below(self) -> Sequence[str]:
        return await self._run(self._below)

    async def remove(self, name: str) -> None:
        await self._run(lambda: (self._root / name).unlink(missing_ok=True))

    async def remove_folder(self, folder: str) -> None:
        await self._run(lambda: self._remove_folder(folder))

    async def room(self) -> int | None:
        return await self._run(self._room)

    async def close(self) -> None:
        self._pool.shutdown(wait=False)

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except FileNotFoundError as exc:
            raise Missing from exc
        except OSError as exc:
            raise EventsUnavailable(
                f"the archive of events in {self._root} cannot be used: {exc.strerror}",
                hint="check space, owner and mode of that folder",
            ) from exc

    def _put(self, name: str, content: bytes) -> None:
        path = self._root / name
        self._make(path.parent)
        write_new(path, content)

    def _put_new(self, name: str, content: bytes) -> None:
        """By a link, which of two replicas only one can make."""
        path = self._root / name
        if path.exists():
            return
        draft = f"{name}.{secrets.token_hex(6)}"
        self._put(draft, content)
        try:
            with contextlib.suppress(FileExistsError):
                os.link(self._root / draft, path)
        finally:
            (self._root / draft).unlink()
        sync_folder(path.parent)

    def _make(self, folder: Path) -> None:
        """With all above it, each on the disk: a segment in a folder that a power cut takes back is lost as well."""
        if not folder.is_dir():
            self._make(folder.parent)
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder.parent)

    def _get(self, name: str, offset: int, length: int) -> bytes:
        with (self._root / name).open("rb") as file:
            if offset < 0:
                offset = max(0, os.fstat(file.fileno()).st_size + offset)
            file.seek(offset)
            return file.read(length)

    def _names(self, folder: str) -> list[str]:
        try:
            return os.listdir(self._root / folder)
        except FileNotFoundError:
            return []

    def _below(self) -> list[str]:
        return [str(path.relative_to(self._root)) for path in self._root.rglob("*") if path.is_file()]

    def _room(self) -> int:
        disk = os.statvfs(next(path for path in (self._root, *self._root.parents) if path.exists()))
        return disk.f_bavail * disk.f_frsize

    def _remove_folder(self, folder: str) -> None:
        path = self._root / folder
        if path.is_dir():
            shutil.rmtree(path)
            sync_folder(path.parent)
