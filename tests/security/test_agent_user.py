"""Where the runtime may, the agent is another user: its shell works, and the server and its state are closed to it."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from support.models import scripted_model

from tests.support.runtimes import KEY, MODEL_KEY, RuntimeProcess, eventually, message, terminal

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of another user")
#: of this run alone, since other tests on the machine have the usual keys in their processes
HUNTED = (f"sealing-{uuid4().hex}", f"session-{uuid4().hex}")
STORED = "a-stored-value-that-nobody-may-find-8841"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user can reach: those of pytest are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="nst-user-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def process_at(folder: Path, **more: str) -> RuntimeProcess:
    variables = {"OH_BASH_EVENTS_DIR": str(folder / "state/bash"), "OH_PERSISTENCE_DIR": str(folder / "state/kept")}
    variables |= {"OH_CONVERSATIONS_PATH": str(folder / "state/conversations"), **more}
    return RuntimeProcess(folder, **variables)


@pytest.fixture
def runtime(place: Path) -> Iterator[RuntimeProcess]:
    (place / "project").mkdir()
    (place / "project/before.txt").write_text("from before\n")
    started = process_at(place, OH_SECRET_KEY=HUNTED[0], OH_SESSION_API_KEYS_1=HUNTED[1]).start()
    yield started
    started.ensure_gone()


@pytest.fixture
def http(runtime: RuntimeProcess) -> Iterator[httpx.Client]:
    headers = {"X-Session-API-Key": KEY}
    with httpx.Client(base_url=runtime.url, headers=headers, trust_env=False, timeout=60) as client:
        yield client


def run(http: httpx.Client, command: str, **more: Any) -> dict[str, Any]:
    answer = http.post("/api/bash/execute_bash_command", json={"command": command, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def converse(http: httpx.Client, folder: Path, script: list[Any], **more: Any) -> list[dict[str, Any]]:
    """One turn of an agent; its observations."""
    with scripted_model() as model:
        llm = {"model": "openai/scripted", "api_key": MODEL_KEY, "base_url": model, "num_retries": 0}
        agent = {"llm": llm, "tools": [{"name": "terminal"}, {"name": "file_editor"}], **more.pop("agent", {})}
        body = {"agent": agent, "workspace": {"working_dir": str(folder / "project")}, **more}
        made = http.post("/api/conversations", json={**body, "initial_message": message([*script, {"text": "done"}])})
        assert made.status_code == 201, made.text
        path = f"/api/conversations/{made.json()['id']}"
        eventually(lambda: http.get(path).json()["execution_status"] in ("finished", "error"), 90)
        events = http.get(f"{path}/events/search").json()["items"]
    assert http.get(path).json()["execution_status"] == "finished", events[-3:]
    return [event["observation"] for event in events if event["kind"] == "ObservationEvent"]


def edit(command: str, path: str, **more: str) -> dict[str, Any]:
    return {"tool": "file_editor", "args": {"command": command, "path": path, **more}}


def texts(observations: list[dict[str, Any]]) -> list[str]:
    return [one["content"][0]["text"] for one in observations]


@as_root
def test_the_shell_is_another_user_that_can_work(runtime: RuntimeProcess, http: httpx.Client, place: Path) -> None:
    assert http.get("/ready").json() == {"status": "ready"}
    uid = (place / "project").stat().st_uid
    assert uid not in (0, os.geteuid())
    first = run(http, "id -u; id -G; pwd; cat before.txt; echo more >> before.txt; touch ~/own && echo home")
    assert first["stdout"] == f"{uid}\n{uid}\n{place}/project\nfrom before\nhome\n"
    uploaded = http.post("/api/file/upload", params={"path": f"{place}/project/up/one"}, files={"file": ("o", b"x")})
    assert uploaded.status_code == 200
    assert run(http, "echo y >> up/one; cat up/one; rm -r up")["stdout"] == "xy\n"
    assert http.get("/api/git/changes", params={"path": f"{place}/project"}).status_code == 400
    long = "seq 1 20000"
    seen = converse(
        http,
        place,
        [
            terminal("id -u; git status --short; git commit -q --allow-empty -m one && git log --oneline | wc -l"),
            edit("create", f"{place}/project/e", file_text="by editor\n"),
            terminal("cat e && echo by shell > e && stat -c %u e"),
            edit("view", f"{place}/project/e"),
            terminal(long),
        ],
    )
    shell, _, both, view, much = texts(seen)
    assert shell.split()[0] == str(uid)
    assert shell.split()[-1] == "1"
    assert both.splitlines()[:2] == ["by editor", str(uid)]
    assert "by shell" in view
    (whole,) = Path(seen[-1]["full_output_save_dir"]).glob("*.txt")
    assert run(http, f"tail -n 1 {whole}")["stdout"] == "20000"
    assert "20000" in much


@as_root
def test_the_server_and_its_state_are_closed_to_it(runtime: RuntimeProcess, http: httpx.Client, place: Path) -> None:
    http.put("/api/settings/secrets", json={"name": "STORED", "value": STORED})
    pid = runtime.pid
    looks = (
        f"cat /proc/{pid}/environ",
        f"cat /proc/{pid}/maps",
        f"head -c 1 /proc/{pid}/mem",
        f"ls /proc/{pid}/fd",
        f"readlink /proc/{pid}/cwd",
        f"kill -0 {pid}",
        f"ls {place}/state/kept",
        f"ls {place}/state/conversations",
        f"ls {place}/state/bash",
        f"cat {place}/state/kept/secrets.json",
        "cat /etc/shadow",
    )
    for look in looks:
        assert run(http, look)["exit_code"] != 0, look
    hunted = " ".join(f"-e '{key[:9]}[{key[9]}]{key[10:]}'" for key in HUNTED)  # that finds not itself
    hunt = f"cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c {hunted}"
    assert run(http, hunt)["stdout"] == "0\n"
    (place / "project/link").symlink_to("/etc/shadow")
    (place / "project/kept").symlink_to(place / "state/kept/secrets.json")
    paths = ["/etc/shadow", f"{place}/project/link", f"{place}/state/kept/secrets.json", f"{place}/project/kept"]
    edits = [*(edit("view", path) for path in paths), edit("create", "/etc/by-agent", file_text="x")]
    assert all(one["is_error"] for one in converse(http, place, edits))
    assert not Path("/etc/by-agent").exists()
    for path in paths:
        assert http.get("/api/file/download", params={"path": path}).status_code == 400
    assert http.post("/api/file/create_directory", params={"path": "/etc/by-caller"}).status_code == 400
    assert http.post("/api/file/upload", params={"path": "/etc/x"}, files={"file": ("o", b"x")}).status_code == 400


@as_root
def test_a_folder_that_a_client_just_made_is_the_agents(
    runtime: RuntimeProcess, http: httpx.Client, place: Path
) -> None:
    del runtime
    fresh = {name: Path(tempfile.mkdtemp(prefix=f"nst-{name}-", dir="/tmp")) for name in ("shell", "work", "kept")}
    (fresh["kept"] / "note").write_text("the caller's")
    try:
        assert run(http, "pwd; touch made", cwd=str(fresh["shell"]))["stdout"] == f"{fresh['shell']}\n"
        start = {"agent": {"llm": {"model": "openai/scripted", "api_key": "k"}, "tools": []}}
        answers = {
            name: http.post("/api/conversations", json={**start, "workspace": {"working_dir": str(path)}})
            for name, path in {**fresh, "closed": place}.items()
        }
        assert {name: answer.status_code for name, answer in answers.items()} == {
            "shell": 201,
            "work": 201,
            "kept": 422,
            "closed": 422,
        }
        assert "give the folder to that user" in answers["kept"].json()["detail"]
        agent = (place / "project").stat().st_uid
        assert {name: path.stat().st_uid == agent for name, path in fresh.items()} == {
            "shell": True,
            "work": True,
            "kept": False,
        }
        assert place.stat().st_uid == 0
    finally:
        for path in fresh.values():
            shutil.rmtree(path)


@as_root
def test_hooks_and_tool_servers_are_that_user_too(http: httpx.Client, place: Path) -> None:
    uid = (place / "project").stat().st_uid
    hook = {"type": "command", "command": f"id -u > {place}/project/hook"}
    hooks = {"pre_tool_use": [{"matcher": "*", "hooks": [hook]}]}
    converse(http, place, [terminal("true")], hook_config=hooks)
    assert (place / "project/hook").read_text() == f"{uid}\n"
    server = {"type": "stdio", "command": "/bin/sh", "args": ["-c", f"id -u > {place}/project/server"]}
    http.post("/api/mcp/test", json={"server": server, "timeout": 3})
    assert (place / "project/server").read_text() == f"{uid}\n"


@as_root
def test_what_it_started_ends_with_the_command_and_with_the_server(
    runtime: RuntimeProcess, http: httpx.Client, place: Path
) -> None:
    ended = run(http, "setsid sleep 43210 & sleep 43211", timeout=1)
    assert ended["exit_code"] == -1
    eventually(lambda: not sleeping("4321"))
    http.post("/api/bash/start_bash_command", json={"command": "setsid sleep 54320 & sleep 54321", "timeout": 100})
    eventually(lambda: sleeping("5432"))
    runtime.kill()
    eventually(lambda: not sleeping("5432"))


def sleeping(start: str) -> list[str]:
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == b"sleep" and words[1].startswith(start.encode()):
            found.append(entry)
    return found


@as_root
def test_the_same_user_is_there_after_a_restart(runtime: RuntimeProcess, http: httpx.Client, place: Path) -> None:
    run(http, "echo mine > mine")
    uid = (place / "project/mine").stat().st_uid
    assert runtime.end() == 0
    runtime.start()
    with httpx.Client(base_url=runtime.url, headers={"X-Session-API-Key": KEY}, trust_env=False, timeout=60) as again:
        assert run(again, "id -u; echo more >> mine; cat mine")["stdout"] == f"{uid}\nmine\nmore\n"


@as_root
def test_a_repository_of_another_runtimes_agent_is_closed_and_said_to_be(
    runtime: RuntimeProcess, http: httpx.Client
) -> None:
    """As one finds it where a folder outlives the data folder of the server whose agent worked in it."""
    del runtime
    folder = Path(tempfile.mkdtemp(prefix="nst-other-", dir="/tmp"))
    try:
        subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 54_321, 54_321)
        folder.chmod(0o755)
        start = {"agent": {"llm": {"model": "openai/scripted", "api_key": "k"}, "tools": []}}
        answer = http.post("/api/conversations", json={**start, "workspace": {"working_dir": str(folder)}})
        assert answer.status_code == 422
        assert "the repository in it is closed for user" in answer.json()["detail"]
        assert "give the folder to that user" in answer.json()["detail"]
    finally:
        shutil.rmtree(folder)


@as_root
@pytest.mark.parametrize("why", ["chosen", "unreachable", "state in the workspace"])
def test_where_it_stays_the_same_user_ready_says_so(place: Path, why: str) -> None:
    variables = {}
    if why == "chosen":
        variables = {"NESTOR_RUNTIME_AGENT_USER": "same"}
    elif why == "unreachable":
        place.chmod(0o700)
    else:
        variables = {"OH_PERSISTENCE_DIR": str(place / "project/kept")}
    runtime = process_at(place, **variables).start()
    try:
        body = httpx.get(f"{runtime.url}/ready", trust_env=False).json()
        assert body["status"] == "ready"
        (told,) = body["warnings"]
        assert "root" in told
        wanted = {"chosen": "it was chosen so", "unreachable": "cannot reach", "state in the workspace": "lies in"}
        assert wanted[why] in told
        with httpx.Client(base_url=runtime.url, headers={"X-Session-API-Key": KEY}, trust_env=False) as client:
            assert run(client, "id -u")["stdout"] == "0\n"
        assert runtime.end() == 0
    finally:
        runtime.ensure_gone()


def test_a_user_that_cannot_be_had_is_refused_at_the_start(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OH_SESSION_API_KEYS_0": "k"}
    for wanted in ("nobody-of-this-name", "0"):
        refused = subprocess.run(
            [sys.executable, "-m", "runtime", "--port", "0"],
            env={**environment, "OH_WORKSPACE_PATH": str(tmp_path / "w"), "OH_AGENT_USER": wanted},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert refused.returncode == 2, refused.stderr
        assert "agent_user: " in refused.stderr


def test_ready_says_what_a_missing_or_wrong_key_means(tmp_path: Path) -> None:
    first = process_at(tmp_path, NESTOR_RUNTIME_AGENT_USER="same").start()
    headers = {"X-Session-API-Key": KEY}
    httpx.put(
        f"{first.url}/api/settings/secrets", json={"name": "A", "value": "v1"}, headers=headers, trust_env=False
    ).raise_for_status()
    assert first.end() == 0
    before = (tmp_path / "state/kept/secrets.json").read_bytes()
    for variables, said in (
        ({"OH_SECRET_KEY": "another"}, "secrets: what is stored cannot be opened"),
        ({"OH_SECRET_KEY_IS_NONE": "1"}, "no OH_SECRET_KEY"),
    ):
        runtime = process_at(tmp_path, NESTOR_RUNTIME_AGENT_USER="same", **variables).start()
        try:
            body = httpx.get(f"{runtime.url}/ready", trust_env=False).json()
            assert body["status"] == "ready"
            assert any(said in warning for warning in body["warnings"]), body
            secret = httpx.get(f"{runtime.url}/api/settings/secrets/A", headers=headers, trust_env=False)
            assert secret.status_code == 404
            assert json.dumps(body).count("gAAAA") == 0
        finally:
            runtime.ensure_gone()
        assert (tmp_path / "state/kept/secrets.json").read_bytes() == before


@as_root
def test_a_path_that_changes_while_it_is_read_opens_nothing_of_the_servers(http: httpx.Client, place: Path) -> None:
    """The agent puts a link to a file of root in the place of its own, again and again, while a caller downloads it."""
    (place / "project/mine").write_text("mine\n")
    (place / "readable.txt").write_text("of the server, for nobody\n")
    (place / "readable.txt").chmod(0o600)
    (place / "state/kept/canary").write_text("of the server, for nobody\n")
    swap = (
        f"cd {place}/project; echo mine > other; ln -s {place}/readable.txt one; ln -s {place}/state/kept/canary two; "
        "while :; do cp other target.a; mv -T target.a target; ln -s ../readable.txt target.b; mv -T target.b target; "
        "ln -s ../state/kept/canary target.c; mv -T target.c target; done"
    )
    started = http.post("/api/bash/start_bash_command", json={"command": swap, "timeout": 60}).json()
    eventually(lambda: os.path.lexists(place / "project/target"))
    made = http.post(
        "/api/conversations",
        json={
            "agent": {"llm": {"model": "openai/none", "api_key": "k"}, "tools": []},
            "workspace": {"working_dir": str(place / "project")},
        },
    ).json()["id"]
    statuses = set()
    try:
        for _ in range(400):
            for answer in (
                http.get("/api/file/download", params={"path": f"{place}/project/target"}),
                http.get(f"/api/conversations/{made}/workspace/target"),
            ):
                statuses.add(answer.status_code)
                assert "of the server" not in answer.text
                assert answer.status_code in (200, 400, 404), answer.text
    finally:
        http.post(f"/api/bash/bash_commands/{started['id']}/stop")
    assert statuses >= {200, 400}, "both were there"


@as_root
def test_a_config_file_with_keys_is_not_given_out_and_told_of_when_the_agent_can_read_it(place: Path) -> None:
    file = place / "config.json"
    file.write_text(json.dumps({"session_api_key": HUNTED[1], "secret_key": HUNTED[0]}))
    started = process_at(place, OPENHANDS_AGENT_SERVER_CONFIG_PATH=str(file)).start()
    try:
        with httpx.Client(
            base_url=started.url, headers={"X-Session-API-Key": KEY}, trust_env=False, timeout=60
        ) as client:
            answer = client.get("/api/file/download", params={"path": str(file)})
            assert (answer.status_code, answer.json()["detail"]) == (400, "Path belongs to the runtime itself")
            (warning,) = client.get("/ready").json()["warnings"]
            assert str(file) in warning
            assert run(client, f"head -c 1 {file}")["exit_code"] == 0
            file.chmod(0o600)
            assert run(client, f"head -c 1 {file}")["exit_code"] != 0
            assert client.get("/ready").json() == {"status": "ready"}
    finally:
        started.ensure_gone()


@as_root
def test_a_copy_of_a_conversation_is_the_agents_own_where_it_is_taken_in(
    runtime: RuntimeProcess, http: httpx.Client, place: Path
) -> None:
    converse(http, place, [terminal("mkdir mine; echo one > mine/file; chmod 700 mine")])
    [source] = http.get("/api/conversations/search").json()["items"]
    count = http.get(f"/api/conversations/{source['id']}/copy").json()["events"]
    copy = http.get(f"/api/conversations/{source['id']}/copy/archive", params={"events": count})
    assert copy.status_code == 200
    other = place / "other"
    (other / "project").mkdir(parents=True)
    started = process_at(other, OH_SECRET_KEY=HUNTED[0], OH_ALLOW_SET_CONVERSATION_ID="true").start()
    try:
        with httpx.Client(base_url=started.url, headers=dict(http.headers), trust_env=False, timeout=60) as new:
            id = str(uuid4())
            taken = new.put(f"/api/conversations/{id}/copy/archive", content=copy.content)
            assert taken.status_code == 204, taken.text
            assert new.post("/api/settings", json={"agent": "CodeActAgent", "llm_model": "openai/scripted"}).is_success
            begun = new.post("/api/conversations", json={"conversation_id": id, "imported": True})
            assert begun.status_code == 200, begun.text
            assert new.get(f"/api/conversations/{id}/events/count").json() == count
            found = run(new, "stat -c %u . mine mine/file; cat before.txt mine/file; id -u; echo two >> mine/file")
            uid = found["stdout"].split()[-1]
            assert found["stdout"] == f"{uid}\n{uid}\n{uid}\nfrom before\none\n{uid}\n", found
            assert (uid != "0", found["exit_code"]) == (True, 0)
            kept = (other / "state/conversations").stat()
            assert (kept.st_uid, kept.st_mode & 0o77) == (0, 0)
            again = new.put(f"/api/conversations/{id}/copy/archive", content=copy.content)
            assert again.status_code == 409
    finally:
        started.ensure_gone()


@as_root
def test_versions_are_of_what_the_agent_may_read_and_closed_to_it(http: httpx.Client, place: Path) -> None:
    work, kept = place / "project", place / "state/conversations"
    (work / "of-root").write_text("closed to the agent")
    os.chown(work / "of-root", 0, 0)
    (work / "of-root").chmod(0o600)
    (work / "to-root").symlink_to("/etc/shadow")
    look = "id -u; echo one > mine; chmod 600 mine; echo no > unread; chmod 0 unread; mkdir shut; echo no > shut/in; "
    look += f"chmod 0 shut; ls {kept}/*/versions; ls {kept}"
    with scripted_model() as model:
        settings = {"llm_model": "openai/scripted", "llm_api_key": MODEL_KEY, "llm_base_url": model}
        assert http.post("/api/settings", json={"agent": "CodeActAgent", **settings}).is_success
        id = http.post("/api/conversations", json={"initial_user_msg": None}).json()["conversation_id"]
        path = f"/api/conversations/{id}"
        script = message([terminal(look), terminal("echo two > mine"), {"text": "done"}])
        assert http.post(f"{path}/events", json={**script, "run": True}).is_success
        eventually(lambda: http.get(path).json()["execution_status"] in ("finished", "error"), 90)
        events = http.get(f"{path}/events/search").json()["items"]
    at = next(number for number, event in enumerate(events, 1) if event["kind"] == "ObservationEvent")
    said = events[at - 1]["observation"]["content"][0]["text"]
    assert (said.splitlines()[0] != "0", said.count("Permission denied")) == (True, 2), said
    given = http.get(f"{path}/copy/archive", params={"events": at, "workspace": "event"})
    assert given.status_code == 200, given.text
    with tarfile.open(fileobj=io.BytesIO(given.content)) as archive:
        found = {member.name.removeprefix("workspace/"): member for member in archive.getmembers()}
        mine = archive.extractfile(found["mine"])
        assert mine is not None
        assert mine.read() == b"one\n"
    assert found["to-root"].linkname == "/etc/shadow"
    assert found.keys() & {"before.txt", "mine", "of-root", "unread", "shut", "shut/in"} == {
        "before.txt",
        "mine",
        "shut",
    }
    owners = {(found.lstat().st_uid, found.lstat().st_mode & 0o77) for found in kept.glob("*/versions/**/*")}
    assert owners == {(0, 0)}
