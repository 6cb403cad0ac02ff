"""The terminal tool on a real bash: state, input, secrets, lengths, and that nothing survives it."""

import asyncio
import os
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import anyio
import pytest
from pydantic import SecretStr

from runtime.agent.terminal.screen import Taken, Transcript, clean
from runtime.agent.terminal.shell import Shell
from runtime.agent.tools.terminal import TerminalTool
from runtime.conversations.tools import shell_environment
from runtime.events.actions import TerminalAction, TerminalObservation
from runtime.secrets.masking import HIDDEN, Mask

pytestmark = pytest.mark.anyio


class Secrets:
    """Two secrets, given to a command whose text has their name."""

    def __init__(self) -> None:
        self.mask = Mask()
        self.values = {"TOKEN": "tok'en \"1$x", "PEM": "-----BEGIN-----\nline2\n-----END-----\n"}

    async def named_in(self, command: str) -> Mapping[str, str]:
        named = {name: value for name, value in self.values.items() if name in command}
        self.mask.add(map(SecretStr, named.values()))
        return named


class Terminal:
    def __init__(self, folder: Path) -> None:
        self.secrets = Secrets()
        self.tool = TerminalTool(
            directory=folder,
            environment=shell_environment(),
            secrets=self.secrets,
            output_directory=folder / "observations",
        )

    async def __call__(self, command: str, **more: object) -> TerminalObservation:
        observation = await self.tool.run(TerminalAction(command=command, **more))  # type: ignore[arg-type]
        assert isinstance(observation, TerminalObservation)
        return observation

    async def text(self, command: str, **more: object) -> str:
        return text(await self(command, **more))


def text(observation: TerminalObservation) -> str:
    return "".join(part.text for part in observation.content if part.type == "text")


@pytest.fixture
async def terminal(tmp_path: Path) -> AsyncIterator[Terminal]:
    made = Terminal(tmp_path)
    yield made
    await made.tool.close()


async def test_output_and_exit_code_of_a_command(terminal: Terminal, tmp_path: Path) -> None:
    observation = await terminal("echo out; echo err >&2; (exit 3)")
    assert text(observation) == "out\nerr"
    assert (observation.exit_code, observation.is_error, observation.timeout) == (3, False, False)
    assert observation.metadata.suffix == "\n[The command completed with exit code 3.]"
    assert observation.metadata.working_dir == str(tmp_path)


async def test_the_shell_remembers(terminal: Terminal) -> None:
    await terminal("cd /usr; export A=1; f() { echo fn $1; }; alias greet='echo hi'; false")
    assert await terminal.text("echo $? $A $PWD; f x; greet") == "1 1 /usr\nfn x\nhi"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("cat <<EOF\na 'b' \"c\" $((1+1))\nEOF", "a 'b' \"c\" 2"),
        ("for i in 1 2\ndo\n  echo $i\ndone", "1\n2"),
        ("echo 'it'\"'\"'s'  # comment", "it's"),
        ("printf 'a\\r\\nb\\r\\n'", "a\nb"),
        ("printf '\\033[31mred\\033[0m 10%%\\r20%%\\n'", "20%"),
        ("echo " + "x" * 20_000 + " | wc -c", "20001"),
        ("", ""),
        ("tty | cut -c1-9; stty size", "/dev/pts/\n50 200"),
        ("echo w\u00f6rld \u2713", "w\u00f6rld \u2713"),
    ],
)
async def test_commands_of_every_shape(terminal: Terminal, command: str, expected: str) -> None:
    assert await terminal.text(command) == expected


async def test_a_syntax_error_is_an_answer(terminal: Terminal) -> None:
    observation = await terminal('echo "open')
    assert observation.exit_code == 2
    assert await terminal.text("echo fine") == "fine"


async def test_a_command_that_runs_on_can_be_waited_for_and_interrupted(terminal: Terminal) -> None:
    observation = await terminal("echo begin; sleep 60", timeout=0.3)
    assert (text(observation), observation.timeout, observation.exit_code) == ("begin", True, -1)
    refused = await terminal("echo other")
    assert refused.is_error
    assert "still runs" in text(refused)
    interrupted = await terminal("C-c", is_input=True)
    assert interrupted.exit_code == 130
    looping = await terminal("while :; do :; done", timeout=0.3)
    assert looping.timeout
    assert (await terminal("C-c", is_input=True)).exit_code == 130
    assert await terminal.text("echo fine") == "fine"


