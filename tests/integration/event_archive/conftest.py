"""The archive of events over each of its places: files, and object storage behind a real server."""

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from support.object_storage import BUCKET, object_storage

from orchestrator.domain.ids import new_uuid
from orchestrator.state.event_archive.archive import EventArchive, open_event_archive

Open = Callable[[], EventArchive]


@pytest.fixture(scope="session")
def storage() -> Iterator[str]:
    with object_storage() as url:
        yield url


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nst-") as path:
        yield Path(path)


@pytest.fixture(params=["files", "objects"])
async def opened(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Open]:
    """Open the same archive once more, as another replica does."""
    url = None
    if request.param == "objects":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
        url = f"s3://{BUCKET}/{new_uuid()}?endpoint={request.getfixturevalue('storage')}"
    async with AsyncExitStack() as stack:

        def another() -> EventArchive:
            archive = open_event_archive(url, journal=None, default=folder / "events")
            stack.push_async_callback(archive.close)
            return archive

        yield another
