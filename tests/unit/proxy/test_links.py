"""Tokens of links, and where a link leads."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.ids import RuntimeId
from orchestrator.domain.links import HOST_PREFIX, SECRET_BYTES, TOKEN_CHARACTERS, token_of, token_read
from orchestrator.proxy.links import target
from orchestrator.proxy.route import LinkRoute
from orchestrator.proxy.target import Routing

FILES = "/api/conversations/c/files"


@given(st.uuids(), st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES))
def test_a_token_is_read_back_from_a_path_and_from_a_host(id: uuid.UUID, secret: bytes) -> None:
    token = token_of(RuntimeId(str(id)), secret)
    assert len(token) == TOKEN_CHARACTERS
    assert len(HOST_PREFIX + token) <= 63
    assert token_read(token) == token_read(token.upper()) == (RuntimeId(str(id)), secret)
    by_host = Routing("example").destination(b"/a?b", f"{HOST_PREFIX}{token}.example:80".encode())
    by_path = Routing("example").destination(f"/links/{token}/a?b".encode(), b"nestor")
    assert by_host is not None
    assert by_path is not None
    assert by_host[:2] == by_path[:2] == (RuntimeId(str(id)), b"/a?b")
    assert by_host.link == by_path.link == secret
    assert (by_host.prefix, by_path.prefix) == (b"", f"/links/{token}".encode())


@given(st.text(max_size=70))
def test_what_is_no_token_is_nobodys(text: str) -> None:
    found = token_read(text)
    assert found is None or token_of(*found) == text.lower()


def test_a_link_has_one_spelling() -> None:
    token = token_of(RuntimeId("11111111-1111-4111-8111-111111111111"), bytes(SECRET_BYTES))
    spare = token[:25] + chr(ord(token[25]) + 1) + token[26:]  # the same bytes by base32, which has bits to spare there
    assert token_read(token) is not None
    assert token_read(spare) is None


@given(st.from_regex(r"/[!-\"$-~]*", fullmatch=True))
def test_a_link_stays_behind_what_it_names(asked: str) -> None:
    port = LinkRoute("", 1, 0, 3000, None, FILES)
    assert target(port, asked.encode()) == b"/api/ports/3000" + asked.encode()
    folder = LinkRoute("", 1, 0, None, "a b/c", FILES)
    path = target(folder, asked.encode()).partition(b"?")[0]
    named = FILES.encode() + b"/a%20b/c"
    assert path == named or path.startswith(named + b"/")