async def test_a_program_gets_input(terminal: Terminal) -> None:
    assert (await terminal("read -p 'name? ' x; echo got $x", timeout=0.3)).timeout
    answered = await terminal("bob", is_input=True)
    assert (text(answered), answered.exit_code) == ("got bob", 0)
    assert (await terminal("more", is_input=True)).is_error


async def test_a_shell_that_ended_is_replaced(terminal: Terminal) -> None:
    observation = await terminal("exit 7")
    assert observation.exit_code == 7
    assert "new one" in observation.metadata.suffix
    assert await terminal.text("echo again") == "again"
    assert (await terminal("sleep 50", timeout=0.2)).timeout
    assert "new shell" in await terminal.text("", reset=True)
    assert await terminal.text("echo fresh", reset=True) == "fresh"


async def test_a_secret_is_there_only_for_the_command_that_names_it(terminal: Terminal) -> None:
    await terminal("set -o history; (sleep 30 &)")
    comparison = 'test "$TOKEN" = "tok\'en \\"1\\$x" && env | grep -c ^TOKEN='
    named = await terminal(f'{comparison}; echo "$TOKEN"; echo $PEM | wc -w')
    assert text(named) == f"1\n{HIDDEN}\n3"
    assert await terminal.text("env | grep -c '^TOK' ; set | grep -c ^PE") == "0\n0"
    history = await terminal.text("history")
    assert "en " not in history
    assert HIDDEN not in history
    traced = await terminal.text('set -x; echo "$TOKEN"; set +x')
    assert "tok'en" not in traced
    assert HIDDEN in traced
    assert HIDDEN in await terminal.text('printf "%s" "$PEM"')


async def test_a_secret_reaches_no_argument_list_and_no_file(terminal: Terminal) -> None:
    terminal.secrets.values["TOKEN"] = "needle-in-no-haystack-1"
    running = await terminal("echo $TOKEN >/dev/null; sleep 20", timeout=0.3)
    assert running.timeout
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                assert b"needle-in-no-haystack-1" not in Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue
    for folder in Path("/tmp").glob("nestor-shell-*"):
        for file in folder.rglob("*"):
            assert not file.is_file() or b"needle-in-no-haystack-1" not in file.read_bytes()


async def test_long_output_is_cut_and_kept_in_a_file_without_secrets(terminal: Terminal, tmp_path: Path) -> None:
    terminal.secrets.values["TOKEN"] = "value-to-be-hidden"
    observation = await terminal('seq 20000; echo "$TOKEN"')
    shown = text(observation)
    assert len(shown) < 31_000
    assert shown.startswith("1\n2\n")
    assert shown.endswith(HIDDEN)
    [kept] = (tmp_path / "observations").iterdir()
    assert str(kept) in shown
    assert kept.stat().st_mode & 0o777 == 0o600
    content = kept.read_text()
    assert content.count("\n") == 20_000
    assert "value-to-be-hidden" not in content


async def test_a_flood_is_bounded_and_interruptible(terminal: Terminal) -> None:
    flooded = await terminal("yes 0123456789", timeout=1)
    assert flooded.timeout
    assert len(text(flooded)) < 31_000
    with anyio.fail_after(10):
        while (await terminal("C-c", is_input=True)).timeout:
            pass
    assert await terminal.text("echo calm") == "calm"


