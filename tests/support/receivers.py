"""A receiver of webhooks: a real HTTP server in a thread, which remembers what it was sent and answers as told."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.runtimes import eventually


@dataclass(frozen=True)
class Post:
    """One request as it came. Header names are in lower case."""

    path: str
    headers: dict[str, str]
    body: Any
    answered: int
    raw: bytes = b""
    method: str = "POST"

    @property
    def first(self) -> int:
        return int(self.headers["x-nestor-sequence-first"])

    @property
    def last(self) -> int:
        return int(self.headers["x-nestor-sequence-last"])

    @property
    def stored(self) -> list[dict[str, Any]]:
        """The events that have numbers."""
        return [event for event in self.body if event.get("key") != "full_state"]


@dataclass(frozen=True)
class Answer:
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b"{}"
    seconds: float = 0.0  #: how long it takes to answer


Decide = Callable[[str, int], Answer]


class WebhookReceiver:
    """`decide` gets the path and how many requests came before; it may be replaced at any time."""

    def __init__(self, decide: Decide = lambda path, number: Answer()) -> None:
        self.decide = decide
        self.posts: list[Post] = []
        self.open_requests = 0
        self.most_open: dict[str, int] = {}
        self._open: dict[str, int] = {}
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self.port = 0
        self.started()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def started(self) -> "WebhookReceiver":
        """Listen, on the same port as before."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver._post(self)

            do_PUT = do_PATCH = do_GET = do_POST

            def log_message(self, *arguments: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def stop(self) -> None:
        """Refuse connections. Idempotent."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(10)
            self._server = None

    def _post(self, request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers.get("content-length", 0))
        raw = request.rfile.read(length)
        if len(raw) < length:  # whoever sent it was killed in between: no request ever came
            request.close_connection = True
            return
        body = json.loads(raw or b"null")
        with self._lock:
            self._open[request.path] = self._open.get(request.path, 0) + 1
            self.most_open[request.path] = max(self.most_open.get(request.path, 0), self._open[request.path])
            answer = self.decide(request.path, len(self.posts))
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.posts.append(Post(request.path, headers, body, answer.status, raw, request.command))
        time.sleep(answer.seconds)
        try:
            request.send_response(answer.status)
            for name, value in answer.headers:
                request.send_header(name, value)
            request.send_header("Content-Length", str(len(answer.body)))
            request.end_headers()
            request.wfile.write(answer.body)
        except OSError:
            request.close_connection = True
        finally:
            with self._lock:
                self._open[request.path] -= 1

    # -- what came

    def batches(self, conversation: str, *, taken: bool = True) -> list[Post]:
        """Posts of events of one conversation; only those that were acknowledged, or all of them."""
        path = f"/hook/events/{conversation.replace('-', '')}"
        return [post for post in list(self.posts) if post.path == path and (post.answered < 300 or not taken)]

    def states(self, conversation: str | None = None) -> list[Post]:
        """Posts of whole conversations that were acknowledged."""
        posts = [post for post in list(self.posts) if post.path == "/hook/conversations" and post.answered < 300]
        return [post for post in posts if conversation in (None, post.body["id"])]

    def statuses(self, conversation: str) -> list[str]:
        return [post.body["execution_status"] for post in self.states(conversation)]

    def events(self, conversation: str) -> list[dict[str, Any]]:
        """The stored events by their numbers, checked: no gap, and whatever comes twice is the same."""
        found: list[dict[str, Any]] = []
        firsts = set()
        for batch in self.batches(conversation):
            if not batch.stored:
                continue
            assert len(batch.stored) == batch.last - batch.first + 1
            assert batch.first <= len(found) + 1, f"a gap before {batch.first}"
            if batch.first <= len(found):
                assert batch.first in firsts, "something came twice that was no whole batch"
                assert found[batch.first - 1 : batch.last] == batch.stored
            else:
                firsts.add(batch.first)
                found += batch.stored
        return found

    def wait(self, condition: Callable[["WebhookReceiver"], Any], seconds: float = 30) -> None:
        eventually(lambda: bool(condition(self)), seconds)


@contextmanager
def webhook_receiver(decide: Decide = lambda path, number: Answer()) -> Iterator[WebhookReceiver]:
    made = WebhookReceiver(decide)
    try:
        yield made
    finally:
        made.stop()
