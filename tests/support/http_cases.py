"""Requests for the front that mean one thing, no thing or several things, made from a seed.

A case is what one client sends on one connection: some whole requests, of which at most one was tampered with. What is
tried are the known ways to make two readers disagree (framing said twice, folded lines, bare CR, games with chunks,
nominated and duplicated headers, pipelining) and random bytes changed anywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

FRAMING = (
    b"Content-Length: 3", b"Content-Length: 0", b"Content-Length: +3", b"Content-Length: 3, 3",
    b"Content-Length: 0x3", b"Content-Length: 003", b"Content-Length : 3", b"Content-Length:\t3",
    b"Content-Length: 3 ", b"content-length: 3\0", b"Content-Length: 18446744073709551619", b"Content-Length: ",
    b"Content-Length: -1", b"Content_Length: 3", b"Content-Length\t: 3", b" Content-Length: 3",
    b"X: y\nContent-Length: 3", b"X: y\rContent-Length: 3", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: CHUNKED", b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: identity",
    b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding: \x0cchunked", b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding: chunked\t", b"Transfer-Encoding : chunked", b"Transfer-Encoding: 'chunked'",
    b'Transfer-Encoding: "chunked"', b"Transfer-Encoding: ,chunked", b"Transfer-Encoding: chunked,",
    b"Transfer-Encoding: chunked;q=1", b"Transfer-Encoding:", b"Transfer_Encoding: chunked",
    b"Transfer-Encoding: x\r\n chunked", b"Transfer-Encoding:\r\n chunked", b"X: y\r\n\tTransfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked", b"Transfer-Encoding\0: chunked",
    b"\xa0Transfer-Encoding: chunked", b"Transfer-Encoding: chunk\xe9d", b"Transfer-Encoding: chunked\xa0",
)  # fmt: skip
LINES = (
    b"X: y\r\n folded", b"X: y\r\n\tfolded", b"X: y\r bare", b"X: y\rZ: w", b"X: y\nZ: w", b"X: y\r\n\rZ: w",
    b"X: a\0b", b"X\0Y: a", b"X Y: a", b"X : a", b"X\t: a", b": nameless", b"no colon", b" X: leading", b"X:",
    b"X:  ", b"X: \x7f", b"X: \x01", b"X: \xff\xfe", b"X\xff: y", b"X(: y", b"X: a:b", b"X: y\r\n\r", b"\r", b"\n",
    b"X: \t y \t ", b"Host: other", b"host: other", b"Host : other", b"X: y\rHost: other", b"Host_: x", b"Host: a@b",
    b"Host: a/b", b"Host: a b", b"Host:", b"Host: [::1]:80", b"Host: a:99999999", b"Host: a,b", b"Connection: close",
    b"Connection: keep-alive", b"Connection: X-Fuzz", b"Connection: x-fuzz, close", b"Connection: host",
    b"Connection: content-length", b"Connection: transfer-encoding", b"Connection: X-Session-API-Key",
    b"Connection: x-generation", b"Connection: authorization, cookie", b"Connection: ,x-fuzz ,", b"Connection:",
    b"Connection: \"x-fuzz\"", b"Connection: te", b"Connection: keep-alive\x0b", b"Connection: x-fuzz\tclose",
    b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive", b"Proxy-Connection: X-Fuzz", b"TE: trailers", b"TE: x",
    b"Trailer: X-Fuzz", b"Trailer: Content-Length", b"Upgrade: h2c", b"Upgrade: websocket",
    b"HTTP2-Settings: AAMAAABkAAQ", b"Connection: Upgrade\r\nUpgrade: h2c",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA",
    b"Connection: upgrade\r\nUpgrade: websocket", b"Connection: upgrade\r\nUpgrade: x, websocket",
    b"Expect: 100-continue", b"Expect: 100-Continue", b"Expect: x", b"Expect: 100-continue, x", b"Expect:",
    b"X-Session-API-Key: wrong", b"X_Session_API_Key: wrong", b"Authorization: Bearer x", b"Cookie: a=b",
    b"X-API-Key: k", b"X-Access-Token: t", b"X-Generation: 9", b"X_Generation: 9", b"X-Fence: 9",
    b"X-Init-API-Key: k", b"X_Init_Nonce: n", b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-Host: evil",
    b"X_Forwarded_Proto: https", b"Forwarded: for=x", b"X-Real-IP: 1.2.3.4", b"Via: 1.1 x",
    b"Proxy-Authorization: Basic x", b"X-Original-URL: /admin", b"Content-Type: text/plain", b"Accept-Encoding: gzip",
    b"Range: bytes=0-", b"Origin: null", b"X-Fuzz: two",
)  # fmt: skip
SIZES = (
    b"%x ", b" %x", b"0x%x", b"+%x", b"-%x", b"%x;", b"%x;a", b"%x;a=b", b'%x;a="b"', b'%x;a="b\r\n"', b"%x;a\rb",
    b"%x;a\nb", b"%x\t", b"%x\r", b"%x\n", b"000000%x", b"0000000000000000000%x", b"1000000000000000%x", b"%xg",
    b"%x,%x", b'%x ; a = "q"', b"%x;;", b"%x;=", b"%x;a=", b"%x;\xff", b"%x;\0", b"%x #", b"\r\n%x",
)  # fmt: skip
ENDS = (
    b"0\r\n", b"0\r\n\n", b"0\n\r\n", b"0\r\n\r", b"00\r\n\r\n", b"0;a\r\n\r\n", b"0\r\nX-T: v\r\n\r\n",
    b"0\r\nHost: t\r\n\r\n", b"0\r\nContent-Length: 9\r\n\r\n", b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"0\r\n X: y\r\n\r\n", b"0\r\nX : y\r\n\r\n", b"0\r\nX: y\r\n z\r\n\r\n", b"0\r\nX: y\rz\r\n\r\n",
    b"0\r\nX: y\n\r\n", b"0\r\nno colon\r\n\r\n", b"0 \r\n\r\n", b"-0\r\n\r\n", b"0x0\r\n\r\n", b"\r\n0\r\n\r\n",
    b"0\r\n\r\n\r\n", b"0\r\nX-Session-API-Key: t\r\n\r\n", b"", b"0\r\n: y\r\n\r\n", b"0\r\nX: \0\r\n\r\n",
)  # fmt: skip
BREAKS = (b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\r\n", b"\n\n", b" \r\n", b"\r\n ", b"\0", b"\x0b\r\n", b"")
STARTS = (
    b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"\0", b"\r\n\n", b"\xef\xbb\xbf", b"G",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)  # fmt: skip
METHODS = (b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"HEAD", b"OPTIONS")
ODD_METHODS = (
    b"CONNECT", b"TRACE", b"get", b"G", b"GE T", b"GET\t", b"", b"PRI", b"PROPFIND", b"SOURCE", b"BREW", b"DESCRIBE",
    b"M-SEARCH",
)  # fmt: skip
VERSIONS = (
    b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b"HTTP/1.1 ", b"HTTP/1.1\t", b"HTTP/01.1",
    b"HTTP/1.10", b"HTTP/1,1", b"HTTP /1.1", b"HTTP/ 1.1", b"HTTP/1", b"", b"HTTPS/1.1", b"RTSP/1.0", b"ICE/1.0",
    b"HTTP/1.1\r",
)  # fmt: skip
TARGETS = (
    b"http://h%b", b"//h%b", b"*", b"h:80", b"%b#f", b"%b x", b"%b\t", b"%b\xe9", b"%b\x7f", b"%b?", b"%b??a=?b",
    b"%b/../x", b"%b%%00", b"%b%%0d%%0aX:y", b"%b%%zz", b"%b\\x", b'%b"<>', b"%b|{}", b"%b;a=b",
    b"%b?session_api_key=k", b"%b\r", b"%b\n", b"?%b", b"%b/" + b"a" * 9000, b"/%b", b"%b/health", b"http:%b",
    b"%b:80",
)  # fmt: skip
PLAIN = (
    b"X-Fuzz: one", b"Accept: */*", b"User-Agent: fuzz/1", b"Content-Type: application/json", b"X-Empty:",
    b"X-Twice: a", b"X-Twice: b", b"Accept-Language: de;q=0.5, en", b"If-None-Match: \"abc\"", b"X-Latin: \xe4\xf6",
    b"X-Colons: a:b:c", b"Cookie: a=b", b"Authorization: Bearer token", b"X-Forwarded-For: 10.0.0.1",
    b"Connection: keep-alive", b"DNT: 1",
)  # fmt: skip
CHANGING = (b"X-Request-Id", b"traceparent")
#: In the place of a value that a client changes with each request.
VALUES = (
    b"", b" ", b"a b", b"a ", b" a", b"\ta", b"a\tb", b"\x80", b"a\xff", b"\0", b"a\0b", b"a\r", b"a\n", b"a\rb: c",
    b"\x7f", b"a\nContent-Length: 3", b"a\r\nContent-Length: 3", b"a\r\n b", b"a\r\nHost: g",
    b"a\r\n\r\nGET / HTTP/1.1", b"x" * 513, b"x" * 5000, b"a:b", b"a\r\nX-Session-API-Key: wrong",
    b"a\r\nConnection: close", b"a\x0b",
)  # fmt: skip


@dataclass
class Draft:
    """A request in parts, each of which can be tampered with."""

    method: bytes
    target: bytes
    lines: list[bytes]
    body: bytes = b""  #: as it goes over the wire
    version: bytes = b"HTTP/1.1"
    before: bytes = b""

    def wire(self) -> bytes:
        start = self.method + b" " + self.target + b" " + self.version
        return self.before + b"\r\n".join([start, *self.lines]) + b"\r\n\r\n" + self.body


@dataclass
class Case:
    """What one client sends. `at_once`: without waiting for answers; `cuts` are where it is cut into segments."""

    messages: list[bytes] = field(default_factory=list)
    at_once: bool = False
    tampered: bool = False
    cuts: list[int] = field(default_factory=list)


def make_case(random: Random, prefixes: tuple[bytes, ...], key: bytes) -> Case:
    """One case. `prefixes` are the beginnings of targets, `key` opens those that need one."""
    case = Case(at_once=random.random() < 0.3, tampered=random.random() < 0.85)
    count = random.choice((1, 1, 2, 3, 3))
    victim = random.randrange(count) if case.tampered else -1
    repeats = random.random() < 0.4  # clients repeat their lines, which a reader may recognise
    changing = random.randrange(1, 3) if repeats and random.random() < 0.5 else 0  # but for some values
    if changing:
        count += 2
        victim = random.randrange(count) if case.tampered else -1
    first: Draft | None = None
    for number in range(count):
        draft = _draft(random, random.choice(prefixes), key)
        if first is not None and repeats:
            draft = replace(draft, lines=[*first.lines], body=first.body)
        elif first is None:
            for name in CHANGING[:changing]:
                draft.lines.insert(random.randrange(len(draft.lines) + 1), name + b": first")
            first = replace(draft, lines=[*draft.lines])
        _change_values(random, draft, odd=number == victim)
        if number == victim:
            for _ in range(random.choice((1, 1, 1, 2, 3))):
                random.choices(TAMPERING, WEIGHTS)[0](random, draft)
        wire = draft.wire()
        if number == victim and random.random() < 0.25:
            wire = _scramble(random, wire)
        case.messages.append(wire)
    size = sum(map(len, case.messages))
    if random.random() < 0.4:
        case.cuts = sorted(random.randrange(size + 1) for _ in range(random.randrange(1, 5)))
    return case


def _change_values(random: Random, draft: Draft, *, odd: bool) -> None:
    for number, line in enumerate(draft.lines):
        name, _, _ = line.partition(b": ")
        if name in CHANGING:
            value = random.choice(VALUES) if odd and random.random() < 0.5 else b"%032x" % random.getrandbits(128)
            draft.lines[number] = name + b": " + value


def _draft(random: Random, prefix: bytes, key: bytes) -> Draft:
    path = prefix + random.choice((b"x", b"a/b%2Fc", b"x?limit=1&b=%20", b"", b"files/%E4/..%2f"))
    lines = [b"Host: h", b"X-Session-API-Key: " + key, *random.sample(PLAIN, random.randrange(5))]
    random.shuffle(lines)
    draft = Draft(random.choice(METHODS), path, lines)
    body = random.choice(
        (
            b"",
            b"abc",
            b"0\r\n\r\n",
            b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
            random.randbytes(random.randrange(2000)),
        )
    )
    kind = random.choice(("none", "length", "chunks"))
    if kind == "length":
        lines.insert(random.randrange(len(lines) + 1), b"Content-Length: %d" % len(body))
        draft.body = body
    elif kind == "chunks":
        lines.insert(random.randrange(len(lines) + 1), b"Transfer-Encoding: chunked")
        draft.body = _chunks(random, body) + b"0\r\n\r\n"
    return draft


def _chunks(random: Random, body: bytes) -> bytes:
    wire, position = b"", 0
    while position < len(body):
        size = random.randrange(1, len(body) - position + 1)
        wire += b"%x\r\n%b\r\n" % (size, body[position : position + size])
        position += size
    return wire


def _add_framing(random: Random, draft: Draft) -> None:
    draft.lines.insert(random.randrange(len(draft.lines) + 1), random.choice(FRAMING))


def _replace_framing(random: Random, draft: Draft) -> None:
    draft.lines = [line for line in draft.lines if not line.lower().startswith((b"content-length", b"transfer-enc"))]
    _add_framing(random, draft)


def _add_line(random: Random, draft: Draft) -> None:
    draft.lines.insert(random.randrange(len(draft.lines) + 1), random.choice(LINES))


def _drop_line(random: Random, draft: Draft) -> None:
    if draft.lines:
        draft.lines.pop(random.randrange(len(draft.lines)))


def _double_line(random: Random, draft: Draft) -> None:
    if draft.lines:
        draft.lines.insert(random.randrange(len(draft.lines) + 1), random.choice(draft.lines))


def _play_with_chunks(random: Random, draft: Draft) -> None:
    _replace_framing(random, draft)
    draft.lines[-1:] = [draft.lines[-1], *([b"Transfer-Encoding: chunked"] if random.random() < 0.5 else [])]
    if random.random() < 0.7:
        draft.lines = [
            line for line in draft.lines if not line.lower().startswith((b"content-length", b"transfer-enc"))
        ]
        draft.lines.append(b"Transfer-Encoding: chunked")
    data = random.choice((b"abc", b"0123456789abcdef", b"\r\n", b"0\r\n\r\n", b"x" * 300))
    size = random.choice(SIZES)
    said = size.replace(b"%x", b"%x" % (len(data) + random.choice((0, 0, 0, 1, -1))))
    draft.body = (
        said
        + b"\r\n"
        + data
        + random.choice((b"\r\n", b"\r\n", b"\r\n", *BREAKS))
        + random.choice((b"0\r\n\r\n", *ENDS))
    )


def _end_chunks(random: Random, draft: Draft) -> None:
    draft.lines = [line for line in draft.lines if not line.lower().startswith((b"content-length", b"transfer-enc"))]
    draft.lines.append(b"Transfer-Encoding: chunked")
    draft.body = _chunks(random, random.choice((b"", b"abc", b"x" * 200))) + random.choice(ENDS)


def _replace_method(random: Random, draft: Draft) -> None:
    draft.method = random.choice(ODD_METHODS)


def _replace_version(random: Random, draft: Draft) -> None:
    draft.version = random.choice(VERSIONS)


def _bend_target(random: Random, draft: Draft) -> None:
    draft.target = random.choice(TARGETS).replace(b"%b", draft.target).replace(b"%%", b"%")


def _begin_oddly(random: Random, draft: Draft) -> None:
    draft.before = random.choice(STARTS)


def _misstate_length(random: Random, draft: Draft) -> None:
    draft.lines = [line for line in draft.lines if not line.lower().startswith((b"content-length", b"transfer-enc"))]
    draft.lines.append(b"Content-Length: %d" % max(0, len(draft.body) + random.choice((-1, 1, 5, -7))))


def _break_lines(random: Random, draft: Draft) -> None:
    """Another line end in one place of the head."""
    number = random.randrange(len(draft.lines)) if draft.lines else 0
    if draft.lines:
        draft.lines[number] += random.choice(BREAKS) + random.choice(
            (b"", b"X-Hidden: 1", b"Content-Length: 3", b"Host: g")
        )


def _many_lines(random: Random, draft: Draft) -> None:
    draft.lines += [
        b"X-%d: %b" % (number, b"v" * random.choice((1, 200))) for number in range(random.choice((50, 101, 300)))
    ]


Tamper = Callable[[Random, Draft], None]
TAMPERING: tuple[Tamper, ...] = (
    _add_framing, _replace_framing, _add_line, _drop_line, _double_line, _play_with_chunks, _end_chunks,
    _replace_method, _replace_version, _bend_target, _begin_oddly, _misstate_length, _break_lines, _many_lines,
)  # fmt: skip
WEIGHTS = (14, 8, 20, 3, 3, 14, 8, 3, 3, 6, 3, 4, 6, 1)
_NASTY = b'\r\n\0\t :;,="\x0b\x0c\x7f\x85\xa0\xff0123456789abcdefx'


def _scramble(random: Random, wire: bytes) -> bytes:
    """Some bytes changed, put in or taken out, anywhere."""
    changed = bytearray(wire)
    for _ in range(random.choice((1, 1, 2, 4))):
        place = random.randrange(len(changed) + 1)
        match random.randrange(4):
            case 0:
                changed[place:place] = bytes([random.choice(_NASTY)])
            case 1:
                del changed[place : place + random.choice((1, 1, 2))]
            case 2:
                changed[place : place + 1] = bytes([random.choice(_NASTY)])
            case _:
                changed[place : place + 1] = random.randbytes(1)
    return bytes(changed)
