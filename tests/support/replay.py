"""The contract's captured exchanges, made again with a runtime of ours: each sample's request, and what came back.

Used by test_runtime_samples.py. Ids, folders and addresses are ours; the order is the one in which they make sense.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx

from tests.support.runtimes import Runtime

SAMPLES = Path(__file__).parents[1] / "contract" / "runtime" / "samples"


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())


def is_exchange(captured: Any) -> bool:
    return isinstance(captured, dict) and "request" in captured


@dataclass
class Replay:
    """Sends samples and keeps the answers by name."""

    runtime: Runtime
    answers: dict[str, httpx.Response]

    async def send(self, name: str, path: str | None = None, *, body: Any = ..., **more: Any) -> httpx.Response:
        request = sample(name)["request"]
        content = request.get("body") if body is ... else body
        if content is not None:
            more["json"] = content
        headers = {**request.get("headers", {}), **more.pop("headers", {})}
        answer = await self.runtime.http.request(request["method"], path or request["path"], headers=headers, **more)
        self.answers[name] = answer
        return answer

    async def all(self) -> dict[str, httpx.Response]:
        """Every exchange. The steps are in order: later ones need what earlier ones made."""
        await self._server()
        await self._settings()
        await self._secrets()
        await self._conversation()
        await self._control()
        await self._machine()
        await self._profiles()
        return self.answers

    async def _server(self) -> None:
        for name in ("01-alive", "01-health", "01-ready", "01-server_info", "10-tools", "10-vscode-status"):
            await self.send(name)
        await self.send("10-vscode-url")
        await self.send("00-auth-401", headers={"X-Session-API-Key": "wrong"})

    async def _settings(self) -> None:
        model = sample("02-settings-patch-llm")["request"]["body"]
        await self.send("02-settings-patch-llm", body=model)
        for name in ("default", "badheader", "encrypted", "plaintext", "redacted"):
            await self.send(f"02-settings-get-{name}")
        for name in ("empty", "invalid", "mcp", "mcp-unset", "misc"):
            await self.send(f"02-settings-patch-{name}")

    async def _secrets(self) -> None:
        for name in ("secrets-list-empty", "secret-put", "secret-put-422", "secret-get", "secret-get-404"):
            await self.send(f"03-{name}")
        await self.send("03-secret-get-422")
        body = {"name": "NODESC", "value": "x", "description": "now"}
        assert (await self.runtime.http.put("/api/settings/secrets", json=body)).status_code == 200
        for name in ("secrets-list", "secret-delete", "secret-delete-404"):
            await self.send(f"03-{name}")

    async def _conversation(self) -> None:
        body = sample("04-conversation-start")["request"]["body"]
        body["workspace"]["working_dir"] = str(self.runtime.folder / "work")
        body["agent"]["llm"] |= self.runtime.llm()
        body["initial_message"] = _said([{"tool": "finish", "args": {"message": "All done."}}])
        id = (await self.send("04-conversation-start", body=body)).json()["id"]
        self.id, path = id, f"/api/conversations/{id}"
        await self.runtime.finish(id)
        await self.send("04-conversation-get", path)
        for name in ("count", "search"):
            await self.send(f"04-conversations-{name}")
        await self.send("04-conversation-get-404")
        await self.send("04-conversation-get-422")
        await self.send("04-conversation-start-422")
        await self.send("04-agent-final-response", f"{path}/agent_final_response")
        await self.send("04-runtime", f"{path}/runtime")
        question = 'what? SCRIPT:[{"text":"Fake answer."}]'
        await self.send("04-ask-agent", f"{path}/ask_agent", body={"question": question})
        await self.send("04-secrets-update", f"{path}/secrets")
        await self.send("04-conversation-get-secret-registry", path)
        events = await self.runtime.events(id)
        message = next(event["id"] for event in events if event["kind"] == "MessageEvent")
        await self.send("05-event-get", f"{path}/events/{message}")
        await self.send("05-events-count", f"{path}/events/count")
        await self.send("05-events-search-page", f"{path}/events/search?limit=2")
        await self.send("04-patch", path)
        await self.send("04-condense-409", f"{path}/condense")
        await self.send("04-children", f"{path}/children")
        fork = (await self.send("04-fork", f"{path}/fork")).json()["id"]
        await self.send("04-delete", f"/api/conversations/{fork}")
        await self.send("04-delete-404", f"/api/conversations/{fork}")
        await self.send("04-navigate", f"{path}/navigate", body={"event_id": message})
        (self.runtime.folder / "work" / "TODO.md").write_text("one\ntwo\n")
        await self.send("10-workspace-file", f"{path}/workspace/TODO.md")
        token = (await self.runtime.http.get("/api/settings", headers={"X-Expose-Secrets": "encrypted"})).json()
        sealed = sample("04-conversation-start-encrypted")["request"]["body"]
        sealed["workspace"]["working_dir"] = str(self.runtime.folder / "work")
        sealed["agent"]["llm"] |= {"api_key": token["agent_settings"]["llm"]["api_key"]}
        await self.send("04-conversation-start-encrypted", body=sealed)

    async def _control(self) -> None:
        id = await self.runtime.start(tools=["terminal"])
        path = f"/api/conversations/{id}"
        await self.send("04-confirmation-policy", f"{path}/confirmation_policy")
        await self.send("04-security-analyzer", f"{path}/security_analyzer")
        await self.send("05-respond-accept", f"{path}/events/respond_to_confirmation")
        await self.send("05-respond-reject", f"{path}/events/respond_to_confirmation")
        body = {**_said([{"text": "an answer that takes its time", "sleep": 5}]), "run": False}
        await self.send("05-event-post", f"{path}/events", body=body)
        await self.send("04-run", f"{path}/run")
        await self.send("04-run-409", f"{path}/run")
        await self.send("04-pause", f"{path}/pause")
        await self.runtime.http.post(f"{path}/interrupt")
        llm = self.runtime.llm(usage_id="condenser")
        condenser = {"kind": "LLMSummarizingCondenser", "llm": llm, "max_size": 240, "keep_first": 1}
        full = self.runtime.body()
        full["agent"]["condenser"] = condenser
        long = (await self.runtime.http.post("/api/conversations", json=full)).json()["id"]
        for number in range(6):
            await self.runtime.say(long, [{"text": f"answer {number}"}])
            await self.runtime.finish(long)
        await self.send("04-condense", f"/api/conversations/{long}/condense")

    async def _machine(self) -> None:
        place = self.runtime.folder / "machine"
        (place / "sub").mkdir(parents=True)
        (place / "newd2").mkdir()
        start = sample("07-bash-start")["request"]["body"] | {"cwd": str(place)}
        long = await self.runtime.http.post("/api/bash/start_bash_command", json=start | {"command": "sleep 60"})
        await self.send("07-bash-stop", f"/api/bash/bash_commands/{long.json()['id']}/stop")
        command = (await self.send("07-bash-start", body=start)).json()["id"]
        query = f"command_id__eq={command}&kind__eq=BashOutput&sort_order=TIMESTAMP&limit=100"
        with anyio.fail_after(20):
            while (await self._outputs(query))[-1:] != [3]:  # it has ended
                await anyio.sleep(0.02)
        await self.send("07-bash-execute", body={"command": "echo hi; pwd", "cwd": str(place)})
        await self.send("07-bash-execute-timeout", body={"command": "echo a; sleep 5", "timeout": 1})
        await self.send("07-bash-clear")
        files = {"file": ("up.txt", b"hello\n")}
        await self.send("08-file-upload", "/api/file/upload", params={"path": f"{place}/sub/up.txt"}, files=files)
        await self.send("08-file-download", "/api/file/download", params={"path": f"{place}/sub/up.txt"})
        await self.send("08-file-create-directory", body={"path": f"{place}/newd"})
        await self.send("08-file-home")
        await self.send("08-file-search-subdirs", "/api/file/search_subdirs", params={"path": str(place)})
        repository = place / "repo"
        repository.mkdir()
        (repository / "a").write_text("one\n")
        _git(repository, "init", "-q", "-b", "main")
        _git(repository, "add", "a")
        _git(repository, "-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-q", "-m", "one")
        (repository / "a").write_text("one\ntwo\n")
        (repository / "d").write_text("new\n")
        await self.send("09-git-changes", "/api/git/changes", params={"path": str(repository)})
        await self.send("09-git-commits", "/api/git/commits", params={"path": str(repository)})
        await self.send("09-git-diff", "/api/git/diff", params={"path": str(repository / "a")})

    async def _outputs(self, query: str) -> Sequence[int | None]:
        """The exit status that each piece of a command's output has."""
        answer = await self.send("07-bash-search", f"/api/bash/bash_events/search?{query}")
        return [item["exit_code"] for item in answer.json()["items"]]

    async def _profiles(self) -> None:
        for name in ("profiles", "profile-save", "profile-get", "profile-activate"):
            await self.send(f"10-{name}")


def _said(script: Sequence[Any]) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": f"{uuid4()} SCRIPT:{json.dumps(script)}"}]}


def _git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True)
