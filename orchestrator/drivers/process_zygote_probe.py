"""Whether a process that was forked can isolate itself on this host as bubblewrap isolates one that is executed.

`process.py` asks once, when it is made. Some hosts let bubblewrap make namespaces and nobody else, so that bubblewrap
at work says nothing about it.
"""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from orchestrator.drivers.namespaces import HOSTNAME, Namespaces, PrivateFolders

_SECONDS = 20.0


def tried(command: Sequence[str], namespaces: Namespaces, scratch: Path) -> str:
    """Have the zygote's program take the very steps that a runtime takes; why it failed, empty when it did not.

    Blocks for the time of one start of the interpreter.
    """
    view = {"hostname": HOSTNAME, "steps": [list(step) for step in namespaces.steps(PrivateFolders(*[scratch] * 4))]}
    try:
        done = subprocess.run(
            [*command, "--probe"],
            input=json.dumps(view).encode(),
            capture_output=True,
            timeout=_SECONDS,
            env={},
            cwd="/",
        )
    except (OSError, subprocess.SubprocessError) as exc:
        return f"its program could not be run: {type(exc).__name__}"
    if done.returncode == 0:
        return ""
    said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
    return said[0][:200]
