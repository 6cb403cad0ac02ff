"""What a caller says a resource has to be like for a change of it to be made (RFC 9110 13.1, `If-Match` and
`If-None-Match`). The edge reads it from headers; whoever stores the change checks it in the same compare-and-set."""

from dataclasses import dataclass

from orchestrator.domain.errors import PreconditionFailed


@dataclass(frozen=True)
class Condition:
    """None: nothing is said. A resource that is not there has version 0."""

    versions: frozenset[int] | None = None  #: it has one of these
    others: frozenset[int] | None = None  #: it has none of these
    exists: bool | None = None  #: it is there, or it is not

    @property
    def is_some(self) -> bool:
        """Whether anything is said at all."""
        return self != ALWAYS

    def check(self, version: int, what: str) -> None:
        """Raises `PreconditionFailed` for a resource of this version. `what`: "the secret", for people."""
        if self.exists is False and version:
            raise PreconditionFailed(f"{what} is there already", hint="leave If-None-Match out to change it")
        if self.exists and not version:
            raise PreconditionFailed(f"{what} is not there", hint="leave If-Match out to make it")
        if (self.versions is not None and version not in self.versions) or version in (self.others or ()):
            raise PreconditionFailed(f"{what} changed since it was read", hint="read it again")


ALWAYS = Condition()
