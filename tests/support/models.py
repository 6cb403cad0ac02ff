"""The scripted model and the git server for tests that are not async themselves: they run in a thread."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from anyio.from_thread import start_blocking_portal

from orchestrator.demo.git_server import GitServer
from orchestrator.demo.model_server import ScriptedModel


@contextmanager
def scripted_model(*, required_key: str | None = None) -> Iterator[str]:
    """The base URL of a scripted model, for as long as the block lasts."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(ScriptedModel(required_key=required_key)) as model,
    ):
        yield model.base_url


@contextmanager
def git_server(folder: Path, name: str, *, token: str) -> Iterator[str]:
    """The origin of a git server with one private repository, which `token` opens."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(GitServer(folder)) as server:
        portal.call(partial(server.create_repository, name, files={"README.md": "hello\n"}, token=token))
        yield server.origin
