"""All images: they build with either builder, and hold what they should and nothing more."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from support import containers

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]

HALVES = ("runtime", "orchestrator")
SMALL = ("egress", "front")
BASE = "python:3.13-slim-trixie"


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
    packages = (containers.REPOSITORY / "deploy/images/packages").read_text()
    assert packages.count("--require-hashes") == packages.count(" -r ") == 3
    assert "cp -a --parents" not in packages  # Debian 12's cannot do that with a path from /


@pytest.mark.parametrize("half", [*HALVES, *SMALL])
def test_it_runs_as_nobody_in_particular_and_can_tell_whether_it_lives(half: str):
    config = containers.inspect("image", f"nestor-{half}")["Config"]
    assert inside(half, "id", "-u").strip() == "10001"
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert config["User"] == "10001:10001"
    assert not config.get("Volumes")
    labels = {name.rpartition(".")[2]: text for name, text in config["Labels"].items() if "opencontainers" in name}
    assert labels["title"] == f"nestor-{half}"
    assert labels["version"] in (containers.REPOSITORY / "pyproject.toml").read_text()
    assert labels["licenses"] == "MIT"
    assert labels["name"] == BASE


def test_images_tell_whether_they_work():
    front = ("run", "--detach", "--network", "none", "-e", "LISTEN=127.0.0.1:8080", "-e", "ONE=127.0.0.1:1",
             "-e", "TWO=127.0.0.1:2", "--health-interval", "500ms", "nestor-front")  # fmt: skip
    egress = ("run", "--detach", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--tmpfs", "/run",
              "--health-interval", "500ms", "nestor-egress")  # fmt: skip
    runtime = ("run", "--detach", "--init", "--network", "none", "-e", "OH_SESSION_API_KEYS_0=a-key",
               "--health-interval", "500ms", "--health-timeout", "1s", "nestor-runtime")  # fmt: skip
    made = [containers.docker(*words).strip() for words in (egress, front, runtime)]
    try:
        assert health(made[0], "healthy")
        assert health(made[1], "unhealthy")  # there is no replica behind it
        assert health(made[2], "healthy")
        containers.docker("exec", made[2], "pkill", "-STOP", "-f", "runtime --host")
        assert health(made[2], "unhealthy")
    finally:
        containers.docker("rm", "--force", *made)


@pytest.mark.parametrize("half", [*HALVES, *SMALL])
def test_it_is_made_on_whichever_base_is_named(half: str, tmp_path: Path):
    """One that has the usual one's layers and a label of its own, which an image on it inherits."""
    text = (containers.REPOSITORY / f"Dockerfile.{half}").read_text()
    assert {line.split()[1] for line in text.splitlines() if line.startswith("FROM ")} == {"${BASE_IMAGE}"}
    base, tag = f"nestor-test-base-{half}", f"nestor-test-on-{half}"
    named = f"FROM {BASE}\nLABEL io.nestor.test={tag}\n"
    containers.docker("build", "-q", "-t", base, "-", stdin=named)
    how = ("--build-arg", f"BASE_IMAGE={base}", "--tag", tag, str(containers.REPOSITORY))
    containers.docker("build", "-q", "-f", f"{containers.REPOSITORY}/Dockerfile.{half}", *how)
    labels = containers.inspect("image", tag)["Config"]["Labels"]
    containers.docker("image", "rm", tag, base)
    assert (labels["io.nestor.test"], labels["org.opencontainers.image.base.name"]) == (tag, base)


@pytest.mark.parametrize(("half", "kept"), [("egress", "/etc/squid"), ("front", "/etc/haproxy/nestor.cfg")])
def test_of_a_clone_that_only_its_owner_may_read_it_can_be_read_inside(half: str, kept: str, tmp_path: Path):
    """A umask of 077 gives such a clone. The builder takes the modes along; in the halves wheels have others."""
    shutil.copytree(containers.REPOSITORY / "deploy" / half, tmp_path / "deploy" / half)
    for name in (f"Dockerfile.{half}", ".dockerignore"):
        shutil.copy(containers.REPOSITORY / name, tmp_path)
    for path in (tmp_path / "deploy" / half).iterdir():
        path.chmod(0o600)
    tag = f"nestor-test-closed-{half}"
    containers.docker("build", "-q", "-f", str(tmp_path / f"Dockerfile.{half}"), "-t", tag, str(tmp_path))
    look = ("run", "--rm", "--network", "none", "--entrypoint", "find", tag, kept, "-type", "f", "!", "-readable")
    closed = containers.docker(*look)
    containers.docker("image", "rm", tag)
    assert closed == ""


