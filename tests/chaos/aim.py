"""A kill that meets a start in a chosen step, or in the gap behind it.

A gap lasts as long as one write to the state server. So the state server is watched as it works (`MONITOR`), and the
kill follows the very command that writes where the start is.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from redis import Redis

_CONVERSATION = re.compile(r"HSET \S+:(?P<id>[-0-9a-f]{36}) lease_owner (?P<owner>\S+)")
_OPERATION = re.compile(r'HSET (?P<name>\S+) state \w+ text .*"conversation":\s*"(?P<id>[-0-9a-f]{36})"')
_STAGE = re.compile(r'HSET (?P<name>\S+) stage:(?P<stage>\w+) .*"state":\s*"(?P<state>\w+)"')


class Victim(Protocol):
    """A replica."""

    @property
    def owner(self) -> str:
        """The name that stands in its leases."""

    def crash(self) -> None:
        """SIGKILL."""


V = TypeVar("V", bound=Victim)


class Watch:
    """Follows the starts of one state server from when it was entered."""

    def __init__(self, redis: Path) -> None:
        self._client = Redis.from_url(f"unix://{redis}", decode_responses=True)
        self._owners: dict[str, str] = {}  #: by conversation
        self._starts: dict[str, str] = {}  #: the conversation, by the name of its start's operation
        self._places: dict[str, str] = {}  #: where each conversation's start is
        self.hit = False

    def __enter__(self) -> Watch:
        self._monitor = self._client.monitor().__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        self._monitor.__exit__(None, None, None)
        self._client.close()

    def kill_at(self, place: str, replicas: Sequence[V], seconds: float = 8.0) -> V | None:
        """Kill the replica that is the first to have a start there; None when none was seen there in that time."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if not self._monitor.connection.can_read(timeout=0.2):
                continue
            conversation = self._hear(str(self._monitor.next_command()["command"]))
            if conversation and self._places[conversation] == place:
                for replica in replicas:
                    if replica.owner == self._owners.get(conversation):
                        replica.crash()
                        self.hit = True
                        return replica
        return None

    def held_by(self, owner: str) -> Counter[str]:
        """Where the starts were, when last heard of, that this replica had."""
        return Counter(place for id, place in self._places.items() if self._owners.get(id) == owner)

    def _hear(self, command: str) -> str | None:
        """The conversation whose start has gone on, if that is what the command says."""
        if held := _CONVERSATION.match(command):
            self._owners[held["id"]] = held["owner"]
        elif begun := _OPERATION.match(command):
            self._starts[begun["name"]] = begun["id"]
        elif (gone_on := _STAGE.match(command)) and gone_on["name"] in self._starts:
            conversation = self._starts[gone_on["name"]]
            place = {"running": gone_on["stage"], "succeeded": f"after {gone_on['stage']}"}.get(gone_on["state"])
            if place:
                self._places[conversation] = place
                return conversation
        return None
