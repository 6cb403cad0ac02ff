"""The least that a start of a container takes: made, started, and the first byte read from it, with nothing around.

`containers.py` compares our starts with it. The container is of the same image and runs the same command, without any
of the hardening; only its share of the processors is a runtime's, because others may be at work on the machine. It is
in a network and has volumes that are there already (`joined`; the engine starts a name server in every network that
somebody made), or it has what `docker run` gives: the engine's own bridge and no volume.
"""

import http.client
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self

from docker import APIClient
from docker.errors import APIError

PORT = 8000
LABEL = "nestor-bench-floor"
_SECONDS = 120
_LOOK_SECONDS = 0.002
_CPU_SHARES = 512


@dataclass(frozen=True)
class Started:
    """Seconds since the first call to the engine."""

    reference: str
    created: float
    running: float
    answered: float


class Floor:
    """Starts of one image. Safe to use from many threads: each call has a client of its own."""

    def __init__(self, host: str, image: str) -> None:
        self._host, self._image = host, image
        self._network: str | None = None
        self._volumes: dict[str, str] = {}  # name -> where

    def joined(self, network: str, mounts: Sequence[str]) -> Self:
        """The same in that network, with a new volume for each of these places. `remove_all` removes those."""
        other = type(self)(self._host, self._image)
        other._network = network
        with self.client() as client:
            for place in mounts:
                made = client.create_volume(f"nestor-bench-{uuid.uuid4().hex[:12]}", labels={LABEL: "yes"})
                other._volumes[made["Name"]] = place
        return other

    def start(self) -> Started:
        """One container, to its first byte. `remove` it afterwards."""
        with self.client() as client:
            began = time.perf_counter()
            made = client.create_container(
                self._image,
                ["--host", "0.0.0.0", "--port", str(PORT), "--boot-key-fd", "0"],
                name=f"nestor-bench-{uuid.uuid4().hex[:12]}",
                labels={LABEL: "yes"},
                stdin_open=True,
                host_config=client.create_host_config(
                    cpu_shares=_CPU_SHARES,
                    network_mode=self._network or "default",
                    binds=[f"{name}:{place}" for name, place in self._volumes.items()],
                ),
            )["Id"]
            created = time.perf_counter() - began
            client.start(made)
            running = time.perf_counter() - began
            networks = client.inspect_container(made)["NetworkSettings"]["Networks"]
            address = next(iter(networks.values()))["IPAddress"]
            while not _answers(address):
                if time.perf_counter() - began > _SECONDS:
                    raise RuntimeError(f"no answer: {client.logs(made, tail=20)!r}")
                time.sleep(_LOOK_SECONDS)
            return Started(made, created, running, time.perf_counter() - began)

    def remove(self, reference: str) -> None:
        with self.client() as client:
            client.remove_container(reference, force=True)

    def remove_all(self) -> None:
        """What a broken-off run left."""
        with self.client() as client:
            for one in client.containers(all=True, filters={"label": LABEL}):
                with suppress(APIError):
                    client.remove_container(one["Id"], force=True)
            for volume in client.volumes(filters={"label": LABEL}).get("Volumes") or ():
                with suppress(APIError):
                    client.remove_volume(volume["Name"], force=True)

    def burst(self, count: int, at_once: int) -> tuple[float, Sequence[Started]]:
        """Starts, `at_once` of them under way; seconds of all together, and each."""
        began = time.perf_counter()
        with ThreadPoolExecutor(at_once) as pool:
            found = list(pool.map(lambda _: self.start(), range(count)))
        return time.perf_counter() - began, found

    @contextmanager
    def client(self) -> Iterator[APIClient]:
        client = APIClient(base_url=self._host, version="auto", timeout=_SECONDS)
        try:
            yield client
        finally:
            client.close()


def _answers(address: str) -> bool:
    connection = http.client.HTTPConnection(address, PORT, timeout=5)
    try:
        connection.request("GET", "/alive")
        return connection.getresponse().status == 200
    except (TimeoutError, OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
