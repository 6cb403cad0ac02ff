"""A client program of the public SDK at a runtime that somebody else made: its conversation, and one more.

Run by the environment of `scripts/install --sdk`, not by pytest. Arguments: the runtime's URL and session key, model
URL, model key, and the id of the conversation that is there.
"""

import sys
import tempfile
import threading
from pathlib import Path
from uuid import UUID

import httpx
from client_side import agent_of, model, report, script, terminal, until
from openhands.sdk import Conversation, RemoteConversation
from openhands.sdk.workspace.remote.base import RemoteWorkspace


def main() -> None:
    server, key, model_url, model_key, id = sys.argv[1:]
    http = httpx.Client(base_url=server, timeout=60, headers={"X-Session-API-Key": key}, trust_env=False)
    directory = http.get(f"/api/conversations/{id}").json()["workspace"]["working_dir"]
    workspace = RemoteWorkspace(host=server, working_dir=directory, api_key=key)
    seen: list[str] = []
    there = RemoteConversation.attach(
        workspace, UUID(id), callbacks=[lambda event: seen.append(type(event).__name__)], visualizer=None
    )
    there.send_message(script(terminal("echo there"), {"text": "There."}))
    there.run()
    attached = there.state.execution_status.value
    until(lambda: {"ActionEvent", "ObservationEvent", "MessageEvent"} <= set(seen))
    done = workspace.execute_command("echo out; exit 3", cwd=directory)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "up").write_text("through the proxy")
        workspace.file_upload(Path(folder) / "up", f"{directory}/up.txt")
        workspace.file_download(f"{directory}/up.txt", Path(folder) / "down")
        text = (Path(folder) / "down").read_text()

    before = len(seen)
    there.send_message(script(terminal("sleep 100"), {"text": "never"}))
    runner = threading.Thread(target=there.run)
    runner.start()
    until(lambda: "ActionEvent" in seen[before:])
    there.interrupt()
    runner.join(60)

    own = Conversation(agent=agent_of(model(model_url, model_key)), workspace=workspace, visualizer=None)
    own.send_message(script({"text": "Mine."}))
    own.run()
    found = {"new": own.state.execution_status.value}
    cost = own.conversation_stats.get_combined_metrics().accumulated_cost > 0
    own.close()
    there.close()
    report(
        **found,
        attached=attached,
        **{"called back": "ObservationEvent" in seen},
        command=[done.exit_code, done.stdout],
        file=text,
        interrupted=there.state.execution_status.value,
        cost=cost,
        gone=http.get(f"/api/conversations/{own.id}").status_code == 404,
        kept=http.get(f"/api/conversations/{id}").status_code == 200,
    )


if __name__ == "__main__":
    main()
