"""A client program: `APIRemoteWorkspace` against the orchestrator's runtime API, unchanged.

Run by the environment of `scripts/install --sdk`, not by pytest. Arguments: orchestrator, API key, model server, model
key, folder to work in.
"""

import os
import sys

from client_side import agent_of, model, report, script, terminal
from openhands.sdk import Conversation
from openhands.workspace import APIRemoteWorkspace


def main() -> None:
    orchestrator, key, model_url, model_key, folder = sys.argv[1:]
    os.environ["FORWARDED"] = "value of the client"

    def opened(**more: object) -> APIRemoteWorkspace:
        return APIRemoteWorkspace(
            runtime_api_url=f"{orchestrator}/",
            runtime_api_key=key,
            server_image="nestor-runtime:latest",
            session_id="the-session",
            working_dir=folder,
            forward_env=["FORWARDED"],
            **more,
        )

    with opened(pause_on_close=True) as workspace:
        first = workspace._runtime_id
        command = workspace.execute_command("echo $FORWARDED", timeout=30)
        conversation = Conversation(agent=agent_of(model(model_url, model_key)), workspace=workspace)
        conversation.send_message(script(terminal("echo worked > result"), {"text": "done"}))
        conversation.run()
        status = str(conversation.state.execution_status.value)
        workspace.pause()
        workspace.resume()
        resumed = workspace.execute_command("cat result", cwd=folder, timeout=30).stdout
    with opened() as workspace:  # it was paused
        attached = [
            workspace._runtime_id == first,
            workspace.execute_command("cat result", cwd=folder, timeout=30).stdout,
        ]
    with opened() as workspace:  # it was stopped
        anew = [workspace._runtime_id == first, workspace.execute_command("echo anew", timeout=30).stdout]
    report(command=command.stdout, status=status, resumed=resumed, attached=attached, anew=anew)


if __name__ == "__main__":
    main()
