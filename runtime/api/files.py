"""Files of the machine over HTTP (contract 7.2). Uploads and downloads pass through; nothing is collected in memory."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from runtime.api.answers import refusals
from runtime.api.dependencies import StateDependency
from runtime.api.opened import OpenedResponse
from runtime.api.parsing import refused
from runtime.api.place import PlaceDependency, checked, told
from runtime.api.uploads import BadUpload, receive_file
from runtime.conversations.folder import VERSIONS
from runtime.machine import account, files
from runtime.machine.files import BadPath, Incoming
from runtime.machine.repositories import Repository
from runtime.machine.safe_git import GitFailed

router = APIRouter(tags=["File"])

_DONE = {"success": True}


@router.post("/file/upload")
async def upload(request: Request, state: StateDependency, place: PlaceDependency, path: str) -> JSONResponse:
    """One file, under its name only when all of it is there."""
    target = checked(state, path)
    try:
        incoming = Incoming(target)
        with incoming:
            await receive_file(request, incoming.write)
            await account.in_thread(incoming.keep)
    except BadUpload as error:
        raise refused("file", str(error)) from None
    except BadPath as error:
        raise told(error) from None
    return JSONResponse({**_DONE, "file_size": incoming.size})


@router.get("/file/download")
async def download(state: StateDependency, place: PlaceDependency, path: str) -> Response:
    """Raw bytes, also in ranges."""
    file = checked(state, path)
    try:
        found = await account.in_thread(state.boundaries.opened, file)
    except BadPath as error:
        raise told(error) from None
    headers = {"X-Content-Type-Options": "nosniff"}
    return OpenedResponse(found, media_type="application/octet-stream", filename=file.name, headers=headers)


@router.post("/file/create_directory")
async def create_directory(state: StateDependency, place: PlaceDependency, path: str) -> JSONResponse:
    try:
        await account.in_thread(files.make_directory, checked(state, path))
    except BadPath as error:
        raise told(error) from None
    return JSONResponse(_DONE)


@router.get("/file/home")
async def home(state: StateDependency, place: PlaceDependency) -> JSONResponse:
    return JSONResponse({"home": str(account.home()), "favorites": [], "locations": [{"label": "/", "path": "/"}]})


@router.get("/file/search_subdirs")
async def search_subdirs(
    state: StateDependency,
    place: PlaceDependency,
    path: str,
    page_id: str | None = None,
    limit: Annotated[int, Query(gt=0, le=100)] = 100,
    include_hidden: bool = False,
) -> JSONResponse:
    """The folders in a folder; a page begins with the name `page_id`."""
    folder = checked(state, path)
    try:
        found = await account.in_thread(files.subdirectories, folder, hidden=include_hidden)
    except BadPath as error:
        raise told(error) from None
    rest = [one for one in found if page_id is None or one[0] >= page_id]
    following = rest[limit][0] if len(rest) > limit else None
    items = [{"name": name, "path": place_} for name, place_ in rest[:limit]]
    return JSONResponse({"items": items, "next_page_id": following})


@router.get("/file/archive")
async def archive(
    state: StateDependency,
    place: PlaceDependency,
    path: str,
    format: Literal["git-delta", "tar.gz"] = "git-delta",
    base_ref: Annotated[str | None, Query(max_length=250)] = None,
) -> Response:
    """The work in a folder: as a patch against where it began, or whole."""
    folder = checked(state, path)
    if not await account.in_thread(os.path.isdir, folder):
        raise HTTPException(404, "Directory not found")
    if format == "tar.gz":
        name = f"{folder.name or 'archive'}.tar.gz"
        return attachment(streamed(lambda pipe: _write_tar(pipe, folder, state)), "application/gzip", name)
    environment = state.conversations.agent_environment()

    def make() -> tuple[bytes, Path]:
        repository = Repository.around(folder, environment)
        return repository.patch(base_ref, without=state.boundaries.private), repository.root

    try:
        patch, root = await account.in_thread(make)
    except GitFailed as failure:
        raise HTTPException(400, str(failure)) from None
    return Response(patch, media_type="text/x-patch", headers={"x-archive-repo-root": str(root)})


@router.get("/file/download-trajectory/{trajectory_id}")
async def trajectory(state: StateDependency, place: PlaceDependency, trajectory_id: UUID) -> Response:
    """The conversation's folder as a zip archive; what is sealed in it stays sealed."""
    with refusals():
        record = state.conversations.record(trajectory_id)
    folder = state.conversations.folders.path(record.id)
    name = f"{record.id.hex}.zip"
    return attachment(streamed(lambda pipe: _write_zip(pipe, folder)), "application/zip", name)


def attachment(body: AsyncIterator[bytes], media_type: str, name: str) -> StreamingResponse:
    """A download of that name."""
    safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
    headers = {"Content-Disposition": f'attachment; filename="{safe}"', "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(body, media_type=media_type, headers=headers)


async def streamed(write: Any) -> AsyncIterator[bytes]:
    """What a thread writes into a pipe, as it comes: a slow reader makes the writer wait, and memory is one pipe."""
    read_end, write_end = os.pipe()

    def work() -> None:
        with os.fdopen(write_end, "wb") as pipe:
            try:
                write(pipe)
            except BrokenPipeError:
                return  # the client left

    writer = asyncio.create_task(asyncio.to_thread(work))
    try:
        with os.fdopen(read_end, "rb", buffering=0) as pipe:
            while piece := await asyncio.to_thread(pipe.read, 256 << 10):
                yield piece
    finally:
        await writer


def _write_tar(pipe: io.BufferedWriter, folder: Path, state: StateDependency) -> None:
    with tarfile.open(fileobj=pipe, mode="w|gz") as archive, account.acting():
        for file in _given_out(folder, state):
            try:
                archive.add(file, arcname=str(file.relative_to(folder)), recursive=False)
            except BrokenPipeError:
                raise
            except OSError:
                continue  # gone, or not readable: the rest is worth having


def _write_zip(pipe: io.BufferedWriter, folder: Path) -> None:
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files.tree(folder):
            name = file.relative_to(folder)
            if name.parts[0] != VERSIONS:  # what was in the workspace is read there
                archive.write(file, str(name))


def _given_out(folder: Path, state: StateDependency) -> Iterator[Path]:
    for file in files.tree(folder):
        try:
            yield state.boundaries.checked(str(file))
        except BadPath:
            continue
