"""A client program: `OpenHandsCloudWorkspace` against the orchestrator, unchanged, through its whole life.

Run by the environment of `scripts/install --sdk`, not by pytest. Arguments: orchestrator, API key, another tenant's API
key, folder to work in.
"""

import os
import sys
import tempfile
from pathlib import Path

import httpx
from client_side import agent_of, report, script, terminal, until
from openhands.sdk import Conversation, get_logger
from openhands.workspace import OpenHandsCloudWorkspace

get_logger("httpx").setLevel("WARNING")


def inside(workspace: OpenHandsCloudWorkspace, orchestrator: str, key: str, folder: str) -> list[object]:
    """What a program gets run in the sandbox as a client of it: with the environment that it finds there."""
    shown = workspace.execute_command("env > found && echo $SANDBOX_ID $SESSION_API_KEY", cwd=folder, timeout=30)
    copy = Path(tempfile.mkdtemp()) / "found"
    workspace.file_download(f"{folder}/found", copy)
    found = dict(line.split("=", 1) for line in copy.read_text().splitlines() if "=" in line)
    names = ("SANDBOX_ID", "SESSION_API_KEY", "AGENT_SERVER_PORT")
    os.environ.update({name: found[name] for name in names})
    local = OpenHandsCloudWorkspace(
        local_agent_server_mode=True, cloud_api_url=orchestrator, cloud_api_key=key, working_dir=folder
    )
    try:
        ran = local.execute_command("echo from inside", timeout=30).stdout
        return [shown.stdout.split() == [found["SANDBOX_ID"], "<secret-hidden>"], ran, sorted(local.get_secrets())]
    finally:
        for name in names:
            del os.environ[name]


def main() -> None:
    orchestrator, key, other_key, folder = sys.argv[1:]

    def opened(api_key: str = key, **more: object) -> OpenHandsCloudWorkspace:
        return OpenHandsCloudWorkspace(cloud_api_url=orchestrator, cloud_api_key=api_key, working_dir=folder, **more)

    with opened() as workspace:
        sandbox = workspace._sandbox_id
        command = workspace.execute_command("echo out; exit 3", timeout=30)
        here = Path(tempfile.mkdtemp()) / "sent"
        here.write_text("through the sandbox")
        workspace.file_upload(here, f"{folder}/sent")
        workspace.file_download(f"{folder}/sent", here.with_name("back"))
        llm = workspace.get_llm()
        secrets = workspace.get_secrets()
        mcp = workspace.get_mcp_config()
        seen: list[object] = []
        conversation = Conversation(agent=agent_of(llm), workspace=workspace, callbacks=[seen.append])
        conversation.update_secrets(secrets)
        used = script(
            terminal(
                'test $TOKEN = value-of-the-token-1 && test -n $github_token && test -z "$SESSION_API_KEY" '
                f"&& test $SANDBOX_ID = {sandbox} && echo same"
            ),
            {"text": "ok"},
        )
        conversation.send_message(used)
        conversation.run()
        until(lambda: any("same" in str(event) for event in seen))
        within = inside(workspace, orchestrator, key, folder)
        status = str(conversation.state.execution_status.value)
        conversation.close()
        with httpx.Client(base_url=f"{orchestrator}/api/v1", headers={"Authorization": f"Bearer {key}"}) as api:
            api.post(f"/sandboxes/{sandbox}/pause").raise_for_status()
            until(lambda: api.get("/sandboxes", params={"id": sandbox}).json()[0]["status"] == "PAUSED")
            workspace.resume()
            again = workspace.execute_command("echo again", timeout=30).stdout
            with opened(sandbox_id=sandbox, keep_alive=True) as second:
                attached = second.execute_command("cat sent", cwd=folder, timeout=30).stdout
            foreign = [
                httpx.get(
                    f"{orchestrator}/api/v1/sandboxes",
                    params={"id": sandbox},
                    headers={"Authorization": f"Bearer {other_key}"},
                ).json()
            ]
    gone = httpx.get(
        f"{orchestrator}/api/v1/sandboxes", params={"id": sandbox}, headers={"Authorization": f"Bearer {key}"}
    ).json()
    report(
        command=[command.exit_code, command.stdout],
        file=here.with_name("back").read_text(),
        model=llm.model,
        secrets=sorted(secrets),
        mcp={name: (server.url or server.command) for name, server in mcp.items()},
        status=status,
        inside=within,
        again=again,
        attached=attached,
        foreign=foreign,
        gone=gone,
    )


if __name__ == "__main__":
    main()
