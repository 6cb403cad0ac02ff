"""The only way from the orchestrator to the engine: a filter that knows the calls it needs and the containers it makes.

Whoever has an engine's socket is root on the machine. This process has it; the orchestrator has the other end, and gets
through only calls of `ROUTES`, about things that bear a label of ours, and containers that are as hardened as ours
(`unfit` says why not). One call a connection, so that nothing can follow unread. What the engine reads is written anew
from what was looked at: an engine takes names in any spelling, twice, or a piece of an id, and each would be a way
around. Standard library only: it runs on the base image as it is.
"""

import asyncio
import contextlib
import json
import os
import posixpath
import re
import signal
import sys
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ENGINE = "/var/run/docker.sock"
#: Labels of what the driver makes; an image has labels too, which say nothing of whose container it is.
OURS = frozenset({"io.nestor.runtime", "io.nestor.egress", "io.nestor.probe"})
USER = "10001:10001"
HEAD_BYTES, BODY_BYTES = 64 * 1024, 512 * 1024
HEAD_SECONDS = 10.0
_NAME = r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]*)"
#: Method, path, and what the name is: nothing that is not here passes.
ROUTES: Sequence[tuple[str, str, str]] = (
    ("GET", r"/_ping", ""),
    ("HEAD", r"/_ping", ""),
    ("GET", r"/version", ""),
    ("GET", r"/info", ""),
    ("GET", r"/events", "events"),
    ("GET", r"/containers/json", "list"),
    ("POST", r"/containers/create", "create"),
    ("GET", rf"/containers/{_NAME}/(json|logs|stats)", "container"),
    ("POST", rf"/containers/{_NAME}/(start|stop|kill|pause|unpause)", "container"),
    ("POST", rf"/containers/{_NAME}/attach", "attach"),
    ("DELETE", rf"/containers/{_NAME}", "container"),
    ("GET", r"/images/(?P<name>[A-Za-z0-9][A-Za-z0-9_.:/@-]*)/json", ""),
    ("GET", rf"/networks/{_NAME}", "network"),
    ("GET", rf"/volumes/{_NAME}", "volume"),
)
#: The newest that reads a container's host part where one is started is 1.23; an engine of 20.10 speaks 1.41.
VERSION = re.compile(r"^/v1\.(?:4[0-9]|[5-9][0-9])(?=/)")
#: Of a container. Nothing else is taken, not even empty: it may be another spelling.
PARTS = frozenset(
    "Hostname Domainname ExposedPorts User Tty OpenStdin StdinOnce AttachStdin AttachStdout AttachStderr Env Cmd Image "
    "Volumes NetworkDisabled Entrypoint WorkingDir HostConfig NetworkingConfig MacAddress Labels StopSignal "
    "Healthcheck StopTimeout Runtime".split()
)
#: Of a container's host part. Anything else has to be empty.
FREE = frozenset(
    "Memory MemorySwap MemorySwappiness OomScoreAdj NanoCpus CpuShares PidsLimit Ulimits Init ShmSize LogConfig "
    "RestartPolicy Tmpfs Runtime Dns DnsOptions ReadonlyRootfs CapDrop NetworkMode IpcMode CgroupnsMode SecurityOpt "
    "Mounts".split()
)


_FOLDED = frozenset(name.casefold() for name in FREE)
#: What the query of a call about a container may say: not where the checkpoint lies that a start would go on from.
ASKED = frozenset(
    "follow force link logs one-shot signal since size stderr stdin stdout stream t tail timestamps until v".split()
)


@dataclass(frozen=True)
class Ground:
    """What the gate guards."""

    bridge: str  #: the only network of containers
    volume: str  #: the data folder's
    root: str  #: where the engine has that volume
    apparmor: str = ""  #: the only profile that may be named; empty for none


class Refused(Exception):
    """Why a call does not pass."""


class Unknown(Refused):
    """A container that is not ours: for the caller there is none."""


