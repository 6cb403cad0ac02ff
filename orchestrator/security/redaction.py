"""What must not be seen is replaced by the mark on its way out: logs, log tails of runtimes, messages of failures.

Two nets. Values that are known now (a tenant's secrets while they are being pushed, the keys of this process) are found
wherever they stand, also in base64, percent-encoding or as a JSON string. Unknown ones are found by the shape of a
token or by the name of the field they are in. `telemetry/logging.py` uses a `Redactor` on every log event. The first
line of defence stays `SecretText`: this is the net under it.
"""

import base64
import json
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from orchestrator.domain.secrets import REDACTED, SecretText

MINIMUM_LENGTH = 6  #: shorter values would blank out ordinary words
_LONG_LINE = 16  #: of a value of several lines: shorter ones are words
_DEEPEST = 12

_TOKENS = re.compile(
    r"""
      \bnst_[A-Za-z0-9_-]{16,}            # Nestor
    | \bgh[pousr]_[A-Za-z0-9]{16,}        # GitHub
    | \bgithub_pat_[A-Za-z0-9_]{16,}
    | \bglpat-[A-Za-z0-9_.-]{16,}         # GitLab
    | \bsk-[A-Za-z0-9_-]{16,}             # model providers
    | \bgAAAAA[A-Za-z0-9_-]{16,}={0,2}    # Fernet
    | (?<=://)[^/\s:@"']*:[^/\s@"']+(?=@) # user:password in a URL
    | (?i:(?<=\bbearer\ )[A-Za-z0-9._~+/-]{16,}={0,2})
    """,
    re.VERBOSE,
)
_SECRET_NAME = re.compile(
    r"(?i)(secret|password|passwd|authorization|cookie|credential|(api|access|session|inner|init|master|operator|private)"
    r"[_-]?key|(^|[_-])token$|[_-]tokens?$)"
)
_HARMLESS_NAME = re.compile(r"(?i)[_-](id|ids|name|names|kind|hash|count|version|fingerprint|limit|source)$")


class Redactor:
    """Replaces secrets in text and in JSON-like values. Values may be added and removed from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        # All forms by their first characters: the cost of a text does not grow with the number of values.
        self._forms: dict[str, tuple[str, ...]] = {}

    def add(self, values: Iterable[SecretText]) -> None:
        """Know these values until they are removed as often as they were added."""
        with self._lock:
            for value in values:
                plain = value.open()
                if len(plain) < MINIMUM_LENGTH:
                    continue
                self._held[plain] += 1
                if self._held[plain] == 1:
                    for form in _forms(plain):
                        self._file(form)

    def remove(self, values: Iterable[SecretText]) -> None:
        """Forget these values, once each; unknown ones are fine."""
        with self._lock:
            for value in values:
                plain = value.open()
                if self._held[plain] > 1:
                    self._held[plain] -= 1
                elif self._held.pop(plain, 0):
                    self._rebuild()

    def text(self, text: str, *, is_cut: bool = False) -> str:
        """`text` with the mark in place of every known value and everything that has the shape of a token. `is_cut`: it
        went on, and its end may be the beginning of a value."""
        known = self._without_known(text)
        return _TOKENS.sub(REDACTED, self._without_beginning(known) if is_cut else known)

    def value(self, value: Any, *, depth: int = 0) -> Any:
        """A copy of JSON-like `value` without secrets; anything else becomes its `repr`, redacted."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bytes):
            return self.text(value.decode(errors="replace"))
        if isinstance(value, SecretText) or depth > _DEEPEST:
            return REDACTED
        if isinstance(value, Mapping):
            return {str(key): self._field(str(key), item, depth) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(item, depth=depth + 1) for item in value]
        return self.text(repr(value))

    def __call__(self, logger: Any, method: str, event: Mapping[str, Any]) -> dict[str, Any]:
        """As a structlog processor, right before the renderer."""
        return {key: self._field(key, item, 0) for key, item in event.items()}

    def _field(self, name: str, value: Any, depth: int) -> Any:
        if isinstance(value, str | bytes) and value and _SECRET_NAME.search(name) and not _HARMLESS_NAME.search(name):
            return REDACTED
        return self.value(value, depth=depth + 1)

    def _without_known(self, text: str) -> str:
        forms = self._forms
        if not forms:
            return text
        kept: list[str] = []
        start = position = 0
        while position <= len(text) - MINIMUM_LENGTH:
            for form in forms.get(text[position : position + MINIMUM_LENGTH], ()):
                if text.startswith(form, position):
                    kept += (text[start:position], REDACTED)
                    start = position = position + len(form)
                    break
            else:
                position += 1
        return "".join((*kept, text[start:]))

    def _without_beginning(self, text: str) -> str:
        longest = max((len(form) for forms in self._forms.values() for form in forms), default=0)
        for position in range(max(0, len(text) - longest), len(text) - MINIMUM_LENGTH + 1):
            rest = text[position:]
            if any(form.startswith(rest) for form in self._forms.get(rest[:MINIMUM_LENGTH], ())):
                return text[:position] + REDACTED
        return text

    def _file(self, form: str) -> None:
        filed = {*self._forms.get(form[:MINIMUM_LENGTH], ()), form}
        self._forms[form[:MINIMUM_LENGTH]] = tuple(sorted(filed, key=len, reverse=True))  # the longest match wins

    def _rebuild(self) -> None:
        self._forms = {}
        for plain in self._held:
            for form in _forms(plain):
                self._file(form)


def _forms(plain: str) -> set[str]:
    raw = plain.encode("utf-8", "surrogatepass")
    forms = {plain, repr(plain)[1:-1], repr(raw)[2:-1], quote(plain, safe=""), quote(plain), quote_plus(plain)}
    forms |= {json.dumps(plain, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
    forms |= set(_base64_forms(raw))
    if "\n" in plain.strip():  # such as a private key: what prints it is looked at line by line
        forms |= {line.strip() for line in plain.splitlines() if len(line.strip()) >= _LONG_LINE}
    return {form for form in forms if len(form) >= MINIMUM_LENGTH}


def _base64_forms(raw: bytes) -> Iterator[str]:
    """How `raw` looks inside of a longer base64 text, such as `user:token`, at each of the three alignments."""
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
        # The first characters mix in what stands before, the last one what follows.
        inner = encoded[(0, 2, 3)[shift] : len(encoded) - (1 if (shift + len(raw)) % 3 else 0)]
        yield inner
        yield inner.translate(str.maketrans("+/", "-_"))
