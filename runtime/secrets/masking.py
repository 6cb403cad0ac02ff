"""Replaces the values of live secrets in everything that leaves the runtime: events, files of output, errors.

One `Mask` belongs to a conversation and learns every value that became live in it. Besides the value itself its
JSON-escaped and shell-quoted forms are replaced, because tool arguments and traces of a shell show those. Knows nothing
of where a text goes.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, get_origin

from pydantic import BaseModel, SecretStr

Model = TypeVar("Model", bound=BaseModel)

HIDDEN = "<secret-hidden>"


class Mask:
    """Grows only: a value that was live once stays hidden for the conversation's life."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._forms: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def add(self, values: Iterable[SecretStr]) -> None:
        """Hide these values from now on. Blank values are ignored."""
        new = {value.get_secret_value() for value in values} - self._known
        if not new:
            return
        self._known |= new
        self._forms.update(*map(_forms, new))
        longest_first = sorted(self._forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    @property
    def longest(self) -> int:
        """Length of the longest form, for those who cut a text before they can mask it."""
        return max(map(len, self._forms), default=0)

    def text(self, text: str) -> str:
        """The text with every live value replaced."""
        return text if self._pattern is None else self._pattern.sub(HIDDEN, text)

    def model(self, record: Model) -> Model:
        """A record with every free text in it masked; fields of a closed set of words are left alone."""
        changes = {
            name: self.tree(getattr(record, name))
            for name, field in type(record).model_fields.items()
            if get_origin(field.annotation) is not Literal
        }
        return record.model_copy(update=changes)

    def tree(self, value: Any) -> Any:
        """A value with every string in it masked; keys are left alone."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, BaseModel):
            return self.model(value)
        if isinstance(value, Mapping):
            return {key: self.tree(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.tree(item) for item in value]
        return value


def _forms(value: str) -> set[str]:
    """How the value may appear. Output of a terminal lacks the blanks and line ends around it."""
    stripped = value.strip()
    if not stripped:
        return set()
    plain = {value, stripped, stripped.replace("\r\n", "\n")}
    escaped = {json.dumps(form)[1:-1] for form in plain} | {
        json.dumps(form, ensure_ascii=False)[1:-1] for form in plain
    }
    quoted = {shlex.quote(form) for form in plain} | {form.replace("'", "'\\''") for form in plain}
    return plain | escaped | quoted
