"""What the operator or the orchestrator says about a receiver of webhooks (contract 8): checked, never shown.

`runtime.settings` and `POST /api/init` hold a list of these. Headers are secrets: receivers are authorised by them.
"""

import math
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

#: more is a mistake, and each one costs a position for every conversation
MOST_RECEIVERS = 16
#: how many posts are under way to one receiver at most, whatever its bounds on memory allow
_MOST_AT_ONCE = 8
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
#: belong to the connection, not to who configures a receiver
_OWN_HEADERS = frozenset(
    ("connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")
)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Seconds = Annotated[float, Field(ge=0, le=86_400), AfterValidator(_finite)]
Count = Annotated[int, Field(ge=1)]


class Webhook(BaseModel):
    """One receiver. Errors name the field and never its value."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    #: read from variables as well
    older_fields: ClassVar[tuple[str, ...]] = ("webhook_url",)

    #: events go to `{base_url}/events/{conversation}`, conversations to `{base_url}/conversations`
    base_url: str
    #: under which its progress is kept, so that it may move to another address; by default made from the address
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")] | None = None
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    #: of older releases: how a receiver wants to be asked
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    #: whether it is the orchestrator's own and so may have the session key; nobody else gets it
    send_session_key: bool = False
    #: as many unsent events of a conversation are sent at once
    event_buffer_size: Count = 5
    #: or when the first of them is so old
    flush_delay: Seconds = 30.0
    #: quick tries after the first, this far apart; then the distance grows
    num_retries: Annotated[int, Field(ge=0)] = 3
    retry_delay: Seconds = 5.0
    #: the largest batch: events, and bytes of the body (a single larger event still goes, alone)
    max_queue_size: Count = 1000
    max_batch_bytes: Count = 5 << 20
    #: what all batches under way may hold in memory
    max_queue_bytes: Count = 50 << 20

    @model_validator(mode="before")
    @classmethod
    def _older_names(cls, value: Any) -> Any:
        """`webhook_url` of older releases, `method` in any case; null means not given."""
        if not isinstance(value, Mapping):
            return value
        found = {name: given for name, given in value.items() if given is not None}
        if "webhook_url" in found:
            if "base_url" in found:
                raise ValueError("give base_url or webhook_url (its older name), not both")
            found["base_url"] = found.pop("webhook_url")
        if isinstance(method := found.get("method"), str):
            found["method"] = method.upper()
        return found

    @field_validator("base_url")
    @classmethod
    def _base_url(cls, value: str) -> str:
        try:
            parts = urlsplit(value.strip())
            _ = parts.port
        except ValueError:
            raise ValueError("must be a URL") from None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be an http or https URL with a host")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must not hold a user or password: use headers")
        if parts.query or parts.fragment:
            raise ValueError("must have no query and no fragment: paths are appended to it")
        if not value.strip().isascii() or re.search(r"[\s\x00-\x1f\x7f]", value.strip()):
            raise ValueError("must be plain ASCII without blanks; percent-encode what else it holds")
        return parts.geturl().rstrip("/")

    @field_validator("headers")
    @classmethod
    def _headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in headers.items():
            value = secret.get_secret_value()
            if not _TOKEN.fullmatch(name):
                raise ValueError("the name of a header has a character that names may not have")
            if name.lower() in _OWN_HEADERS or name.lower().startswith("x-nestor-"):
                raise ValueError(f"{name} is set by the runtime itself")
            if not value.isascii() or any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
                raise ValueError(f"the value of {name} may only hold printable ASCII")
        if len({name.lower() for name in headers}) < len(headers):
            raise ValueError("a header is given twice")
        return headers

    @property
    def key(self) -> str:
        """What its progress is filed under."""
        return self.name or sha256(self.base_url.encode()).hexdigest()[:16]

    @property
    def origin(self) -> str:
        """What a log may say of the address: paths can hold tokens."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def batch_bytes(self) -> int:
        return min(self.max_batch_bytes, self.max_queue_bytes)

    @property
    def at_once(self) -> int:
        """How many batches may be in memory."""
        return max(1, min(_MOST_AT_ONCE, self.max_queue_bytes // self.batch_bytes))


def checked_receivers(receivers: tuple[Webhook, ...]) -> tuple[Webhook, ...]:
    """Raises ValueError when there are too many, or two that are the same."""
    if len(receivers) > MOST_RECEIVERS:
        raise ValueError(f"at most {MOST_RECEIVERS} receivers")
    if len({one.key for one in receivers}) < len(receivers):
        raise ValueError("two receivers have the same name or address")
    return receivers


Webhooks = Annotated[tuple[Webhook, ...], AfterValidator(checked_receivers)]
