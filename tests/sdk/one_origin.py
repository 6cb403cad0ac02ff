"""A client program of the public SDK at the orchestrator itself, as if it were one big agent server.

Run by the environment of `scripts/install --sdk`, not by pytest. Arguments: the orchestrator's URL, the caller's API
key, model URL, model key, and the id of another tenant's conversation.
"""

import sys
import tempfile
import uuid
from pathlib import Path

import httpx
from client_side import agent_of, model, report, script, terminal, until
from openhands.sdk import Conversation, RemoteConversation, Workspace


def main() -> None:
    server, key, model_url, model_key, another = sys.argv[1:]
    native = httpx.Client(base_url=server, timeout=60, headers={"Authorization": f"Bearer {key}"}, trust_env=False)
    as_agent_server = httpx.Client(base_url=server, timeout=60, headers={"X-Session-API-Key": key}, trust_env=False)
    workspace = Workspace(host=server, api_key=key, working_dir="project")

    done = workspace.execute_command("echo out; exit 3", cwd="/")
    folder = httpx.get(f"{server}/api/file/home", headers={"X-Session-API-Key": key}, trust_env=False).json()["home"]
    with tempfile.TemporaryDirectory() as scratch:
        sent = bytes(range(256)) * 4096
        (Path(scratch) / "up").write_bytes(sent)
        workspace.file_upload(Path(scratch) / "up", f"{folder}/up.bin")
        workspace.file_download(f"{folder}/up.bin", Path(scratch) / "down")
        same = (Path(scratch) / "down").read_bytes() == sent

    seen: list[str] = []
    id = uuid.uuid4()
    talk = Conversation(
        agent=agent_of(model(model_url, model_key)),
        workspace=workspace,
        conversation_id=id,
        callbacks=[lambda event: seen.append(type(event).__name__)],
        visualizer=None,
        delete_on_close=False,
    )
    talk.send_message(script(terminal("echo there"), {"text": "There."}))
    talk.run()
    finished = talk.state.execution_status.value
    until(lambda: {"ActionEvent", "ObservationEvent", "MessageEvent"} <= set(seen))

    paused = native.post(f"/api/v2/conversations/{id}/pause")
    until(lambda: native.get(f"/api/v2/conversations/{id}").json()["phase"] == "paused")
    refused = as_agent_server.get(f"/api/conversations/{id}").status_code
    native.post(f"/api/v2/conversations/{id}/resume?wait=ready&timeout=60").raise_for_status()
    talk.send_message(script({"text": "Again."}))
    talk.run()
    again = talk.state.execution_status.value
    talk.close()

    there = RemoteConversation.attach(workspace, id, visualizer=None)
    attached = there.state.execution_status.value
    listed = as_agent_server.get("/api/conversations/search").json()["items"]
    counted = as_agent_server.get("/api/conversations/count").json()
    batch = as_agent_server.get("/api/conversations", params={"ids": [str(id), str(uuid.uuid4())]}).json()
    there.close()
    gone = as_agent_server.delete(f"/api/conversations/{id}")
    report(
        command=[done.exit_code, done.stdout],
        same=same,
        finished=finished,
        paused=paused.status_code,
        refused=refused,
        again=again,
        attached=attached,
        listed=[item["id"] for item in listed] == [str(id)],
        status=listed[0]["execution_status"],
        counted=counted,
        batch=[item and item["id"] == str(id) for item in batch],
        gone=[gone.json(), as_agent_server.get(f"/api/conversations/{id}").status_code],
        others=[
            as_agent_server.get(f"/api/conversations/{another}{path}").status_code for path in ("", "/events/count")
        ]
        if another
        else [],
        id=str(id),
    )


if __name__ == "__main__":
    main()
