"""Client programs of the public SDK in an environment of their own, which the tests marked sdk start."""

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

PROGRAMS = Path(__file__).parents[1] / "sdk"
SDK_PYTHON = PROGRAMS.parents[1] / ".venv-sdk" / "bin" / "python"


class RunClient(Protocol):
    def __call__(self, program: str, *arguments: str, stdin: str = "", seconds: float = 240) -> dict[str, Any]:
        """The program's report."""


@contextmanager
def clients() -> Iterator[RunClient]:
    """One program after the other, each in a fork of one interpreter that has imported the SDK (`sdk/clients.py`)."""
    assert SDK_PYTHON.exists(), "the SDK's environment is missing: run scripts/install --sdk"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    with (
        tempfile.TemporaryDirectory(prefix="nst-sdk-") as name,
        subprocess.Popen(
            [str(SDK_PYTHON), str(PROGRAMS / "clients.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=environment,
            start_new_session=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        orders, answers, folder = process.stdin, process.stdout, Path(name)

        def run(program: str, *arguments: str, stdin: str = "", seconds: float = 240) -> dict[str, Any]:
            files = {file: str(folder / file) for file in ("in", "out", "err")}
            (folder / "in").write_text(stdin)
            orders.write(json.dumps({"program": program, "arguments": arguments, **files}).encode() + b"\n")
            child = int(line(answers, 60))
            status = ""
            try:
                status = line(answers, seconds)
            finally:
                if not status:
                    os.kill(child, signal.SIGKILL)
                    line(answers, 60)
            out, err = (folder / "out").read_text(), (folder / "err").read_text()
            assert status == "0", (status or f"not within {seconds} seconds", out[-3000:], err[-5000:])
            reports = [text for text in out.splitlines() if text.startswith("REPORT ")]
            assert reports, (out[-3000:], err[-5000:])
            report: dict[str, Any] = json.loads(reports[0].removeprefix("REPORT "))
            return report

        try:
            while (said := line(answers, 120)) != "ready":
                assert said, "the SDK was not imported in time"
            yield run
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # a program that did not end in time is of its group


def line(stream: IO[bytes], seconds: float) -> str:
    """The next line, empty when none comes in time."""
    ready, _, _ = select.select([stream], [], [], seconds)
    return stream.readline().decode().strip() if ready else ""


def repository(folder: Path) -> Path:
    """A git repository with a committed file `a`, changed since, and instructions for the agent."""
    folder.mkdir()
    git = ("git", "-c", "user.name=n", "-c", "user.email=e@example.invalid")
    subprocess.run([*git, "init", "--quiet"], cwd=folder, check=True)
    (folder / "a").write_text("one\n")
    (folder / "AGENTS.md").write_text("Be brief.\n")
    subprocess.run([*git, "add", "."], cwd=folder, check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "first"], cwd=folder, check=True)
    (folder / "a").write_text("one\ntwo\n")
    return folder
