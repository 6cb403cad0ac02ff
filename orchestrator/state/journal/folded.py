"""What is known after a row of entries: the last state of every object that was not removed. Pure."""

import json
from collections.abc import Iterable, Iterator

from orchestrator.state.journal.entry import Entry

#: Kinds whose ids begin with `<conversation>|`, or are the conversation's: they go when it goes.
_BELONGING = frozenset({"message", "delivered", "used"})


class Folded:
    """The objects of one journal. Order of first appearance is kept."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], str] = {}
        self._belonging: dict[str, set[tuple[str, str]]] = {}

    def add(self, entries: Iterable[Entry]) -> "Folded":
        """Let `entries` follow what is known. Answers itself."""
        for entry in entries:
            key = (entry.kind, entry.id)
            if entry.body is None:
                self._objects.pop(key, None)
                if entry.kind == "conversation":
                    for belonging in self._belonging.pop(entry.id, ()):
                        self._objects.pop(belonging, None)
                continue
            self._objects[key] = entry.body
            if (owner := owner_of(entry)) is not None:
                self._belonging.setdefault(owner, set()).add(key)
        return self

    def of(self, kind: str) -> Iterator[tuple[str, str]]:
        """(id, body) of every object of that kind."""
        return ((id, body) for (found, id), body in self._objects.items() if found == kind)

    def entries(self) -> list[Entry]:
        """Entries that lead to the same."""
        return [Entry(kind, id, body) for (kind, id), body in self._objects.items()]

    def __len__(self) -> int:
        return len(self._objects)


def owner_of(entry: Entry) -> str | None:
    """The conversation with which an object goes, if it is one's."""
    if entry.body is None:
        return None
    if entry.kind in _BELONGING:
        return entry.id.partition("|")[0]
    return str(json.loads(entry.body)["conversation"]) if entry.kind == "operation" else None
