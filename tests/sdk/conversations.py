"""A client program of the public SDK: many conversations, long ones, branches, failures, and coming back to them.

Run by the environment of `scripts/install --sdk`, not by pytest. Arguments: server, session key, model URL, model key,
working directory.
"""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from client_side import agent_of, model, report, script, terminal
from openhands.sdk import LLM, Conversation, RemoteConversation
from openhands.sdk.conversation.exceptions import ConversationRunError
from openhands.sdk.conversation.request import SendMessageRequest, StartConversationRequest
from openhands.sdk.event import ActionEvent, HookExecutionEvent, MessageEvent
from openhands.sdk.hooks import HookConfig, HookDefinition, HookMatcher
from openhands.sdk.llm import TextContent
from openhands.sdk.secret import StaticSecret
from openhands.sdk.workspace import LocalWorkspace
from openhands.sdk.workspace.remote.base import RemoteWorkspace
from pydantic import SecretStr

CROWD = 50
#: answers, and calls in each of them, that make a log of more than a thousand events
LONG, CALLS = 25, 22


class Client:
    """What every scenario needs."""

    def __init__(self, server: str, key: str, model_url: str, model_key: str, directory: str) -> None:
        self.server, self.key, self.directory, self.model_key = server, key, directory, model_key
        self.http = httpx.Client(base_url=server, timeout=60, headers={"X-Session-API-Key": key}, trust_env=False)
        self.llm: LLM = model(model_url, model_key)
        self.agent = agent_of(self.llm)

    def workspace(self) -> RemoteWorkspace:
        return RemoteWorkspace(host=self.server, working_dir=self.directory, api_key=self.key)

    def begin(self, *steps: object, **more: Any) -> RemoteConversation:
        """A conversation that was run, when there are steps."""
        given = {"agent": self.agent, "workspace": self.workspace(), "visualizer": None, **more}
        conversation = Conversation(**given)
        assert isinstance(conversation, RemoteConversation)
        if steps:
            self.say(conversation, *steps)
        return conversation

    def say(self, conversation: RemoteConversation, *steps: object) -> str:
        conversation.send_message(script(*steps))
        conversation.run()
        return conversation.state.execution_status.value

    def exists(self, conversation: RemoteConversation) -> bool:
        return self.http.get(f"/api/conversations/{conversation.id}").status_code == 200


def stored_ids(conversation: RemoteConversation) -> list[str]:
    """What the client has of the log; snapshots that a socket began with are no part of it."""
    return [event.id for event in conversation.state.events if getattr(event, "key", "") != "full_state"]


def a_thousand_events(client: Client) -> dict[str, Any]:
    seen: list[str] = []
    conversation = client.begin(callbacks=[lambda event: seen.append(event.id)], delete_on_close=False)
    calls = [[{"tool": "think", "args": {"thought": f"{n}.{m}"}} for m in range(CALLS)] for n in range(LONG)]
    status = client.say(conversation, *({"tools": several} for several in calls), {"text": "Thought."})
    ids = stored_ids(conversation)
    count = client.http.get(f"/api/conversations/{conversation.id}/events/count").json()
    conversation.close()
    later = client.begin(conversation_id=conversation.id, delete_on_close=True)
    found = {
        "status": status,
        "enough": len(ids) > 1000,
        "all": [len(ids), len(set(ids)), len(stored_ids(later))] == [count] * 3,
        "in order": stored_ids(later) == ids,
        "called back once": len(seen) == len(set(seen)) and set(ids) <= set(seen),
    }
    later.close()
    return {**found, "gone": not client.exists(later)}


def a_crowd(client: Client) -> dict[str, Any]:
    barrier = threading.Barrier(CROWD)

    def one(number: int) -> str:
        conversation = client.begin()
        barrier.wait(120)
        client.say(conversation, {"text": f"I am {number}.", "sleep": 0.5})
        said = [event for event in conversation.state.events if isinstance(event, MessageEvent)]
        text = said[-1].llm_message.content[0]
        conversation.close()
        return text.text if isinstance(text, TextContent) else ""

    with ThreadPoolExecutor(CROWD) as pool:
        answers = list(pool.map(one, range(CROWD)))
    return {
        "own answers": answers == [f"I am {number}." for number in range(CROWD)],
        "left": client.http.get("/api/conversations/count").json(),
    }


