"""Commands in the machine's own network, from a small container that has the right: for an orchestrator that is in a
container itself, and so sees only its own network.

The helper is the orchestrator's image with another entry point: it sleeps, has the machine's network and CAP_NET_ADMIN,
and neither the engine's socket nor a mount. `docker_firewall.py` runs iptables in it. Methods block.
"""

import contextlib
import http
import struct
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import Any

from docker.types import LogConfig, Ulimit

from orchestrator.domain.errors import DriverUnavailable, NestorError
from orchestrator.drivers.docker_engine import Engine, Missing, Occupied, Refused
from orchestrator.drivers.docker_spec import PREFIX

HELPER = f"{PREFIX}rules"
_POLL_SECONDS = 0.02
_FRAME = struct.Struct(">BxxxI")
_OUT, _ERROR = 1, 2
_MEMORY_BYTES = 64 * 1024**2
#: Some text to a command's standard input, without a second connection to the engine.
_TOLD = 'printf %s "$0" | exec "$@"'


class Helper:
    """One installation's. Made when it is first needed, and again when somebody removed it."""

    def __init__(self, engine: Engine, *, name: str, image: str, installation: str) -> None:
        self._engine = engine
        self._name = name
        self._image = image
        self._installation = installation
        self._id: str | None = None
        self._lock = threading.Lock()

    def trouble(self) -> str | None:
        """Why there is none; None when it answers."""
        try:
            done = self.run("true")
        except NestorError as exc:
            return (
                f"Nestor runs in a container, and the helper that would set the machine's rules could not be had "
                f"({exc.message}): let it make one, or run nestor netguard --orchestrator ADDRESS in the machine's "
                "network with CAP_NET_ADMIN, and set NESTOR_NETWORK_RULES=outside"
            )
        return None if done.returncode == 0 else f"the helper {self._name} cannot run anything"

    def run(self, *words: str, told: str | None = None) -> subprocess.CompletedProcess[str]:
        """The command, with `told` on its standard input. Raises `DriverUnavailable`."""
        command = list(words) if told is None else ["/bin/sh", "-c", _TOLD, told, *words]
        for attempt in (1, 2):
            try:
                return self._executed(self._running(), command)
            except (Missing, Occupied):  # removed or ended since
                self._id = None
                if attempt == 2:
                    break
        raise DriverUnavailable(f"the helper {self._name} does not stay", hint="look at the engine's log of it")

    def remove(self) -> None:
        """Gone already: fine."""
        self._id = None
        with contextlib.suppress(Missing, Occupied, Refused):
            self._engine.act(
                f"remove {self._name}", lambda client: client.remove_container(self._name, force=True, v=True)
            )

    def _executed(self, id: str, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        def execute(client: Any) -> subprocess.CompletedProcess[str]:
            made = client.exec_create(id, list(command))["Id"]
            out, error = _said(client, made)
            while (ended := client.exec_inspect(made))["Running"]:  # for a moment after its last word
                time.sleep(_POLL_SECONDS)
            status = int(ended["ExitCode"])
            return subprocess.CompletedProcess(list(command), status, out, error)

        try:
            return self._engine.act(f"run {command[0]} in {self._name}", execute)
        except Refused as exc:
            raise DriverUnavailable(f"the engine does not run anything in {self._name}") from exc

    def _running(self) -> str:
        with self._lock:
            if self._id is None:
                self._id = self._made()
            return self._id

    def _made(self) -> str:
        try:
            found = self._engine.ask(f"look at {self._name}", lambda client: client.inspect_container(self._name))
            if found["State"]["Running"] and found["Image"] == self._image:
                return str(found["Id"])
            self.remove()  # it keeps nothing; one of the version before may lack a program
        except Missing:
            pass
        except Refused as exc:
            raise DriverUnavailable(f"the engine does not show {self._name}") from exc
        try:
            id = self._engine.act(f"make {self._name}", self._create)
            self._engine.act(f"start {self._name}", lambda client: client.start(id))
        except Occupied as exc:
            raise DriverUnavailable(f"{self._name} is being made by another replica") from exc
        except (Missing, Refused) as exc:
            raise DriverUnavailable(f"the engine does not make {self._name}") from exc
        return id

    def _create(self, client: Any) -> str:
        host = client.create_host_config(
            network_mode="host",
            cap_drop=["ALL"],
            cap_add=["NET_ADMIN"],
            security_opt=["no-new-privileges:true"],
            read_only=True,
            tmpfs={"/run": "rw,nosuid,nodev,size=1m", "/tmp": "rw,nosuid,nodev,size=1m"},  # noqa: S108 - in there
            mem_limit=_MEMORY_BYTES,
            memswap_limit=_MEMORY_BYTES,
            pids_limit=32,
            ulimits=[Ulimit(name="core", soft=0, hard=0)],
            init=True,
            log_config=LogConfig(type=LogConfig.types.JSON, config={"max-size": "1m", "max-file": "1"}),
        )
        made = client.create_container(
            self._image,
            name=self._name,
            entrypoint=["/bin/sleep", "infinity"],
            command=[],
            user="0:0",  # for the one capability
            labels={HELPER: self._installation},
            healthcheck={"test": ["NONE"]},
            host_config=host,
            use_config_proxy=False,
        )
        return str(made["Id"])


def _said(client: Any, id: str) -> tuple[str, str]:
    """Start an exec, and what it wrote to its output and its errors, to the end.

    Not by the SDK's `exec_start`: that asks for another protocol and then reads past what has already come with the
    head of the answer.
    """
    url = f"{client.base_url}/v{client.api_version}/exec/{id}/start"
    with client.post(url, json={"Detach": False, "Tty": False}, timeout=client.timeout) as answer:
        if answer.status_code == http.HTTPStatus.NOT_FOUND:
            raise Missing(f"exec {id[:12]}")
        if answer.status_code == http.HTTPStatus.CONFLICT:
            raise Occupied(f"exec {id[:12]}")
        if not answer.ok:
            raise DriverUnavailable(f"the engine does not start a command ({answer.status_code})")
        return _parted(answer.content)


def _parted(content: bytes) -> tuple[str, str]:
    """What the engine sends of both, in frames: a kind, three zeros, a length, and so many bytes."""
    found = {_OUT: bytearray(), _ERROR: bytearray()}
    at = 0
    while at + _FRAME.size <= len(content):
        kind, length = _FRAME.unpack_from(content, at)
        at += _FRAME.size
        found.setdefault(kind, bytearray()).extend(content[at : at + length])
        at += length
    return found[_OUT].decode(errors="replace"), found[_ERROR].decode(errors="replace")
