"""The zygote with real runtimes: what its children are, hold and share, how their ends are told, when it refuses."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import websockets
from support.models import scripted_model
from support.zygotes import KEY, RECORDING, Forked, ZygoteProcess, turn, zygote_at

MCP = Path(__file__).parents[2] / "support" / "mcp_server.py"
STRANGER = 65534


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZygoteProcess]:
    with zygote_at(tmp_path_factory.mktemp("zygote")) as running:
        yield running


@pytest.fixture
def light(tmp_path: Path) -> Iterator[Callable[[str], ZygoteProcess]]:
    """Makes a zygote whose runtimes do what the text says instead of serving; it imports nothing and starts at once."""
    started: list[ZygoteProcess] = []

    def start(body: str) -> ZygoteProcess:
        program = f"from runtime.zygote.__main__ import main\n{body}\nmain(serve=serve, preload=preload)"
        started.append(ZygoteProcess(tmp_path / f"zygote-{len(started)}", ("-c", program)).start())
        return started[-1]

    yield start
    for one in started:
        one.stop()


SERVE = "preload = lambda: ()\ndef serve(arguments):\n"


def served(zygote: ZygoteProcess, folder: Path, **more: object) -> Forked:
    runtime = zygote.fork(folder, **more)
    assert runtime.pid, runtime.answer
    assert runtime.let_go() == ""
    runtime.ready()
    return runtime


@pytest.fixture
def runtime(zygote: ZygoteProcess, tmp_path: Path) -> Iterator[Forked]:
    one = served(zygote, tmp_path / "runtime")
    yield one
    end(one, signal.SIGKILL)


def end(runtime: Forked, number: signal.Signals) -> None:
    runtime.close()
    try:
        watch = os.pidfd_open(runtime.pid)
    except ProcessLookupError:
        return
    signal.pidfd_send_signal(watch, number)
    eventually(lambda: not Path(f"/proc/{runtime.pid}").exists())
    os.close(watch)


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.01)


def started_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def in_memory(pid: int, text: bytes) -> bool:
    """Whether the process holds that text anywhere that it can write."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            place, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue
            start, end = (int(number, 16) for number in place.split("-"))
            memory.seek(start)
            try:
                if text in memory.read(end - start):
                    return True
            except OSError:
                continue
    return False


def test_it_has_one_thread_and_an_empty_environment(zygote: ZygoteProcess) -> None:
    assert zygote.about["threads"] == 1
    assert zygote.about["missing"] == []
    assert zygote.about["modules"] > 3000
    variables = Path(f"/proc/{zygote.pid}/environ").read_text().split("\0")
    assert {one.partition("=")[0] for one in variables} - {""} == {
        "PATH",
        "HOME",
        "LITELLM_LOCAL_MODEL_COST_MAP",
        "NESTOR_ROOM",
    }
    assert os.getsid(zygote.pid) == zygote.pid


def test_a_turn_imports_nothing_that_the_zygote_has_not(tmp_path: Path) -> None:
    """If this fails, a library has changed: add the names to runtime/zygote/modules.txt, in this order."""
    with scripted_model() as model, zygote_at(tmp_path / "zygote", RECORDING) as zygote:
        runtime = served(zygote, tmp_path / "runtime")
        script = [{"tool": "terminal", "args": {"command": "true"}}, {"text": "done"}]
        for stream in (False, True):
            turn(runtime, model, stream=stream, script=script)
        runtime.shell("true")
        asyncio.run(listen(runtime))
        end(runtime, signal.SIGTERM)
        late = (runtime.folder / "imported").read_text().split()
    assert late == []


async def listen(runtime: Forked) -> None:
    found = runtime.call("GET", "/api/conversations/search")["items"]
    address = f"ws://127.0.0.1:{runtime.port}/sockets/events/{found[0]['id']}?resend_all=true"
    async with websockets.connect(address, additional_headers={"X-Session-API-Key": KEY}) as connection:
        await asyncio.wait_for(connection.recv(), 20)


