"""Heads that are recognised by their bytes: never one that is not exactly what was read, and only whole requests."""

import pytest

from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.domain.secrets import SecretText
from orchestrator.proxy.familiar import FamiliarAnswers, FamiliarHeads
from orchestrator.proxy.head import Head, read_head
from orchestrator.proxy.headers import read_answer, request_head
from orchestrator.proxy.route import Route

LINES = b"\r\nHost: h\r\nX-Session-API-Key: k\r\n"
GET = b"GET /a HTTP/1.1" + LINES + b"\r\n"
POST = b"POST /a HTTP/1.1" + LINES + b"Content-Length: 3\r\n\r\n"
HEADERS = [(b"host", b"h"), (b"x-session-api-key", b"k")]


def learned(*blocks: tuple[bytes, Head]) -> FamiliarHeads:
    heads = FamiliarHeads()
    for raw, head in blocks:
        heads.learn(raw, head)
    return heads


@pytest.fixture
def heads() -> FamiliarHeads:
    return learned(
        (GET, read_head(b"GET", b"/a", "1.1", [*HEADERS])),
        (POST + b"abc", read_head(b"POST", b"/a", "1.1", [*HEADERS, (b"content-length", b"3")])),
    )


def test_another_request_line_before_the_same_lines(heads: FamiliarHeads) -> None:
    found = heads.recognise(GET.replace(b"GET /a", b"DELETE /b/c?d=%20"))
    assert found is not None
    head, body = found
    assert (head.method, head.target, head.session_key, body) == (b"DELETE", b"/b/c?d=%20", b"k", b"")


def test_a_body_that_is_all_there(heads: FamiliarHeads) -> None:
    found = heads.recognise(POST.replace(b"/a", b"/b") + b"xyz")
    assert found is not None
    assert (found[0].target, found[1]) == (b"/b", b"xyz")


@pytest.mark.parametrize(
    "data",
    [
        GET[:-1], GET + b"x", GET + GET, b"\r\n" + GET, POST + b"ab", POST + b"abcd", b"", b"\r\n\r\n", GET[16:],
        GET.replace(b"Host: h", b"host: h"), GET.replace(b": k", b": j"), GET.replace(b"\r\nX", b"\nX"),
        GET.replace(b"GET", b"get"), GET.replace(b"GET", b"CONNECT"), GET.replace(b"1.1", b"1.0"),
        GET.replace(b" /a ", b"  /a "), GET.replace(b"/a", b"a"), GET.replace(b"/a", b"http://h/a"),
        GET.replace(b"/a", b"/a#b"), GET.replace(b"/a", b"/a b"), GET.replace(b"/a", b"/\xe4"),
        GET.replace(b"/a", b"/\r"), GET.replace(b"/a", b"/\n"), GET.replace(b" HTTP", b"\tHTTP"),
        GET.replace(b"/a", b""), GET.replace(b"/a", b"*"),
    ],
)  # fmt: skip
def test_all_else_is_read_in_full(heads: FamiliarHeads, data: bytes) -> None:
    assert heads.recognise(data) is None


@pytest.mark.parametrize(
    ("version", "more"),
    [
        ("1.0", []),
        ("1.1", [(b"connection", b"close")]),
        ("1.1", [(b"transfer-encoding", b"chunked")]),
        ("1.1", [(b"expect", b"100-continue"), (b"content-length", b"3")]),
        ("1.1", [(b"connection", b"upgrade"), (b"upgrade", b"h2c")]),
    ],
)
def test_what_is_not_plain_is_not_kept(version: str, more: list[tuple[bytes, bytes]]) -> None:
    lines = b"".join(b"%b: %b\r\n" % line for line in [*HEADERS, *more])
    raw = b"GET /a HTTP/%b\r\n%b\r\n" % (version.encode(), lines)
    heads = learned((raw, read_head(b"GET", b"/a", version, [*HEADERS, *more])))
    assert not heads.blocks
    assert heads.recognise(raw) is None


def test_a_long_request_line_is_read_in_full_and_not_kept() -> None:
    heads = learned((GET, read_head(b"GET", b"/a", "1.1", [*HEADERS])))
    assert heads.recognise(GET.replace(b"/a", b"/" + b"a" * 400)) is not None
    assert heads.recognise(GET.replace(b"/a", b"/" + b"a" * 600)) is None


def test_a_head_that_does_not_begin_what_came_is_not_kept() -> None:
    assert not learned((b"\r\n" + GET, read_head(b"GET", b"/a", "1.1", [*HEADERS]))).blocks


def test_few_are_kept() -> None:
    heads = FamiliarHeads()
    for number in range(16):
        lines = [*HEADERS, (b"x", b"a %d" % number)]
        raw = b"GET /a HTTP/1.1" + LINES + b"x: a %d\r\n\r\n" % number
        heads.learn(raw, read_head(b"GET", b"/a", "1.1", lines))
    kept = [n for n in range(16) if heads.recognise(b"GET /a HTTP/1.1" + LINES + b"x: a %d\r\n\r\n" % n)]
    assert kept == [12, 13, 14, 15]


def test_who_never_says_the_same_twice_is_learned_from_now_and_then() -> None:
    heads, tried = FamiliarHeads(), 200
    for number in range(tried):
        heads.learn(
            b"GET /a HTTP/1.1" + LINES + b"x: a %d\r\n\r\n" % number,
            read_head(b"GET", b"/a", "1.1", [*HEADERS, (b"x", b"a %d" % number)]),
        )
    kept = [n for n in range(tried) if heads.recognise(b"GET /a HTTP/1.1" + LINES + b"x: a %d\r\n\r\n" % n)]
    assert len(kept) == 4
    assert kept[0] < tried - 32
    again = read_head(b"GET", b"/a", "1.1", [*HEADERS])
    heads.learn(GET, again)  # one was recognised meanwhile
    assert heads.recognise(GET) is not None


