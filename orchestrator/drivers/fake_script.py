"""What goes wrong in fake runtimes, and what they were told: the tests' hand on `fake_runtime.py`.

A test plans faults by method and path and reads afterwards which requests came in which order. It knows nothing of
what a runtime answers when all is well.
"""

import enum
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

_REMEMBERED_REQUESTS = 10_000


class Fault(enum.Enum):
    """What a scripted request meets instead of its answer."""

    STATUS = enum.auto()  #: that status, nothing done
    SILENCE = enum.auto()  #: no answer, ever
    LOST_REPLY = enum.auto()  #: the work is done, then the connection is cut
    DEATH = enum.auto()  #: the runtime ends


@dataclass(frozen=True)
class Received:
    """One request as it came in. `body` is the JSON value, or None."""

    runtime: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass
class Rule:
    method: str
    path: str
    fault: Fault
    times: int | None
    status: int
    body: Any


@dataclass
class Script:
    """What goes wrong, and what was seen. `path` may hold `*`; `times` None means from now on."""

    received: deque[Received] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_REQUESTS))
    pace: float = 0.0  #: seconds that every request takes, so that there is a middle to be killed in
    _rules: list[Rule] = field(default_factory=list)

    def fail(self, method: str, path: str, status: int, *, times: int | None = 1, body: Any = None) -> None:
        """Answer with `status`."""
        self._rules.append(Rule(method, path, Fault.STATUS, times, status, body))

    def hang(self, method: str, path: str, *, times: int | None = 1) -> None:
        """Never answer."""
        self._rules.append(Rule(method, path, Fault.SILENCE, times, 0, None))

    def lose_reply(self, method: str, path: str, *, times: int | None = 1) -> None:
        """Do it, and cut the connection instead of saying so."""
        self._rules.append(Rule(method, path, Fault.LOST_REPLY, times, 0, None))

    def die(self, method: str, path: str, *, times: int | None = 1) -> None:
        """End the runtime."""
        self._rules.append(Rule(method, path, Fault.DEATH, times, 0, None))

    def slow(self, seconds: float) -> None:
        """Let every request take that long."""
        self.pace = seconds

    def clear(self) -> None:
        """From now on nothing goes wrong."""
        self._rules.clear()

    def posts(self, runtime: str | None = None) -> Sequence[tuple[str, Any]]:
        """Path and body of every POST, in order, of one runtime or of all."""
        return [
            (one.path, one.body)
            for one in self.received
            if one.method == "POST" and (runtime is None or one.runtime == runtime)
        ]

    def meets(self, method: str, path: str) -> Rule | None:
        """The rule for this request, counted as used."""
        for rule in self._rules:
            if rule.times != 0 and rule.method == method and fnmatchcase(path, rule.path):
                rule.times = None if rule.times is None else rule.times - 1
                return rule
        return None