def unfit(body: Mapping[str, Any], ground: Ground) -> str | None:
    """Why a container may not be made like that; None when it may."""
    host = body.get("HostConfig") or {}
    options = list(host.get("SecurityOpt") or ())
    labels = body.get("Labels") or {}
    network = body.get("NetworkingConfig") or {}
    checks = (
        (set(body) <= PARTS, "a part that is not known"),
        (not [name for name in host if name not in FREE and name.casefold() in _FOLDED], "another spelling"),
        (body.get("User") == USER, "another user"),
        (not OURS.isdisjoint(labels), "no label"),
        (not [name for name, value in host.items() if name not in FREE and value], "an option that is not known"),
        (host.get("ReadonlyRootfs") is True, "a writable root"),
        (host.get("CapDrop") == ["ALL"], "capabilities"),
        (host.get("NetworkMode") == ground.bridge, "another network"),
        (set(network) <= {"EndpointsConfig"}, "another network"),
        (set(network.get("EndpointsConfig") or {}) <= {ground.bridge}, "another network"),
        (all(map(_only_an_address, (network.get("EndpointsConfig") or {}).values())), "another network"),
        (host.get("IpcMode") == "private", "a shared IPC space"),
        (host.get("CgroupnsMode") in (None, "", "private"), "the machine's control groups"),
        ("no-new-privileges:true" in options, "new privileges"),
        (not [text for text in options if not _harmless(str(text), ground)], "a security option"),
        (_positive(host.get("Memory")) and _positive(host.get("PidsLimit")), "no limit"),
        (host.get("MemorySwap") == host.get("Memory"), "swap"),
        (_number(host.get("OomScoreAdj") or 0) >= 0, "a rank before the machine's own processes"),
        (_kept_small(host.get("LogConfig")), "a log that goes elsewhere or has no limit"),
        (_ends(host.get("RestartPolicy") or {}), "a restart for ever"),
        (all(_inside(mount, ground) for mount in host.get("Mounts") or ()), "a mount"),
        (not body.get("Volumes"), "a volume without a name"),
    )
    return next((words for holds, words in checks if not holds), None)


def _harmless(option: str, ground: Ground) -> bool:
    """A profile of the caller's own may allow everything, so it is the engine's, or the one that the operator chose."""
    return option == "no-new-privileges:true" or (bool(ground.apparmor) and option == f"apparmor={ground.apparmor}")


def _only_an_address(endpoint: Any) -> bool:
    """An engine takes the id or the name of a network in here for the one that is meant, whatever stands before it."""
    if not endpoint:
        return True
    place = endpoint.get("IPAMConfig") or {}
    return set(endpoint) <= {"IPAMConfig"} and set(place) <= {"IPv4Address"}


def _ends(policy: Mapping[str, Any]) -> bool:
    return set(policy) <= {"Name", "MaximumRetryCount"} and policy.get("Name") in (None, "", "no", "on-failure")


def _positive(number: Any) -> bool:
    return _number(number) > 0


def _number(value: Any) -> int:
    return value if isinstance(value, int) else -1


def _kept_small(log: Any) -> bool:
    """The engine itself would send one of another kind, to any address that it reaches."""
    if not isinstance(log, dict) or set(log) != {"Type", "Config"} or log["Type"] not in ("json-file", "local"):
        return False
    if not isinstance(log["Config"], dict) or set(log["Config"]) != {"max-size", "max-file"}:
        return False
    size, files = map(str, (log["Config"]["max-size"], log["Config"]["max-file"]))
    return re.fullmatch(r"[1-9][0-9]?m", size) is not None and re.fullmatch(r"[1-3]", files) is not None


def _inside(mount: Any, ground: Ground) -> bool:
    """A folder of the data folder: a workspace, or read-only what the forward proxy is told."""
    if not isinstance(mount, dict) or mount.get("Type") != "bind":
        return False
    if not set(mount) <= {"Type", "Source", "Target", "ReadOnly"}:
        return False
    source = str(mount.get("Source"))
    if posixpath.normpath(source) != source:
        return False
    if source == f"{ground.root}/docker/egress":
        return mount.get("ReadOnly") is True
    folder = f"{ground.root}/volumes/"
    parts = source.removeprefix(folder).split("/")
    return source.startswith(folder) and len(parts) == 2 and parts[1] in ("workspace", "state")