def branches(client: Client) -> dict[str, Any]:
    """A fork from the middle, and going back in the same conversation."""
    conversation = client.begin(terminal("echo one"), {"text": "First."}, tags={"kind": "trunk"})
    middle = stored_ids(conversation)[-1]
    last = next(event for event in reversed(conversation.state.events) if isinstance(event, MessageEvent))
    client.say(conversation, {"text": "Second."})
    whole = conversation.fork(title="whole")
    part = conversation.fork(from_event_id=last.id, tags={"kind": "branch"}, reset_metrics=False)
    continued = client.say(part, {"text": "Another second."})
    before = len(stored_ids(conversation))
    conversation.navigate_to(last.id)
    again = client.say(conversation, {"text": "A third."})
    info = client.http.get(f"/api/conversations/{part.id}").json()
    found = {
        "whole": stored_ids(whole) == stored_ids(conversation)[:before],
        "middle": middle in stored_ids(whole),
        "part": "Second." not in str([event.model_dump() for event in part.state.events]),
        "info": [info["tags"], info["forked_from_conversation_id"] == str(conversation.id)],
        "costs": part.conversation_stats.get_combined_metrics().accumulated_cost > 0,
        "fresh costs": whole.conversation_stats.get_combined_metrics().accumulated_cost,
        "statuses": [continued, again],
        "log kept": len(stored_ids(conversation)) > before,
    }
    conversation.set_title("The trunk")
    found["title"] = client.http.get(f"/api/conversations/{conversation.id}").json()["title"]
    for one in (whole, part, conversation):
        one.close()
    return found


def failures(client: Client) -> dict[str, Any]:
    """What the client raises, and that the conversation is usable afterwards."""
    conversation = client.begin(stuck_detection_thresholds={"action_observation": 4})
    found: dict[str, Any] = {}
    same = terminal("true")
    for name, steps in {"refused": [{"status": 401, "error": "no such key"}], "stuck": [same] * 9}.items():
        try:
            client.say(conversation, *steps)
        except ConversationRunError as error:
            code = error.conversation_error.code if error.conversation_error else None
            found[name] = [str(error.conversation_id) == str(conversation.id), code, "stuck" in str(error)]
        found[f"{name} status"] = conversation.state.execution_status.value
    found["after"] = client.say(conversation, {"text": "Fine."})
    limited = client.begin(max_iteration_per_run=2)
    try:
        client.say(limited, *[terminal(f"echo {n}") for n in range(5)])
    except ConversationRunError as error:
        found["limit"] = error.conversation_error.code if error.conversation_error else None
    client.http.delete(f"/api/conversations/{limited.id}").raise_for_status()
    try:
        limited.run()
    except ConversationRunError as error:
        found["deleted"] = "404" in str(error)
    conversation.close()
    return found


def coming_back(client: Client) -> dict[str, Any]:
    """Two handles on one conversation, kept and deleted on close; an id of the client's own."""
    id = uuid4()
    first = client.begin({"text": "Hello."}, conversation_id=id, delete_on_close=False)
    own_id = first.id == id
    first.close()
    kept = client.exists(first)
    attached = RemoteConversation.attach(client.workspace(), id, visualizer=None)
    again = client.say(attached, {"text": "Hello again."})
    second = client.begin(conversation_id=id)
    same = stored_ids(second) == stored_ids(attached)
    second.close()
    return {"own id": own_id, "kept": kept, "again": again, "same": same, "gone": not client.exists(second)}


