"""Which keys open a runtime, in which of a request's headers."""

import hashlib

import pytest

from orchestrator.proxy.access import Access, access, origin_allowed
from orchestrator.proxy.head import read_head

KEY = b"session-key-of-the-tests"
HASH = hashlib.sha256(KEY).hexdigest()


def asked(path: bytes, *headers: tuple[bytes, bytes]) -> Access:
    head = read_head(b"GET", path, "1.1", [(b"host", b"example.org"), *headers])
    return access(head, path, HASH)


def test_the_header_opens_every_path() -> None:
    assert asked(b"/api/settings", (b"x-session-api-key", KEY)) is Access.WITH_KEY
    assert asked(b"/v1/models", (b"x-session-api-key", KEY)) is Access.WITH_KEY
    assert asked(b"/api/settings", (b"x-session-api-key", b"no")) is Access.REFUSED


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer "])
def test_a_bearer_opens_the_paths_of_compatible_clients_alone(scheme: bytes) -> None:
    bearer = (b"authorization", scheme + KEY)
    assert asked(b"/v1/models", bearer) is Access.WITH_KEY
    assert asked(b"/v1/models", (b"authorization", scheme + b"no")) is Access.REFUSED
    for path in (b"/api/settings", b"/v1", b"/%76%31/models", b"/api/v1/models", b"/sockets/events/1"):
        assert asked(path, bearer) is Access.REFUSED
    assert asked(b"/health", bearer) is Access.OPEN
    assert asked(b"/v1/models", (b"authorization", b"Basic " + KEY)) is Access.REFUSED
    assert asked(b"/v1/models", (b"authorization", b"Bearer")) is Access.REFUSED


@pytest.mark.parametrize(
    ("origin", "local", "allowed"),
    [
        (None, False, True), (b"https://app.example", False, True), (b"https://h:8080", False, True),
        (b"http://localhost:3000", True, True), (b"http://127.0.0.1", True, True),
        (b"http://localhost:3000", False, False),
        (b"http://127.0.0.1", False, False), (b"null", True, False), (b"https://other.example", True, False),
        (b"https://app.example.evil", True, False), (b"file://localhost", True, False),
    ],
)  # fmt: skip
def test_which_pages_may_open_a_socket(origin: bytes | None, local: bool, allowed: bool) -> None:
    assert origin_allowed(origin, b"h:8080", {"https://app.example"}, local=local) is allowed
