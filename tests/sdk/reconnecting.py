"""A client program of the public SDK: its conversation while the server is killed and started again.

Run by the environment of `scripts/install --sdk`, not by pytest. Arguments: server, session key, model URL, model key,
working directory, a folder of marks: each file there tells the test, or the program, that something has happened.
"""

import sys
import threading
from pathlib import Path

from client_side import agent_of, model, report, script, terminal, until
from openhands.sdk import Conversation
from openhands.sdk.conversation.exceptions import ConversationRunError
from openhands.sdk.workspace.remote.base import RemoteWorkspace


def main() -> None:
    server, key, model_url, model_key, directory, folder = sys.argv[1:]
    marks = Path(folder)
    seen: list[str] = []
    conversation = Conversation(
        agent=agent_of(model(model_url, model_key)),
        workspace=RemoteWorkspace(host=server, working_dir=directory, api_key=key),
        callbacks=[lambda event: seen.append(event.id)],
        visualizer=None,
        delete_on_close=False,
    )
    failed: list[str] = []

    def run() -> None:
        try:
            conversation.run(poll_interval=0.5, timeout=120)
        except ConversationRunError as error:
            failed.append(str(error))

    # Killed while the agent works: the run is broken off, and the client is told.
    conversation.send_message(script(terminal("echo begun"), terminal("touch working; sleep 60"), {"text": "never"}))
    runner = threading.Thread(target=run)
    runner.start()
    until((Path(directory) / "working").exists)
    (marks / "kill").touch()
    runner.join(120)
    conversation.state.refresh_from_server()
    broken_off = [conversation.state.execution_status.value, runner.is_alive(), len(failed)]

    # Killed between two runs, with events that come while the client cannot listen.
    conversation.send_message(script(terminal("echo again"), {"text": "Again."}))
    run()
    until(lambda: (marks / "second").touch() or (marks / "said").exists(), 120)
    events = [event for event in conversation.state.events if getattr(event, "key", "") != "full_state"]
    conversation.send_message(script(terminal("echo last"), {"text": "Last."}))
    run()
    until(lambda: (marks / "third").touch() or (marks / "counted").exists(), 120)
    stored = set((marks / "counted").read_text().split())
    until(lambda: stored <= set(seen))
    report(
        broken_off=broken_off,
        failed=failed[:1],
        status=conversation.state.execution_status.value,
        known=len(events) > 0,
        missing=len(stored - set(seen)),
        twice=len(seen) - len(set(seen)),
        cached=stored <= {event.id for event in conversation.state.events},
    )
    conversation.close()


if __name__ == "__main__":
    main()
