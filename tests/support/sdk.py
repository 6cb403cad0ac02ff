"""Client programs of the public SDK in an environment of their own, which the tests marked sdk start."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).parents[1] / "sdk"
SDK_PYTHON = PROGRAMS.parents[1] / ".venv-sdk" / "bin" / "python"


def run_client(program: str, *arguments: str, stdin: str = "", seconds: float = 240) -> dict[str, Any]:
    """The program's report."""
    assert SDK_PYTHON.exists(), "the SDK's environment is missing: run scripts/install --sdk"
    done = subprocess.run(
        [str(SDK_PYTHON), str(PROGRAMS / program), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )
    reports = [line for line in done.stdout.splitlines() if line.startswith("REPORT ")]
    assert done.returncode == 0, (done.stdout[-3000:], done.stderr[-5000:])
    assert reports, (done.stdout[-3000:], done.stderr[-5000:])
    report: dict[str, Any] = json.loads(reports[0].removeprefix("REPORT "))
    return report


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