class Gate:
    """One engine."""

    def __init__(self, engine: str, ground: Ground) -> None:
        self._engine = engine
        self._ground = ground
        self._ours: set[str] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One call."""
        try:
            await self._carry(reader, writer)
        except Refused as exc:
            with contextlib.suppress(OSError):
                answer = json.dumps({"message": f"the gate refuses {exc}"}).encode()
                status = "404 Not Found" if isinstance(exc, Unknown) else "403 Forbidden"
                head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n"
                writer.write(head.encode() + b"Connection: close\r\n\r\n" + answer)
                await writer.drain()
            print(f"gate: refused {exc}", flush=True)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # whoever called is gone, the engine is, or it was no HTTP
        finally:
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_SECONDS):
            method, target, headers = _head(await reader.readuntil(b"\r\n\r\n"))
            length = int(headers.get("content-length") or 0)
            if "transfer-encoding" in headers or not 0 <= length <= BODY_BYTES:
                raise Refused("a body of unknown or great length")
            body = await reader.readexactly(length)
        kind, target, body = await self._admit(method, target, body)
        attach = kind == "attach"
        up_reader, up_writer = await asyncio.open_unix_connection(self._engine)
        try:
            lines = [f"{method} {target} HTTP/1.1", "Host: engine", f"Content-Length: {len(body)}"]
            lines += ["Connection: Upgrade", "Upgrade: tcp"] if attach else ["Connection: close"]
            if body:
                lines.append("Content-Type: application/json")
            up_writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            await up_writer.drain()
            await self._answer(reader, writer, up_reader, up_writer, attach)
        finally:
            up_writer.close()

    async def _answer(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
        attach: bool,
    ) -> None:
        if attach:
            head = await up_reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            attach = head.split(b" ", 2)[1] in (b"101", b"200")  # else what follows would be read as another call
        back = asyncio.create_task(_pour(up_reader, writer))
        try:
            if not attach:
                gone = asyncio.create_task(reader.read(1))  # nothing may follow; the end of it ends an event stream
                await asyncio.wait({back, gone}, return_when=asyncio.FIRST_COMPLETED)
                gone.cancel()
                return
            await _pour(reader, up_writer)
            up_writer.write_eof()
            async with asyncio.timeout(HEAD_SECONDS):
                await asyncio.wait({back})
        finally:
            back.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await back

    async def _admit(self, method: str, target: str, body: bytes) -> tuple[str, str, bytes]:
        """The kind of the call, and what of it goes to the engine. Raises `Refused`."""
        path, _, query = target.partition("?")
        known = VERSION.sub("", path)
        if ";" in query or ".." in known:
            raise Refused("a call of another form")
        for verb, shape, kind in ROUTES:
            found = re.fullmatch(shape, known) if verb == method else None
            if found is None:
                continue
            if kind == "create":
                return kind, target, self._fit(body)
            if body:
                raise Refused(f"a body of {method} {path[:80]!r}")
            name = found.groupdict().get("name", "")
            if kind in ("container", "attach"):
                begin = len(path) - len(known) + found.start("name")
                target = target[:begin] + await self._ours_by_id(name) + target[begin + len(name) :]
            if kind == "list":
                target = f"{path}?{self._on_bridge(urllib.parse.parse_qs(query))}"
            self._check(kind, name, urllib.parse.parse_qs(query))
            return kind, target, b""
        raise Refused(f"{method} {path[:80]!r}")

    def _fit(self, text: bytes) -> bytes:
        body = _object(text, plain=True)
        try:
            words = unfit(body, self._ground)
        except (AttributeError, TypeError):  # a text where an object is meant
            words = "a part of another form"
        if words is not None:
            raise Refused(f"a container with {words}")
        return json.dumps(body).encode()

    def _check(self, kind: str, name: str, asked: Mapping[str, Sequence[str]]) -> None:
        if kind in ("container", "attach") and not ASKED.issuperset(asked):
            raise Refused("a question that is not known")
        if kind == "events":
            chosen = {str(label).partition("=")[0] for label in _filters(asked).get("label") or ()}
            if OURS.isdisjoint(chosen):
                raise Refused("all that happens")
        elif kind == "attach":
            if any(asked.get(way) not in (None, ["0"], ["false"]) for way in ("stdout", "logs")):
                raise Refused("to attach to more than standard input")
        elif (kind == "network" and name != self._ground.bridge) or (kind == "volume" and name != self._ground.volume):
            raise Refused(f"a look at {kind} {name[:80]}")

    def _on_bridge(self, asked: Mapping[str, Sequence[str]]) -> str:
        """The query of a list, of what is on the bridge alone whatever else it asks for."""
        filters = {**_filters(asked), "network": [self._ground.bridge]}
        return urllib.parse.urlencode({"all": (asked.get("all") or ["0"])[0], "filters": json.dumps(filters)})

    async def _ours_by_id(self, name: str) -> str:
        """The whole id: a name, or the beginning of an id, may be another container's when the engine reads it."""
        if name in self._ours:
            return name
        status, body = await ask(self._engine, f"/containers/{name}/json")
        if status == 404:
            raise Unknown(f"container {name[:80]}, which is not there")
        found = _object(body)
        network = (found.get("HostConfig") or {}).get("NetworkMode")
        labels = (found.get("Config") or {}).get("Labels") or {}
        if OURS.isdisjoint(labels) or network != self._ground.bridge:
            raise Unknown(f"container {name[:80]}, which is not ours")
        id = str(found["Id"])
        self._ours.add(id)
        return id


