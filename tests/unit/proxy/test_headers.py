"""What passes between a caller and a runtime."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.domain.secrets import SecretText
from orchestrator.proxy.head import BadHead, read_head
from orchestrator.proxy.headers import (
    BadAnswer,
    confine,
    for_runtime,
    localise,
    read_answer,
    request_head,
    request_lines,
)
from orchestrator.proxy.route import Route

ROUTE = Route(RuntimeId("r"), TenantId("t"), ConversationId("c"), 4, "127.0.0.1", 1, "hash", SecretText("s3cr3t"))
FORBIDDEN = [
    b"authorization", b"cookie", b"x-session-api-key", b"x-api-key", b"x-access-token", b"x-generation", b"x-fence",
    b"x-init-api-key", b"x-init-nonce", b"proxy-authorization", b"proxy-x", b"forwarded", b"x-forwarded-for",
    b"x-forwarded-host", b"x-forwarded-anything", b"x-real-ip", b"connection", b"keep-alive", b"te", b"trailer",
    b"transfer-encoding", b"upgrade", b"content-length", b"x_session_api_key", b"x-session_api-key", b"x_forwarded_for",
]  # fmt: skip
TOKEN = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20).map(str.encode)
VALUE = st.binary(max_size=30).map(lambda data: bytes(byte for byte in data if 0x21 <= byte <= 0x7E))
HEADERS = st.lists(st.tuples(st.one_of(TOKEN, st.sampled_from(FORBIDDEN)), VALUE), max_size=20)


def names(lines: list[bytes]) -> set[bytes]:
    return {line.partition(b":")[0].lower().replace(b"_", b"-") for line in lines}


@given(HEADERS, st.frozensets(TOKEN, max_size=3))
def test_no_forbidden_or_nominated_header_reaches_a_runtime_and_all_others_do(
    headers: list[tuple[bytes, bytes]], nominated: frozenset[bytes]
) -> None:
    lines = for_runtime(headers, nominated)
    assert not names(lines) & ({name.replace(b"_", b"-") for name in FORBIDDEN})
    assert not {line.partition(b":")[0].replace(b"_", b"-") for line in lines} & nominated
    harmless = [
        (name, value)
        for name, value in headers
        if (plain := name.replace(b"_", b"-")) not in nominated
        and plain not in FORBIDDEN
        and not plain.startswith((b"x-forwarded-", b"proxy-", b"x-init-"))
        and plain not in (b"expect", b"via", b"cookie2", b"http2-settings")
    ]
    assert lines == [name + b": " + value for name, value in harmless]


@given(HEADERS)
def test_a_runtime_sees_exactly_one_key_and_it_is_the_inner_one(headers: list[tuple[bytes, bytes]]) -> None:
    kept = [
        (name, value)
        for name, value in headers
        if name not in (b"connection", b"upgrade", b"host", b"transfer-encoding")
    ]
    unique = list(dict(kept).items())
    head = read_head(
        b"GET", b"/x", "1.1", [(b"host", b"h"), *[(n, b"0" if n == b"content-length" else v) for n, v in unique]]
    )
    lines = request_lines(head, b"/x", ROUTE, with_key=True)
    assert [line for line in lines if line.startswith(b"x-session-api-key")] == [b"x-session-api-key: s3cr3t"]
    assert [line for line in lines if line.startswith(b"x-generation")] == [b"x-generation: 4"]
    assert not [
        line for line in request_lines(head, b"/x", ROUTE, with_key=False) if line.startswith(b"x-session-api-key")
    ]


@pytest.mark.parametrize("attack", [b"host", b"x-session-api-key", b"x-generation"])
def test_what_we_say_cannot_be_nominated_away(attack: bytes) -> None:
    head = read_head(b"GET", b"/", "1.1", [(b"host", b"h"), (b"connection", b"close, " + attack)])
    assert {b"host", b"x-generation", b"x-session-api-key"} <= names(
        request_lines(head, b"/", ROUTE, with_key=True)[1:]
    )


def test_the_body_is_announced_as_it_came() -> None:
    base = [(b"host", b"h")]
    for extra, line in (
        ((b"content-length", b"12"), b"content-length: 12"),
        ((b"transfer-encoding", b"Chunked"), b"transfer-encoding: chunked"),
    ):
        block = request_head(read_head(b"POST", b"/", "1.1", [*base, extra]), b"/x", ROUTE, with_key=False)
        assert block.startswith(b"POST /x HTTP/1.1\r\nhost: h\r\n" + line + b"\r\n")
        assert block.endswith(b"\r\n\r\n")


def test_the_key_is_in_no_repr() -> None:
    assert "s3cr3t" not in repr(ROUTE)


@pytest.mark.parametrize(
    "block",
    [
        b"", b"HTTP/2 200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 600 X", b"HTTP/1.1  200 OK", b"ICY 200 OK",
        b"HTTP/1.1 200 OK\r\nA : b", b"HTTP/1.1 200 OK\r\nA\r\nB: c", b"HTTP/1.1 200 OK\r\n: b",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c", b"HTTP/1.1 200 OK\r\nA: b\nC: d", b"HTTP/1.1 200 OK\r\nA: b\rC: d",
        b"HTTP/1.1 200 OK\r\nA: b\0", b"HTTP/1.1 200 O\nK",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1", b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1",
        b"HTTP/1.1 200 OK\r\nContent-Length: ", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ],
)  # fmt: skip
def test_an_answer_with_two_readings_is_none(block: bytes) -> None:
    with pytest.raises(BadAnswer):
        read_answer(block)


@given(st.lists(st.tuples(st.one_of(TOKEN, st.sampled_from([b"Set-Cookie", b"Server", b"X-Session-API-Key"])), VALUE)))
def test_an_answer_keeps_its_lines_in_order_but_for_what_is_not_for_callers(pairs: list[tuple[bytes, bytes]]) -> None:
    special = {b"connection", b"content-length", b"transfer-encoding", b"te", b"upgrade", b"trailer", b"keep-alive"}
    pairs = [(name, value) for name, value in pairs if name.lower() not in special]
    answer = read_answer(b"\r\n".join([b"HTTP/1.1 200 OK", *[name + b": " + value for name, value in pairs]]))
    hidden = {b"set-cookie", b"set-cookie2", b"server", b"x-session-api-key", b"x-generation", b"x-fence"}
    assert answer.lines == [name + b": " + value for name, value in pairs if name.lower() not in hidden]


@pytest.mark.parametrize(
    ("block", "reusable"),
    [
        (b"HTTP/1.1 200 OK", True),
        (b"HTTP/1.0 200 OK", False),
        (b"HTTP/1.1 200 OK\r\nConnection: Close", False),
        (b"HTTP/1.1 200 OK\r\nConnection: x, close", False),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive", True),
    ],
)
def test_whether_a_connection_may_be_used_again(block: bytes, reusable: bool) -> None:
    assert read_answer(block).reusable is reusable


def test_a_page_reached_by_path_gets_an_origin_of_its_own() -> None:
    lines = confine([b"Content-Security-Policy: default-src *", b"X-Content-Type-Options: x", b"A: b"], b"/runtimes/i")
    assert lines == [b"A: b", b"content-security-policy: sandbox", b"x-content-type-options: nosniff"]


@pytest.mark.parametrize(
    ("location", "path", "prefixed"),
    [
        (b"http://h:1/a/?b", b"/a/?b", b"/runtimes/i/a/?b"),
        (b"https://H:1/a", b"/a", b"/runtimes/i/a"),
        (b"/a", b"/a", b"/runtimes/i/a"),
        (b"a", b"a", b"a"),
        (b"//other/a", b"//other/a", b"//other/a"),
        (b"http://h:1//other/a", b"http://h:1//other/a", b"http://h:1//other/a"),
        (b"https://other/a", b"https://other/a", b"https://other/a"),
    ],
)
def test_redirects(location: bytes, path: bytes, prefixed: bytes) -> None:
    local = localise([b"Location: " + location], b"h:1")
    assert [line.partition(b": ")[2] for line in local] == [path]
    assert confine(local, b"/runtimes/i")[0].partition(b": ")[2] == prefixed


@pytest.mark.parametrize("host", [b"h", b"h:1", b"a-b.c_d:65535", b"[::1]:80", b"127.0.0.1"])
def test_hosts_that_are_hosts(host: bytes) -> None:
    assert read_head(b"GET", b"/", "1.1", [(b"host", host)]).host == host


@pytest.mark.parametrize("host", [b"", b"a b", b"a/b", b"a@b", b"a:b", b"a:", b"a,b", b"[::1", b"\xe9"])
def test_hosts_that_are_none(host: bytes) -> None:
    with pytest.raises(BadHead):
        read_head(b"GET", b"/", "1.1", [(b"host", host)])


def test_bearer_beside_a_session_key_is_legal() -> None:
    head = read_head(
        b"GET", b"/", "1.1", [(b"host", b"h"), (b"authorization", b"Bearer a"), (b"x-session-api-key", b"s")]
    )
    assert head.session_key == b"s"
