"""Heads that were read before, so that they need not be read again.

A client that keeps its connection repeats its header lines to the byte, and only the request line changes; a runtime
answers in few ways. Both are recognised by their raw bytes. What was accepted once by the strict reading (the parser,
`read_head`, `read_answer`) means the same the next time, whatever request line stands before it; anything else, be it
one byte that differs, is read in full, unless nothing differs but values that clients change with each request
(`stencil.py`). Blocks of a client are kept with its connection and go with it: its key is in
them, and nobody else's request is ever compared with them.
"""

import re
from functools import lru_cache

from orchestrator.proxy.head import Head
from orchestrator.proxy.headers import Answer, confine
from orchestrator.proxy.stencil import Stencil
from orchestrator.proxy.target import REMEMBERED_BYTES

_REQUEST_LINE = re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[\x21\x22\x24-\x7e]*) HTTP/1\.1")
_BLOCK_BYTES = 4096
_BLOCKS = 4  #: of one connection: a client has few kinds of requests
_STENCILS = 2
_PATIENCE = 16
_ANSWERS = 512
_READ_CLOSELY = frozenset({204, 304, 401, 409})  #: no body, or a meaning of their own for an exchange


@lru_cache(maxsize=2048)
def _read_line(line: bytes) -> tuple[bytes, bytes] | None:
    """Method and target of a plain request line. Clients say few, if they are asked to say where they begin anew."""
    shape = _REQUEST_LINE.fullmatch(line)
    return None if shape is None else (shape[1], shape[2])


class FamiliarHeads:
    """The header blocks of one connection."""

    __slots__ = ("_stencils", "_strangers", "blocks")

    def __init__(self) -> None:
        self.blocks: dict[bytes, tuple[Head, int]] = {}  #: with the length of the body
        self._stencils: list[Stencil] = []
        self._strangers = 0  # heads that were read in full since one was recognised

    def learn(self, raw: bytes, head: Head) -> None:
        """`raw` began with the bytes of `head`, which was accepted. Nothing is kept of one that is not plain."""
        self._strangers += 1
        if self._strangers > _PATIENCE and self._strangers % _PATIENCE:
            return  # a client that never says the same twice: learning would be for nothing
        line = b"%b %b HTTP/1.1" % (head.method, head.target)
        end = raw.find(b"\r\n\r\n") + 4
        plain = not (head.chunked or head.expects or head.upgrade) and head.version == "1.1" and head.keep_alive
        if not plain or not raw.startswith(line + b"\r\n") or end - len(line) > _BLOCK_BYTES:
            return
        block = raw[len(line) : end]
        stencil = next((made for known in self.blocks if (made := Stencil.of(known, block, head)) is not None), None)
        if stencil is not None:
            self._stencils = [stencil, *self._stencils[: _STENCILS - 1]]
        if len(self.blocks) >= _BLOCKS:
            del self.blocks[next(iter(self.blocks))]
        self.blocks[block] = head, int(head.length or 0)

    def recognise(self, data: bytes) -> tuple[Head, bytes] | None:
        """The head and the body if `data` is exactly one whole request whose header block is known.

        The same `Head` is given out each time, with another method and target: of one connection one request at a time
        is under way.
        """
        line_end = data.find(b"\r\n", 0, REMEMBERED_BYTES)
        if line_end < 0:
            return None
        # Most have no body; then the search for the end of the head is saved.
        known, body = self.blocks.get(data[line_end:]) if data.endswith(b"\r\n\r\n") else None, b""
        if known is None:
            end = data.find(b"\r\n\r\n", line_end) + 4
            block, body = data[line_end:end], data[end:]
            known = self.blocks.get(block) or self._read_by_stencil(block)
        if known is None or len(body) != known[1]:
            return None
        line = _read_line(data[:line_end])
        if line is None:
            return None
        self._strangers = 0
        head = known[0]
        head.method, head.target = line
        return head, body

    def _read_by_stencil(self, block: bytes) -> tuple[Head, int] | None:
        for stencil in self._stencils:
            if len(block) <= _BLOCK_BYTES and (head := stencil.read(block)) is not None:
                return head, stencil.length
        return None


class FamiliarAnswer:
    """The head of an answer that has a length: how long its body is, and what a client gets of it."""

    __slots__ = ("answer", "confined", "length", "plain")

    def __init__(self, answer: Answer, length: int) -> None:
        self.answer = answer
        self.length = length
        self.plain = _rendered(answer, answer.lines, length)
        self.confined = _rendered(answer, confine(answer.lines, b""), length)  #: for who came by path


class FamiliarAnswers:
    """The heads of answers, by their bytes, of all runtimes: what a head means does not depend on who says it."""

    __slots__ = ("_known", "get")

    def __init__(self) -> None:
        self._known: dict[bytes, FamiliarAnswer] = {}
        self.get = self._known.get

    def learn(self, block: bytes, answer: Answer) -> Answer:
        """`answer`, whose head without the empty line is `block`. Not kept: what depends on the request or on the
        connection."""
        if answer.length is None or not answer.reusable or answer.redirects or len(block) > _BLOCK_BYTES:
            return answer
        if answer.status < 200 or answer.status in _READ_CLOSELY:
            return answer
        if len(self._known) >= _ANSWERS:
            self._known.clear()
        self._known[block] = known = FamiliarAnswer(answer, answer.length)
        answer.rendered = known.plain, known.confined
        return answer


def _rendered(answer: Answer, lines: list[bytes], length: int) -> bytes:
    return b"\r\n".join([answer.status_line, *lines, b"content-length: %d\r\n\r\n" % length])
