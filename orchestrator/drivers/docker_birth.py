"""How a container comes to be and to run: made with its mounts and its network, started, looked at while it boots, told
its key.

`docker_lifecycle.py` holds the name's fence meanwhile. Only our own image is looked at after it was started: it knows
nothing and does nothing before it is bound. Others do at once what they like.
"""

import socket
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.domain.errors import DriverUnavailable, RuntimeNotFound
from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.docker_cells import Cells
from orchestrator.drivers.docker_containers import Containers
from orchestrator.drivers.docker_engine import Engine, Missing, Refused
from orchestrator.drivers.docker_images import described
from orchestrator.drivers.docker_recall import Made, Recall
from orchestrator.drivers.docker_spec import Hardening, Image, container_arguments, image_of, spare_kind
from orchestrator.drivers.docker_volumes import Volumes
from orchestrator.drivers.errors import ImageUnavailable, StartRefused
from orchestrator.drivers.values import Dialect, Handle, RuntimeSpec

_NO_ADDRESS = "no available IPv4 addresses"  #: as an engine puts it on record


class Birth:
    """Of all containers of one engine. Methods block."""

    def __init__(
        self,
        engine: Engine,
        containers: Containers,
        volumes: Volumes,
        cells: Cells,
        recall: Recall,
        *,
        image: str,
        hardening: Hardening,
        stock: Dialect,
    ) -> None:
        self._engine = engine
        self._containers = containers
        self._volumes = volumes
        self._cells = cells
        self._recall = recall
        self._image = image
        self._hardening = hardening
        self._stock = stock

    def image_of(self, spec: RuntimeSpec) -> Image:
        """What it is to run. Raises `ImageUnavailable`."""
        name = spec.image or self._image
        return image_of(name, self._described(name), self._stock)

    def is_ours(self, image: Image) -> bool:
        """Its label alone would not say so: anybody can put it on an image."""
        return image.dialect is Dialect.OWN and (image.name == self._image or self._recall.is_own(image.name))

    def spare_kind(self, image: str | None) -> str:
        """See `base.Spareable`. Raises `ImageUnavailable`, also for an image that could not prove itself."""
        name = image or self._image
        about = self._described(name)
        if (found := image_of(name, about)).dialect is not Dialect.OWN:
            raise ImageUnavailable(
                f"image {name} cannot be a spare: another agent server does not prove that it has its init key",
                hint="leave it out of the warm pool",
            )
        return spare_kind(found, about, network=self._cells.base, hardening=self._hardening)

    def make(self, spec: RuntimeSpec, fence: int, *, unsettled: bool) -> str:
        """Make the container and answer its id. `unsettled`: its volumes may not be there yet; they are looked at when
        it begins. Raises `Occupied` for a name that is taken."""
        image = self.image_of(spec)
        mounts = self._volumes.mounts(spec.labels, fence=fence, foreseen=unsettled)
        place = self._cells.enter(spec.labels)
        try:
            made = self._engine.act(
                f"make {spec.name}",
                lambda client: client.create_container(
                    **container_arguments(
                        spec,
                        image=image,
                        network=place.network,
                        mounts=mounts,
                        fence=fence,
                        version=client.api_version,
                        hardening=self._hardening,
                        told=place.told,
                    )
                ),
            )
        except Missing as exc:
            self._recall.forget_image(image.name)
            self._cells.forget(place)
            self._described(image.name)  # says so, if it is the image
            raise DriverUnavailable(f"the network of {spec.name} went away meanwhile", hint="try again") from exc
        reference = str(made["Id"])
        self._recall.made(reference, Made(image.dialect, place, self.is_ours(image), unsettled))
        return reference

    def begin(
        self, handle: Handle, lines: Sequence[SecretText], fence: int, made: Made | None = None, *, network: str = ""
    ) -> None:
        """Start it and hand it the `lines` of its keys; `made` where it was made here and never started, else `network`
        is the one that it was made for. It is stopped again where its network, its walls or its volumes are not as they
        have to be."""
        if (made is None or not made.unsettled) and not self._volumes.ready(handle.labels):
            raise StartRefused(f"conversation {handle.labels.conversation} has no volume", hint="make the volume first")
        waits = made is not None and made.ours  # others do at once what they like
        if not waits:
            self._see_to(handle, fence, made, network=network)
        try:
            self._containers.do("start", handle, lambda client: client.start(handle.reference))
        except (Refused, RuntimeNotFound, DriverUnavailable) as exc:
            if waits:  # it may have been the network; or only the answer was lost
                self._seen_or_stopped(handle, fence, made)
            self._raise_refusal(handle, exc, made)
        try:
            self._hand(handle, lines)
        except BaseException:
            # Running without its key it could never be bound, and a second start would find it running.
            self._containers.stop(handle, 0)
            raise
        if waits:
            self._seen_or_stopped(handle, fence, made)

    def _seen_or_stopped(self, handle: Handle, fence: int, made: Made | None) -> None:
        try:
            self._see_to(handle, fence, made)
        except BaseException:
            self._containers.stop(handle, 0)
            raise

    def _see_to(self, handle: Handle, fence: int, made: Made | None, *, network: str = "") -> None:
        """Its network is there, behind the wall, and its volumes are its tenant's. Our own image boots meanwhile; it
        knows and does nothing before it is bound."""
        self._cells.confirm(handle.labels, made.place if made is not None else None, network=network)
        if made is None or made.unsettled:
            self._volumes.ensure(handle.labels, fence=fence)

    def _raise_refusal(self, handle: Handle, exc: Exception, made: Made | None) -> None:
        """A start that failed: for good when the engine put a failure on record, else as it was."""
        state = self._containers.look(handle)["State"]
        if state["Running"]:
            return  # only the answer was lost
        if not state["Error"]:
            raise exc
        if _NO_ADDRESS in state["Error"]:
            if made is not None:
                self._cells.fill(made.place)
            raise DriverUnavailable(
                f"the bridge of {handle.name} has no address left",
                hint="end runtimes that are not needed, or give runtimes a larger network (NESTOR_RUNTIME_SUBNET)",
            ) from exc
        missing = int(state["ExitCode"]) in (126, 127)
        raise StartRefused(
            f"the engine could not start {handle.name}",
            hint="the image has no such entry point" if missing else "the engine's own log says more",
            log_tail=tuple(self._containers.logs(handle, 20)),
        ) from exc

    def _hand(self, handle: Handle, lines: Sequence[SecretText]) -> None:
        content = "".join(f"{line.open()}\n" for line in lines).encode()

        def hand(stream: Any) -> None:
            raw: socket.socket = getattr(stream, "_sock", stream)
            try:
                raw.sendall(content)
            finally:
                stream.close()
                raw.close()  # closing the stream alone leaves the connection to the garbage collector

        self._containers.do(
            "attach to",
            handle,
            lambda client: hand(client.attach_socket(handle.reference, params={"stdin": 1, "stream": 1})),
        )

    def _described(self, name: str) -> Mapping[str, Any]:
        about = self._recall.image(name)
        if about is None:
            about = described(self._engine, name)
            self._recall.keep_image(name, about)
        return about
