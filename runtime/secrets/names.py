"""What a secret may be called and what it may hold.

Names become environment variables, and values go into them, so both are checked where they enter: the newer and the
older secret routes, and the secrets given with a conversation.
"""

import re
from collections.abc import Iterator, Mapping

from pydantic import SecretStr

from runtime.store.exposure import is_blank_or_mask

NAME_RULE = (
    "Invalid secret name format. Must start with a letter, contain only letters, numbers, and underscores, "
    "and be 1-64 characters long."
)
VALUE_RULE = "Secret value must not be empty or redacted"
TEXT_RULE = "Secret value must be valid text without NUL characters"

#: behind a scheme; what is shorter is a word
_SHORTEST_CREDENTIAL = 8
_CREDENTIALS = ("key", "secret", "token", "password", "passwd", "credential", "auth")
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]{0,63}")


class InvalidSecret(ValueError):
    """The name or the value breaks a rule; the text says which and never holds the value."""


def check_name(name: str) -> str:
    """The name itself, when it fits the rule. Raises InvalidSecret."""
    # A full match: an end anchor alone would let a trailing newline through.
    if not _NAME.fullmatch(name):
        raise InvalidSecret(NAME_RULE)
    return name


def check_value(value: str) -> str:
    """The value itself, when an environment variable can hold it and it is not a redaction. Raises InvalidSecret."""
    if is_blank_or_mask(value):
        raise InvalidSecret(VALUE_RULE)
    if not is_clean_text(value):
        raise InvalidSecret(TEXT_RULE)
    return value


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name is likely to hold a credential."""
    lowered = name.lower()
    return any(word in lowered for word in _CREDENTIALS)


def credentials(headers: Mapping[str, SecretStr]) -> Iterator[SecretStr]:
    """The values of headers that sign in, and what stands in them behind the scheme."""
    for name, value in headers.items():
        if is_secret_name(name):
            yield value
            _, scheme, rest = value.get_secret_value().partition(" ")
            if scheme and len(rest) >= _SHORTEST_CREDENTIAL:
                yield SecretStr(rest)


def is_clean_text(text: str) -> bool:
    """Whether the text can be stored and passed to a process: encodable, and without NUL."""
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON lets through
        return False
    return "\0" not in text