def test_a_forked_runtime_is_shut_in_as_an_executed_one(runtime: Forked) -> None:
    status = status_of(runtime.pid)
    assert (status["NoNewPrivs"], status["SigBlk"], status["Name"]) == ("1", "0" * 16, "runtime")
    # Whoever writes to a client that is gone must not end of it; nothing else that some parent ignored is passed on.
    ignored = {number for number in range(1, 65) if int(status["SigIgn"], 16) >> (number - 1) & 1}
    assert ignored == {signal.SIGPIPE, signal.SIGXFSZ}
    assert os.getsid(runtime.pid) == runtime.pid
    assert int(Path(f"/proc/{runtime.pid}/oom_score_adj").read_text()) >= 500
    limits = Path(f"/proc/{runtime.pid}/limits").read_text().splitlines()
    assert next(line for line in limits if line.startswith("Max core")).split()[4:6] == ["0", "0"]
    assert Path(f"/proc/{runtime.pid}/cwd").resolve() == runtime.folder
    shown = Path(f"/proc/{runtime.pid}/environ").read_bytes().rstrip(b"\0")
    assert shown == b"NESTOR_CLAIM=runtime"


def test_it_holds_nothing_of_the_zygotes(runtime: Forked, zygote: ZygoteProcess) -> None:
    targets = {os.readlink(path) for path in Path(f"/proc/{runtime.pid}/fd").iterdir()}
    theirs = {os.readlink(path) for path in Path(f"/proc/{zygote.pid}/fd").iterdir()}
    shared = {target for target in targets & theirs if not target.startswith("anon_inode")}
    assert shared == {"/dev/null"}
    assert not [target for target in targets if "zygote" in target]
    assert str(runtime.folder / "log") in targets


ONLY_ITS_OWN = "for one in /proc/self/fd/*; do readlink $one; done"


def test_the_agents_shell_has_no_descriptor_of_the_server(runtime: Forked, tmp_path: Path) -> None:
    server = {os.readlink(path) for path in Path(f"/proc/{runtime.pid}/fd").iterdir()}
    assert any(target.startswith("socket:") for target in server)
    by_api = runtime.shell("ls -l /proc/self/fd | sed 's/.*-> //'")["stdout"].split()
    assert not [target for target in by_api if target.startswith(("socket:", "anon_inode:"))], by_api
    script = [
        {"tool": "terminal", "args": {"command": "ls -l /proc/self/fd /proc/$$/fd > $HOME/listed"}},
        {"text": "done"},
    ]
    with scripted_model() as model:
        turn(runtime, model, script=script)
    by_agent = (runtime.folder / "listed").read_text()
    assert "/dev/pts/" in by_agent
    assert "socket:" not in by_agent
    assert "anon_inode:" not in by_agent
    assert "pipe:" not in by_agent


LISTING_SERVER = """
import os, runpy, sys
links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
found = [os.readlink(link) for link in links if os.path.islink(link)]
open(sys.argv[1], "w").write("\\n".join(found))
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_tool_server_has_no_descriptor_of_the_server(runtime: Forked, tmp_path: Path) -> None:
    """The package for MCP starts processes by the event loop, and uvloop closes nothing in them."""
    program = tmp_path / "server.py"
    program.write_text(LISTING_SERVER)
    server = {"command": sys.executable, "args": [str(program), str(runtime.folder / "fds"), str(MCP)]}
    llm = {"model": "openai/scripted", "api_key": "k", "usage_id": "agent", "num_retries": 0}
    with scripted_model() as model:
        body = {
            "agent": {"kind": "Agent", "llm": {**llm, "base_url": model}, "mcp_config": {"s": server}},
            "workspace": {"working_dir": str(runtime.folder / "work")},
            "initial_message": {"role": "user", "content": [{"type": "text", "text": 'SCRIPT:[{"text":"done"}]'}]},
        }
        made = runtime.call("POST", "/api/conversations", json=body)
        path = f"/api/conversations/{made['id']}"
        eventually(lambda: runtime.call("GET", path)["execution_status"] == "finished")
    found = (runtime.folder / "fds").read_text().split("\n")
    # Its own three, some of them twice, and nothing that the server serves or waits with.
    assert len(set(found)) == 3, found
    listener = next(link for link in Path(f"/proc/{runtime.pid}/fd").iterdir() if is_listener(link, runtime.port))
    assert os.readlink(listener) not in found
    assert not [target for target in found if target.startswith("anon_inode:")]


def is_listener(link: Path, port: int) -> bool:
    """Whether that descriptor is the socket on which the runtime's port is served."""
    inode = os.readlink(link).removeprefix("socket:[").removesuffix("]")
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(line[9] == inode and line[1].endswith(f":{port:04X}") and line[3] == "0A" for line in lines)


