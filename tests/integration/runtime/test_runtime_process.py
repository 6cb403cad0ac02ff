"""`python -m runtime` as a real process: addresses, keys, descriptors, signals."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from support.binding import NONCE, answering, bind_plainly
from support.ports import lasting_port
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from runtime import __main__

KEY = "key-of-the-process-test"
Start = Callable[..., subprocess.Popen[bytes]]


def eventually(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition did not come true in time"
        time.sleep(0.02)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def run(
        *arguments: str,
        keys: bool = True,
        pass_fds: tuple[int, ...] = (),
        group: int | None = None,
        directory: Path | None = None,
        **more: str,
    ) -> subprocess.Popen[bytes]:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "OH_PERSISTENCE_DIR": str(tmp_path / "persistence"),
            "OH_CONVERSATIONS_PATH": str(tmp_path / "conversations"),
            "OH_WORKSPACE_PATH": str(tmp_path / "project"),
            **({"OH_SESSION_API_KEYS_0": KEY, "OH_SECRET_KEY": "sealing"} if keys else {}),
            **more,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "runtime", *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds,
            group=group,
            cwd=directory,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def address_of(server: socket.socket) -> str:
    return f"http://127.0.0.1:{server.getsockname()[1]}"


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=20)
    return process.returncode, errors.decode()


def test_it_serves_a_port_with_the_key_from_the_environment_and_sigterm_ends_it_with_success(start: Start) -> None:
    port = lasting_port()
    process = start("--port", str(port))
    base = f"http://127.0.0.1:{port}"
    eventually(lambda: answers(f"{base}/ready"))
    assert httpx.get(f"{base}/api/settings").status_code == 401
    assert httpx.get(f"{base}/api/settings", headers={"X-Session-API-Key": KEY}).status_code == 200
    process.send_signal(signal.SIGTERM)
    status, errors = finish(process)
    assert status == 0
    assert KEY not in errors
    assert "Traceback" not in errors


def test_a_single_key_variable_works_too(start: Start, listening: socket.socket) -> None:
    start("--listen-fd", str(listening.fileno()), keys=False, pass_fds=(listening.fileno(),), SESSION_API_KEY=KEY)
    base = address_of(listening)
    eventually(lambda: answers(f"{base}/ready"))
    assert httpx.get(f"{base}/api/settings").status_code == 401
    headers = {"X-Session-API-Key": KEY, "X-Expose-Secrets": "encrypted"}
    assert httpx.get(f"{base}/api/settings", headers=headers).status_code == 200


def test_an_inherited_socket_is_served_and_a_connection_survives_an_error(
    start: Start, listening: socket.socket
) -> None:
    start("--listen-fd", str(listening.fileno()), pass_fds=(listening.fileno(),))
    base = address_of(listening)
    eventually(lambda: answers(f"{base}/ready"))
    with httpx.Client(base_url=base, headers={"X-Session-API-Key": KEY}) as client:
        assert client.patch("/api/settings", content=b"{").status_code == 422
        assert client.get("/api/settings").status_code == 200
        assert "server" not in client.get("/alive").headers


@pytest.mark.parametrize("source", ["pipe", "stdin", "file"])
def test_a_dormant_start_proves_itself_and_is_initialised(
    start: Start, listening: socket.socket, tmp_path: Path, source: str
) -> None:
    init_key = "one-time-init-key"
    options = ["--listen-fd", str(listening.fileno())]
    reading, writing = os.pipe()
    passed: tuple[int, ...] = (listening.fileno(),)
    if source == "pipe":
        options += ["--boot-key-fd", str(reading)]
        passed += (reading,)
    elif source == "stdin":
        options += ["--boot-key-fd", "0"]
    else:
        (tmp_path / "key").write_text(f"{init_key}\n")
        options += ["--boot-key-file", str(tmp_path / "key")]
    process = start(*options, keys=False, pass_fds=passed)
    base = address_of(listening)
    eventually(lambda: answers(f"{base}/alive"))  # before the key is there
    os.write(writing, f"{init_key}\n".encode())
    assert process.stdin is not None
    if source == "stdin":
        process.stdin.write(f"{init_key}\n".encode())
        process.stdin.flush()
    os.close(writing)
    os.close(reading)

    with httpx.Client(base_url=base) as client:
        asked = {"X-Init-Nonce": "nonce"}
        eventually(lambda: client.get("/api/init", headers=asked).json()["proof"] is not None)
        assert client.get("/ready").status_code == 503
        assert client.get("/api/settings").status_code == 503
        body = {"session_api_keys": [KEY], "secret_key": "sealing", "generation": 1}
        assert bind_plainly(client, init_key, body).status_code == 200
        assert client.get("/ready").status_code == 200
        assert client.get("/api/settings", headers={"X-Session-API-Key": KEY}).status_code == 200
    process.send_signal(signal.SIGTERM)
    status, errors = finish(process)
    assert status == 0
    assert init_key not in errors
    assert KEY not in errors


@pytest.mark.parametrize(("address", "status"), [("127.0.0.1", 200), ("0.0.0.0", 422)])
def test_init_without_keys_is_for_those_alone_who_listen_to_this_machine_alone(
    start: Start, tmp_path: Path, address: str, status: int
) -> None:
    (tmp_path / "key").write_text("one-time-init-key\n")
    with socket.create_server((address, 0)) as listener:
        passed = ("--listen-fd", str(listener.fileno()), "--boot-key-file", str(tmp_path / "key"))
        start(*passed, keys=False, pass_fds=(listener.fileno(),))
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            eventually(lambda: answers(f"{client.base_url}/alive"))
            body = {"env": {"LLM_API_KEY": "of-the-agent"}}
            answer = bind_plainly(client, "one-time-init-key", body)
            assert answer.status_code == status, answer.text
            assert client.get("/ready").status_code == (200 if status == 200 else 503)


def test_a_dormant_runtime_ends_cleanly_too(start: Start, listening: socket.socket) -> None:
    reading, writing = os.pipe()
    descriptors = (listening.fileno(), reading)
    process = start("--listen-fd", str(descriptors[0]), "--boot-key-fd", str(reading), keys=False, pass_fds=descriptors)
    eventually(lambda: answers(f"{address_of(listening)}/alive"))
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 0
    os.close(reading)
    os.close(writing)


def test_a_dormant_runtime_that_never_gets_its_key_says_so_and_stays_closed(
    start: Start, listening: socket.socket
) -> None:
    process = start("--listen-fd", str(listening.fileno()), "--boot-key-fd", "0", pass_fds=(listening.fileno(),))
    base = address_of(listening)
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None
    eventually(lambda: answers(f"{base}/alive"))
    for key in ("", "None", KEY):
        with httpx.Client(base_url=base) as client:
            asked = client.get("/api/init", headers={"X-Init-Nonce": NONCE}).json()
            assert asked["proof"] is None
            post = answering(key, asked["challenge"], {"session_api_keys": ["k"]})
            assert client.post("/api/init", headers=post.headers, content=post.content).status_code == 401
    assert process.stderr is not None
    said = b""

    def told() -> bool:
        nonlocal said
        assert process.stderr is not None
        ready, _, _ = select.select([process.stderr], [], [], 0)
        said += os.read(process.stderr.fileno(), 65536) if ready else b""
        return b"runtime.init_key_missing" in said

    eventually(told)
    process.send_signal(signal.SIGTERM)
    status, _ = finish(process)
    assert status == 0


def test_a_dormant_runtime_refuses_websockets(start: Start, listening: socket.socket) -> None:
    start("--listen-fd", str(listening.fileno()), "--boot-key-fd", "0", keys=False, pass_fds=(listening.fileno(),))
    base = address_of(listening)
    eventually(lambda: answers(f"{base}/alive"))
    with pytest.raises(InvalidStatus) as refused, connect(f"ws{base.removeprefix('http')}/sockets/events/{'0' * 32}"):
        pass
    assert refused.value.response.status_code == 403


def test_what_cannot_be_loaded_ends_the_start(start: Start, tmp_path: Path) -> None:
    (tmp_path / "persistence").write_text("a file where a directory must be")
    status, errors = finish(start("--port", "0"))
    assert status == 3
    assert "File exists" in errors


def test_a_port_in_use_is_one_clear_line(start: Start, listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    status, errors = finish(start("--host", "127.0.0.1", "--port", str(port)))
    assert status == 1
    assert errors.count("\n") == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in errors


WAITS_BEFORE_THE_REST = """
import sys, time
from pathlib import Path

