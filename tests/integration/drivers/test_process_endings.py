"""Nothing outlives a runtime: no process however it hid, no file, no descriptor, and no process without a claim."""

import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

import anyio
import httpx
import pytest

from orchestrator.domain.errors import DriverUnavailable
from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.errors import StartRefused
from orchestrator.drivers.process import ProcessDriver
from orchestrator.drivers.process_files import remove_tree
from orchestrator.drivers.process_tree import identify
from orchestrator.drivers.values import Condition, ExitCause, Handle

pytestmark = pytest.mark.anyio

KEY = SecretText("init-key")


async def outside(place, pid: int) -> int:
    """The number out here of a `sleep` that is known by `pid` inside, once it has become one."""
    found: list[int] = []

    def look() -> bool:
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                lines = (entry / "status").read_text().splitlines()
                numbers = next(line for line in lines if line.startswith("NSpid:"))
                if lines[0] == "Name:\tsleep" and numbers.split()[-1] == str(pid):
                    found.append(int(entry.name))
        return bool(found)

    await place.until(look)
    return found[0]


@pytest.mark.parametrize("verb", ["stop", "destroy"])
async def test_a_daemon_without_session_parent_or_environment_ends_with_its_runtime(place, verb):
    handle, endpoint = await place.started()
    daemon = await outside(place, (await place.post(endpoint, "/daemon", {}))["pid"])
    assert place.running(daemon)
    if verb == "stop":
        await place.driver.stop(handle, fence=1, grace=5)
        assert (await place.driver.inspect(handle)).cause is ExitCause.CLEAN
    else:
        await place.driver.destroy(handle, fence=1)
    assert not place.running(daemon)
    assert place.marked(handle.name) == []


async def test_children_of_a_crashed_server_end_before_it_starts_again(place):
    handle, endpoint = await place.started()
    child = await place.run(endpoint, "sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!")
    sleeper = await outside(place, int(child))
    os.kill(place.claim(handle)["server"]["pid"], signal.SIGKILL)
    await place.until(lambda: not place.running(place.claim(handle)["server"]["pid"]))
    assert (await place.driver.inspect(handle)).condition is Condition.EXITED
    again = await place.driver.start(handle, fence=1, init_key=KEY)
    assert not place.running(sleeper)
    await place.answers(again)


async def test_a_server_that_ignores_the_question_is_killed_after_the_grace(place):
    handle, _ = await place.started()
    os.kill(place.server_pid(handle), signal.SIGSTOP)  # a stopped process does not hear SIGTERM
    before = time.monotonic()
    await place.driver.stop(handle, fence=1, grace=0.3)
    assert 0.3 <= time.monotonic() - before < 30
    assert place.marked(handle.name) == []


async def test_destroying_leaves_no_file_and_no_process(place):
    handle, endpoint = await place.started()
    await place.run(
        endpoint, "sh", "-c", "mkdir -p $TMPDIR/a/b $HOME/c && touch $TMPDIR/a/b/x $HOME/c/y && chmod 0 $HOME/c"
    )
    temporary = place.temporary(handle)
    assert temporary.exists()
    await place.driver.destroy(handle, fence=1)
    await place.driver.remove_volume(handle.labels, fence=1)
    assert place.files() == []
    assert not temporary.exists()
    assert place.marked(handle.name) == []