def test_how_a_child_ended_is_kept_until_somebody_asks(zygote: ZygoteProcess, tmp_path: Path) -> None:
    for number, code in ((signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)):
        one = served(zygote, tmp_path / number.name)
        started = started_of(one.pid)
        assert zygote.ending(one.pid, started) is None
        end(one, number)
        assert zygote.ending(one.pid, started) == code
        assert zygote.ending(one.pid, started) == code
        assert zygote.ending(one.pid, started + 1) is None


def test_without_leave_a_child_goes_away_and_has_served_nobody(zygote: ZygoteProcess, tmp_path: Path) -> None:
    one = zygote.fork(tmp_path / "one")
    assert Path(f"/proc/{one.pid}").exists()
    os.close(one.give_leave)
    eventually(lambda: not Path(f"/proc/{one.pid}").exists())
    assert (one.folder / "log").read_text() == ""
    assert os.read(one.report, 100) == b""
    os.close(one.report)
    one.http.close()


def test_nothing_of_one_runtime_is_in_the_zygote_or_in_the_next_one(zygote: ZygoteProcess, tmp_path: Path) -> None:
    canary = "planted-in-one-environment-4f7d"
    planted = hidden(canary)
    first = served(zygote, tmp_path / "first", environment={"PLANTED": canary})
    second = served(zygote, tmp_path / "second")
    assert in_memory(first.pid, planted())
    assert not in_memory(zygote.pid, planted())
    assert not in_memory(second.pid, planted())
    for one in (first, second):
        end(one, signal.SIGKILL)


def hidden(text: str) -> Callable[[], bytes]:
    return lambda: text.encode()


def test_a_second_thread_is_told_and_nothing_is_forked(light: Callable[[str], ZygoteProcess], tmp_path: Path) -> None:
    zygote = light(
        "import threading\ndef serve(arguments): return 0\n"
        "def preload():\n threading.Thread(target=threading.Event().wait, daemon=True).start()\n return ()"
    )
    assert zygote.about["threads"] == 2
    one = zygote.fork(tmp_path / "one")
    assert (one.answer["refused"], one.answer["threads"], one.pid) == ("threads", 2, 0)
    assert Path(f"/proc/{zygote.pid}/task/{zygote.pid}/children").read_text() == ""
    one.close()


def test_what_is_drawn_at_random_differs_between_children(
    light: Callable[[str], ZygoteProcess], tmp_path: Path
) -> None:
    zygote = light(
        "import os, random, secrets, ssl, uuid\nrandom.random(); ssl.RAND_bytes(8)\npreload = lambda: ()\n"
        "def serve(arguments):\n"
        " open('drawn', 'w').write(repr([uuid.uuid4(), random.random(), secrets.token_hex(8), ssl.RAND_bytes(8)]))\n"
        " return 0"
    )
    drawn = []
    for number in range(3):
        one = zygote.fork(tmp_path / str(number))
        assert one.let_go() == ""
        eventually(lambda one=one: (one.folder / "drawn").exists() and bool((one.folder / "drawn").read_text()))
        drawn.append((one.folder / "drawn").read_text().split(", "))
        one.close()
    assert all(len(set(values)) == 3 for values in zip(*drawn, strict=True))


def test_variables_that_imports_have_set_are_there_and_the_zygotes_own_are_not(
    light: Callable[[str], ZygoteProcess], tmp_path: Path
) -> None:
    zygote = light(
        "import json, os, tempfile\n"
        "def preload():\n os.environ['BY_IMPORT'] = 'kept'\n tempfile.gettempdir()\n return ()\n"
        "def serve(arguments):\n"
        " json.dump({**os.environ, 'temporary': tempfile.gettempdir()}, open('seen', 'w'))\n return 0"
    )
    one = zygote.fork(tmp_path / "one", environment={"OWN": "yes"})
    assert one.let_go() == ""
    eventually(lambda: (one.folder / "seen").exists() and bool((one.folder / "seen").read_text()))
    seen = json.loads((one.folder / "seen").read_text())
    assert (seen["BY_IMPORT"], seen["OWN"], seen["HOME"]) == ("kept", "yes", str(one.folder))
    assert seen["temporary"] == str(one.folder)
    assert "NESTOR_ROOM" not in seen
    one.close()


