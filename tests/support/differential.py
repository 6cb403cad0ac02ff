"""The front against the reference: what arrives behind it has to be what the client's bytes strictly say.

`scripts/soak proxy --cases 100000 --seed 1 [--plane nginx]`. A case is a client of one connection (`http_cases`).
Behind the front are a runtime and the API, which answer each request with a digest of what they understood. A
difference is: a request seen that the reference does not read there, or reads otherwise; an answer to somebody else's
request; nonsense that does not end the connection; a plain request that is not served.

Behind nginx the reference is what nginx understands (`nginx_http`), and some of what it writes anew is not compared:
the order of lines, how a body is framed, names that it drops.
"""

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, cast

from orchestrator.proxy.limits import FrontLimits
from orchestrator.proxy.route import Route
from support import nginx_http, strict_http
from support.front_rig import INNER_KEY, SESSION_KEY, Rig
from support.http_cases import Case, make_case
from support.strict_http import Malformed, Message, read_answer

HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade http2-settings".split()
)
NOT_FOR_RUNTIMES = HOP_BY_HOP | frozenset(
    b"authorization cookie cookie2 x-session-api-key x-api-key x-access-token x-generation x-fence forwarded x-real-ip "
    b"via content-length expect".split()
)
PREFIXES = (b"x-forwarded-", b"proxy-", b"x-init-")
#: What nginx puts in the place of what was said, on the way to the front or to a runtime.
BY_NGINX = frozenset(b"connection keep-alive te upgrade expect transfer-encoding content-length host".split())
#: nginx knows no families of names, so their members are named to it; another one (a typo) arrives.
_TO_RUNTIME = (Path(__file__).parents[2] / "deploy/nginx/to_runtime.conf").read_bytes()
NAMED_TO_NGINX = frozenset(re.findall(rb'^proxy_set_header (\S+) "";', _TO_RUNTIME, re.MULTILINE))
PLAIN_NAME = re.compile(rb"[a-z0-9-]+")
OPEN = frozenset((b"/health", b"/alive", b"/ready", b"/server_info"))
#: A stalled head or body is answered 408 after this; so the cases that end in the middle of something come to an end.
STALL_SECONDS = 0.5
DEADLINE_SECONDS = 20.0
Seen = tuple[Any, ...]
Read = Callable[[bytes], Message | None]


class Difference(Exception):
    """What the front did is not what the bytes say."""


@dataclass
class Place:
    """One client at a time, with a runtime of its own: so what arrives is known to be of the present case."""

    route: Route
    prefixes: tuple[bytes, ...]
    address: str  #: of its client
    seen: list[Seen] = field(default_factory=list)
    garbage: list[str] = field(default_factory=list)
    before: list[Seen | None] = field(default_factory=list)  #: what the clients before this one said, as it is compared


def digest(seen: Seen) -> bytes:
    return hashlib.sha256(repr(seen).encode()).hexdigest().encode()


def framing(message: Message) -> str:
    return "chunks" if message.chunked else "length" if message.values(b"content-length") else "none"


def for_runtime(message: Message, place: Place, *, first_key: bool = False) -> Seen | None:
    """What a runtime has to see of a request, None if it must not see it by the rules of headers. Of two keys the first
    counts for nginx, the front refuses them; neither arrives. Of several `Connection` lines nginx knows the first."""
    method, target, version = message.start
    name, slash, _ = target[len(b"/runtimes/") :].partition(b"?")[0].partition(b"/")
    if name.replace(b"-", b"").lower() != place.route.runtime.replace("-", "").encode():
        return None  # ids are accepted in any case, with and without dashes
    path = (b"" if slash else b"/") + target[len(b"/runtimes/" + name) :]
    keys = message.values(b"x-session-api-key")
    plain = path.partition(b"?")[0]
    if method == b"OPTIONS" and message.values(b"origin") and message.values(b"access-control-request-method"):
        return None  # the front answers preflights
    right = (keys[:1] if first_key else keys) == [SESSION_KEY.encode()]
    if not right and not (plain in OPEN and method in (b"GET", b"HEAD")):
        return None
    said = message.values(b"connection")
    connection = b",".join(said[:1] if first_key else said)
    nominated = {token.strip().lower() for token in connection.split(b",")} - {b"close", b"upgrade", b"host"}
    lines = []
    for name, value in message.headers:
        plain_name = name.replace(b"_", b"-")
        if plain_name not in NOT_FOR_RUNTIMES | nominated and not plain_name.startswith(PREFIXES):
            lines.append((name, value))
    if not message.values(b"host"):
        lines.append((b"host", b"runtime"))
    if version == b"1.1" and [value.lower() for value in message.values(b"expect")] == [b"100-continue"]:
        lines.append((b"expect", b"100-continue"))
    lines.append((b"x-generation", b"%d" % place.route.generation))
    if right:
        lines.append((b"x-session-api-key", INNER_KEY.encode()))
    return ("runtime", method, path, tuple(lines), framing(message), message.body)