def health(id: str, wanted: str) -> bool:
    """Whether the engine comes to say so of this container within a minute."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if containers.inspect("container", id)["State"]["Health"]["Status"] == wanted:
            return True
    return False


@pytest.mark.parametrize(
    ("half", "absent"), [("orchestrator", ("litellm", "runtime")), ("runtime", ("orchestrator", "docker"))]
)
def test_it_holds_its_own_half_compiled(half: str, absent: tuple[str, ...]):
    ask = "import importlib.util as u, sys; print([name for name in sys.argv[1:] if u.find_spec(name)])"
    assert inside(half, "/opt/nestor/bin/python", "-I", "-c", ask, half, *absent).strip() == str([half])
    assert inside(half, "/opt/nestor/bin/python", "-I", "-c", LOOSE).strip() == "[]"


#: Modules that would be compiled again at each start: nothing can be written there. Flags 1: unchecked, by hash.
LOOSE = """
import importlib.util, os, pathlib
stdlib = pathlib.Path(os.__file__).parent
used = [stdlib / "asyncio" / "events.py", stdlib / "json" / "decoder.py"]
mine = [path for path in pathlib.Path("/opt/nestor/lib").rglob("*.py")]
assert len(mine) > 300
loose = []
for path in [*used, *mine]:
    compiled = pathlib.Path(importlib.util.cache_from_source(str(path)))
    flags = compiled.read_bytes()[4:8] if compiled.exists() else b""
    if not flags or (path in mine and flags != bytes([1, 0, 0, 0])):
        try:
            compile(path.read_bytes(), str(path), "exec")
        except SyntaxError:
            continue  # a template that some package carries
        loose.append(str(path))
print(loose[:5])
"""


@pytest.mark.parametrize("half", HALVES)
def test_there_is_no_compiler_and_no_cache_in_it(half: str):
    look = """
for name in cc gcc g++ c++ clang ld as make cmake rustc go; do command -v $name; done
find /var/lib/apt/lists /var/cache/apt /root/.cache /tmp -type f ! -name lock 2>/dev/null | head -3
true
"""
    assert inside(half, "sh", "-c", look) == ""


@pytest.mark.parametrize("half", HALVES)
def test_two_builds_of_the_same_packages_are_the_same(half: str):
    """What is ours, without any cache; `scripts/images --check` compares all layers, and takes minutes."""
    tag = f"nestor-test-own-{half}"
    containers.docker(
        "build", "-q", "-f", f"Dockerfile.{half}", "--target", "build", "-t", tag, str(containers.REPOSITORY)
    )
    again = "rm -rf /own dist && ./packages own && tar -c /own | sha256sum"
    run = ("run", "--rm", "--network", "none", "-e", "SOURCE_DATE_EPOCH=1767225600", tag, "sh", "-c", again)
    sums = [containers.docker(*run) for _ in range(2)]
    containers.docker("image", "rm", tag)
    assert sums[0] == sums[1]


@pytest.mark.parametrize("half", HALVES)
def test_nothing_that_lies_about_or_is_in_the_environment_gets_into_it(half: str, tmp_path: Path):
    canary = "canary-5f1d7c"
    for name in ("LICENSE", "README.md", "pyproject.toml", ".dockerignore", f"Dockerfile.{half}"):
        shutil.copy(containers.REPOSITORY / name, tmp_path)
    for name in ("requirements", "deploy/images", half):
        shutil.copytree(containers.REPOSITORY / name, tmp_path / name)
    for name in (".env", "secret.key", f"{half}/.env", f"{half}/master.key", "requirements/token.key", "nestor.token"):
        (tmp_path / name).write_text(canary)
    tag = f"nestor-test-canary-{half}"
    done = subprocess.run(
        ["docker", "build", "-q", "-f", f"Dockerfile.{half}", "-t", tag, "."],
        cwd=tmp_path,
        env={**os.environ, "NESTOR_OPERATOR_KEY": canary, "PIP_INDEX_URL": canary},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = containers.docker("history", "--no-trunc", tag) + json.dumps(containers.inspect("image", tag))
    assert "BASE_IMAGE" in told or "COPY" in told
    assert canary not in told
    count = containers.docker(
        "run",
        "--rm",
        "--user",
        "0",
        "--network",
        "none",
        "--entrypoint",
        "sh",
        tag,
        "-c",
        (f"find / -xdev -type f -newermt 2025-12-31 -exec grep -l {canary} {{}} + | head; echo looked"),
    )
    assert count == "looked\n"
    containers.docker("image", "rm", tag)


def test_the_runtime_has_git_a_shell_and_the_usual_tools():
    assert inside("runtime", "bash", "-c", "git --version").startswith("git version")
    tools = "bash curl diff file find git grep jq less patch ps python3 rg sed ssh tar unzip xz zip"
    assert (
        inside("runtime", "bash", "-c", f"for name in {tools}; do command -v $name >/dev/null || echo $name; done")
        == ""
    )


def test_the_runtime_refuses_to_serve_everybody():
    done = subprocess.run(
        ["docker", "run", "--rm", "--network", "none", "nestor-runtime"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "without any key" in done.stderr
