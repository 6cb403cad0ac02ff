"""What an orchestrator has on an engine and in its data folder, counted; `containers.py` compares before and after."""

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from engine_floor import Floor

from orchestrator.drivers.docker_rules import PREFIX

_SETTLE_SECONDS = 90


class Leftovers:
    """Of one installation over one data folder."""

    def __init__(self, host: str, data_dir: Path, installation: str) -> None:
        self._floor = Floor(host, "")
        self._folder = data_dir / "docker"
        self._installation = installation

    def counted(self) -> Mapping[str, int]:
        """How many there are now."""
        label = {"label": [f"io.nestor.installation={self._installation}"]}
        with self._floor.client() as client:
            networks = {one["Name"] for one in client.networks(filters=label)}
            on_them = client.containers(all=True, filters={"network": sorted(networks)}) if networks else []
            labelled = client.containers(all=True, filters=label)
            volumes = client.volumes(filters=label).get("Volumes") or ()
            dangling = client.volumes(filters={"dangling": True}).get("Volumes") or ()
        saved = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
        ours = f"{PREFIX}{self._installation.replace('-', '')[:6]}"
        return {
            "containers": len({one["Id"] for one in [*on_them, *labelled]}),
            "networks": len(networks),
            "volumes": len(volumes),
            "volumes of nobody": sum(1 for one in dangling if not one.get("Labels")),
            "rules": sum(1 for line in saved.splitlines() if ours in line),
            "files": sum(1 for path in self._folder.rglob("*")),
        }

    def settled(self, wanted: Mapping[str, int]) -> Mapping[str, int]:
        """The counts as soon as they are what they were, or after a while in which the reconciler had its rounds."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            now = self.counted()
            if now == wanted or time.monotonic() > deadline:
                return now
            time.sleep(1)
