"""Images of runtimes: which one a new conversation gets, by what was asked for and who asks. Pure.

A conversation stays on the image that it got, by the engine's id for it: a name that is given to another image later
changes nothing for it.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from orchestrator.domain.errors import ImageRefused

_PARTS = 10_000


@dataclass(frozen=True)
class Pin:
    """The image that a conversation stays on."""

    name: str  #: as the operator or the request wrote it
    id: str  #: the engine's own, a digest of all that is in it
    canary: bool = False  #: it fell into the share that tries the new image out


@dataclass(frozen=True)
class Catalogue:
    """What the operator has set: names, `name@sha256:...`, or ids, each as an engine takes it."""

    default: str
    further: Collection[str] = ()  #: what a request may name beside it
    canary: str | None = None
    percent: float = 0.0  #: of new conversations that name no image: so many begin on the canary

    @property
    def names(self) -> tuple[str, ...]:
        """Each once, the default first."""
        return tuple(dict.fromkeys([self.default, *([self.canary] if self.canary else []), *sorted(self.further)]))


@dataclass(frozen=True)
class Choice:
    """`id` is empty where it is what the engine has under that name now."""

    name: str
    id: str = ""
    canary: bool = False


def in_share(conversation: str, percent: float) -> bool:
    """Whether a conversation is among so many of a hundred: always the same answer for the same id."""
    place = int.from_bytes(hashlib.sha256(f"canary|{conversation}".encode()).digest()[:8], "big") % _PARTS
    return place < percent * _PARTS / 100


def choose(catalogue: Catalogue, granted: Mapping[str, str] | None, asked: str | None, conversation: str) -> Choice:
    """The image for a new conversation. `granted` is what the operator allows its tenant in the place of the catalogue:
    ids by name, None for no such list. Raises `ImageRefused`."""
    tries = asked is None and catalogue.canary is not None and in_share(conversation, catalogue.percent)
    if granted is None:
        if tries:
            return Choice(catalogue.canary or catalogue.default, canary=True)
        if asked is None or asked in catalogue.names:
            return Choice(asked or catalogue.default)
        raise _refused("leave image out, or ask the operator to allow it")
    if asked is None and catalogue.default in granted:
        name = catalogue.canary if tries and catalogue.canary in granted else catalogue.default
        return Choice(str(name), granted[str(name)], canary=name != catalogue.default)
    for name, id in granted.items():  # the first, where neither the request nor the list names the default
        if asked in (None, name, id):
            return Choice(name, id)
    raise _refused("leave image out, or ask the operator to allow it for this tenant")


def _refused(hint: str) -> ImageRefused:
    return ImageRefused("this image may not be used here", field="image", hint=hint)
