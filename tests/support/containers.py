"""What tests marked `docker` ask of the engine itself, past the driver: images, a look at containers, a kill.

They speak to it by the command line, as a person would. An engine that is not there is a failure that says so.
"""

import functools
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
STANDIN = "nestor-test-standin"
EGRESS = "nestor-test-egress"
STOCK = "nestor-test-stock"
_BASE = "python:3.13-slim-trixie"
_SECONDS = 600
_STANDIN_DOCKERFILE = f"""\
FROM {_BASE}
RUN mkdir /workspace /state && chown 10001:10001 /workspace /state && chmod 700 /workspace /state
COPY server.py /server.py
LABEL io.nestor.boots=standard-input
ENTRYPOINT ["python3", "/server.py"]
"""


@functools.cache
def stock_image() -> str:
    """An image of the stock agent server, as its makers release it."""
    dockerfile = f"{REPOSITORY}/tests/docker/Dockerfile.stock"
    docker("build", "--quiet", "--file", dockerfile, "--tag", STOCK, f"{REPOSITORY}/requirements")
    return STOCK


def docker(*arguments: str, stdin: str | None = None) -> str:
    """What `docker ...` prints; fails with what it said."""
    try:
        done = subprocess.run(
            ["docker", *arguments], input=stdin, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError:
        raise AssertionError(
            "there is no docker command: run .ci/engine, or leave out the tests marked docker"
        ) from None
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr[-2000:]}"
    return done.stdout


def inspect(kind: str, name: str) -> dict[str, Any]:
    """`docker inspect` of one thing."""
    found: list[dict[str, Any]] = json.loads(docker(kind, "inspect", name))
    return found[0]


def kill(reference: str) -> None:
    """End a container from outside, as the kernel would."""
    docker("kill", reference)


@functools.cache
def egress_image() -> str:
    """The forward proxy of this checkout."""
    docker("build", "--quiet", "--file", f"{REPOSITORY}/Dockerfile.egress", "--tag", EGRESS, str(REPOSITORY))
    return EGRESS


@functools.cache
def standin_image() -> str:
    """An image of the stand-in server of tests/contract/drivers: quick to start, and obedient."""
    server = REPOSITORY / "tests/contract/drivers/standin_server.py"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Dockerfile").write_text(_STANDIN_DOCKERFILE)
        (Path(folder) / "server.py").write_text(server.read_text())
        docker("build", "--quiet", "--tag", STANDIN, folder)
    return STANDIN