def zombies() -> set[str]:
    """Our own children that ended and were not waited for; other files of this process may have left some."""
    children = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split()
    return {pid for pid in children if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"}


async def test_no_zombie_is_left(place):
    before = zombies()
    handle, _ = await place.started()
    await place.driver.stop(handle, fence=1, grace=5)
    await place.driver.start(handle, fence=1, init_key=KEY)
    os.kill(place.claim(handle)["server"]["pid"], signal.SIGKILL)
    await place.until(lambda: not place.running(place.claim(handle)["server"]["pid"]))
    await place.driver.start(handle, fence=1, init_key=KEY)
    await place.driver.destroy(handle, fence=1)
    assert zombies() - before == set()
    damaged, _ = await place.started()
    (place.folder / "runtimes" / damaged.name / "claim.json").write_text("")
    await place.driver.destroy(damaged, fence=1)
    assert zombies() - before == set()


async def test_a_namespace_that_was_made_just_before_a_crash_is_found_and_asked_to_end(make_place):
    place = make_place(namespaced=True)
    handle, endpoint = await place.started()
    daemon = await outside(place, (await place.post(endpoint, "/daemon", {}))["pid"])
    claim = place.claim(handle)
    (place.folder / "runtimes" / handle.name / "claim.json").write_text(json.dumps(claim | {"init": None}))
    after = ProcessDriver(place.folder, namespaces=False)  # how it runs is the claim's business, not the driver's
    await after.stop(handle, fence=2, grace=5)
    seen = await after.inspect(handle)
    assert (seen.condition, seen.exit_code) == (Condition.EXITED, 0)
    assert not place.running(daemon)
    assert not place.running(claim["init"]["pid"])


async def test_starting_and_destroying_many_leaves_no_descriptor_open(place):
    handle, _ = await place.started()
    await place.driver.destroy(handle, fence=1)
    await anyio.wait_all_tasks_blocked()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        handle, _ = await place.started()
        await place.driver.destroy(handle, fence=1)
    await anyio.wait_all_tasks_blocked()
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_a_folder_deeper_than_any_path_and_links_out_of_it_are_removed_safely(place, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    handle, endpoint = await place.started()
    deep = "import os\nfor n in range(3000):\n os.mkdir('d')\n os.chdir('d')\nos.mkfifo('pipe')\n"
    await place.run(endpoint, sys.executable, "-c", f"import os; os.chdir(os.environ['OH_WORKSPACE_PATH'])\n{deep}")
    await place.run(
        endpoint, "sh", "-c", f"ln -s {precious} $OH_WORKSPACE_PATH/out; touch $OH_WORKSPACE_PATH/.removing-1"
    )
    await place.driver.destroy(handle, fence=1)
    await place.driver.remove_volume(handle.labels, fence=1)
    assert place.files() == []
    assert (precious / "file").read_text() == "kept"


def test_removing_what_is_not_there_is_fine(tmp_path):
    remove_tree(tmp_path / "nothing")


async def test_a_damaged_claim_is_named_and_its_runtime_can_still_be_destroyed(place):
    handle, _ = await place.started()
    (place.folder / "runtimes" / handle.name / "claim.json").write_text('{"name": "nes')
    assert await place.driver.list("here") == []
    assert (await place.driver.fingerprint()).details["damaged_claims"] == handle.name
    with pytest.raises(DriverUnavailable, match="damaged"):
        await place.driver.inspect(handle)
    await place.driver.destroy(handle, fence=1)
    assert place.marked(handle.name) == []
    assert not (place.folder / "runtimes" / handle.name).exists()
    await place.driver.remove_volume(handle.labels, fence=1)


async def test_a_folder_whose_maker_died_before_claiming_is_cleared_by_the_next_list(place):
    spec = place.new_spec()
    half_made = place.folder / "runtimes" / spec.name
    half_made.mkdir(parents=True)
    assert await place.driver.find(spec.name) is None
    assert await place.driver.list("here") == []
    assert not half_made.exists()


async def test_a_claim_of_an_earlier_boot_is_over(place):
    handle, _ = await place.started()
    claim = place.claim(handle)
    await place.driver.stop(handle, fence=1, grace=5)
    # The same numbers, now of a process that lives: this one. Another boot's numbers mean nothing.
    claim |= {"boot": "another", "server": asdict(identify(os.getpid())), "init": None}
    (place.folder / "runtimes" / handle.name / "claim.json").write_text(json.dumps(claim))
    assert (await place.driver.inspect(handle)).condition is Condition.EXITED
    await place.driver.destroy(handle, fence=1)


async def test_a_reused_process_number_is_not_the_runtime(place):
    handle, _ = await place.started()
    claim = place.claim(handle)
    await place.driver.stop(handle, fence=1, grace=5)
    async with await anyio.open_process(["sleep", "1000"]) as bystander:
        claim |= {"server": {"pid": bystander.pid, "started": 1}, "init": None}
        (place.folder / "runtimes" / handle.name / "claim.json").write_text(json.dumps(claim))
        assert (await place.driver.inspect(handle)).condition is Condition.EXITED
        await place.driver.destroy(handle, fence=1)
        assert place.running(bystander.pid)
        bystander.kill()


async def test_the_exit_code_is_told_and_kept(place):
    handle, endpoint = await place.started()
    with pytest.raises(httpx.HTTPError):
        await place.post(endpoint, "/exit", {"code": 3})
    await place.until(lambda: not place.running(place.claim(handle)["server"]["pid"]))
    for driver in (place.driver, ProcessDriver(place.folder, namespaces=False)):
        seen = await driver.inspect(handle)
        assert (seen.condition, seen.exit_code, seen.cause) == (Condition.EXITED, 3, ExitCause.CRASHED)


async def test_a_cancelled_start_leaves_a_runtime_that_its_claim_names_or_none(place):
    handle = await place.created()
    with anyio.move_on_after(0.001):
        await place.driver.start(handle, fence=1, init_key=KEY)
    await place.driver.find(handle.name)  # waits for the start, which goes on; `inspect` looks into the midst of it
    if (await place.driver.inspect(handle)).condition is not Condition.RUNNING:
        assert place.marked(handle.name) == []
    await place.driver.destroy(handle, fence=1)
    assert place.marked(handle.name) == []


SPAWNER = """
import json, sys
from pathlib import Path
import structlog
from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.process import ProcessDriver
from orchestrator.drivers.process_birth import SYSTEM_PATH
from orchestrator.drivers.process_zygote import Zygote
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
folder, command, namespaced, name = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3] == "True", sys.argv[4]
words = json.loads(sys.argv[5])
zygote = words and (lambda home, _: Zygote(home, words, search_path=SYSTEM_PATH))
driver = ProcessDriver(folder, command=command, namespaces=namespaced, zygote=zygote)
driver.begin()
assert not words or driver._zygote.wait_ready(20)
sys.stdout.write("ready\\n")  # at once; an unbuffered print would write the end of the line apart
sys.stdout.flush()
sys.stdin.readline()
driver._lifecycle.start(name, 1, SecretText("init-key"))
sys.stdout.write("started\\n")
sys.stdout.flush()
sys.stdin.readline()
"""


async def test_killing_the_orchestrator_at_any_moment_of_a_start_leaves_no_process_without_a_claim(place):
    """Twenty starts, each cut a little later than the one before: twelve of them within the time of a whole one, and
    the last after three times as long, because the machine may have been quicker when that was measured."""
    command = json.dumps(place.driver._command and list(place.driver._command))
    zygote = json.dumps(place.forked and list(place.driver._zygote.command))

    async def cut(name: str, seconds: float) -> float:
        """Have another process start it, and kill that after so long; how long it took to start it or to be killed."""
        words = [str(place.folder), command, str(place.namespaced), name, zygote]
        spawner = await anyio.open_process([sys.executable, "-c", SPAWNER, *words], stderr=None)
        async with spawner:
            with anyio.fail_after(20):
                await spawner.stdout.receive()
            began = time.monotonic()
            await spawner.stdin.send(b"go\n")
            with anyio.move_on_after(seconds):
                await spawner.stdout.receive()
            took = time.monotonic() - began
            spawner.kill()
        return took

    outcomes: set[Condition] = set()
    whole = await place.created()
    longest = await cut(whole.name, 20) * 3
    await place.driver.destroy(whole, fence=2)
    for round in range(20):
        handle = await place.created()
        await cut(handle.name, longest * (round / 19) ** 2)
        claimed = {one.name for one in await place.driver.list("here")}
        assert handle.name in claimed
        # What waits for leave sees the end of its pipe and goes; what was let go is the claim's own.
        await settled(place, handle)
        seen = await place.driver.inspect(handle)
        outcomes.add(seen.condition)
        if seen.condition is not Condition.RUNNING:
            # A child that was cut between fork and exec bears its mark only later, and then sees the end of its pipe.
            await place.until(lambda name=handle.name: not place.marked(name))
        await place.driver.destroy(handle, fence=2)
        await place.until(lambda name=handle.name: not place.marked(name))
    assert Condition.RUNNING in outcomes, "every start was cut too early to say anything"
    assert len(outcomes) > 1, "every start was cut too late to say anything"


async def settled(place, handle: Handle) -> None:
    def holds() -> bool:
        claim = place.claim(handle)
        named = {one["pid"] for one in (claim["server"], claim["init"]) if one}
        return not place.marked(handle.name) or any(place.running(pid) for pid in named)

    await place.until(holds)


async def test_a_command_that_does_not_exist_is_refused_with_a_hint(make_place):
    place = make_place(namespaced=False, command=["/nowhere/agent-server"])
    handle = await place.created()
    with pytest.raises(StartRefused, match="could not be executed") as refused:
        await place.driver.start(handle, fence=1, init_key=KEY)
    assert "NESTOR_RUNTIME_COMMAND" in (refused.value.hint or "")
    assert place.marked(handle.name) == []
    assert (await place.driver.inspect(handle)).condition is Condition.EXITED


@pytest.mark.parametrize("namespaced", [False, True])
async def test_a_command_that_ends_at_once_leaves_its_last_words(make_place, namespaced):
    place = make_place(namespaced=namespaced, command=["/bin/sh", "-c", "echo no such model >&2; exit 9"])
    handle = await place.created()
    with contextlib.suppress(StartRefused):  # whether it is quicker than we differs
        await place.driver.start(handle, fence=1, init_key=KEY)
    await place.until(lambda: place.marked(handle.name) == [])
    assert list(await place.driver.logs(handle)) == ["no such model"]
    assert (await place.driver.inspect(handle)).exit_code == 9
