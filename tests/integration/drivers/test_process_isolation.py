"""What a runtime as a process can see and holds: its own, and nothing of its neighbours' or the orchestrator's."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.drivers.namespaces import NamespacesUnavailable, probe

pytestmark = pytest.mark.anyio

ORDINARY = {
    "LANG",
    "LC_CTYPE",  # Python's own, when LANG is C.UTF-8
    "LITELLM_LOCAL_MODEL_COST_MAP",
    "OH_CONVERSATIONS_PATH",
    "OH_PERSISTENCE_DIR",
    "OH_BASH_EVENTS_DIR",
    "OH_WORKSPACE_PATH",
    "OH_INTERNAL_SERVER_URL",
    "PATH",
    "HOME",
    "TMPDIR",
    "NESTOR_RUNTIME",
    "NESTOR_CLAIM",
    "OPENHANDS_AGENT_SERVER_CONFIG_PATH",
    "OH_DEFERRED_INIT",  # with the next: of another agent server, which the stand-in is here
    "OH_SECRET_KEY",
    "PWD",
}


async def test_the_environment_is_the_drivers_and_the_specs_and_nothing_of_the_orchestrators(place, monkeypatch):
    monkeypatch.setenv("NESTOR_MASTER_KEY", "never-inside")
    _, endpoint = await place.started(environment={"FROM_SPEC": "yes", "PATH": "/evil", "NESTOR_CLAIM": "another"})
    lines = (await place.run(endpoint, "/usr/bin/env")).splitlines()
    inside = dict(line.partition("=")[::2] for line in lines)
    assert inside["FROM_SPEC"] == "yes"
    assert inside["PATH"].startswith("/usr/local/sbin:")
    assert inside["NESTOR_CLAIM"] != "another"
    assert inside.keys() <= ORDINARY | {"FROM_SPEC"}


async def test_home_and_temporary_folder_are_private_and_can_be_written(place):
    first, second = (await place.started())[1], (await place.started())[1]
    for folder in ("HOME", "TMPDIR", "OH_WORKSPACE_PATH", "OH_CONVERSATIONS_PATH"):
        write = f"mkdir -p ${folder} && touch ${folder}/canary-{folder} && stat -c %a ${folder}"
        assert (await place.run(first, "sh", "-c", write)).strip() == "700"
        assert f"canary-{folder}" not in await place.run(second, "sh", "-c", f"ls -a ${folder}")


@pytest.fixture(params=["executed", "forked"])
def inside(request, make_place):
    """Runtimes in namespaces, made by bubblewrap or by themselves."""
    return make_place(namespaced=True, forked=request.param == "forked")


@pytest.fixture
def inheritable(tmp_path) -> Iterator[None]:
    """A descriptor that a careless library left open for children."""
    with open(tmp_path / "careless", "w") as file:
        os.set_inheritable(file.fileno(), True)
        yield


async def test_it_inherits_no_descriptor_of_the_orchestrator(place, inheritable):
    handle, _ = await place.started()
    targets = place.open_files(handle)
    # Nothing is left of the start either: the barrier, the report, bubblewrap's own.
    ours = ("/dev/null", "runtime.log", "socket:", "anon_inode:")
    assert [target for target in targets if not any(part in target for part in ours)] == []
    assert len(targets) >= 3


async def test_it_does_not_dump_its_memory_and_goes_before_the_orchestrator_when_memory_ends(place):
    handle, _ = await place.started()
    process = Path(f"/proc/{place.server_pid(handle)}")
    core = next(line for line in (process / "limits").read_text().splitlines() if line.startswith("Max core"))
    assert core.split()[4:6] == ["0", "0"]
    assert int((process / "oom_score_adj").read_text()) >= 500
    assert "NoNewPrivs:\t1" in (process / "status").read_text()


async def test_signals_are_as_a_program_expects_them(place):
    _, endpoint = await place.started()
    status = await place.run(endpoint, "sh", "-c", "grep -E 'SigBlk' /proc/self/status")
    assert int(status.split()[1], 16) == 0


async def test_inside_namespaces_there_are_fixed_places_and_no_data_folder(inside):
    handle, endpoint = await inside.started()
    assert (
        await inside.run(endpoint, "sh", "-c", "echo $OH_WORKSPACE_PATH $HOME $TMPDIR")
        == "/workspace /home/agent /tmp\n"
    )
    await inside.run(endpoint, "sh", "-c", "echo mine > /workspace/file")
    assert (inside.folder / "volumes" / handle.labels.runtime / "workspace" / "file").read_text() == "mine\n"
    assert "No such file" in await inside.run(endpoint, "ls", str(inside.folder))
    assert "claim.json" not in await inside.run(endpoint, "sh", "-c", "ls -aR /tmp /home /root /var /run 2>/dev/null")


async def test_inside_namespaces_only_its_own_processes_exist(inside):
    await inside.started()
    _, endpoint = await inside.started()
    numbers = (await inside.run(endpoint, "sh", "-c", "cd /proc && ls -d [0-9]*")).split()
    assert 2 <= len(numbers) <= 8
    assert "1" in numbers
    assert (await inside.run(endpoint, "hostname")).strip() in ("runtime", "")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/usr",
        "/etc",
        "/var",
        "/opt",
        "/proc/sys/kernel",
        "/sys",
        str(Path(sys.prefix)),
        str(Path(sys.base_prefix)),
    ],
)
async def test_inside_namespaces_the_system_cannot_be_written(inside, path):
    _, endpoint = await inside.started()
    said = await inside.run(endpoint, "sh", "-c", f"echo x > {path}/canary && echo WRITTEN")
    assert "WRITTEN" not in said


async def test_inside_namespaces_the_kernels_settings_and_passwords_are_out_of_reach(inside):
    _, endpoint = await inside.started()
    # Opened only, not written: on a host where this fails, the test must not be what breaks it.
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/swappiness", "/proc/sysrq-trigger"):
        assert "OPENED" not in await inside.run(endpoint, "sh", "-c", f": >> {path} && echo OPENED")
    assert await inside.run(endpoint, "sh", "-c", "cat /etc/shadow 2>/dev/null") == ""
    capabilities = await inside.run(endpoint, "sh", "-c", "grep -E 'CapEff|CapPrm|CapInh' /proc/self/status")
    assert {line.split()[1] for line in capabilities.splitlines()} == {"0" * 16}


async def test_inside_namespaces_no_socket_of_the_system_is_there(inside):
    _, endpoint = await inside.started()
    assert await inside.run(endpoint, "sh", "-c", "find /run /var -type s 2>/dev/null") == ""


async def test_a_data_folder_below_what_is_shown_is_covered_and_what_is_hidden_stays_hidden(make_place, tmp_path):
    shown = tmp_path / "shown"
    secret, kept = shown / "keys" / "master", shown / "kept"
    secret.parent.mkdir(parents=True)
    secret.write_text("never-inside")
    kept.write_text("seen")
    # A path among the command's words is shown inside: here the folder above the key, and above the data.
    place = make_place(namespaced=True, words=[str(tmp_path)], hidden=[secret])
    handle, endpoint = await place.started()
    assert await place.run(endpoint, "cat", str(kept)) == "seen"
    assert "never-inside" not in await place.run(endpoint, "cat", str(secret))
    assert await place.run(endpoint, "ls", "-A", str(place.folder)) == ""
    assert (place.folder / "runtimes" / handle.name).exists()


def test_without_bubblewrap_the_reason_names_the_package(tmp_path):
    with pytest.raises(NamespacesUnavailable, match="apt-get install bubblewrap"):
        probe(str(tmp_path), readable=[], hidden=[], scratch=tmp_path)


def test_namespaces_that_do_not_work_here_are_not_believed(tmp_path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho setting up uid map: Permission denied >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(NamespacesUnavailable, match="Permission denied"):
        probe(str(tmp_path), readable=[], hidden=[], scratch=tmp_path)
