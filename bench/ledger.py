"""What `bench/kills.py` did, so that it can be killed as well and go on: one line an act, written before the next act.

A message is noted before it is sent and after it was acknowledged. What was only sent is unsure: it may be there or
not.
"""

import contextlib
import json
import os
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self


@dataclass
class Conversation:
    """What was sent to a conversation, and how often each message was found up to `cursor`."""

    id: str
    acknowledged: list[str] = field(default_factory=list)
    unsure: dict[str, None] = field(default_factory=dict)
    cursor: str | None = None
    found: Counter[str] = field(default_factory=Counter)


class Ledger:
    """Read whole when it is opened. Its methods may be called by several threads."""

    def __init__(self, path: Path) -> None:
        """Ends the server of a bench that was killed, so that there is one writer. Raises OSError."""
        self.conversations: list[Conversation] = []
        self.kills = 0
        self.seconds = 0.0
        self.runs = 0  #: how often the bench was begun on this ledger
        self._by_id: dict[str, Conversation] = {}
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._folder = path.parent
        pid = 0
        if path.exists():
            for line in path.read_bytes().splitlines():
                with contextlib.suppress(ValueError):  # the last one may be torn
                    pid = self._take(json.loads(line)) or pid
        if pid:
            self._end(pid)
        self._file = path.open("ab", buffering=0)
        self._file.write(b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def began(self, pid: int) -> None:
        """The bench begins; a server runs under this number."""
        self._note({"run": self.runs + 1, "began": pid})

    def created(self, id: str) -> None:
        self._note({"created": id})

    def sending(self, conversation: Conversation, event_id: str) -> None:
        self._note({"sending": event_id, "to": conversation.id})

    def acknowledged(self, conversation: Conversation, event_id: str) -> None:
        self._note({"acknowledged": event_id, "to": conversation.id})

    def killed(self, pid: int) -> None:
        """Once more; another server runs now."""
        now = time.monotonic()
        self._note({"killed": round(now - self._last, 3), "began": pid})
        self._last = now

    @property
    def told(self) -> str:
        messages = sum(len(conversation.acknowledged) for conversation in self.conversations)
        return (
            f"{self.kills} kills, {len(self.conversations)} conversations, {messages} acknowledged messages, "
            f"{self.seconds:.0f} s"
        )

    def _note(self, act: dict[str, Any]) -> None:
        with self._lock:
            self._file.write(json.dumps(act).encode() + b"\n")
            self._take(act)

    def _take(self, act: dict[str, Any]) -> int:
        """Answers the number of the server that runs from this act on, 0 when the same does."""
        if "created" in act:
            self.conversations.append(Conversation(act["created"]))
            self._by_id[act["created"]] = self.conversations[-1]
        elif "sending" in act:
            self._by_id[act["to"]].unsure[act["sending"]] = None
        elif "acknowledged" in act:
            conversation = self._by_id[act["to"]]
            conversation.unsure.pop(act["acknowledged"], None)
            conversation.acknowledged.append(act["acknowledged"])
        elif "killed" in act:
            self.kills += 1
            self.seconds += act["killed"]
        elif "run" in act:
            self.runs = act["run"]
        return int(act.get("began", 0))

    def _end(self, pid: int) -> None:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cwd").readlink() == self._folder.resolve():
                os.kill(pid, signal.SIGKILL)
