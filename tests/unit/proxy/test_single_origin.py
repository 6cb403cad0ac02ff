"""Which requests on the API's own origin are an agent server's, and what of the caller's they mean."""

import hashlib

import pytest

from orchestrator.domain.ids import RuntimeId, new_uuid
from orchestrator.proxy.head import Head
from orchestrator.proxy.single_origin import Claim
from orchestrator.proxy.target import Destination, Routing
from orchestrator.security.session_keys import mint_session

ID = "0c7f6b0e-5f0e-4d50-9a06-6c5a7a1d8a11"
KEY = b"nst_tenant_some-key"


def found(
    target: str, *headers: tuple[bytes, bytes], key: bytes | None = KEY, method: str = "GET", websocket: bool = False
) -> Destination | None:
    head = Head(
        method.encode(), target.encode(), "1.1", list(headers), b"nestor.test", session_key=key, websocket=websocket
    )
    return Routing().destination(head.target, head.host, head)


def claimed(target: str, method: str = "GET") -> str | None:
    """The conversation that is claimed, `home`, or None where the application answers."""
    there = found(target, method=method)
    if there is None:
        return None
    assert isinstance(there.runtime, Claim)
    assert there.target == target.encode()
    return there.runtime.place.conversation or "home"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", f"/api/conversations/{ID}"),
        ("PATCH", f"/api/conversations/{ID}"),
        ("GET", f"/api/conversations/{ID.replace('-', '')}/events/search?limit=3"),
        ("POST", f"/api/conversations/{ID.upper()}/run"),
        ("GET", f"/api/conversations/{ID}/workspace/a%2Fb"),
    ],
)
def test_a_conversation_s_own_paths_are_its_runtime_s(method: str, target: str) -> None:
    assert claimed(target, method) == ID


@pytest.mark.parametrize(
    "target", ["/api/bash/execute_bash_command", "/api/file/download?path=/a", "/api/git/changes", "/api/settings"]
)
def test_what_names_no_conversation_is_home(target: str) -> None:
    assert claimed(target) == "home"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/api/conversations"),
        ("GET", "/api/conversations/search"),
        ("GET", "/api/conversations/count"),
        ("DELETE", f"/api/conversations/{ID}"),
        ("POST", f"/api/conversations/{ID}/stop"),
        ("GET", f"/api/conversations/{ID}/trajectory"),
        ("GET", "/api/conversations/not-an-id/events"),
        ("PATCH", "/api/settings"),
        ("POST", "/api/settings"),
        ("GET", "/api/secrets"),
        ("GET", "/api/v1/sandboxes"),
        ("GET", f"/api/v2/conversations/{ID}"),
        ("GET", "/api/bashful"),
        ("GET", "/health"),
    ],
)
def test_the_application_answers_the_rest(method: str, target: str) -> None:
    assert claimed(target, method) is None


def test_another_header_is_another_dialect() -> None:
    target = f"/api/conversations/{ID}/events"
    assert found(target, key=None) is None
    assert found(target, (b"authorization", b"Bearer x")) is None
    assert found(target, (b"x-access-token", b"x")) is None
    assert found(target, (b"authorization", b"Basic x")) is not None


def test_a_session_key_leads_to_its_runtime_whatever_the_path_names() -> None:
    runtime = RuntimeId(new_uuid())
    key = mint_session(runtime).open().encode()
    for target in (f"/api/conversations/{ID}", "/api/bash/x", "/api/conversations", "/api/settings", "/api/anything"):
        assert found(target, key=key, method="POST") == Destination(runtime, target.encode())
    assert found(f"/api/v1/sandboxes/{ID}/settings/secrets", key=key) is None
    assert found("/health", key=key) is None


def test_a_socket_is_told_by_its_path_and_may_say_its_key_later() -> None:
    target = f"/sockets/events/{ID}"
    later = found(target, key=None, websocket=True)
    assert later is not None
    assert (later.runtime, later.place and later.place.conversation) == (None, ID)
    head = Head(b"GET", target.encode(), "1.1", [(b"x-act-as-user", b"u")])
    opened = later.opened_by(KEY, head)
    assert isinstance(opened.runtime, Claim)
    assert (opened.runtime.acts_for, opened.place) == ("u", None)
    asked = found(f"{target}?session_api_key=a%20b", key=None, websocket=True)
    assert asked is not None
    assert isinstance(asked.runtime, Claim)
    assert asked.runtime.key.open() == "a b"
    assert found("/api/v2/conversations/x/events/socket", key=None, websocket=True) is None


def test_a_claim_shows_no_key_and_is_its_caller_s_alone() -> None:
    there, again = found("/api/bash/x"), found("/api/bash/y")
    assert there is not None
    assert again is not None
    claim = there.runtime
    assert isinstance(claim, Claim)
    assert "some-key" not in f"{claim} {claim!r} {there!r}"
    assert claim.digest == hashlib.sha256(KEY).hexdigest()
    assert claim == again.runtime
    others = [
        found("/api/bash/x", key=b"k"),
        found("/api/bash/x", (b"x-act-as-user", b"u")),
        found(f"/api/conversations/{ID}"),
    ]
    assert len({claim, *(other.runtime for other in others if other is not None)}) == 4
