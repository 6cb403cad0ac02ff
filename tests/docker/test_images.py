"""Both images: they build with either builder, and hold what they should and nothing more."""

import os
import subprocess
import time

import pytest
from support import containers

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]

HALVES = ("runtime", "orchestrator")


def inside(half: str, *command: str) -> str:
    return containers.docker(
        "run", "--rm", "--network", "none", "--entrypoint", command[0], f"nestor-{half}", *command[1:]
    )


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("buildkit", ["0", "1"], ids=["classic", "buildkit"])
def test_it_builds(half: str, buildkit: str, record_property):
    began = time.monotonic()
    tag = f"nestor-test-{half}-{buildkit}"
    done = subprocess.run(
        ["docker", "build", "--quiet", "--file", f"Dockerfile.{half}", "--tag", tag, "."],
        cwd=containers.REPOSITORY,
        env={**os.environ, "DOCKER_BUILDKIT": buildkit},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record_property("seconds", round(time.monotonic() - began, 1))
    record_property("megabytes", containers.inspect("image", tag)["Size"] // 1_000_000)
    containers.docker("image", "rm", tag)


@pytest.mark.parametrize("half", HALVES)
def test_it_needs_nothing_that_an_older_builder_or_a_machine_without_a_registry_lacks(half: str):
    text = (containers.REPOSITORY / f"Dockerfile.{half}").read_text()
    assert "# syntax" not in text
    assert "<<" not in text
    assert "--mount" not in text
    assert text.count("--require-hashes") == 3


@pytest.mark.parametrize("half", HALVES)
def test_it_runs_as_nobody_in_particular_and_can_tell_whether_it_lives(half: str):
    config = containers.inspect("image", f"nestor-{half}")["Config"]
    assert inside(half, "id", "-u").strip() == "10001"
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert not config.get("Volumes")


@pytest.mark.parametrize(
    ("half", "absent"), [("orchestrator", ("litellm", "runtime")), ("runtime", ("orchestrator", "docker"))]
)
def test_it_holds_its_own_half_compiled(half: str, absent: tuple[str, ...]):
    ask = "import importlib.util as u, sys; print([name for name in sys.argv[1:] if u.find_spec(name)])"
    assert inside(half, "/opt/nestor/bin/python", "-I", "-c", ask, half, *absent).strip() == str([half])
    count = "import pathlib; print(sum(1 for _ in pathlib.Path('/opt/nestor').rglob('*.pyc')))"
    assert int(inside(half, "/opt/nestor/bin/python", "-I", "-c", count)) > 500


def test_the_runtime_has_git_and_a_shell():
    assert inside("runtime", "bash", "-c", "git --version").startswith("git version")


def test_the_runtime_refuses_to_serve_everybody():
    done = subprocess.run(
        ["docker", "run", "--rm", "--network", "none", "nestor-runtime"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "without any key" in done.stderr
