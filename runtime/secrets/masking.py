"""Replaces the values of live secrets in everything that leaves the runtime: events, files of output, errors.

One `Mask` belongs to a conversation and learns every value that became live in it. `spellings` says in which forms a
value is looked for. Knows nothing of where a text goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, get_origin

from pydantic import BaseModel, SecretStr

from runtime.secrets.spellings import Spelling, spellings
from runtime.secrets.torn import Beginnings

Model = TypeVar("Model", bound=BaseModel)

HIDDEN = "<secret-hidden>"
#: characters; shorter ones stand in innocent text everywhere: hiding them would spoil all output and protect nothing
SHORTEST = 4


class Mask:
    """Grows only: a value that was live once stays hidden for the conversation's life."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._spellings: set[Spelling] = set()
        self._pattern: re.Pattern[str] | None = None
        self._beginnings = Beginnings(())

    def add(self, values: Iterable[SecretStr]) -> None:
        """Hide these values from now on, but for those shorter than `SHORTEST`."""
        given = {value.get_secret_value() for value in values} - self._known
        new = {value for value in given if len(value.strip()) >= SHORTEST}
        if not new:
            return
        self._known |= new
        self._spellings.update(*map(spellings, new))
        longest_first = sorted(self._spellings, key=lambda spelling: spelling.longest, reverse=True)
        self._pattern = re.compile("|".join(one.pattern for one in longest_first)) if longest_first else None
        self._beginnings = Beginnings(longest_first)

    @property
    def longest(self) -> int:
        """Length of the longest spelling, for those who cut a text before they can mask it."""
        return max((spelling.longest for spelling in self._spellings), default=0)

    def text(self, text: str) -> str:
        """The text with every live value replaced."""
        return text if self._pattern is None else self._pattern.sub(HIDDEN, text)

    def released(self, text: str) -> tuple[str, str]:
        """What of a text can be shown though more of it may come, masked; and the rest, which may be the beginning of a
        value and has to stand in front of what comes."""
        if self._pattern is None:
            return text, ""
        open_at = iter(self._beginnings.where(text, within=self.longest))
        held = next(open_at, len(text))
        shown: list[str] = []
        after = 0
        for match in self._pattern.finditer(text):
            if match.start() >= held:
                break  # also of a value that begins at the same place as a longer one
            shown += (text[after : match.start()], HIDDEN)
            after = match.end()
            while held < after:  # what is a value already begins no other
                held = next(open_at, len(text))
        return "".join((*shown, text[after:held])), text[held:]

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


class MaskedStream:
    """A text that comes in pieces: a value that is torn over two of them, in whatever spelling, is masked as well."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._held = ""

    def feed(self, piece: str) -> str:
        """What can be shown now; what may be the beginning of a value waits for the next piece."""
        shown, self._held = self._mask.released(self._held + piece)
        return shown

    def rest(self) -> str:
        """What waited, when no more comes."""
        held, self._held = self._held, ""
        return self._mask.text(held)
