"""The demo's pure parts: what it shows, sums and recognises."""

import io

from rich.console import Console

from orchestrator.demo import proof as proofs
from orchestrator.demo.display import PlainDisplay, row
from orchestrator.demo.event_lines import event_line, one_line
from orchestrator.demo.git_server import Commit
from orchestrator.demo.live_display import LiveDisplay
from orchestrator.demo.native import Conversation, Event, Operation, Runtime, Stage
from orchestrator.demo.outcome import Cost, Outcome, cost_of
from orchestrator.demo.story import CUSTOMERS, FILES, TOTAL, branch, proof
from orchestrator.domain.secrets import SecretText

ID = "0d5b3a52-1111-4222-8333-944455556666"


def outcome(**fields):
    return Outcome(conversation=ID, tenant="Acme", tenant_id="t1", task=TOTAL, **fields)


def terminal(command, status):
    observation = {"kind": "TerminalObservation", "command": command, "exit_code": status, "content": []}
    return {"kind": "ObservationEvent", "tool_name": "terminal", "observation": observation}


def test_events_become_one_line_each():
    action = {"kind": "ActionEvent", "tool_name": "terminal", "summary": "Run the test", "thought": []}
    assert event_line(action) == "terminal → Run the test"
    assert event_line(terminal("false", 1)) == "terminal ✗ exit 1"
    assert event_line(terminal("true", 0)) == "terminal ✓ exit 0"
    state = {"kind": "ConversationStateUpdateEvent", "key": "execution_status", "value": "finished"}
    assert event_line(state) == "status finished"
    assert event_line({"kind": "ConversationStateUpdateEvent", "key": "full_state", "value": {}}) is None
    error = {"kind": "ConversationErrorEvent", "code": "LLMError", "detail": "no\nluck"}
    assert event_line(error) == "error LLMError no luck"
    assert event_line({"kind": "SomethingNew"}) is None


def test_a_script_is_not_shown():
    content = [{"type": "text", "text": 'Please mend it. SCRIPT:[{"text":"x"}]'}]
    message = {"kind": "MessageEvent", "source": "user", "llm_message": {"role": "user", "content": content}}
    assert event_line(message) == "user says: Please mend it."


def test_terminal_control_sequences_in_an_event_do_not_reach_the_screen():
    assert one_line("a\x1b[2Jb\r\nc\u202e") == "a [2Jb c"
    assert len(one_line("x" * 500)) == 100


def test_costs_are_summed_over_every_use_of_a_model():
    usage = {"prompt_tokens": 10, "completion_tokens": 4}
    entry = {"accumulated_cost": 0.25, "accumulated_token_usage": usage}
    assert cost_of({"usage_to_metrics": {"agent": entry, "title": entry}}) == Cost(20, 8, 0.5)
    assert cost_of({}) == Cost()


def test_the_closing_row_has_stages_with_their_times():
    full = outcome(
        runtime="r1",
        stages=(
            Stage(name="create", state="succeeded", seconds=0.25),
            Stage(name="alive", state="succeeded", seconds=1),
        ),
        commit=Commit("abcdef0123", "A", "Fix"),
        cost=Cost(20, 8, 0.5),
        stranger_sees="404 not found",
    )
    cells = (
        "0d5b3a52 total",
        "Acme",
        "r1",
        "create 0.2, alive 1.0 = 1.2 s",
        "20/8",
        "$0.5000",
        "abcdef01 Fix",
    )
    assert row(full) == (*cells, "404 not found")
    assert row(outcome())[2:4] == ("-", "-")


def test_the_plain_display_writes_one_line_for_each_thing():
    out = io.StringIO()
    with PlainDisplay(out) as display:
        display.note("begin")
        display.stage(outcome(), "starting: create")
        display.event(outcome(), "terminal → x")
        display.table([outcome()])
        display.miss("a commit")
    lines = out.getvalue().splitlines()
    assert [line[8:] for line in lines if line][:3] == [
        "begin",
        "[acme/total] starting: create",
        "[acme/total]   terminal → x",
    ]
    assert "another tenant sees: -" in lines[-2]
    assert lines[-1].endswith("MISSING a commit")


def test_the_live_display_shows_the_same_things_on_a_terminal():
    out = io.StringIO()
    with LiveDisplay(Console(file=out, force_terminal=True, width=160)) as display:
        display.note("begin")
        display.stage(outcome(), "starting: create")
        display.event(outcome(), "terminal → [red]x[/red]")
        display.table([outcome(stranger_sees="404 not found")])
        display.miss("a commit")
    shown = out.getvalue()
    for text in ("begin", "starting: create", "[red]x[/red]", "404 not found", "MISSING a commit"):
        assert text in shown


def test_the_test_counts_only_when_it_passed():
    assert proofs.tested([Event(sequence=1, event=terminal("python3 -m unittest tests.test_prices", 0))]) == []
    assert proofs.tested([Event(sequence=1, event=terminal("python3 -m unittest tests.test_prices", 1))])
    assert proofs.tested([Event(sequence=1, event=terminal("echo", 0))])


def test_a_gap_in_the_event_log_is_a_miss():
    assert proofs.numbered([Event(sequence=n, event={}) for n in (1, 2, 3)]) == []
    assert proofs.numbered([Event(sequence=n, event={}) for n in (1, 3)])


def test_the_proof_differs_for_each_secret_and_does_not_hold_it():
    one, other = proof(SecretText("one-secret")), proof(SecretText("other-secret"))
    assert one != other
    assert "secret" not in one
    assert len(one) == 16


def test_every_task_mends_something_that_is_wrong_in_the_repository():
    tasks = [task for customer in CUSTOMERS for task in customer.tasks]
    assert len(tasks) == 3
    assert len({customer.name for customer in CUSTOMERS}) == 2
    for task in tasks:
        assert FILES[task.path].count(task.wrong) == 1
        assert task.test.replace(".", "/") + ".py" in FILES
    assert branch(ID) == "agent/0d5b3a52"


def test_views_show_no_key_and_tell_the_whole_reason():
    runtime = Runtime(id="r", url="http://127.0.0.1:9/", session_key="nst_secret")
    assert "nst_secret" not in repr(runtime)
    assert runtime.events_url == "ws://127.0.0.1:9/sockets/events"
    assert Runtime(id="r", url="https://x.example").events_url == "wss://x.example/sockets/events"
    failed = Conversation(id=ID, phase="failed", status="failed", reason="image_pull", message="m", hint="h")
    assert failed.why == "image_pull: m: h"
    stages = (Stage(name="a", state="succeeded"), Stage(name="b", state="running"))
    assert Operation(id="o", state="running", stages=stages).current.name == "b"
