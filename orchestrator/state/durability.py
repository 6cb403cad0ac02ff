"""What the state server is, and whether it can keep what it accepts. Asked once at the start, by `redis_store.py`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.domain.errors import Misconfigured, StoreUnavailable
from orchestrator.state.funnel import Funnel, command

_OLDEST = (6, 2)


@dataclass(frozen=True)
class ServerReport:
    server: str
    version: str
    #: always: on disk before each reply; confirmed: we wait for the disk; second: the last second may be lost; none
    durability: str
    waits_for_disk: bool

    def lines(self, *, archived: bool) -> Mapping[str, str]:
        """For the start-up report. `archived`: an accepted write waits for the journal."""
        told = _ARCHIVED if archived else _EXPLAINED[self.durability]
        return {"server": self.server, "version": self.version, "durability": told}


_ARCHIVED = "an accepted change is answered when the journal has it on disk; the server itself may lose the last ones"
_EXPLAINED = {
    "always": "every accepted write is on disk before it is answered",
    "confirmed": "an accepted write is answered when the server has confirmed it on disk",
    "second": "up to one second may be lost when the server's machine stops (set appendfsync always)",
    "none": "everything is lost when the server stops (set appendonly yes)",
}


async def inspect(funnel: Funnel) -> ServerReport:
    """Ask the server. Raises `Misconfigured` for a replica, for one that evicts, and for one that is too old."""
    about = (await funnel.one(command("INFO"))) or {}
    server = "valkey" if about.get("server_name") == "valkey" or "valkey_version" in about else "redis"
    version = str(about.get("valkey_version") or about.get("redis_version") or "")
    # Valkey tells the Redis version it is compatible with as well.
    _refuse_unusable(about, server, version)
    fsync = await _configured(funnel, "appendfsync")
    durability, waits = await _durability(funnel, bool(int(about.get("aof_enabled", 0))), fsync)
    return ServerReport(server, version, durability, waits)


def _refuse_unusable(about: Mapping[str, Any], server: str, version: str) -> None:
    numbers = tuple(int(part) for part in str(about.get("redis_version", "0")).split(".")[:2] if part.isdigit())
    if numbers < _OLDEST:
        raise Misconfigured(f"the state server is {server} {version}: at least Redis 6.2 is needed")
    if about.get("role") != "master":
        raise Misconfigured(
            "the state server is a replica, which takes no writes", hint="point NESTOR_REDIS_URL at the primary"
        )
    policy = about.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise Misconfigured(
            f"the state server evicts what it accepted when memory is short (maxmemory-policy {policy})",
            hint="set maxmemory-policy noeviction",
        )


async def _durability(funnel: Funnel, appends: bool, fsync: str | None) -> tuple[str, bool]:
    if not appends:
        return "none", False
    if fsync == "always":
        return "always", False
    known = await funnel.one(command("COMMAND INFO", "WAITAOF"))
    return ("confirmed", True) if known and known[0] else ("second", False)


async def _configured(funnel: Funnel, name: str) -> str | None:
    """None where the server does not say, as hosted ones do that have no CONFIG."""
    try:
        found = await funnel.one(command("CONFIG GET", name))
    except (StoreUnavailable, Misconfigured):
        await funnel.one(command("PING"))  # it is there, and only refuses to say
        return None
    return str(found[name]) if found else None