async def test_the_shell_inherits_nothing_of_the_server(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_ONLY", "x")
    with open("/dev/null") as leaked:
        os.set_inheritable(leaked.fileno(), True)
        listed = await terminal.text("ls /proc/self/fd | wc -l; ls -l /proc/self/fd | grep -c null; env | sort")
    assert listed.startswith("4\n0\n"), listed
    names = {line.partition("=")[0] for line in listed.splitlines()[2:]}
    assert names <= {*shell_environment(), "NESTOR_SHELL", "PWD", "OLDPWD", "SHLVL", "_", "COLUMNS", "LINES"}


def marked(mark: str) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and mark.encode() in Path(f"/proc/{entry}/cmdline").read_bytes():
                found.append(int(entry))
        except OSError:
            continue
    return found


async def seen(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline
        await anyio.sleep(0.02)


@pytest.mark.parametrize("kill_keeper", [False, True])
async def test_everything_that_the_shell_started_ends_with_it(tmp_path: Path, kill_keeper: bool) -> None:
    terminal = Terminal(tmp_path)
    mark = f"98765.{os.getpid()}{int(kill_keeper)}"
    await terminal(f"sleep {mark} & (setsid sleep {mark} &); (setsid nohup sh -c 'trap \"\" TERM HUP; sleep {mark}' &)")
    await terminal(f"python3 -c 'import os,time; os.fork() or (os.setsid(), os.fork() or time.sleep({mark}))'")
    try:
        await seen(lambda: len(marked(mark)) >= 4)  # the shell does not wait until they are what they become
        if kill_keeper:
            await terminal("kill -9 $PPID", timeout=2)
    finally:
        await terminal.tool.close()
    await seen(lambda: not marked(mark))
    assert (await terminal("echo late")).is_error


@pytest.mark.parametrize("times", [1, 3])
async def test_a_start_that_is_broken_off_leaves_no_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    asked, go, spawn = threading.Event(), threading.Event(), Shell._spawn

    def slowly(shell: Shell) -> subprocess.Popen[bytes]:
        asked.set()
        go.wait(60)
        started.append(spawn(shell))
        return started[0]

    monkeypatch.setattr(Shell, "_spawn", slowly)
    starting = asyncio.ensure_future(Shell(directory=tmp_path, environment=shell_environment()).start())
    await asyncio.to_thread(asked.wait, 60)
    for _ in range(times):
        starting.cancel()
        await asyncio.sleep(0.01)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert started[0].returncode is not None


def test_clean_costs_no_more_than_the_length() -> None:
    began = time.perf_counter()
    clean("a" * 200_000 + "\b" * 200_000)
    clean("\x1b]" * 100_000)
    clean("\r" * 200_000)
    clean("x\r" * 100_000)
    assert time.perf_counter() - began < 30


def test_a_transcript_keeps_both_ends() -> None:
    transcript = Transcript(1000)
    for number in range(10_000):
        transcript.add(b"%06d " % number)
    taken = transcript.take()
    assert taken.beginning.startswith("000000 ")
    assert taken.end.endswith("009999 ")
    assert taken.dropped_bytes + len(taken.beginning) + len(taken.end) == 70_000
    transcript.add(b"new")
    assert transcript.take().beginning == "new"


async def test_a_value_torn_over_two_looks_at_a_running_command_is_hidden(terminal: Terminal) -> None:
    terminal.secrets.values["TOKEN"] = "torn-over-two-looks-51c0"
    for spelt in ("$TOKEN", "$(printf %s $TOKEN | base64)"):
        script = f'v="{spelt}"; printf "say %s" "${{v:0:9}}"; read -s x; printf "%s, and more" "${{v:9}}"'
        first = await terminal.text(script, timeout=0.5)
        assert first.strip() == "say"
        assert await terminal.text("go", is_input=True, timeout=20) == f"{HIDDEN}, and more"
    assert await terminal.text("echo nothing of it is left") == "nothing of it is left"


async def test_a_value_next_to_the_gap_of_a_flood_is_hidden(terminal: Terminal) -> None:
    value = terminal.secrets.values["TOKEN"] = "beside-the-gap-77aa"
    terminal.secrets.mask.add([SecretStr(value)])
    margin = terminal.secrets.mask.longest
    for offset in range(len(value)):
        end = "e" * (margin - offset) + value + "f" * 50
        taken = Taken("b" * 50 + value[:offset], end, 1000)
        shown = terminal.tool._presentable(taken, more=False)
        assert not any(value[at : at + 5] in shown for at in range(len(value) - 4)), offset


def test_commands_find_a_forward_proxy_but_not_one_with_a_password(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://10.0.0.9:3128")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HTTP_PROXY", "http://user:word@10.0.0.9:3128")
    found = shell_environment()
    assert found["HTTPS_PROXY"] == "http://10.0.0.9:3128"
    assert found["no_proxy"] == "127.0.0.1"
    assert "HTTP_PROXY" not in found
