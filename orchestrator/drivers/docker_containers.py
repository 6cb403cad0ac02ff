"""Containers as the engine shows them: by the engine's own id, so that no call hits another one of the same name.

`docker_birth.py` and `docker_lifecycle.py` look, act and remove with it. What goes wrong is told in the drivers' words.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.domain.errors import DriverUnavailable, RuntimeNotFound
from orchestrator.drivers.docker_engine import Engine, Missing, Occupied, Refused
from orchestrator.drivers.docker_spec import INSTALLATION, PORT, RUNTIME, WORKSPACE, dialect_of, owned
from orchestrator.drivers.errors import StartRefused
from orchestrator.drivers.printed import last_lines
from orchestrator.drivers.values import Endpoint, Handle

_GONE_SECONDS = 30.0
_POLL_SECONDS = 0.05


class Containers:
    """Of one engine. Methods block."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def look(self, handle: Handle) -> Mapping[str, Any]:
        """As the engine describes it. Raises `RuntimeNotFound`."""
        return self._inspected(handle.reference, handle.name)

    def by_name(self, name: str) -> Mapping[str, Any] | None:
        """The same of whatever has that name."""
        try:
            return self._inspected(name, name)
        except RuntimeNotFound:
            return None

    def list(self, installation: str) -> Sequence[Handle]:
        """Every container of this installation, whatever its condition."""
        labels = [f"{INSTALLATION}={installation}", RUNTIME]
        found = self._engine.ask(
            "list containers", lambda client: client.containers(all=True, filters={"label": labels})
        )
        handles = []
        for container in found:
            claim = owned(container.get("Labels"))
            if claim is not None and container.get("Names"):
                name = str(container["Names"][0]).lstrip("/")
                handles.append(Handle("docker", name, str(container["Id"]), claim.labels))
        return handles

    def thaw(self, handle: Handle) -> None:
        """Let a frozen one go on."""
        self.do("let", handle, lambda client: client.unpause(handle.reference))

    def stop(self, handle: Handle, grace: float) -> None:
        """Ask it to end, and after so many seconds kill it."""
        self.do("stop", handle, lambda client: client.stop(handle.reference, timeout=max(0, round(grace))))

    def do(self, verb: str, handle: Handle, call: Any) -> None:
        """Call the engine; `verb` is for errors. Raises `RuntimeNotFound`, and `DriverUnavailable` where it changed
        meanwhile."""
        try:
            self._engine.act(f"{verb} {handle.name}", call)
        except Missing as exc:
            raise RuntimeNotFound(f"there is no runtime {handle.name}") from exc
        except Occupied as exc:
            # It changed between our look and our act; the next look of the caller says to what.
            raise DriverUnavailable(f"runtime {handle.name} changed meanwhile") from exc

    def endpoint(self, handle: Handle) -> Endpoint:
        """Where it answers. Raises `StartRefused`, with its last lines, when it has ended."""
        container = self.look(handle)
        endpoint = endpoint_of(container)
        if endpoint is None:
            raise StartRefused(
                f"runtime {handle.name} ended at once",
                hint="its last lines say why",
                log_tail=tuple(self.logs(handle, 20)),
            )
        return endpoint

    def logs(self, handle: Handle, lines: int) -> Sequence[str]:
        """The last lines that the runtime printed, each cut to a readable length."""
        if lines <= 0:
            return ()
        try:
            tail: bytes = self._engine.ask(
                f"read the log of {handle.name}", lambda client: client.logs(handle.reference, tail=lines)
            )
        except (Missing, Occupied, Refused):
            return ()
        return last_lines(tail, lines, is_whole=True)

    def remove(self, handle: Handle) -> None:
        """Kill and remove it, and return when it is gone. Gone already: fine."""
        try:
            self._engine.act(
                f"remove {handle.name}", lambda client: client.remove_container(handle.reference, force=True, v=True)
            )
        except Missing:
            return
        except Occupied:
            self._wait_gone(handle)  # somebody removes it at this moment

    def _wait_gone(self, handle: Handle) -> None:
        deadline = time.monotonic() + _GONE_SECONDS
        while time.monotonic() < deadline:
            try:
                self.look(handle)
            except RuntimeNotFound:
                return
            time.sleep(_POLL_SECONDS)
        raise DriverUnavailable(f"runtime {handle.name} is being removed and does not go", hint="look at the engine")

    def _inspected(self, reference: str, name: str) -> Mapping[str, Any]:
        try:
            return self._engine.ask(f"look at {name}", lambda client: dict(client.inspect_container(reference)))
        except Missing as exc:
            raise RuntimeNotFound(f"there is no runtime {name}") from exc


def endpoint_of(container: Mapping[str, Any]) -> Endpoint | None:
    """Its address on the only network that it is on; None once it has ended."""
    for network in container["NetworkSettings"]["Networks"].values():
        if network.get("IPAddress"):
            dialect = dialect_of(container["Config"]["Labels"])
            return Endpoint(str(network["IPAddress"]), PORT, dialect, WORKSPACE)
    return None
