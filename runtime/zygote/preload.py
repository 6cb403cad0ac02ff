"""What the zygote imports before it forks, so that no runtime has to, and that all of them share in memory.

`modules.txt` beside this file lists what is imported late, by a first answer or a first turn; a test makes one and
fails when the list misses something. The library's tokenizer is among them: a call imports its tables although nothing
here counts tokens, and they are a third of what a turn would add to each runtime. Nothing may start a thread or fetch
anything.
"""

import gc
import importlib
import sys
from importlib import resources

from runtime import framework, logs  # noqa: F401 - ahead of all that imports the framework
from runtime.agent import llm
from runtime.app import prepare
from runtime.events import models
from runtime.webhooks import sender


def names() -> list[str]:
    """The recorded modules, in the order in which they are imported."""
    lines = resources.files("runtime.zygote").joinpath("modules.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def preload() -> list[str]:
    """Import everything and build the application's routes; the recorded modules that this machine does not have."""
    gc.disable()  # collections would touch, and so copy, what is to be shared
    llm.load()
    importlib.import_module("runtime.program")
    importlib.import_module("runtime.webhooks.service")  # every runtime of an orchestrator asks for it at its init
    sender.load()  # and for this a moment later
    importlib.import_module("runtime.wire_protocol")  # and whoever listens to it for this
    models.build()
    missing = []
    for name in names():
        try:
            importlib.import_module(name)
        except ImportError:  # another version of a library: runtimes import it themselves
            missing.append(name)
    logs.configure(json_lines=False)  # a child does it again
    prepare()
    gc.collect()
    gc.freeze()
    sys.stdout.flush()
    return missing