def for_api(message: Message) -> Seen:
    method, target, _ = message.start
    path, mark, query = target.partition(b"?")  # an empty query is none in ASGI
    return ("api", method, path + mark + query if query else path, tuple(message.headers), message.body)


def expected(message: Message, place: Place, *, first_key: bool = False) -> Seen | None:
    to_runtime = message.start[1].startswith(b"/runtimes/")
    return for_runtime(message, place, first_key=first_key) if to_runtime else for_api(message)


class EchoRuntime(asyncio.Protocol):
    """A runtime that reads as strictly as the reference, and answers with a digest of what it read."""

    def __init__(self, place: Place, among: "set[EchoRuntime]") -> None:
        self.place = place
        self.among = among
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.among.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.among.discard(self)

    def data_received(self, data: bytes) -> None:
        self.data += data
        try:
            while (message := strict_http.read_request(self.data)) is not None and message.complete:
                self.data = self.data[message.size :]
                self.answer(message)
        except Malformed as bad:
            self.place.garbage.append(str(bad))
            self.transport.abort()
        else:
            if message is not None and (message.fault or message.trailers):
                self.place.garbage.append(message.fault or "trailers")

    def answer(self, message: Message) -> None:
        lines = [line for line in message.headers if line[0] not in (b"content-length", b"transfer-encoding")]
        method, target, _ = message.start
        seen = ("runtime", method, target, tuple(lines), framing(message), message.body)
        self.place.seen.append(seen)
        told = digest(seen)
        if told[0] < ord("8"):
            body, kind = told, b"content-length: %d" % len(told)
        else:
            body, kind = b"20\r\n%b\r\n20\r\n%b\r\n0\r\n\r\n" % (told[:32], told[32:]), b"transfer-encoding: chunked"
        self.transport.write(b"HTTP/1.1 200 OK\r\n" + kind + b"\r\n\r\n" + (b"" if method == b"HEAD" else body))


@dataclass
class Told:
    """What a client was answered, and whether its connection was closed."""

    answers: list[Message] = field(default_factory=list)
    closed: bool = False

    @property
    def refused(self) -> bool:
        """An answer after which the connection has to end."""
        return any(answer.start[0] not in (b"200", b"401", b"404") for answer in self.answers)


