"""A bridge for each of many tenants, on an engine of its own: are there enough, how long does one take, what is left.

    .venv/bin/python bench/cells.py [--tenants 210]

Needs root and dockerd; the machine's engine is left alone. No runtimes and no rules: it is the address pool that is
looked at, and the engine's own work on a bridge.
"""

import argparse
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support import containers
from support.private_engine import private_engine

from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.drivers.docker_cells import CellKind, Cells
from orchestrator.drivers.docker_engine import Engine
from orchestrator.drivers.values import OwnerLabels

POOL = "10.216.0.0/16"  # not that of orchestrators that may run on this machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tenants", type=int, default=210)
    tenants = parser.parse_args().tenants
    with private_engine(Path(tempfile.mkdtemp(prefix="nst-"))) as private:
        engine, installation = Engine(private.host), str(uuid.uuid4())
        cells = Cells(
            engine, installation=installation, network=None, subnet=None, pool=POOL, kind=CellKind.TENANT
        )  # fmt: skip
        labels = [_labels(installation) for _ in range(tenants)]
        took, names = [], set()
        for each in labels:
            began = time.monotonic()
            names.add(cells.enter(each).network)
            took.append(time.monotonic() - began)
        count = containers.docker("-H", private.host, "network", "ls", "--quiet", "--filter", "name=nestor-").count(
            "\n"
        )
        began = time.monotonic()
        for each in labels:
            cells.leave(each)
        cells.close()
        removed = time.monotonic() - began
        left = containers.docker("-H", private.host, "network", "ls", "--quiet", "--filter", "name=nestor-").count("\n")
        engine.close()
    assert len(names) == count == tenants, (len(names), count)
    assert left == 0, f"{left} networks are left"
    ends = statistics.median(took[:20]), statistics.median(took[-20:])
    print(f"{tenants} tenants: {count} networks, each of its own; {left} left after the last runtime of each")
    print(f"one takes {1000 * ends[0]:.0f} ms among the first twenty, {1000 * ends[1]:.0f} ms among the last")
    print(f"removed in {removed / tenants * 1000:.0f} ms each")


def _labels(installation: str) -> OwnerLabels:
    ids = TenantId(str(uuid.uuid4())), ConversationId(str(uuid.uuid4())), RuntimeId(str(uuid.uuid4()))
    return OwnerLabels(installation, *ids, generation=1)


if __name__ == "__main__":
    main()