async def ask(engine: str, path: str) -> tuple[int, bytes]:
    """Status and body of a GET."""
    reader, writer = await asyncio.open_unix_connection(engine, limit=8 * 1024 * 1024)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: engine\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        return int(head.split()[1]), body
    finally:
        writer.close()


def _head(raw: bytes) -> tuple[str, str, Mapping[str, str]]:
    first, *lines = raw.decode("ascii").split("\r\n")
    method, target, version = first.split(" ")
    if not version.startswith("HTTP/1.") or not target.startswith("/") or not target.isprintable():
        raise Refused("a call of another form")
    if "%" in target.partition("?")[0]:
        raise Refused("a call of another form")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            if name.lower() in headers:
                raise Refused(f"two headers {name[:40]}")
            headers[name.lower()] = value.strip()
    return method, target, headers


def _object(text: bytes, *, plain: bool = False) -> Mapping[str, Any]:
    """A JSON object; a `plain` one says nothing twice. Raises `Refused`."""
    try:
        found = json.loads(text, object_pairs_hook=_once if plain else None)
    except (ValueError, RecursionError):
        raise Refused("a body that is no JSON") from None
    if not isinstance(found, dict):
        raise Refused("a body that is no object")
    return found


def _filters(asked: Mapping[str, Sequence[str]]) -> Mapping[str, Any]:
    return _object((asked.get("filters") or ["{}"])[0].encode(), plain=True)


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The engine would put two parts together whose names differ in case alone, or not at all."""
    if len({name.casefold() for name, _ in pairs}) < len(pairs):
        raise Refused("a body that names something twice")
    return dict(pairs)


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(64 * 1024):
        writer.write(chunk)
        await writer.drain()


async def main() -> None:
    listen, volume = os.environ["LISTEN"], os.environ["VOLUME"]
    status, body = await ask(ENGINE, f"/volumes/{volume}")
    if status != 200:
        sys.exit(f"gate: the engine has no volume {volume}")
    root, profile = str(_object(body)["Mountpoint"]), os.environ.get("APPARMOR", "")
    gate = Gate(ENGINE, Ground(os.environ["BRIDGE"], volume, root, profile))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(listen)
    server = await asyncio.start_unix_server(gate.serve, listen, limit=HEAD_BYTES)
    os.chmod(listen, 0o666)  # noqa: S103 - the folder is shared with the orchestrators alone
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    print(f"gate: lets containers of {gate._ground.bridge} through", flush=True)
    async with server:
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(main())
