"""The funnel to a Docker engine: one client a call at a time, a deadline for each, and the engine's answers told apart.

Only the `docker*` files of this package call it, in worker threads: the SDK is synchronous, and its client must not be
shared between threads, so every call takes one of its own from a small store. "No such thing", "it is taken", "I will
not" and "I could not be asked" become different exceptions here; an engine's text never leaves this file.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import requests
from docker import APIClient
from docker.errors import APIError, DockerException, NotFound
from urllib3.exceptions import HTTPError

from orchestrator.domain.errors import DiskFull, DriverUnavailable, PermanentError
from orchestrator.drivers.base import MAKE_SPACE, says_no_space

T = TypeVar("T")

CALL_SECONDS = 60
_IDLE_CLIENTS = 16
_TEXT_CHARACTERS = 200


class Missing(Exception):
    """The engine was asked and says that there is no such thing."""


class Occupied(Exception):
    """The engine refuses because of what there is: a taken name, a thing in use, a condition that forbids it."""


class Refused(PermanentError):
    """The engine understood the request and will not do it; asking again gives the same."""

    code = "engine_refused"

    def __init__(self, what: str, status: int, said: str) -> None:
        super().__init__(f"the engine refused to {what} ({status})", hint="the engine's own log says more")
        self.status = status
        self.said = said  #: for decisions in this package; may hold paths, so it is not told


class Engine:
    """One engine at `host` (unix:///path or tcp://...). Methods block; safe to use from many threads."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._idle: queue.LifoQueue[APIClient] = queue.LifoQueue(_IDLE_CLIENTS)
        self._closed = threading.Event()
        self._version: str | None = None

    def ask(self, what: str, call: Callable[[APIClient], T]) -> T:
        """`call` with a client of its own. `what` completes "could not ..." for people.

        Raises `Missing`, `Occupied`, `Refused` when the engine answered, `DriverUnavailable` when it did not, or with
        a failure of its own: then nothing is known, also not whether the work was done.
        """
        with _told_apart(what):
            client = self._take()
            try:
                answer = call(client)
            except APIError:
                self._give_back(client)
                raise
            except BaseException:
                client.close()  # half an answer may still be on its connection
                raise
            self._give_back(client)
            return answer

    def close(self) -> None:
        """Let go of all connections. Calls under way go on to their end."""
        self._closed.set()
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _take(self) -> APIClient:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            client = APIClient(base_url=self.host, version=self._version or "auto", timeout=CALL_SECONDS)
            self._version = client.api_version  # asked of the engine once, not once for each client
            return client

    def _give_back(self, client: APIClient) -> None:
        try:
            if self._closed.is_set():
                raise queue.Full
            self._idle.put_nowait(client)
        except queue.Full:
            client.close()


def describe_image(engine: Engine, name: str) -> Mapping[str, Any]:
    """An image as the engine describes it. Raises as `Engine.ask`."""

    def look(client: APIClient) -> dict[str, Any]:
        return dict(client.inspect_image(name))  # type: ignore[no-untyped-call] # the stubs leave it out

    return engine.ask(f"look at image {name}", look)


@contextlib.contextmanager
def _told_apart(what: str) -> Iterator[None]:
    try:
        yield
    except NotFound as exc:
        raise Missing(what) from exc
    except APIError as exc:
        status = exc.status_code or 0
        if status == 409:
            raise Occupied(what) from exc
        if 400 <= status < 500:
            raise Refused(what, status, str(exc.explanation or "")[:_TEXT_CHARACTERS]) from exc
        if says_no_space(str(exc.explanation or "")):
            raise DiskFull(f"the engine has no space left to {what}", hint=MAKE_SPACE) from exc
        raise DriverUnavailable(
            f"the engine failed to {what} ({status})", hint="the engine's own log says more"
        ) from exc
    except (requests.exceptions.RequestException, HTTPError, DockerException, OSError) as exc:
        raise DriverUnavailable(
            f"the engine could not be asked to {what} ({type(exc).__name__})",
            hint="check that the engine runs and that NESTOR_DOCKER_HOST names it",
        ) from exc
