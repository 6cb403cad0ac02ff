"""The zygote beside the driver: dead, replaced, out of date or not ready, and what becomes of its runtimes then."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import httpx
import pytest

from orchestrator.domain.secrets import SecretText
from orchestrator.drivers import process_lifecycle
from orchestrator.drivers.namespaces import Namespaces
from orchestrator.drivers.process import ProcessDriver
from orchestrator.drivers.process_birth import SYSTEM_PATH
from orchestrator.drivers.process_zygote import Zygote
from orchestrator.drivers.values import Condition, ExitCause

pytestmark = pytest.mark.anyio

KEY = SecretText("init-key")
SUPPORT = Path(__file__).parents[2]
STANDIN = SUPPORT / "contract" / "drivers" / "standin_zygote.py"


@pytest.fixture(params=["forked", "forked namespaced"])
def place(request, make_place):
    return make_place(namespaced="namespaced" in request.param, forked=True)


def zygote_of(place) -> int:
    return place.driver._zygote.standing.process.pid


def keeper_of(words, files: Callable[[], str] = lambda: "") -> Callable[..., Zygote]:
    return lambda folder, _: Zygote(folder, words, search_path=SYSTEM_PATH, files=files)


def program(text: str) -> list[str]:
    """A zygote of the stand-in server, after something else."""
    setting = f"import sys; sys.path.append({str(STANDIN.parent)!r}); import standin_zygote\n"
    return [sys.executable, "-I", "-c", setting + "from runtime.zygote.__main__ import main\n" + text]


async def another(place, old: int) -> int:
    await place.until(lambda: place.driver._zygote.standing is not None and zygote_of(place) != old)
    return zygote_of(place)


async def ended(place, handle, driver: ProcessDriver | None = None):
    with anyio.fail_after(20):
        while (seen := await (driver or place.driver).inspect(handle)).condition is not Condition.EXITED:
            await anyio.sleep(0.02)
    return seen


async def test_runtimes_outlive_their_zygote_and_the_next_ones_come_from_a_new_one(place):
    handle, endpoint = await place.started()
    old = zygote_of(place)
    server = place.claim(handle)["server"]["pid"]
    os.kill(old, signal.SIGKILL)
    await place.until(lambda: not place.running(old))
    await place.answers(endpoint)
    second = ProcessDriver(place.folder, namespaces=False)
    assert (await second.inspect(handle)).endpoint == endpoint
    await another(place, old)
    other, _ = await place.started()  # asserts that it was forked
    assert place.claim(other)["zygote"] != place.claim(handle)["zygote"]
    # Whose parent is gone, its exit code is lost: known to have ended, not how.
    os.kill(server, signal.SIGKILL)
    seen = await ended(place, handle)
    assert (seen.exit_code, seen.cause) == (None, ExitCause.UNKNOWN)
    again = await place.driver.start(handle, fence=2, init_key=KEY)
    await place.answers(again)


async def test_one_that_is_asked_to_stop_after_its_zygote_died_ends_cleanly(place):
    handle, endpoint = await place.started()
    daemon = (await place.post(endpoint, "/daemon", {}))["pid"]
    assert daemon
    os.kill(zygote_of(place), signal.SIGKILL)
    await place.driver.stop(handle, fence=2, grace=5)
    assert (await place.driver.inspect(handle)).cause is ExitCause.CLEAN
    assert place.marked(handle.name) == []
    with pytest.raises(httpx.HTTPError):
        await place.post(endpoint, "/run", {"argv": ["true"]})


ORCHESTRATOR = """
import json, sys
from pathlib import Path
import structlog
from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.process import ProcessDriver
from orchestrator.drivers.process_birth import SYSTEM_PATH
from orchestrator.drivers.process_zygote import Zygote
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
folder, namespaced, name, words = Path(sys.argv[1]), sys.argv[2] == "True", sys.argv[3], json.loads(sys.argv[4])
zygote = lambda home, _: Zygote(home, words, search_path=SYSTEM_PATH)
driver = ProcessDriver(folder, namespaces=namespaced, zygote=zygote)
driver.begin()
assert driver._zygote.wait_ready(20)
driver._lifecycle.start(name, 1, SecretText("init-key"))
sys.stdout.write(str(driver._zygote.standing.process.pid) + "\\n")
sys.stdout.flush()
sys.stdin.readline()
"""


@pytest.mark.parametrize("zygote_too", [False, True])
@pytest.mark.parametrize("namespaced", [False, True])
async def test_a_killed_orchestrator_leaves_runtimes_that_the_next_one_adopts(make_place, namespaced, zygote_too):
    place = make_place(namespaced=namespaced, command=None)  # makes claims; what is forked, the other process forks
    handle = await place.created()
    words = [str(place.folder), str(namespaced), handle.name, json.dumps([sys.executable, "-I", str(STANDIN)])]
    async with await anyio.open_process([sys.executable, "-c", ORCHESTRATOR, *words], stderr=None) as first:
        with anyio.fail_after(40):
            zygote = int(await first.stdout.receive())
        first.kill()
    if zygote_too:
        os.kill(zygote, signal.SIGKILL)
        await place.until(lambda: not place.running(zygote))
    claim = place.claim(handle)
    second = ProcessDriver(place.folder, namespaces=namespaced, zygote=keeper_of([sys.executable, "-I", str(STANDIN)]))
    second.begin()
    assert second._zygote.wait_ready(20)
    assert (second._zygote.standing.process.pid == zygote) != zygote_too
    assert [one.name for one in await second.list("here")] == [handle.name]
    seen = await second.inspect(handle)
    assert seen.condition is Condition.RUNNING
    await place.answers(seen.endpoint)
    os.kill(claim["server"]["pid"], signal.SIGKILL)
    seen = await ended(place, handle, second)
    assert seen.exit_code == (None if zygote_too else -signal.SIGKILL)
    assert seen.cause is (ExitCause.UNKNOWN if zygote_too else ExitCause.CRASHED)
    await second.destroy(handle, fence=2)
    assert place.marked(handle.name) == []
    await second.close()


async def test_changed_files_replace_it_and_the_old_one_ends_with_its_last_runtime(make_place):
    installed = ["first"]
    place = make_place(
        namespaced=False, command=None, zygote=keeper_of([sys.executable, "-I", str(STANDIN)], lambda: installed[0])
    )
    place.driver.begin()
    assert place.driver._zygote.wait_ready(20)
    place.forked = True
    handle, _ = await place.started()
    old = zygote_of(place)
    installed[0] = "second"
    cold = await place.created()
    await place.answers(await place.driver.start(cold, fence=1, init_key=KEY))
    assert place.claim(cold)["zygote"] is None  # nothing that was installed before is started any more
    await another(place, old)
    await place.started()
    assert place.running(old)
    os.kill(place.claim(handle)["server"]["pid"], signal.SIGKILL)
    assert (await ended(place, handle)).exit_code in (-signal.SIGKILL, None)
    await place.until(lambda: not place.running(old))


async def test_with_a_second_thread_it_forks_nothing_and_is_replaced(make_place):
    started = "import signal, threading\n"
    started += "def more(*_): threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    started += "def preload():\n signal.signal(signal.SIGUSR1, more)\n return ()\n"
    words = program(started + "main(serve=standin_zygote.serve, preload=preload)")
    place = make_place(namespaced=False, command=None, zygote=keeper_of(words))
    place.driver.begin()
    assert place.driver._zygote.wait_ready(20)
    old = zygote_of(place)
    os.kill(old, signal.SIGUSR1)
    await place.until(lambda: len(os.listdir(f"/proc/{old}/task")) == 2)
    handle = await place.created()
    await place.answers(await place.driver.start(handle, fence=1, init_key=KEY))
    assert place.claim(handle)["zygote"] is None
    await another(place, old)
    await place.until(lambda: not place.running(old))
    place.forked = True
    await place.started()


async def test_a_driver_that_only_looks_starts_none(make_place):
    place = make_place(namespaced=False, command=None, zygote=keeper_of([sys.executable, "-I", str(STANDIN)]))
    assert await place.driver.list("here") == []
    assert (await place.driver.fingerprint()).usable
    assert not (place.folder / "zygote").exists()


async def test_until_it_is_ready_runtimes_are_executed(make_place):
    words = program("import time\nmain(serve=standin_zygote.serve, preload=lambda: time.sleep(1000) or ())")
    place = make_place(namespaced=False, command=None, zygote=keeper_of(words))
    await place.started()
    assert "until the zygote is ready" in (await place.driver.fingerprint()).details["starts"]


async def test_one_that_cannot_start_is_told_and_changes_nothing(make_place):
    place = make_place(namespaced=False, command=None, zygote=keeper_of(["/bin/false"]))
    place.driver.begin()
    await place.until(lambda: bool(place.driver._zygote.trouble))
    await place.started()
    starts = (await place.driver.fingerprint()).details["starts"]
    assert starts.startswith("executed until the zygote is ready (")


async def test_where_a_fork_could_not_isolate_itself_runtimes_are_executed_in_namespaces(make_place):
    words = program("sys.stderr.write('unshare: Operation not permitted'); sys.exit(1)")
    place = make_place(namespaced=True, command=None, zygote=keeper_of(words))
    await place.started()
    starts = (await place.driver.fingerprint()).details["starts"]
    assert starts == (
        "executed, because a forked process cannot isolate itself here (unshare: Operation not permitted)"
    )


async def test_a_view_that_fails_after_the_fork_is_made_by_bubblewrap_instead(make_place, monkeypatch):
    place = make_place(namespaced=True, command=None, zygote=keeper_of([sys.executable, "-I", str(STANDIN)]))
    place.driver.begin()
    assert place.driver._zygote.wait_ready(20)
    steps = Namespaces.steps
    monkeypatch.setattr(Namespaces, "wrap", _wrap_with(steps, Namespaces.wrap))
    monkeypatch.setattr(Namespaces, "steps", lambda self, folders: [*steps(self, folders), ["overlay", "/"]])
    handle, _ = await place.started()
    assert place.claim(handle)["zygote"] is None
    assert place.claim(handle)["namespaced"]


def _wrap_with(steps, wrap):
    def wrapping(self, command, **more):
        known, Namespaces.steps = Namespaces.steps, steps
        try:
            return wrap(self, command, **more)
        finally:
            Namespaces.steps = known

    return wrapping


async def test_a_damaged_claim_leads_to_a_forked_runtime_even_if_its_environment_cannot_be_read(place, monkeypatch):
    handle, _ = await place.started()
    server = place.claim(handle)["server"]["pid"]
    (place.folder / "runtimes" / handle.name / "claim.json").write_text('{"name": "nes')
    monkeypatch.setattr(process_lifecycle, "carrying", lambda *_: ())
    await place.driver.destroy(handle, fence=1)
    assert not place.running(server)


async def test_closing_ends_it_at_once_unless_a_runtime_of_it_lives(make_place):
    place = make_place(namespaced=False, forked=True)
    idle = zygote_of(place)
    await place.driver.close()
    assert not place.running(idle)
    busy = make_place(namespaced=False, forked=True)
    handle, endpoint = await busy.started()
    pid = zygote_of(busy)
    began = time.monotonic()
    await busy.driver.close()
    assert time.monotonic() - began < 20
    assert busy.running(pid)
    await busy.answers(endpoint)
    await busy.driver.destroy(handle, fence=2)
    await busy.until(lambda: not busy.running(pid))


async def test_its_socket_is_for_its_owner_and_works_in_a_folder_of_any_depth(tmp_path):
    folder = tmp_path / ("deep-" * 20) / ("deeper-" * 20)
    folder.mkdir(parents=True)
    keeper = Zygote(folder, [sys.executable, "-I", str(STANDIN)], search_path=SYSTEM_PATH)
    keeper.start()
    standing = keeper.wait_ready(20)
    assert standing is not None, keeper.trouble
    assert oct(standing.socket.stat().st_mode & 0o777) == "0o600"
    keeper.close()
