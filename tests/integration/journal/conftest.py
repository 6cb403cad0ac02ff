"""Every archive of the suite: files, and object storage behind a real server."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from support.object_storage import BUCKET, object_storage
from support.state_servers import Run, run_server

from orchestrator.domain.ids import new_uuid
from orchestrator.state.journal.archive import Archive, open_archive

__all__ = ["Run", "run_server"]
Open = Callable[[], Archive]


@pytest.fixture(scope="session")
def storage() -> Iterator[str]:
    with object_storage() as url:
        yield url


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="nst-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=["files", "objects"])
async def opened(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Open]:
    """Open the same archive once more, as another replica does."""
    url = None
    if request.param == "objects":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
        url = f"s3://{BUCKET}/{new_uuid()}?endpoint={request.getfixturevalue('storage')}"
    async with AsyncExitStack() as stack:

        def another() -> Archive:
            archive = open_archive(url, folder / "journal")
            stack.push_async_callback(archive.close)
            return archive

        yield another


@pytest.fixture
def archive(opened: Open) -> Archive:
    return opened()
