"""A runtime's process forked from the zygote: the same start as `process_spawn.py` makes, without executing anything.

The descriptors and the variables are those of an executed runtime. The child says who it is on the report pipe before
it waits for leave; whatever goes wrong until it serves, the answer is None, and the runtime is executed instead.
"""

import os
import select
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.errors import StartRefused
from orchestrator.drivers.namespaces import HOSTNAME, STATE
from orchestrator.drivers.process_birth import (
    MARK,
    START_SECONDS,
    Birth,
    Born,
    Descriptors,
    Recipe,
    descriptors_for,
    environment_of,
    let_go,
)
from orchestrator.drivers.process_tree import Process, identify, send

log = structlog.get_logger()


def fork(recipe: Recipe, birth: Birth, lines: Sequence[SecretText], record: Callable[[Born], None]) -> Born | None:
    """A runtime that serves, or None when it is to be executed. `record` as in `process_spawn.spawn`."""
    if recipe.command is not None or recipe.zygote is None or recipe.zygote.standing is None:
        return None
    with descriptors_for(birth, lines, own_server=True, namespaced=False) as ends:
        place = recipe.zygote.fork(_body(recipe, birth, ends), _inherited(ends))
        if place is None:
            return None
        server = _announced(ends)
        if server is None:
            log.warning("zygote.child_silent", runtime=birth.name)
            return None  # without leave it goes away
        born = Born(server, None if recipe.namespaces is None else server, ends.port, place)
        try:
            record(born)
            let_go(ends)
        except StartRefused as exc:
            send(server, signal.SIGKILL)
            log.warning("zygote.child_failed", runtime=birth.name, problem=exc.message)
            return None
        except BaseException:
            send(server, signal.SIGKILL)
            raise
        return born


def _body(recipe: Recipe, birth: Birth, ends: Descriptors) -> Mapping[str, Any]:
    view = None
    if recipe.namespaces is not None:
        steps = [list(step) for step in recipe.namespaces.steps(birth.folders)]
        view = {"hostname": HOSTNAME, "steps": steps}
    return {
        "name": birth.name,
        "generation": birth.labels.generation,
        "mark": f"{MARK}={birth.name}",
        "directory": str(STATE if recipe.namespaces is not None else birth.folders.state),
        "environment": dict(environment_of(recipe, birth, ends.port)),
        "descriptors": ["listener", "leave", "report", "log", "key"],
        "view": view,
    }


def _inherited(ends: Descriptors) -> list[int]:
    return [one.fileno() for one in (ends.listener, ends.leave, ends.report, ends.log, ends.key)]


def _announced(ends: Descriptors) -> Process | None:
    """Who the child says it is, out here; None when it says nothing, or something else."""
    ends.report.close()  # the child's copy is the last one now
    poll = select.poll()
    poll.register(ends.read_report.fileno(), select.POLLIN)
    if not poll.poll(START_SECONDS * 1000):
        return None
    said = os.read(ends.read_report.fileno(), 1000).decode(errors="replace")
    if not said.strip().isdigit():
        log.warning("zygote.child_refused", problem=said[:300])
        return None
    return identify(int(said))
