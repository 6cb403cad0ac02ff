"""What this process has seen itself and what cannot have changed since, so that a start asks the engine less.

That is what an image is, under its digest; and which containers were made here and not started yet. Nothing depends on
it: what is not remembered is asked. Safe to use from many threads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from orchestrator.drivers.docker_cells import Place
from orchestrator.drivers.values import Dialect

T = TypeVar("T")
_MOST = 512  #: of either kind; the oldest go
_DIGEST = "sha256:"


@dataclass(frozen=True)
class Made:
    """How a container was made."""

    dialect: Dialect  #: of the server in it
    place: Place
    ours: bool = False  #: of the driver's own image, which does nothing before it is bound
    unsettled: bool = False  #: its volumes are to be looked at yet


class Recall:
    """Of one driver."""

    def __init__(self) -> None:
        self._images: dict[str, Mapping[str, Any]] = {}
        self._made: dict[str, Made] = {}
        self._ours: dict[str, bool] = {}

    def image(self, name: str) -> Mapping[str, Any] | None:
        """How the engine described the image with this digest. None for a name, which may mean another one by now."""
        return self._images.get(name)

    def keep_image(self, name: str, described: Mapping[str, Any]) -> None:
        if name.startswith(_DIGEST):
            _keep(self._images, name, described)

    def keep_own(self, id: str) -> None:
        """The driver's own image has, or had, this id."""
        _keep(self._ours, id, True)

    def is_own(self, id: str) -> bool:
        """Whether the driver's own image is known to be, or to have been, the one with this id."""
        return id in self._ours

    def forget_image(self, name: str) -> None:
        """The engine does not have it any more."""
        self._images.pop(name, None)

    def made(self, reference: str, made: Made) -> None:
        """The container with this id has just been made here."""
        _keep(self._made, reference, made)

    def take(self, reference: str) -> Made | None:
        """How a container was made here, the first time that this is asked: whoever asks next may find it started."""
        return self._made.pop(reference, None)


def _keep(kept: dict[str, T], name: str, value: T) -> None:
    kept[name] = value
    if len(kept) > _MOST:
        kept.pop(next(iter(kept)), None)
