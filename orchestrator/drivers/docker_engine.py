"""The funnel to a Docker engine: one client a call at a time, a deadline for each, and the engine's answers told apart.

Only the `docker*` files of this package call it, in worker threads: the SDK is synchronous, and its client must not be
shared between threads, so every call takes one of its own from a small store. "No such thing", "it is taken", "I will
not" and "I could not be asked" become different exceptions here; an engine's text never leaves this file. An engine
that has let a call wait for its whole time is not asked again until it answers a ping: otherwise every worker thread
would come to wait for it.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import requests
from docker import APIClient
from docker.errors import APIError, DockerException, NotFound
from urllib3.exceptions import HTTPError

from orchestrator.domain.errors import DiskFull, DriverUnavailable, PermanentError
from orchestrator.drivers.errors import MAKE_SPACE, says_no_space

T = TypeVar("T")

LOOK_SECONDS = 20
ACT_SECONDS = 90  #: making and starting a container takes long where many do so at once
_PING_SECONDS = 3
_PING_EACH_SECONDS = 1.0
_IDLE_CLIENTS = 16
_TEXT_CHARACTERS = 500


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
        self._silent = threading.Event()  #: it let a call wait in vain, and has not answered since
        self._pinging = threading.Lock()
        self._next_ping = 0.0

    def ask(self, what: str, call: Callable[[APIClient], T], *, seconds: int = LOOK_SECONDS) -> T:
        """`call` with a client of its own, each of its requests bounded by `seconds`. `what` completes "could not ..."
        for people.

        Raises `Missing`, `Occupied`, `Refused` when the engine answered, `DriverUnavailable` when it did not, or with
        a failure of its own: then nothing is known, also not whether the work was done.
        """
        with _told_apart(what):
            self._raise_if_silent(what)
            try:
                client = self._take(seconds)
                try:
                    answer = call(client)
                except APIError:
                    self._give_back(client)
                    raise
                except BaseException:
                    client.close()  # half an answer may still be on its connection
                    raise
            except Exception as exc:
                if _waited_in_vain(exc):
                    self._silent.set()
                raise
            self._give_back(client)
            return answer

    def act(self, what: str, call: Callable[[APIClient], T]) -> T:
        """As `ask`, for what may take its time because something is made, started, ended or removed."""
        return self.ask(what, call, seconds=ACT_SECONDS)

    def close(self) -> None:
        """Let go of all connections. Calls under way go on to their end."""
        self._closed.set()
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _raise_if_silent(self, what: str) -> None:
        """One caller a second finds out whether it answers again; the others do not wait for that."""
        if not self._silent.is_set():
            return
        if self._pinging.acquire(blocking=False):
            try:
                if time.monotonic() >= self._next_ping:
                    self._next_ping = time.monotonic() + _PING_EACH_SECONDS
                    self._ping()
                    self._silent.clear()
                    return
            finally:
                self._pinging.release()
        raise DriverUnavailable(
            f"the engine does not answer, so it was not asked to {what}",
            hint="look at the engine: it hangs, or is stopped",
        )

    def _ping(self) -> None:
        with contextlib.closing(self._take(_PING_SECONDS)) as client:
            client.ping()

    def _take(self, seconds: int) -> APIClient:
        try:
            client = self._idle.get_nowait()
        except queue.Empty:
            client = APIClient(base_url=self.host, version=self._version or "auto", timeout=seconds)
            self._version = client.api_version  # asked of the engine once, not once for each client
        client.timeout = seconds
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


def _waited_in_vain(exc: BaseException | None) -> bool:
    """Whether a deadline is at the bottom of it: the SDK tells some of them as lost connections."""
    while exc is not None:
        if isinstance(exc, (TimeoutError, requests.exceptions.Timeout)):
            return True
        exc = exc.__cause__ or exc.__context__
    return False


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
