"""A header block of a client in which single values change with each request: a request's id, a trace.

Two blocks that the strict reading has accepted, and that differ in nothing but a few values which the front does not
read, make a stencil: the bytes between those values, and what a runtime gets to see of them. A third block with the
same bytes there and plain values in between means what the two meant, with its own values. Plain is a run of visible
ASCII: no reader of HTTP/1.1 sees an end of line, a fold or white space in it.
"""

import re
from dataclasses import replace

from orchestrator.proxy.head import READ, Head
from orchestrator.proxy.headers import passed_lines

_PLAIN = re.compile(rb"[\x21-\x7e]{1,512}")
_MOST_HOLES = 4
#: Not read with the head, but by those who decide about a request.
_DECIDED_BY = (b"access-control-", b"sec-websocket-", b"x-act-", b"x-nestor-")
_MARK = b"\0"  # in no value that the parser accepts


class Stencil:
    """Made by `of`. The same `Head` is given out each time: of one connection one request at a time is under way."""

    __slots__ = ("_gaps", "_head", "_holes", "_literals", "_parts", "length")

    def __init__(self, lines: list[bytes], head: Head, holes: list[int]) -> None:
        self.length = int(head.length or 0)  #: of the body
        self._holes = [(number, head.headers[number][0]) for number in holes]
        marked = b""
        for number, line in enumerate(lines):
            name, _, value = line.partition(b": ")
            marked += b"\r\n" + name + b": " + (_MARK if number in holes else value)
        self._literals = (marked + b"\r\n\r\n").split(_MARK)
        self._head = replace(head, headers=[*head.headers], passed=None)
        for order, (number, name) in enumerate(self._holes):
            self._head.headers[number] = (name, b"%b%d%b" % (_MARK, order, _MARK))
        # Every second part is the number of a hole. One that no runtime gets to see is not among them.
        self._parts = passed_lines(self._head).split(_MARK)
        self._gaps = [(place, int(self._parts[place])) for place in range(1, len(self._parts), 2)]

    @classmethod
    def of(cls, known: bytes, block: bytes, head: Head) -> "Stencil | None":
        """Of two blocks (from behind the request line to the empty line) that were accepted; `head` is that of the
        second. None if they differ in more than values that may."""
        lines, before = block.split(b"\r\n")[1:-2], known.split(b"\r\n")[1:-2]
        if len(lines) != len(before) or len(lines) != len(head.headers) or _MARK in block:
            return None
        holes = [number for number, line in enumerate(lines) if line != before[number]]
        if not 0 < len(holes) <= _MOST_HOLES:
            return None
        if not all(_may_vary(lines[number], before[number], head.headers[number]) for number in holes):
            return None
        return cls(lines, head, holes)

    def read(self, block: bytes) -> Head | None:
        """The head that `block` is, None if it is another one."""
        literals = self._literals
        first = literals[0]
        if not block.startswith(first):
            return None
        values, position = [], len(first)
        for literal in literals[1:]:
            end = block.find(b"\r\n", position)
            value = block[position:end]
            if not block.startswith(literal, end) or _PLAIN.fullmatch(value) is None:
                return None
            values.append(value)
            position = end + len(literal)
        if position != len(block):
            return None
        head, parts = self._head, self._parts
        for value, (number, name) in zip(values, self._holes, strict=True):
            head.headers[number] = (name, value)
        for place, hole in self._gaps:
            parts[place] = values[hole]
        head.passed = b"".join(parts)
        return head


def _may_vary(line: bytes, before: bytes, header: tuple[bytes, bytes]) -> bool:
    name, _, value = line.partition(b": ")
    name_before, _, value_before = before.partition(b": ")
    lower = name.lower()
    return (
        name == name_before
        and header == (lower, value)
        and _PLAIN.fullmatch(value) is not None
        and _PLAIN.fullmatch(value_before) is not None
        and lower not in READ
        and not lower.replace(b"_", b"-").startswith(_DECIDED_BY)
    )
