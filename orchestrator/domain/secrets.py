"""A value that must not be seen: `SecretText`, and the rule for the names of secrets.

Everything that holds a key, a token or a secret holds it as `SecretText` from the first line that sees it.
`repr`, `str`, format strings, JSON and pickling give the mark instead of the value; `.open()` is the one way in, and
is easy to find with grep.
"""

import hashlib
import hmac
import re
import secrets
from typing import Any, NoReturn

from orchestrator.domain.errors import InvalidRequest

REDACTED = "**********"
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]{0,63}")
#: Variables that change how a shell, a loader or git works, in every command that names them.
_RESERVED = frozenset(
    "PATH HOME SHELL USER LOGNAME PWD OLDPWD IFS PS1 PS2 PS4 PROMPT_COMMAND TERM LANG BASH_ENV ENV BASHOPTS SHELLOPTS "
    "TMPDIR PYTHONPATH PYTHONHOME".split()
)
_RESERVED_PREFIXES = ("LD_", "GIT_CONFIG", "NESTOR_", "BASH_FUNC")
MAXIMUM_VALUE_BYTES = 64 * 1024


class SecretText:
    """Text that shows itself only to `open()`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def open(self) -> str:
        """The value. Keep it for the length of one call."""
        return self._value

    def matches(self, candidate: str) -> bool:
        """Whether `candidate` is this value, in time that does not depend on where they differ."""
        return hmac.compare_digest(self._value.encode(), candidate.encode())

    def fingerprint(self) -> str:
        """Eight hexadecimal digits that tell two values apart and reveal neither."""
        return hashlib.sha256(b"nestor-fingerprint|" + self._value.encode()).hexdigest()[:8]

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretText) and self.matches(other._value)

    def __hash__(self) -> int:
        return hash((SecretText, self._value))

    def __repr__(self) -> str:
        return f"SecretText({REDACTED!r})"

    def __str__(self) -> str:
        return REDACTED

    def __format__(self, spec: str) -> str:
        return format(REDACTED, spec)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SecretText cannot be pickled: open it where it is used")


def new_secret(bits: int = 256) -> SecretText:
    """Fresh random text of at least `bits` bits, safe in headers and URLs."""
    return SecretText(secrets.token_urlsafe(bits // 8))


def check_secret_name(name: str) -> str:
    """`name` if it can be an environment variable of the agent (nested-config.md 5); raises `InvalidRequest`."""
    if name.upper() in _RESERVED or name.upper().startswith(_RESERVED_PREFIXES):
        raise InvalidRequest(
            f"{name[:80]!r} steers the agent's shell itself",
            field="name",
            hint="choose a name of your own for the secret",
        )
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name[:80]!r} is not a name for a secret",
            field="name",
            hint="it becomes an environment variable: a letter, then letters, digits and underscores, 64 at most",
        )
    return name


def check_secret_value(value: str) -> SecretText:
    """`value` wrapped, unless it is blank, the mark itself, has a NUL, or is larger than 64 KiB (`InvalidRequest`)."""
    if not value.strip() or value == REDACTED:
        raise InvalidRequest(
            "the value is empty or the mark of a hidden one", field="value", hint="send the value itself"
        )
    if "\0" in value:
        raise InvalidRequest(
            "the value has a NUL character", field="value", hint="encode binary values, for example as base64"
        )
    if len(value.encode()) > MAXIMUM_VALUE_BYTES:
        raise InvalidRequest("the value is larger than 64 KiB", field="value", hint="store a reference instead")
    return SecretText(value)


def deep_redact(value: Any) -> Any:
    """A copy of plain JSON-like data in which every `SecretText` is the mark."""
    if isinstance(value, SecretText):
        return REDACTED
    if isinstance(value, dict):
        return {key: deep_redact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [deep_redact(item) for item in value]
    return value
