"""Client programs, one after the other, each in a fork of this interpreter, which has imported the public SDK.

The import takes most of a small program's time. Run by the environment of `scripts/install --sdk`, not by pytest
(`tests/support/sdk.py`). An order is a line of JSON on standard input: the program's file, its arguments, and the files
for its standard input, output and errors. The answers are a line with its process, and one with its exit status.
"""

import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import client_side  # noqa: F401 - imports what most of the programs do
import openhands.workspace  # noqa: F401


def main() -> None:
    os.write(1, b"ready\n")
    orders = os.fdopen(os.dup(0), "rb", buffering=0)  # nothing is read ahead that a fork would have as well
    while line := orders.readline():
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            orders.close()
            play(order)
            return  # and so it ends as a program of its own does
        os.write(1, f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        os.write(1, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def play(order: dict[str, Any]) -> None:
    for number, (name, flags) in enumerate(((order["in"], os.O_RDONLY), (order["out"], WRITE), (order["err"], WRITE))):
        file = os.open(name, flags, 0o600)
        os.dup2(file, number)
        os.close(file)
    sys.argv = [order["program"], *order["arguments"]]
    runpy.run_path(str(Path(__file__).with_name(order["program"])), run_name="__main__")


WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC

if __name__ == "__main__":
    main()
