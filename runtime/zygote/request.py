"""What the orchestrator asks of the zygote for one runtime: a message of JSON, and descriptors that travel with it.

Only the forked child parses it, so that nothing of one runtime stays in the memory from which the next one is made.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime.zygote.view import View


class BadRequest(ValueError):
    """The message is not one of ours; the text says what is missing and holds no value."""


@dataclass(frozen=True)
class Descriptors:
    """What came with the message. `key` is the end of a pipe that holds the init key."""

    listener: int
    leave: int  #: the child waits here until the claim on disk names it
    report: int  #: the child tells here who it is and why it could not start
    log: int
    key: int | None

    @property
    def all(self) -> Sequence[int]:
        return [one for one in (self.listener, self.leave, self.report, self.log, self.key) if one is not None]


@dataclass(frozen=True)
class Request:
    """One runtime to be."""

    name: str
    generation: int
    mark: str  #: `VARIABLE=value`, shown where the kernel shows the environment of a process
    environment: dict[str, str]
    directory: str
    view: View | None  #: None: the machine's own
    uid: int | None  #: None: the zygote's own
    gid: int | None


def parse(message: bytes, received: Sequence[int]) -> tuple[Request, Descriptors]:
    """The request and its descriptors. Raises BadRequest."""
    try:
        fields: dict[str, Any] = json.loads(message)
        named = dict(zip(fields["descriptors"], received, strict=True))
        descriptors = Descriptors(named["listener"], named["leave"], named["report"], named["log"], named.get("key"))
        view = fields.get("view")
        request = Request(
            name=str(fields["name"]),
            generation=int(fields["generation"]),
            mark=str(fields["mark"]),
            environment={str(name): str(value) for name, value in fields["environment"].items()},
            directory=str(fields["directory"]),
            view=None if view is None else View.parse(view),
            uid=_number(fields.get("uid")),
            gid=_number(fields.get("gid")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadRequest(f"not a request of a runtime ({type(error).__name__})") from None
    if request.view is not None and (request.uid, request.gid) != (None, None):
        raise BadRequest("a view of its own and another user cannot both be had")  # its folders are the zygote's
    return request, descriptors


def _number(value: Any) -> int | None:
    return None if value is None else int(value)
