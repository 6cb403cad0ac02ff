"""A runtime is ready before it has imported what is heavy, and what needs no model never imports it."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.models import scripted_model
from tests.support.runtimes import KEY, RuntimeProcess, eventually, message

#: what a start must not pay for
HEAVY = {"litellm", "openai", "mcp", "httpx", "jsonschema", "yaml", "rich", "pygments", "tiktoken", "typer", "docker"}
HEAVY |= {"click", "multiprocessing"}


@pytest.fixture
def process(tmp_path: Path) -> Iterator[RuntimeProcess]:
    made = RuntimeProcess(tmp_path, PYTHONPROFILEIMPORTTIME="1")
    yield made
    made.ensure_gone()


def finished(process: RuntimeProcess) -> set[str]:
    """The modules that the process has imported until now, as the interpreter told."""
    lines = (process.folder / "runtime.log").read_text(errors="replace").splitlines()
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}


def imported(process: RuntimeProcess) -> set[str]:
    """Their packages."""
    names = finished(process)
    assert "fastapi.routing" in names  # it does tell
    return {name.partition(".")[0] for name in names if name != "rich"}  # which is looked for, and not found


def test_nothing_heavy_is_imported_until_a_conversation_is_there(process: RuntimeProcess) -> None:
    process.start()
    assert imported(process) & HEAVY == set()
    with httpx.Client(base_url=process.url, headers={"X-Session-API-Key": KEY}, trust_env=False, timeout=30) as http:
        assert http.patch("/api/settings", json={"agent_settings_diff": {"llm": {"model": "m"}}}).status_code == 200
        assert http.put("/api/settings/secrets", json={"name": "A", "value": "b"}).status_code in (200, 201)
        for path in (
            "/health",
            "/ready",
            "/server_info",
            "/api/settings",
            "/api/settings/secrets",
            "/api/settings/agent-schema",
            "/api/conversations/search",
            "/api/conversations/count",
            "/api/llm/providers",
            "/api/llm/models",
            "/api/tools/",
            "/openapi.json",
        ):
            assert http.get(path).status_code == 200, path
        assert http.post("/api/bash/execute_bash_command", json={"command": "echo hello"}).status_code == 200
    assert imported(process) & HEAVY == set()
    assert "pydantic.v1" not in finished(process)


BUILT_LATER = """
import runtime.program
from fastapi.openapi.models import Info, OpenAPI

print(OpenAPI.__pydantic_complete__)
document = OpenAPI(openapi="3.1.0", info=Info(title="t", version="v"), paths={"/a": {"get": {"responses": {}}}})
print(OpenAPI.__pydantic_complete__, document.model_dump(exclude_none=True)["paths"])
import sys
import starlette.exceptions
import starlette.middleware.errors
import uvicorn

print([name in sys.modules for name in ("html", "http.client", "logging.config", "websockets")])
print(starlette.middleware.errors.html.escape("<"), "html" in sys.modules)
print(starlette.exceptions.HTTPException(404).detail, "http.client" in sys.modules)
uvicorn.Config("json:no_application", log_config={"version": 1})
print("logging.config" in sys.modules)
print(uvicorn.Server.__module__)
try:
    uvicorn.run("json:no_application")
except SystemExit:
    print("ran")
"""


def test_what_the_framework_builds_at_its_import_is_built_when_it_is_used() -> None:
    done = subprocess.run([sys.executable, "-c", BUILT_LATER], capture_output=True, text=True, timeout=60, check=False)
    said = ["False", "True {'/a': {'get': {'responses': {}}}}"]
    said += ["[False, False, False, False]", "&lt; True", "Not Found True", "True", "uvicorn.server", "ran"]
    assert done.stdout.splitlines() == said, done.stderr[-2000:]


PLACES = """
import inspect
import sys
import runtime.program
from fastapi import routing
from runtime.api import init, older

place = routing._extract_endpoint_context
for endpoint in (older.store_settings, init.get_init):
    told = place(endpoint)
    print(told["function"], "linecache" in sys.modules and told["file"] in sys.modules["linecache"].cache)
    written = inspect.unwrap(endpoint)  # and not what brings it into a thread
    assert (told["file"], told["line"]) == (inspect.getsourcefile(written), inspect.getsourcelines(written)[1]), told