CHANGING = b"POST /a HTTP/1.1" + LINES + b"X-Request-Id: %b\r\nAccept: */*\r\nCookie: %b\r\nContent-Length: 3\r\n\r\n"


def strictly(raw: bytes) -> Head:
    """As the front reads it in full."""
    line, *lines = raw.partition(b"\r\n\r\n")[0].split(b"\r\n")
    method, target, _ = line.split(b" ")
    headers = [(name.lower(), value) for name, _, value in (one.partition(b": ") for one in lines)]
    return read_head(method, target, "1.1", headers)


def changing() -> FamiliarHeads:
    raws = [CHANGING % (b"first", b"a"), CHANGING % (b"second", b"b")]
    return learned(*((raw + b"abc", strictly(raw)) for raw in raws))


def test_values_that_change_with_each_request_are_the_requests_own() -> None:
    runtime, tenant, conversation = RuntimeId("r"), TenantId("t"), ConversationId("c")
    route = Route(runtime, tenant, conversation, 1, "127.0.0.1", 1, "", SecretText("inner"))
    heads = changing()
    for number in range(40):
        raw = (CHANGING % (b"id-%d:;=" % number, b"c%d" % number)).replace(b"/a", b"/b?%d" % number)
        found = heads.recognise(raw + b"xyz")
        assert found is not None
        head, body = found
        again = strictly(raw)
        assert (head.method, head.target, head.headers, body) == (b"POST", b"/b?%d" % number, again.headers, b"xyz")
        sent = request_head(head, head.target, route, with_key=True)
        assert sent == request_head(again, again.target, route, with_key=True)
        assert b"x-request-id: id-%d:;=\r\n" % number in sent
        assert b"cookie" not in sent


@pytest.mark.parametrize(
    "value",
    [
        b"", b" ", b"a ", b" a", b"a b", b"a\tb", b"\x80", b"a\0", b"\0000", b"a\r", b"a\n", b"a\rb: c", b"a\nb: c",
        b"a\r\nb: c", b"a\r\n b", b"a\r\n\r\n", b"a\r\nContent-Length: 3", b"\x7f", b"x" * 513,
    ],
)  # fmt: skip
def test_values_that_are_not_plain_are_read_in_full(value: bytes) -> None:
    heads = changing()
    assert heads.recognise(CHANGING % (value, b"c") + b"abc") is None
    assert heads.recognise(CHANGING % (b"c", value) + b"abc") is None
    assert heads.recognise(CHANGING % (b"c", b"d") + b"ab") is None
    assert heads.recognise(CHANGING % (b"c", b"d") + b"abc") is not None


@pytest.mark.parametrize(
    "name",
    [
        b"Host", b"Origin", b"X-Session-API-Key", b"Authorization", b"X-API-Key", b"X-Access-Token", b"Content-Length",
        b"Access-Control-Request-Method", b"X-Act-As-User", b"X_Act_As_User", b"Sec-WebSocket-Key",
    ],
)  # fmt: skip
def test_what_the_front_reads_may_not_change(name: bytes) -> None:
    lines = b"\r\nHost: h\r\n%b: %b\r\n\r\n" if name != b"Host" else b"\r\n%b: %b\r\n\r\n"
    raws = [b"GET /a HTTP/1.1" + lines % (name, value) for value in (b"1", b"2", b"3")]
    heads = learned(*((raw, strictly(raw)) for raw in raws[:2]))
    assert heads.recognise(raws[1] + b"12") if name == b"Content-Length" else heads.recognise(raws[1])
    assert heads.recognise(raws[2]) is None
    assert heads.recognise(raws[2] + b"123") is None


def test_another_line_is_no_other_value() -> None:
    raws = [b"GET /a HTTP/1.1" + LINES + line + b"\r\n\r\n" for line in (b"X-A: 1", b"X-B: 2", b"X-A: 1\r\nX-B: 2")]
    heads = learned(*((raw, strictly(raw)) for raw in raws))
    assert heads.recognise(raws[0].replace(b"A: 1", b"A: 3")) is None
    assert heads.recognise(raws[2].replace(b"A: 1", b"A: 3")) is None


@pytest.mark.parametrize(
    ("block", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2", True),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 2", True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked", False),
        (b"HTTP/1.1 200 OK", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2", False),
        (b"HTTP/1.1 302 Found\r\ncontent-length: 2\r\nlocation: /x", False),
        (b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2", False),
        (b"HTTP/1.1 409 Conflict\r\ncontent-length: 2", False),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 2", False),
    ],
)
def test_answers_that_depend_on_nothing_are_kept(block: bytes, kept: bool) -> None:
    answers = FamiliarAnswers()
    answers.learn(block, read_answer(block))
    assert (answers.get(block) is not None) is kept


def test_what_a_caller_must_not_see_is_in_neither_form() -> None:
    block = b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\nserver: s\r\nx-kept: 1\r\ncontent-length: 2"
    answers = FamiliarAnswers()
    answers.learn(block, read_answer(block))
    found = answers.get(block)
    assert found is not None
    assert found.plain == b"HTTP/1.1 200 OK\r\nx-kept: 1\r\ncontent-length: 2\r\n\r\n"
    assert b"content-security-policy: sandbox" in found.confined
    assert b"cookie" not in found.confined
