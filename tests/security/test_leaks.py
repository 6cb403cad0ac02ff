"""Planted values, looked for after a run that used them: in files, logs, processes and answers, in many spellings."""

import base64
import json
import tempfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.models import scripted_model
from support.processes import OrchestratorProcess, orchestrator_at, wait_for

CANARIES = {
    "model key": "sk-canary-model-7f3a91c2d4e5",
    "git token": "ghp_canaryGitToken8b2c7d1e9f0a",
    "secret": "canary/secret+value=55aa&77%cc",
    "secret of one request": "canary-of-one-request-31337-x",
}
SAY = 'SCRIPT:[{"tool":"terminal","args":{"command":"echo one $DEPLOY two $ONLY_HERE"}},{"text":"done"}]'


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        yield Path(folder) / "data"


def spellings(value: str) -> set[bytes]:
    raw = value.encode()
    forms = {value, json.dumps(value)[1:-1], urllib.parse.quote(value), urllib.parse.quote_plus(value), raw.hex()}
    for shift in range(3):  # base64 of a text in which the value begins at any place
        encoded = base64.b64encode(b"x" * shift + raw).decode()
        forms.add(encoded[4 if shift else 0 : len(encoded) - 4])
        forms.add(base64.urlsafe_b64encode(b"x" * shift + raw).decode()[4 if shift else 0 : len(encoded) - 4])
    return {form.encode() for form in forms}


def found_in(blob: bytes, canaries: dict[str, str]) -> list[str]:
    return [name for name, value in canaries.items() if any(form in blob for form in spellings(value))]


def files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield str(path), path.read_bytes()


def processes_of(nestor: OrchestratorProcess) -> Iterator[tuple[str, bytes]]:
    for pid in [nestor.pid, *nestor.processes()]:
        for what in ("environ", "cmdline"):
            try:
                yield f"{what} of {pid}", Path(f"/proc/{pid}/{what}").read_bytes()
            except OSError:
                continue


def test_the_scanner_sees_what_is_there(tmp_path: Path) -> None:
    for number, value in enumerate(CANARIES.values()):
        (tmp_path / f"{number}").write_bytes(b"before " + base64.b64encode(b"ab" + value.encode() + b"yz") + b" after")
    seen = [name for _, blob in files_below(tmp_path) for name in found_in(blob, CANARIES)]
    assert sorted(seen) == sorted(CANARIES)


def test_no_planted_value_is_found_anywhere(data_dir: Path) -> None:
    with scripted_model() as model, orchestrator_at(data_dir) as nestor:
        key = nestor.tenant("acme", model, model_key=CANARIES["model key"])
        token = {"token": CANARIES["git token"], "host": "http://127.0.0.1:9"}
        nestor.call("PUT", "/api/v2/git-providers/github", key, json=token, status=200)
        nestor.call("PUT", "/api/v2/secrets/DEPLOY", key, json={"value": CANARIES["secret"]}, status=200)
        body = {"initial_message": SAY, "secrets": {"ONLY_HERE": CANARIES["secret of one request"]}}
        record = nestor.call("POST", "/api/v2/conversations?wait=ready&timeout=60", key, json=body, status=200)
        id, session_key = record["id"], record["runtime"]["session_key"]
        path = f"/api/v2/conversations/{id}/events"

        def finished() -> bool:
            return '"finished"' in json.dumps(nestor.call("GET", path, key, status=200))

        wait_for(finished, 60)
        events = json.dumps(nestor.call("GET", path, key, status=200))
        assert "one <secret-hidden> two <secret-hidden>" in events, "the agent had both values"

        canaries = CANARIES | {"session key": session_key, "tenant key": key}
        blobs = [
            *files_below(data_dir),
            *processes_of(nestor),
            ("log", nestor.log.read_bytes()),
            ("events", events.encode()),
        ]
        answers = (
            "/api/v2/settings",
            "/api/v2/secrets",
            "/api/v2/git-providers",
            "/api/v2/conversations",
            "/api/settings",
        )
        blobs += [(answer, json.dumps(nestor.call("GET", answer, key)).encode()) for answer in answers]
        blobs += [
            ("operation", json.dumps(nestor.call("GET", f"/api/v2/operations/{record['operation']}", key)).encode())
        ]
        leaks = [(where, name) for where, blob in blobs for name in found_in(blob, canaries)]
        assert leaks == []
        assert len(blobs) > 15


def test_the_agent_sees_neither_keys_nor_neighbours(data_dir: Path) -> None:
    """With namespaces: the shell finds no key in any process, and nothing of the orchestrator's folder."""
    look = (
        "cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' ' '; "
        f"ls -A {data_dir} | wc -l; ls /proc | grep -c '^[0-9]'; "
        "cd ~ && touch a-file && git config --global a.b c && echo a home of its own"
    )
    say = "SCRIPT:" + json.dumps([{"tool": "terminal", "args": {"command": look}}, {"text": "done"}])
    with scripted_model() as model, orchestrator_at(data_dir, NESTOR_NAMESPACES="1") as nestor:
        key = nestor.tenant("acme", model, model_key=CANARIES["model key"])
        records = [
            nestor.call(
                "POST", "/api/v2/conversations?wait=ready&timeout=60", key, json={"initial_message": say}, status=200
            )
            for _ in range(2)
        ]
        for record in records:
            path = f"/api/v2/conversations/{record['id']}/events"

            def observed(path: str = path) -> str | None:
                items = nestor.call("GET", path, key, status=200)["items"]
                found = [item["event"] for item in items if item["event"]["kind"] == "ObservationEvent"]
                return json.dumps(found[0]) if found else None

            seen = wait_for(observed, 60)
            canaries = CANARIES | {f"session key of {r['id']}": r["runtime"]["session_key"] for r in records}
            assert found_in(seen.encode(), canaries) == []
            other = next(r["id"] for r in records if r is not record)
            assert other not in seen, "nothing of the other runtime is seen"
            assert "a home of its own" in seen