def test_as_root_another_user_can_be_asked_for_and_then_no_rights_are_left(
    light: Callable[[str], ZygoteProcess], tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    zygote = light("import time\npreload = lambda: ()\ndef serve(arguments):\n time.sleep(1000)")
    one = zygote.fork(tmp_path / "one", uid=STRANGER, gid=STRANGER, directory="/")
    assert one.let_go() == ""
    status = status_of(one.pid)
    assert status["Uid"].split() == status["Gid"].split() == [str(STRANGER)] * 4
    assert status["Groups"] == ""
    assert status["CapEff"] == status["CapPrm"] == "0" * 16
    # The kernel gives what a process that cannot be read has below /proc to root.
    assert os.stat(f"/proc/{one.pid}/environ").st_uid == 0
    end(one, signal.SIGKILL)


def test_another_user_is_not_served(light: Callable[[str], ZygoteProcess], tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    zygote = light(SERVE + " return 0")
    assert oct(zygote.socket.stat().st_mode & 0o777) == "0o600"
    asked = subprocess.run(
        [sys.executable, "-I", "-c", ASK, str(zygote.socket), str(STRANGER)], capture_output=True, text=True, timeout=20
    )
    assert asked.stdout.strip() == "b''", asked.stderr
    assert zygote.ask("hello", {})["threads"] == 1


# The rights of files are not in its way: what is tried is whether the zygote looks who called.
ASK = """
import os, socket, sys
connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
os.chmod(sys.argv[1], 0o666)
os.fchdir(os.open(os.path.dirname(sys.argv[1]), os.O_RDONLY))
os.setresuid(int(sys.argv[2]), int(sys.argv[2]), int(sys.argv[2]))
connection.connect(os.path.basename(sys.argv[1]))
try:
    connection.send(b"hello\\n{}")
    print(connection.recv(100))
except (BrokenPipeError, ConnectionResetError):
    print(b"")
"""


def test_it_ends_when_nobody_needs_it_and_not_before(light: Callable[[str], ZygoteProcess], tmp_path: Path) -> None:
    zygote = light("import time\npreload = lambda: ()\ndef serve(arguments):\n time.sleep(1000)")
    one = zygote.fork(tmp_path / "one")
    assert one.let_go() == ""
    zygote.let_go()
    with pytest.raises(subprocess.TimeoutExpired):
        zygote.wait(11)  # a child lives, and how it ends may still be asked
    os.kill(one.pid, signal.SIGKILL)
    assert zygote.wait(20) == 0
    one.close()


def test_a_retired_one_forks_no_more_and_ends_with_its_last_child(
    light: Callable[[str], ZygoteProcess], tmp_path: Path
) -> None:
    zygote = light("import time\npreload = lambda: ()\ndef serve(arguments):\n time.sleep(1000)")
    one = zygote.fork(tmp_path / "one")
    assert one.let_go() == ""
    assert zygote.ask("retire", {}) == {"retired": True}
    assert zygote.fork(tmp_path / "two").answer["refused"] == "retired"
    os.kill(one.pid, signal.SIGKILL)
    assert zygote.wait(10) == 0
    one.close()


@pytest.mark.parametrize("message", ["", "nonsense", "fork\n{", 'fork\n{"descriptors": []}', "ending\n[]", "hello"])
def test_a_message_that_is_none_harms_nobody(light: Callable[[str], ZygoteProcess], message: str) -> None:
    zygote = light(SERVE + " return 0")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(str(zygote.socket))
        connection.settimeout(10)
        connection.send(message.encode() or b"\0")
        connection.recv(1000)
    assert zygote.ask("hello", {})["threads"] == 1
    eventually(lambda: Path(f"/proc/{zygote.pid}/task/{zygote.pid}/children").read_text() == "")


def test_many_at_once_are_served_one_after_another(zygote: ZygoteProcess, tmp_path: Path) -> None:
    found: list[Forked] = []

    def fork(number: int) -> None:
        found.append(served(zygote, tmp_path / str(number)))

    workers = [threading.Thread(target=fork, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len({one.pid for one in found}) == 8
    for one in found:
        end(one, signal.SIGKILL)