print(place(len))
"""


def test_where_an_endpoint_is_written_is_told_without_reading_its_source() -> None:
    done = subprocess.run([sys.executable, "-c", PLACES], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["store_settings False", "get_init False", "{}"], done.stderr[-2000:]


def test_the_server_answers_while_the_model_library_is_imported(tmp_path: Path, process: RuntimeProcess) -> None:
    process.start()
    with httpx.Client(base_url=process.url, headers={"X-Session-API-Key": KEY}, trust_env=False, timeout=30) as http:
        body = {"agent": {"llm": {"model": "openai/x"}}, "workspace": {"working_dir": str(tmp_path / "work")}}
        id = http.post("/api/conversations", json=body).json()["id"]
        assert http.post(f"/api/conversations/{id}/events", json={**message("words"), "run": False}).status_code == 200
        assert http.get(f"/api/conversations/{id}/events/count").json() > 0
        answered = 0
        while "litellm.main" not in finished(process):
            assert http.get("/health").status_code == 200
            answered += 1
        assert answered > 20


def test_a_server_that_ends_while_the_model_library_is_imported_ends_well(
    tmp_path: Path, process: RuntimeProcess
) -> None:
    process.start()
    with httpx.Client(base_url=process.url, headers={"X-Session-API-Key": KEY}, trust_env=False, timeout=30) as http:
        body = {"agent": {"llm": {"model": "openai/x"}}, "workspace": {"working_dir": str(tmp_path / "work")}}
        id = http.post("/api/conversations", json=body).json()["id"]
        assert http.post(f"/api/conversations/{id}/events", json={**message("words"), "run": False}).status_code == 200
        while not any(name.startswith("litellm.") for name in finished(process)):
            time.sleep(0.01)
        process.end()
    assert "Traceback" not in (process.folder / "runtime.log").read_text()


FAILS_ONCE = """
import sys


class Fails:
    done = False

    def find_spec(self, name, path=None, target=None):
        if not self.done and name.startswith("litellm.") and "litellm.main" in sys.modules:
            type(self).done = True
            raise OSError(24, "Too many open files")


sys.meta_path.insert(0, Fails())
from runtime.agent.llm import load

try:
    load()
except OSError:
    load()
    import litellm.exceptions

    print("whole", litellm is load() and litellm.exceptions is sys.modules["litellm.exceptions"])
"""


def test_an_import_that_failed_half_way_does_not_spoil_the_next_one() -> None:
    done = subprocess.run([sys.executable, "-c", FAILS_ONCE], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "whole True\n", done.stderr[-2000:]


def test_an_idle_runtime_sleeps(tmp_path: Path) -> None:
    process = RuntimeProcess(tmp_path, OH_LEASE_TTL_SECONDS="0")  # else that of what is in memory is renewed
    try:
        process.start()
        client = httpx.Client(base_url=process.url, headers={"X-Session-API-Key": KEY}, trust_env=False, timeout=30)
        with scripted_model() as model, client as http:
            llm = {"model": "openai/scripted", "api_key": "k", "base_url": model, "num_retries": 0}
            body = {"agent": {"llm": llm, "tools": []}, "workspace": {"working_dir": str(tmp_path / "work")}}
            id = http.post("/api/conversations", json=body).json()["id"]
            said = message([{"text": "done"}])
            assert http.post(f"/api/conversations/{id}/events", json={**said, "run": True}).status_code == 200
            eventually(lambda: http.get(f"/api/conversations/{id}").json()["execution_status"] == "finished", 120)
            http.close()  # the model's library is there by now, and sleeps too
            eventually(lambda: wakings(process.pid, seconds=5) == 0, 90)  # what was begun before may end first
    finally:
        process.ensure_gone()


def wakings(pid: int, *, seconds: float) -> int:
    """How often its threads wake up in this time, which is the measure: longer than a period that a timer may have."""

    def found() -> int:
        text = "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status"))
        return sum(map(int, re.findall(r"^voluntary_ctxt_switches:\s*(\d+)$", text, re.MULTILINE)))

    before = found()
    time.sleep(seconds)
    return found() - before
