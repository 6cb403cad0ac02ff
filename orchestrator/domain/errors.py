"""Every failure that has a name.

    NestorError
    ├── CallerError            the caller can mend it; never retried
    │   ├── InvalidRequest     422
    │   │   ├── ImageRefused   422   an image that is not on the operator's list
    │   │   └── Mismatch       422   a known id with another content
    │   ├── Unauthenticated    401
    │   ├── Forbidden          403
    │   ├── NotFound           404   also: another tenant's object
    │   │   └── Gone           410   deleted, and can still be brought back; the older surfaces say 404
    │   ├── Conflict           409
    │   │   └── NotApart       409   a second tenant, where tenants would not be kept apart
    │   ├── PreconditionFailed 412
    │   ├── TooLarge           413
    │   ├── LimitReached       429
    │   │   └── BudgetReached  429   what may be spent on models this month is spent
    │   ├── NotOffered         501   nothing here does it
    │   └── Elapsed            408
    ├── TransientError         a later try may work; says when
    │   ├── StoreUnavailable   503   the state server did not answer
    │   │   └── StateLost      503   it came back empty; what is known is being written anew
    │   ├── DriverUnavailable  503   the engine could not be asked; says nothing about what runs
    │   │   └── DiskFull       503   it has no space left
    │   ├── RuntimeUnreachable 502   the runtime did not answer
    │   ├── StepOverdue        503   a step of a saga took longer than it may
    │   ├── CapacityReached    503   the host has no room for another runtime
    │   ├── KeysUnavailable    503   the keys that tokens are checked by could not be fetched
    │   └── Draining           503
    └── PermanentError         trying again gives the same
        ├── StartFailed              a step of provisioning; carries the reason of the conversation
        ├── LeaseLost                somebody with a higher fence acts now; stop
        ├── IllegalTransition        a phase cannot follow another
        ├── Unreadable         503   a stored record is damaged, or a newer version's
        ├── Sealed             503   no usable master key: nothing is read, nothing overwritten
        └── Undecryptable      503   this value cannot be opened with the present keys

`code` is stable and public, `hint` says what to do. `api/problems.py` is the one table that makes HTTP of them.
A message never holds a secret, a request body, or the text of a foreign exception.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class NestorError(Exception):
    """Something failed that Nestor has a name for."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, hint: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: Mapping[str, Any] = details


class CallerError(NestorError):
    """The request cannot be served as it stands."""

    code = "bad_request"


class InvalidRequest(CallerError):
    """A field of the request is wrong; `field` names it."""

    code = "invalid_request"

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.field = field


class ImageRefused(InvalidRequest):
    """The operator did not allow this image: leave it out, or have it added to NESTOR_ALLOWED_IMAGES."""

    code = "image_refused"


class Mismatch(InvalidRequest):
    """Something else was sent under this id before, and is kept: use another id for this."""

    code = "idempotency_mismatch"


class Unauthenticated(CallerError):
    """Send a valid key in `Authorization: Bearer`."""

    code = "unauthenticated"


class Forbidden(CallerError):
    """This key may not do that; use one with the scope that the message names."""

    code = "forbidden"


class NotFound(CallerError):
    """There is no such object for this caller."""

    code = "not_found"


class Gone(NotFound):
    """It was deleted: bring it back by `undelete`, or look at it with `?deleted=true`."""

    code = "gone"


class Conflict(CallerError):
    """The object is in a state in which this cannot be done."""

    code = "conflict"


class NotApart(Conflict):
    """Something that keeps tenants apart did not take effect on this engine: mend it, or accept it by its name."""

    code = "isolation_insufficient"


class NotOffered(CallerError):
    """The request is understood and this installation has nothing that does it; the message names what is missing."""

    code = "not_offered"


class PreconditionFailed(CallerError):
    """The object changed since you read it: read it again."""

    code = "precondition_failed"


class TooLarge(CallerError):
    """The body is larger than this route accepts."""

    code = "too_large"


class UnsupportedType(CallerError):
    """The body is of a type that this route does not read: send application/json."""

    code = "unsupported_media_type"


class LimitReached(CallerError):
    """A limit of the tenant is reached; `rule`, `limit` and `current` say which."""

    code = "limit_reached"

    @property
    def retry_after(self) -> float:
        """Seconds until a place may be free."""
        return float(self.details.get("retry_after", 5.0))


class BudgetReached(LimitReached):
    """What may be spent on models this month is spent: wait for `resets_at`, or have the operator raise the budget."""

    code = "budget_reached"


class Elapsed(CallerError):
    """The time you wanted to wait is over; the work goes on."""

    code = "wait_elapsed"


class TransientError(NestorError):
    """A later try may work."""

    code = "unavailable"
    default_retry_after: ClassVar[float] = 1.0

    def __init__(
        self, message: str, *, retry_after: float | None = None, hint: str | None = None, **details: Any
    ) -> None:
        super().__init__(message, hint=hint, **details)
        self.retry_after = self.default_retry_after if retry_after is None else retry_after


class StoreUnavailable(TransientError):
    """The state server did not answer in time; nothing was accepted."""

    code = "store_unavailable"


class StateLost(StoreUnavailable):
    """The state server came back without what it kept; nothing is answered from it until it is rebuilt."""


class DriverUnavailable(TransientError):
    """The engine could not be asked, so nothing is known about what runs."""

    code = "engine_unavailable"


class DiskFull(DriverUnavailable):
    """The disk on which the engine keeps runtimes has no space left, or the quota on it is reached."""

    code = "disk_full"


class RuntimeUnreachable(TransientError):
    """The runtime did not answer in time or answered nonsense."""

    code = "runtime_unreachable"


class StepOverdue(TransientError):
    """A step of what is done to a conversation took longer than it may; its call may go on, and is undone."""

    code = "deadline"

    def __init__(self, step: str, seconds: float) -> None:
        super().__init__(f"step {step} did not end within its {seconds:g} seconds")
        self.step = step


class CapacityReached(TransientError):
    """The host has no room for another runtime now; `rule` says which of the operator's limits is reached."""

    code = "capacity"


class KeysUnavailable(TransientError):
    """The keys that tokens are checked by could not be fetched: nothing is known about the token."""

    code = "token_keys_unavailable"


class Draining(TransientError):
    """This replica is stopping; another one serves you."""

    code = "draining"


class PermanentError(NestorError):
    """Trying again gives the same."""

    code = "failed"


class IllegalTransition(PermanentError):
    """That phase cannot follow the present one."""

    code = "illegal_transition"


class LeaseLost(PermanentError):
    """Somebody with a higher fence acts on this conversation now; whatever was being written was refused."""

    code = "lease_lost"


class RuntimeNotFound(PermanentError):
    """The engine was asked and says that there is no such runtime."""

    code = "runtime_not_found"


class Unreadable(PermanentError):
    """A stored record is damaged, or a newer version of Nestor wrote it; nothing of it was changed."""

    code = "record_unreadable"


class Sealed(PermanentError):
    """The master key is missing or another one: give the right one and restart; nothing was overwritten."""

    code = "sealed"


class Undecryptable(PermanentError):
    """This value was sealed under a key that is not loaded, or it was changed or moved."""

    code = "undecryptable"


class Misconfigured(PermanentError):
    """The operator's configuration cannot work as it stands; the message names the variable."""

    code = "misconfigured"
