"""What a Python interpreter needs in order to run: asked of the interpreter itself, once, when the driver is made.

`process.py` asks so that it can say early that a runtime cannot start, and so that `namespaces.py` can show a runtime
its interpreter and nothing else of the folders around it.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 20.0
_QUESTION = """
import importlib.util, json, sys, sysconfig
spec = importlib.util.find_spec("runtime")
print(json.dumps({
    "prefixes": [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix],
    "package": list(spec.submodule_search_locations or ()) if spec else [],
    "libraries": sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}),
}))
"""


class InterpreterUnusable(Exception):
    """The interpreter did not answer; the message says why."""


@dataclass(frozen=True)
class Interpreter:
    """An interpreter that answered. `folders` is all it reads, `package` is where it has the runtime, if it has it.

    `libraries` are folders that change when a library is installed, replaced or removed.
    """

    executable: str
    folders: Sequence[Path]
    package: Sequence[Path]
    libraries: Sequence[Path]


def ask(executable: str) -> Interpreter:
    """What that interpreter is made of. Blocks for the time of one start of it. Raises `InterpreterUnusable`."""
    try:
        # -I: without the folder we happen to be in, as the runtime itself is started.
        answer = subprocess.run(
            [executable, "-I", "-c", _QUESTION],
            capture_output=True,
            check=True,
            timeout=_SECONDS,
            env={},
            stdin=subprocess.DEVNULL,
        )
        fields = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as exc:
        raise InterpreterUnusable(f"{executable} is not a Python that runs here ({type(exc).__name__})") from exc
    folders = {Path(prefix) for prefix in fields["prefixes"]} | {step.parent for step in links(Path(executable))}
    package, libraries = ([Path(folder) for folder in fields[name]] for name in ("package", "libraries"))
    return Interpreter(executable, sorted(folders), package, libraries)


def links(path: Path) -> Sequence[Path]:
    """`path` and every path that its chain of symbolic links passes through, the last one being the file itself."""
    steps = [path]
    while steps[-1].is_symlink() and len(steps) < 40:
        steps.append(steps[-1].parent / steps[-1].readlink())
    return steps
