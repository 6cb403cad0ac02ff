"""Replaces the values of live secrets in everything that leaves the runtime: events, files of output, errors.

One `Mask` belongs to a conversation and learns every value that became live in it. `spellings` says in which forms a
value is looked for. Knows nothing of where a text goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_origin

from pydantic import BaseModel, SecretStr

from runtime.secrets.long_spellings import LongSpellings, Span, merged
from runtime.secrets.spellings import spellings
from runtime.secrets.torn import Beginnings

Model = TypeVar("Model", bound=BaseModel)

HIDDEN = "<secret-hidden>"
#: characters; shorter ones stand in innocent text everywhere: hiding them would spoil all output and protect nothing
SHORTEST = 4


@dataclass(frozen=True)
class _LookedFor:
    """What finds these values in a text, and their beginnings at its end."""

    values: frozenset[str]
    pattern: re.Pattern[str] | None
    long: LongSpellings
    beginnings: Beginnings
    longest: int

    @classmethod
    def of(cls, values: frozenset[str]) -> _LookedFor:
        found = {spelling for value in values for spelling in spellings(value)}
        longest_first = sorted(found, key=lambda spelling: spelling.longest, reverse=True)
        patterns = [one.pattern for one in longest_first if one.pattern]
        pattern = re.compile("|".join(patterns)) if patterns else None
        longest = longest_first[0].longest if longest_first else 0
        return cls(values, pattern, LongSpellings(longest_first), Beginnings(longest_first), longest)

    def hidden(self, text: str) -> str:
        """The text with every value replaced."""
        if self.long.spans(text):
            return "".join(_replaced(text, self.spans(text)))
        return text if self.pattern is None else self.pattern.sub(HIDDEN, text)

    def spans(self, text: str) -> list[Span]:
        """Where values stand, in order, none over another."""
        matches = self.pattern.finditer(text) if self.pattern is not None else ()
        return merged([*self.long.spans(text), *(match.span() for match in matches)])


def _replaced(text: str, spans: Iterable[Span]) -> Iterator[str]:
    after = 0
    for start, end in spans:
        yield text[after:start]
        yield HIDDEN
        after = end
    yield text[after:]


class Mask:
    """Grows only: a value that was live once stays hidden for the conversation's life."""

    def __init__(self) -> None:
        self._known: frozenset[str] = frozenset()  #: replaced, never changed: threads mask as well
        self._made: _LookedFor | None = None

    def add(self, values: Iterable[SecretStr]) -> None:
        """Hide these values from now on, but for those shorter than `SHORTEST`."""
        given = {value.get_secret_value() for value in values} - self._known
        new = {value for value in given if len(value.strip()) >= SHORTEST}
        if new:
            self._known |= new

    def _looked_for(self) -> _LookedFor:
        """Made when the first text is looked through after something was added: it takes milliseconds of a processor
        for each value, and a conversation is made before it says anything."""
        known, made = self._known, self._made
        if made is None or made.values is not known:
            made = self._made = _LookedFor.of(known)
        return made

    @property
    def longest(self) -> int:
        """Length of the longest spelling, for those who cut a text before they can mask it."""
        return self._looked_for().longest

    def text(self, text: str) -> str:
        """The text with every live value replaced."""
        return self._looked_for().hidden(text)

    def released(self, text: str) -> tuple[str, str]:
        """What of a text can be shown though more of it may come, masked; and the rest, which may be the beginning of a
        value and has to stand in front of what comes."""
        looked_for = self._looked_for()
        if not looked_for.longest:
            return text, ""
        open_at = iter(looked_for.beginnings.where(text, within=looked_for.longest))
        held = next(open_at, len(text))
        shown: list[str] = []
        after = 0
        for start, end in looked_for.spans(text):
            if start >= held:
                break  # also of a value that begins at the same place as a longer one
            shown += (text[after:start], HIDDEN)
            after = end
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