def hidden(client: Client) -> dict[str, Any]:
    """Secrets that the client never sees: sent as the server's own tokens, and looked up by reference."""
    llm = {"model": client.llm.model, "api_key": client.model_key, "base_url": client.llm.base_url, "num_retries": 0}
    client.http.patch("/api/settings", json={"agent_settings_diff": {"llm": llm}}).raise_for_status()
    shown = client.http.get("/api/settings", headers={"X-Expose-Secrets": "encrypted"}).json()
    token = shown["agent_settings"]["llm"]["api_key"]
    client.http.put("/api/settings/secrets", json={"name": "STORED", "value": "stored-value"}).raise_for_status()
    request = StartConversationRequest(
        agent=agent_of(client.llm.model_copy(update={"api_key": SecretStr(token)})),
        workspace=LocalWorkspace(working_dir=client.directory),
        secrets={"SEALED": StaticSecret(value=token), **client.workspace().get_secrets(["STORED"])},
        secrets_encrypted=True,
        initial_message=SendMessageRequest(
            role="user",
            content=[TextContent(text=script(terminal('echo "${#SEALED} ${#STORED} $SEALED $STORED"'), {"text": "x"}))],
        ),
    )
    conversation = RemoteConversation.create(client.workspace(), request, visualizer=None)
    conversation.run()
    log = client.http.get(f"/api/conversations/{conversation.id}/events/search").text
    info = client.http.get(f"/api/conversations/{conversation.id}").text
    found = {
        "a token": token.startswith("gAAAAA") and client.model_key not in token,
        "lengths": f"{len(client.model_key)} {len('stored-value')} <secret-hidden> <secret-hidden>" in log,
        "in the open": [value in log + info for value in (client.model_key, "stored-value", client.key)],
        "status": conversation.state.execution_status.value,
    }
    conversation.close()
    client.http.delete(f"/api/conversations/{conversation.id}").raise_for_status()  # handles made so delete nothing
    return found


def hooks(client: Client) -> dict[str, Any]:
    """A stop hook that sends the agent back to work, as its own callback sees it."""
    allow = Path(client.directory) / "allowed"
    hook = HookDefinition(command=f"test -e {allow} || {{ echo not yet >&2; exit 2; }}", timeout=20)
    seen: list[HookExecutionEvent] = []
    conversation = client.begin(
        terminal("true"),
        {"tool": "finish", "args": {"message": "too early"}},
        terminal(f"touch {allow}"),
        {"tool": "finish", "args": {"message": "now"}},
        hook_config=HookConfig(stop=[HookMatcher(matcher="*", hooks=[hook])]),
        callbacks=[lambda event: seen.append(event) if isinstance(event, HookExecutionEvent) else None],
    )
    finishes = [one for one in conversation.state.events if isinstance(one, ActionEvent) and one.tool_name == "finish"]
    found = {
        "stops": [[one.hook_event_type, one.blocked] for one in seen],
        "finishes": len(finishes),
        "status": conversation.state.execution_status.value,
        "config": conversation.state.hook_config is not None,
    }
    conversation.close()
    return found


def streamed(client: Client) -> dict[str, Any]:
    """Words as they are written, to the client's token callbacks."""
    pieces: list[str] = []

    def piece(chunk: Any) -> None:
        pieces.extend(choice.delta.content or "" for choice in chunk.choices)

    agent = agent_of(client.llm.model_copy(update={"stream": True}))
    conversation = client.begin({"text": "Word by word."}, agent=agent, token_callbacks=[piece])
    time.sleep(0.2)
    conversation.close()
    return {"text": "".join(pieces)}


def main() -> None:
    client = Client(*sys.argv[1:])
    scenarios = (hidden, hooks, streamed, coming_back, branches, failures, a_thousand_events, a_crowd)
    found: dict[str, Any] = {}
    took: dict[str, float] = {}
    for scenario in scenarios:
        began = time.monotonic()
        found[scenario.__name__] = scenario(client)
        took[scenario.__name__] = round(time.monotonic() - began, 1)
    report(**found, seconds=took)


if __name__ == "__main__":
    main()
