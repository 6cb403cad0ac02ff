"""Sets the rules of `docker_rules.py` on this machine, looks whether they still hold, and removes them.

The driver calls it where the orchestrator may change the machine's rules (root, or CAP_NET_ADMIN, in the machine's own
network); `nestor netguard` does where the orchestrator may not. Every act may be repeated. Methods block.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Protocol

from orchestrator.domain.errors import DriverUnavailable
from orchestrator.drivers.docker_rules import Wall, Yard, bridge_of, chains_of, enter_input, jumps_of, restore_input

_SECONDS = 20
_LOCK_SECONDS = "10"
_TRIES = 5
_PLACES = "/usr/sbin:/sbin:/usr/local/sbin"


class Elsewhere(Protocol):
    """Where commands are run if not here: `docker_helper.Helper`."""

    def trouble(self) -> str | None:
        """Why nothing can be run there; None when it can."""
        ...

    def run(self, *words: str, told: str | None = None) -> subprocess.CompletedProcess[str]:
        """A command, with `told` on its standard input. Raises `DriverUnavailable`."""
        ...


class Firewall:
    """The machine's filter table, as far as chains of our own go. Made without looking at anything. `helper` is where
    its commands are run, if it is not here."""

    def __init__(self, helper: Elsewhere | None = None) -> None:
        self._helper = helper
        path = f"{os.environ.get('PATH', '')}:{_PLACES}"
        self._programs = {name: shutil.which(name, path=path) for name in ("iptables", "iptables-restore")}
        self._programs["iptables-save"] = shutil.which("iptables-save", path=path)
        #: by bridge, what was asked for, and our chains as the machine shows them once set
        self._held: dict[str, tuple[Yard, Sequence[str]]] = {}

    def trouble(self) -> str | None:
        """Why no rule can be set here; None when it can."""
        if self._helper is not None and (words := self._helper.trouble()) is not None:
            return words
        missing = [name for name, path in self._programs.items() if path is None]
        if missing and self._helper is None:
            return f"there is no {missing[0]}"
        if self._run("iptables", "-S", "DOCKER-USER").returncode != 0:
            return "this process may not look at the machine's rules, or its engine keeps none"
        return None

    def put(self, yard: Yard, wall: Wall) -> None:
        """Make the chains of this bridge what `wall` asks for, and see that they are entered first.

        Raises `DriverUnavailable`, with nothing half set: a chain that is new is entered only when it is complete.
        """
        if self._run(
            "iptables-restore", "--noflush", "--wait", _LOCK_SECONDS, told=restore_input(yard, wall)
        ).returncode:
            raise DriverUnavailable(
                f"the rules of bridge {yard.bridge} could not be set",
                hint="run the orchestrator as root or with CAP_NET_ADMIN, or nestor netguard beside it",
            )
        for _ in range(_TRIES):
            entering = enter_input(yard.bridge, self.saved())
            if not self._run("iptables-restore", "--noflush", "--wait", _LOCK_SECONDS, told=entering).returncode:
                break  # else somebody took one of ours away meanwhile
        else:
            raise DriverUnavailable(
                f"the rules of bridge {yard.bridge} are not entered first",
                hint="look who else changes this machine's rules",
            )
        self._held[yard.bridge] = yard, self._shown(yard.bridge, self.saved())

    def holds(self, yard: Yard, saved: Sequence[str] | None = None) -> bool:
        """Whether the rules are as `put` left them for the same yard, and still the first of their chains. False before
        `put`. `saved`: as `saved` saw them, for who looks at many bridges; else they are looked at now."""
        held = self._held.get(yard.bridge)
        if held is None or held[0] != yard:
            return False
        saved = self.saved() if saved is None else saved
        return held[1] == self._shown(yard.bridge, saved) and self._first(yard.bridge, saved)

    def remove(self, bridge: str) -> None:
        """Take the bridge's rules away. Gone already: fine."""
        for chain, rule in jumps_of(bridge):
            while self._run("iptables", "--wait", _LOCK_SECONDS, "-D", chain, *rule.split()).returncode == 0:
                pass
        for chain in chains_of(bridge):
            self._run("iptables", "--wait", _LOCK_SECONDS, "-F", chain)
            self._run("iptables", "--wait", _LOCK_SECONDS, "-X", chain)
        self._held.pop(bridge, None)

    def saved(self) -> Sequence[str]:
        """All rules of this machine, in the form that this version prints. Raises `DriverUnavailable`."""
        done = self._run("iptables-save", "-t", "filter")
        if done.returncode:
            raise DriverUnavailable("the machine's rules cannot be looked at", hint="is iptables there, and allowed?")
        return done.stdout.splitlines()

    @staticmethod
    def bridges(saved: Sequence[str]) -> set[str]:
        """Every bridge that has chains of this form, whoever made them."""
        names = (line.split()[0].removeprefix(":") for line in saved if line.startswith(":"))
        return {bridge for name in names if (bridge := bridge_of(name))}

    def name_servers(self) -> Sequence[str]:
        """The machine's own."""
        if self._helper is None:
            return name_servers()
        return servers_in(self._helper.run("cat", "/etc/resolv.conf").stdout)

    @staticmethod
    def _shown(bridge: str, saved: Sequence[str]) -> Sequence[str]:
        wanted = tuple(f"-A {chain} " for chain in chains_of(bridge))
        return [line for line in saved if line.startswith(wanted)]  # in the form that this version prints

    @staticmethod
    def _first(bridge: str, saved: Sequence[str]) -> bool:
        """Only jumps of bridges like ours come before ours: they match other interfaces."""
        for chain, rule in jumps_of(bridge):
            for line in saved:
                if line == f"-A {chain} {rule}":
                    break
                if line.startswith(f"-A {chain} ") and not bridge_of(line.rpartition(" -j ")[2]):
                    return False
            else:
                return False
        return True

    def _run(self, program: str, *arguments: str, told: str | None = None) -> subprocess.CompletedProcess[str]:
        if self._helper is not None:
            return self._helper.run(program, *arguments, told=told)
        path = self._programs[program]
        if path is None:
            raise DriverUnavailable(f"there is no {program} on this machine", hint="install the package iptables")
        try:
            return subprocess.run(
                [path, *arguments], input=told, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise DriverUnavailable(f"{program} could not be run ({type(exc).__name__})") from exc


def name_servers(path: str = "/etc/resolv.conf") -> Sequence[str]:
    """This machine's name servers, as far as they have IPv4 addresses of their own."""
    try:
        with open(path) as file:
            return servers_in(file.read())
    except OSError:
        return ()


def servers_in(text: str) -> Sequence[str]:
    """Those of a resolv.conf."""
    words = [line.split() for line in text.splitlines()]
    found = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver" and ":" not in line[1]]
    return [address for address in found if not address.startswith("127.")]
