"""A start that is broken off before anything is served."""

import secrets
from pathlib import Path

import pytest
from support import containers
from support.outside import run
from support.processes import OrchestratorProcess, wait_for

pytestmark = pytest.mark.docker


def probed(image: str) -> str:
    """The installation whose containers of this image look around; empty while there is none."""
    form = '{{.Image}} {{.Label "io.nestor.probe-of"}}'
    lines = containers.docker("ps", "--all", "--format", form).splitlines()
    return next((line.split()[1] for line in lines if line.startswith(f"{image} ")), "")


def test_a_start_that_is_broken_off_while_it_looks_around_leaves_nothing(folder: Path):
    image = f"nestor-test-{secrets.token_hex(4)}"  # by which its containers are known beside those of others
    containers.docker("tag", containers.standin_image(), image)
    process = OrchestratorProcess(folder / "data", driver="docker", NESTOR_EPHEMERAL="1", NESTOR_RUNTIME_IMAGE=image)
    begun = process.spawn()
    try:
        mark = wait_for(lambda: probed(image), 60).replace("-", "")
        network = f"nestor-{mark[:11]}"
        assert network in containers.docker("network", "ls", "--format", "{{.Name}}")
        assert process.end() == 0
    finally:
        if begun.poll() is None:
            process.kill()
        containers.docker("image", "rm", image)
    assert probed(image) == ""
    assert network not in containers.docker("ps", "--all", "--format", "{{.Names}}")
    assert network not in containers.docker("network", "ls", "--format", "{{.Name}}")
    assert f"nst-{mark[:6]}" not in run("iptables-save", "-t", "filter")