class Differential:
    """The front with its runtimes, and how one case is judged."""

    def __init__(self, seed: int, plane: str = "embedded") -> None:
        self.seed = seed
        self.rig = Rig(plane)
        self.nginx = plane == "nginx"
        self.read = nginx_http.read_request if self.nginx else strict_http.read_request
        self.counts: Counter[str] = Counter()
        self.places: asyncio.Queue[Place] = asyncio.Queue()
        self.by_address: dict[str, Place] = {}
        self._servers: list[asyncio.Server] = []
        self._runtimes: set[EchoRuntime] = set()

    async def open(self, clients: int) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:  # uvicorn takes a bound method for an older ASGI
            try:
                await self._api(scope, receive, send)
            except RuntimeError as exc:  # the front took the connection from under a request that it had accepted
                place = self.by_address.get(scope["client"][0])
                if place is not None:
                    place.garbage.append(str(exc))

        self.rig.app = app
        stall = STALL_SECONDS * (6 if self.nginx else 1)  # nginx does not say that it was too slow: it hangs up
        limits = FrontLimits(head_seconds=stall, body_idle_seconds=stall, idle_seconds=stall)
        await self.rig.open(limits)
        for number in range(clients):
            place = Place.__new__(Place)
            server = await asyncio.get_running_loop().create_server(
                lambda place=place: EchoRuntime(place, self._runtimes), "127.0.0.1", 0
            )
            self._servers.append(server)
            route = self.rig.publish(server.sockets[0].getsockname()[1], generation=7)
            prefixes, address = (f"/runtimes/{route.runtime}/".encode(), b"/echo/"), f"127.77.0.{number + 1}"
            place.__init__(route, prefixes, address)  # type: ignore[misc]
            self.by_address[address] = place
            self.places.put_nowait(place)

    async def close(self) -> None:
        await self.rig.close()
        for server in self._servers:
            server.close()
        for runtime in list(self._runtimes):
            runtime.transport.abort()
        for server in self._servers:
            await server.wait_closed()
        while self._runtimes:
            await asyncio.sleep(0.01)

    async def run(self, cases: int, first: int = 0) -> None:
        """Raises `Difference` for the first case that shows one; its number makes it again."""
        numbers = iter(range(first, first + cases))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self.places.qsize()):
                tasks.create_task(self._client(numbers, self.places.get_nowait()))

    async def _client(self, numbers: Any, place: Place) -> None:
        for number in numbers:
            random = Random(f"{self.seed}:{number}")
            case = make_case(random, place.prefixes, SESSION_KEY.encode())
            try:
                await self._case(case, place)
            except (Difference, TimeoutError) as exc:
                lines = [f"case {number} of seed {self.seed}: {exc or 'no end'}", *map(repr, case.messages)]
                raise Difference("\n".join([*lines, f"at once: {case.at_once}, seen: {place.seen}"])) from exc

    async def _case(self, case: Case, place: Place) -> None:
        place.seen.clear()
        place.garbage.clear()
        own = (place.address, 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.rig.port, local_addr=own)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                sent, told = await self._talk(case, reader, writer)
            self._judge(case, place, sent, told)
        finally:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _talk(self, case: Case, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[bytes, Told]:
        """Send the messages; wait for what the reference says is due, or for the end."""
        sent, got = b"", b""
        steps = [b"".join(case.messages)] if case.at_once else case.messages
        told = Told()
        for step in steps:
            at = len(sent)
            bounds = [0, *(cut - at for cut in case.cuts if at < cut < at + len(step)), len(step)]
            for start, end in itertools.pairwise(bounds):
                if not writer.transport.is_closing():
                    writer.write(step[start:end])
                await asyncio.sleep(0)
            sent += step
            messages, state = reading(sent, self.read)
            while not told.closed and (state != "whole" or len(told.answers) < len(messages) or told.refused):
                if state == "partial" and step is not steps[-1]:
                    break
                try:
                    piece = await reader.read(65536)
                except ConnectionError:
                    piece = b""
                told.closed = not piece
                got += piece
                told.answers = answers(got, messages, ended=told.closed)
            if told.closed:
                break
        return sent, told

    def _judge(self, case: Case, place: Place, sent: bytes, told: Told) -> None:
        messages, state = reading(sent, self.read)
        wanted = [expected(message, place, first_key=self.nginx) for message in messages]
        if place.garbage:
            raise Difference(f"what is behind was hurt: {place.garbage}")
        seen_by = {digest(seen): self._compared(seen) for seen in place.seen}
        wanted = [self._compared(want) for want in wanted]
        if self.nginx:  # what it passes on may arrive after its client was answered, or had gone
            seen_by = {key: seen for key, seen in seen_by.items() if seen in wanted or seen not in place.before}
            place.before = [*place.before[-40:], *wanted]
        left = iter(wanted)
        for seen in seen_by.values():
            if seen not in left:
                raise Difference(f"seen and not said: {seen}; said: {wanted}")
        if len(told.answers) > len(messages) + 1:
            raise Difference(f"more answers than requests: {told.answers}")
        served = 0
        for number, answer in enumerate(told.answers):
            want = wanted[number] if number < len(wanted) else None
            if answer.start[0] == b"200":
                if want is None or want not in seen_by.values():
                    raise Difference(f"answer {number} is to no request: {answer}")
                if messages[number].start[0] != b"HEAD" and seen_by.get(answer.body) != want:
                    raise Difference(f"answer {number} is another's")
                served += 1
        if state == "malformed" and not told.closed:
            raise Difference("nonsense did not end the connection")
        if not case.tampered and served < (1 if case.at_once else len(messages)):
            raise Difference(f"a plain request was not served: {[answer.start for answer in told.answers]}")
        if self.nginx:
            strict = len(reading(sent)[0])
            if served > strict:
                self.counts["requests served that nginx alone understands"] += served - strict
                self.counts[f"  after: {fault_of(sent)}"] += 1
        self.counts["cases"] += 1
        self.counts["requests served"] += served
        self.counts["requests read by the reference"] += len(messages)
        self.counts[f"cases that end {state}"] += 1
        if not case.tampered:
            self.counts["plain cases"] += 1
        elif state == "whole" and served == len(messages):
            self.counts["tampered cases served whole"] += 1
        elif told.closed:
            self.counts["tampered cases refused and closed"] += 1

    def _compared(self, seen: Seen | None) -> Seen | None:
        """What of a request is compared: behind nginx not what nginx writes anew."""
        if not self.nginx or seen is None:
            return seen
        where, method, target, lines, *_, body = seen
        kept = [
            (name, value)
            for name, value in lines
            if name not in BY_NGINX and PLAIN_NAME.fullmatch(name)
            if not name.startswith(PREFIXES) or name in NAMED_TO_NGINX
        ]
        return (where, method, target, tuple(sorted(kept)), body)

    async def _api(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await receive()
            await send({"type": "websocket.close"})
            return
        body, more = b"", True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            body += event.get("body", b"")
            more = event.get("more_body", False)
        query = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        seen = ("api", scope["method"].encode(), target, tuple(tuple(line) for line in scope["headers"]), body)
        place = self.by_address.get(scope["client"][0])
        if place is not None:
            place.seen.append(seen)
        told = digest(seen)
        length = (b"content-length", b"%d" % len(told))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": told})


def reading(sent: bytes, read: Read = strict_http.read_request) -> tuple[list[Message], str]:
    """The whole requests of a connection by the reference, and how it ends: whole, partial, or malformed."""
    messages: list[Message] = []
    while sent:
        try:
            message = read(sent)
        except Malformed:
            return messages, "malformed"
        if message is None or not message.complete:
            return messages, "malformed" if message is not None and message.fault else "partial"
        messages.append(message)
        sent = sent[message.size :]
        said = message.values(b"connection")
        if read is not strict_http.read_request:  # of several lines the last one counts for nginx
            said = [value for value in said if b"close" in value.lower() or b"keep-alive" in value.lower()][-1:]
        tokens = {token.strip().lower() for value in said for token in value.split(b",")}
        if b"close" in tokens or (message.start[2] == b"1.0" and b"keep-alive" not in tokens):
            break
    return messages, "whole"


def fault_of(sent: bytes) -> str:
    """The first thing in it that means nothing by the letter, in few words."""
    for whole in reading(sent)[0]:
        sent = sent[whole.size :]
    try:
        rest = strict_http.read_request(sent)
    except Malformed as bad:
        return " ".join(str(bad).split()[:2] if str(bad).startswith("field") else [str(bad)])
    return rest.fault if rest is not None and rest.fault else "another end"


def answers(got: bytes, messages: list[Message], *, ended: bool) -> list[Message]:
    found: list[Message] = []
    while got:
        to_head = len(found) < len(messages) and messages[len(found)].start[0] == b"HEAD"
        try:
            answer = read_answer(got, to_head=to_head, ended=ended)
            if answer is not None and to_head and answer.start[0] != b"200":
                rest = got[answer.size :]  # a refusal of the connection does not look at the method
                answer.size = len(got) if rest.startswith(b"{") else answer.size
        except Malformed as bad:
            raise Difference(f"an answer that is none: {bad}: {got[:300]!r}") from bad
        if answer is None or not answer.complete:
            break
        found.append(answer)
        got = got[answer.size :]
    return found


async def differ(
    cases: int, seed: int, *, clients: int = 24, first: int = 0, plane: str = "embedded"
) -> dict[str, int]:
    """Run that many cases. Raises `Difference`; answers what was tried."""
    differential = Differential(seed, plane)
    try:
        await differential.open(clients)
        await differential.run(cases, first)
    except* Difference as group:
        raise group.exceptions[0] from None
    finally:
        await differential.close()
    return dict(differential.counts)


def main() -> int:
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case, to see one again")
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--plane", choices=("embedded", "nginx"), default="embedded")
    options = parser.parse_args()
    began = time.monotonic()
    try:
        work = differ(options.cases, options.seed, clients=options.clients, first=options.first, plane=options.plane)
        counts = uvloop.run(work)
    except Difference as difference:
        sys.stdout.write(f"{difference}\n")
        return 1
    counts = {"differences": 0, "seed": options.seed, "seconds": round(time.monotonic() - began), **counts}
    sys.stdout.write(json.dumps(counts, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