class Waits:
    def find_spec(self, name, path=None, target=None):
        while name == "runtime.program" and not Path({let!r}).exists():
            time.sleep(0.01)

sys.meta_path.insert(0, Waits())
"""


def test_who_connects_while_it_is_still_importing_is_answered(start: Start, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WAITS_BEFORE_THE_REST.format(let=str(tmp_path / "let")))
    port = lasting_port()
    process = start("--host", "127.0.0.1", "--port", str(port), PYTHONPATH=str(tmp_path))
    eventually(lambda: connects(port))
    with socket.create_connection(("127.0.0.1", port)) as early:
        early.sendall(b"GET /alive HTTP/1.1\r\nHost: runtime\r\n\r\n")
        early.settimeout(0.3)
        with pytest.raises(TimeoutError):
            early.recv(1)
        assert process.poll() is None
        (tmp_path / "let").touch()
        early.settimeout(30)
        assert early.recv(100).startswith(b"HTTP/1.1 200 ")


def connects(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


def test_another_address_than_loopback_is_refused_without_a_key(start: Start) -> None:
    status, errors = finish(start("--host", "0.0.0.0", "--port", "0", keys=False))
    assert status == 2
    assert "NESTOR_RUNTIME_ALLOW_OPEN=1" in errors


@pytest.mark.parametrize(("keys", "address"), [(True, "0.0.0.0"), (False, "127.0.0.1")])
def test_without_a_host_it_listens_everywhere_if_there_is_a_key_and_else_on_loopback(
    start: Start, keys: bool, address: str
) -> None:
    process = start("--port", "0", keys=keys)
    assert process.stderr is not None
    line = next(line for line in iter(process.stderr.readline, b"") if b"runtime.listening" in line)
    assert f"address={address}:" in line.decode()


def test_without_port_it_is_8000_and_what_stands_in_the_default_file_is_served(start: Start, tmp_path: Path) -> None:
    assert __main__._parser().parse_args([]).port == 8000
    folder = tmp_path / "at" / "workspace"
    folder.mkdir(parents=True)
    content = {"session_api_key": "from-the-file", "allow_cors_origins": ["https://your-frontend.com"]}
    (folder / "openhands_agent_server_config.json").write_text(json.dumps(content))
    port = lasting_port()
    start("--port", str(port), keys=False, directory=tmp_path / "at")
    base = f"http://127.0.0.1:{port}"
    eventually(lambda: answers(f"{base}/ready"))
    asked = {"X-Session-API-Key": "from-the-file", "Origin": "https://your-frontend.com"}
    answer = httpx.get(f"{base}/api/conversations/count", headers=asked)
    assert (answer.status_code, answer.json()) == (200, 0)
    assert answer.headers["access-control-allow-origin"] == "https://your-frontend.com"
    assert httpx.get(f"{base}/api/conversations/count").status_code == 401


def test_by_default_all_is_below_workspace_and_settings_in_the_home(start: Start, tmp_path: Path) -> None:
    place, port = tmp_path / "at", lasting_port()
    place.mkdir()
    names = ("OH_PERSISTENCE_DIR", "OH_CONVERSATIONS_PATH", "OH_WORKSPACE_PATH")
    start("--port", str(port), directory=place, **dict.fromkeys(names, ""))
    base = f"http://127.0.0.1:{port}"
    eventually(lambda: answers(f"{base}/ready"))
    with httpx.Client(base_url=base, headers={"X-Session-API-Key": KEY}, timeout=30) as client:
        sent = {"agent": {"llm": {"model": "m"}}, "workspace": {"working_dir": "workspace/project"}}
        id = client.post("/api/conversations", json=sent).json()["id"]
        printed = client.post(f"/api/conversations/{id}/bash/execute_bash_command", json={"command": "pwd"}).json()
        assert printed["stdout"].strip() == str(place / "workspace" / "project")
        assert client.put("/api/settings/secrets", json={"name": "A", "value": "v"}).status_code == 200
    assert sorted(entry.name for entry in (place / "workspace").iterdir()) == [
        "bash_events",
        "conversations",
        "project",
    ]
    assert (place / "workspace" / "project" / ".git").is_dir()
    folder = place / "workspace" / "conversations" / id.replace("-", "")
    assert {"events.jsonl"} <= {entry.name for entry in folder.iterdir()}
    kept = tmp_path / ".openhands"
    assert (kept / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert kept.stat().st_mode & 0o777 == 0o700


def test_without_a_secret_key_it_says_that_secrets_will_not_be_kept(start: Start) -> None:
    port = lasting_port()
    process = start("--port", str(port), keys=False)
    base = f"http://127.0.0.1:{port}"
    eventually(lambda: answers(f"{base}/ready"))
    assert any("OH_SECRET_KEY" in warning for warning in httpx.get(f"{base}/ready").json()["warnings"])
    process.send_signal(signal.SIGTERM)
    assert "OH_SECRET_KEY" in finish(process)[1]


@pytest.mark.parametrize(
    ("arguments", "variables", "told"),
    [
        (["--boot-key-fd", "99"], {}, "Bad file descriptor"),
        (["--boot-key-file", "/nonexistent/key"], {}, "No such file"),
        (["--listen-fd", "0"], {}, "--listen-fd 0 is not a socket"),
        (["--port", "99999"], {}, "a port is a number from 0 to 65535"),
        (["--port", "0"], {"OH_MAX_CONCURRENT_RUNS": "hidden"}, "max_concurrent_runs: Input should be a valid integer"),
        (["--port", "0"], {"OH_ALLOW_CORS_ORIGINS": "hidden"}, "OH_ALLOW_CORS_ORIGINS must be a JSON list"),
        (["--port", "0"], {"OH_DEFERRED_INIT": "1", "OH_SECRET_KEY": ""}, None),
    ],
)
def test_wrong_use_is_told_without_values(
    start: Start, arguments: list[str], variables: dict[str, str], told: str | None
) -> None:
    process = start(*arguments, keys=told is not None, **variables)
    status, errors = finish(process)
    assert status in {1, 2}
    assert (told or "OH_DEFERRED_INIT needs an init key") in errors
    assert "hidden" not in errors
    assert "Traceback" not in errors


def test_the_process_hides_its_memory_and_writes_no_core(start: Start, listening: socket.socket) -> None:
    # As root the files of every process belong to user 0, so a group of its own is what tells the difference.
    group = 54321 if os.geteuid() == 0 else None
    process = start("--listen-fd", str(listening.fileno()), pass_fds=(listening.fileno(),), group=group)
    eventually(lambda: answers(f"{address_of(listening)}/ready"))
    limits = Path(f"/proc/{process.pid}/limits").read_text()
    (core,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert core.split()[4:6] == ["0", "0"]
    # The kernel gives the files of a process that is not dumpable to root.
    found = Path(f"/proc/{process.pid}/environ").stat()
    assert (found.st_uid, found.st_gid) == (0, 0)


def test_ready_comes_before_the_model_library_is_loaded(start: Start, listening: socket.socket) -> None:
    descriptor = listening.fileno()
    process = start("--listen-fd", str(descriptor), pass_fds=(descriptor,), PYTHONPROFILEIMPORTTIME="1")
    eventually(lambda: answers(f"{address_of(listening)}/ready"))
    process.send_signal(signal.SIGTERM)
    status, imports = finish(process)
    assert status == 0
    assert "runtime.app" in imports
    assert "litellm" not in imports
