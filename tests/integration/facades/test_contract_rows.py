"""Every row of the V0 and app-conversation tables of outer-api.md (4 and 5), with the exact fields of its answer.

One orchestrator with the fake driver, one conversation in each place that matters; a row neither needs another row nor
spoils one.
"""

import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.orchestrators import Nestor, nestor_at

from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.facades.missing import MISSING

pytestmark = pytest.mark.anyio
UNKNOWN = "00000000-0000-4000-8000-00000000dead"
TEXT = {"role": "user", "content": [{"type": "text", "text": "hello"}], "run": True}
INFO = frozenset(
    """conversation_id title created_at last_updated_at status runtime_status selected_repository selected_branch
    git_provider trigger num_connections url session_api_key pr_number conversation_version
    sub_conversation_ids""".split()
)
APP = frozenset(
    """id created_by_user_id sandbox_id title selected_repository selected_branch git_provider trigger pr_number
    llm_model metrics tags parent_conversation_id sub_conversation_ids created_at updated_at sandbox_status
    execution_status conversation_url session_api_key public""".split()
)
TASK = frozenset(
    """id created_by_user_id status detail app_conversation_id sandbox_id agent_server_url request created_at
    updated_at""".split()
)
STARTED = frozenset({"status", "conversation_id", "message", "conversation_status"})
PAGE = frozenset({"items", "next_page_id"})


@dataclass
class Place:
    """What the rows talk to. `ids` are names of conversations that a path may hold: `{ready}` and so on."""

    nestor: Nestor
    key: str
    other: str  #: the key of another tenant, which has a model as well
    ids: dict[str, str]

    async def ask(self, row: "Row", *, key: str = "", ids: Mapping[str, str] | None = None) -> Any:
        path = row.path.format_map(self.ids if ids is None else ids)
        headers = {"Authorization": f"Bearer {key or self.key}"}
        sent = {"headers": headers} | ({} if row.body is None else {"json": row.body})
        return await self.nestor.http.request(row.method, path, **sent)


@dataclass(frozen=True)
class Row:
    method: str
    path: str
    status: int = 200
    body: Any = None
    is_: Callable[[Any], bool] = field(default=lambda answer: True)

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.status}"


def has(fields: frozenset[str], **values: Any) -> Callable[[Any], bool]:
    """Exactly these fields, and these values among them."""
    return lambda answer: set(answer) == fields and all(answer[name] == value for name, value in values.items())


def says(**values: Any) -> Callable[[Any], bool]:
    """A failure as every older surface tells one, with these values."""
    words = ("detail", "error")
    return lambda answer: (
        all(isinstance(answer[name], str) for name in words)
        and all(answer.get(name) == value for name, value in values.items())
    )


def equals(value: Any) -> Callable[[Any], bool]:
    return lambda answer: bool(answer == value)


def refused_fields(*names: str) -> Callable[[Any], bool]:
    """A 422: the list of what is wrong names these."""
    return lambda answer: (
        isinstance(answer["error"], str) and [item["loc"][-1] for item in answer["detail"]] == list(names)
    )


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def place() -> AsyncIterator[Place]:
    with tempfile.TemporaryDirectory(prefix="nst-") as folder:
        engine = FakeEngine()
        async with nestor_at(Path(folder), engine) as nestor:
            key = await nestor.ready_tenant()
            made = Place(nestor, key, await nestor.ready_tenant("globex"), {"unknown": UNKNOWN})
            for name in ("ready", "paused", "stopped", "patched", "deleted", "gone", "halted", "dropped"):
                body = {"initial_message": "hello", "title": name}
                record = await nestor.call("POST", "/api/v2/conversations", key, json=body, status=202)
                made.ids[name] = record["id"]
                await nestor.until(key, record["id"], "ready")
                made.ids[f"task_{name}"] = record["operation"]
            for name, verb, phase in (("paused", "pause", "paused"), ("stopped", "stop", "stopped")):
                await nestor.call("POST", f"/api/v2/conversations/{made.ids[name]}/{verb}", key, status=202)
                await nestor.until(key, made.ids[name], phase)
            await until_logged(made, "ready", 2)
            found = await nestor.call("GET", f"/api/v2/conversations/{made.ids['ready']}/events", key)
            made.ids["event"] = found["items"][0]["event"]["id"]
            for secret in ("KEPT", "RENAMED", "DROPPED"):
                await nestor.call("PUT", f"/api/v2/secrets/{secret}", key, json={"value": "v-0123456789"})
            yield made
        await engine.shut_down()


async def until_logged(place: Place, name: str, events: int) -> None:
    with anyio.fail_after(30):
        while (
            len((await place.nestor.call("GET", f"/api/v2/conversations/{place.ids[name]}/events", place.key))["items"])
            < events
        ):
            await anyio.sleep(0.02)


def dense(first: int, *, more: bool, count: int) -> Callable[[Any], bool]:
    step = 1 if first == 0 else -1
    return lambda answer: (
        set(answer) == {"events", "has_more"}
        and answer["has_more"] is more
        and len(answer["events"]) == count
        and all(b["id"] - a["id"] == step for a, b in zip(answer["events"], answer["events"][1:], strict=False))
    )


V0 = "/api/conversations"
V0_ROWS = [
    Row("GET", "/api/settings", is_=lambda a: a["llm_api_key"] is None and a["llm_api_key_set"] is True),
    Row("POST", "/api/settings", body={"condenser_max_size": 19}, status=422, is_=refused_fields("condenser_max_size")),
    Row("POST", "/api/settings", body={"language": "en", "unheard_of": 1}, is_=equals({"message": "Settings stored"})),
    Row(
        "POST", "/api/add-git-providers", body={"provider_tokens": {"nowhere": {"token": "t"}}}, status=422, is_=says()
    ),
    Row(
        "POST",
        "/api/add-git-providers",
        body={"provider_tokens": {"github": {"token": "two\nlines"}}},
        status=422,
        is_=says(field="token"),
    ),
    Row(
        "POST",
        "/api/add-git-providers",
        body={
            "provider_tokens": {
                "forgejo": {"token": "t-0", "host": "git.example.org"},
                "bitbucket_data_center": {"token": "t-1", "host": "bitbucket.example.org"},
                "enterprise_sso": {"token": "t-2"},
            }
        },
        is_=equals({"message": "Git providers stored"}),
    ),
    Row(
        "POST",
        "/api/add-git-providers",
        body={"provider_tokens": {"github": {"token": "ghp_0", "host": None}}},
        is_=equals({"message": "Git providers stored"}),
    ),
    Row("POST", "/api/unset-provider-tokens"),
    Row("GET", "/api/secrets", is_=lambda a: {"name", "description"} == set(a["custom_secrets"][0])),
    Row("POST", "/api/secrets", body={"name": "NEW", "value": "v", "description": "d"}, status=201),
    Row(
        "POST",
        "/api/secrets",
        body={"name": "KEPT", "value": "v"},
        status=400,
        is_=says(message="Secret KEPT already exists"),
    ),
    Row("PUT", "/api/secrets/RENAMED", body={"name": "RENAMED_2", "description": "d"}),
    Row("PUT", "/api/secrets/NOT_THERE", body={"name": "X", "description": None}, status=404, is_=says()),
    Row("DELETE", "/api/secrets/DROPPED"),
    Row("DELETE", "/api/secrets/NOT_THERE", status=404, is_=says(error="Secret with ID NOT_THERE not found")),
    Row("POST", V0, body={}, is_=has(STARTED, status="ok", message=None, conversation_status="STARTING")),
    Row(
        "POST",
        V0,
        body={
            "repository": None,
            "git_provider": None,
            "selected_branch": "main",
            "initial_user_msg": "look at this",
            "image_urls": ["https://example.org/a.png"],
            "replay_json": None,
            "suggested_task": None,
            "create_microagent": None,
            "conversation_instructions": "be brief",
            "mcp_config": None,
        },
        is_=has(STARTED, status="ok"),
    ),
    Row("POST", V0, body={"unheard_of": 1}, status=422, is_=refused_fields("unheard_of")),
    Row("POST", V0, body={"initial_user_msg": 1}, status=422, is_=refused_fields("initial_user_msg")),
    Row("POST", V0, body={"replay_json": "[]"}, status=501, is_=says(status="error", code="not_offered")),
    Row("POST", V0, body={"conversation_id": "a/b"}, status=400, is_=says(status="error")),
    Row(
        "POST",
        V0,
        body={"git_provider": "gitlab", "repository": "acme/app"},
        status=400,
        is_=says(status="error", msg_id="STATUS$GIT_PROVIDER_AUTHENTICATION_ERROR"),
    ),
    Row("POST", V0, body={"conversation_id": "{ready}"}, status=404),
    Row("GET", V0, is_=lambda a: set(a) == {"results", "next_page_id"} and all(set(i) == INFO for i in a["results"])),
    Row("GET", f"{V0}?limit=1", is_=lambda a: len(a["results"]) == 1 and isinstance(a["next_page_id"], str)),
    Row("GET", f"{V0}?selected_repository=acme/none", is_=equals({"results": [], "next_page_id": None})),
    Row("GET", f"{V0}?conversation_trigger=gui", is_=equals({"results": [], "next_page_id": None})),
    Row("GET", f"{V0}?limit=0", status=422, is_=refused_fields("limit")),
    Row(
        "GET",
        f"{V0}/{{ready}}",
        is_=has(
            INFO, status="RUNNING", runtime_status="STATUS$READY", trigger="openhands_api", conversation_version="V0"
        ),
    ),
    Row("GET", f"{V0}/{{ready}}", is_=lambda a: len(a["conversation_id"]) == 32 and a["url"] and a["session_api_key"]),
    Row(
        "GET", f"{V0}/{{paused}}", is_=has(INFO, status="STOPPED", runtime_status=None, url=None, session_api_key=None)
    ),
    Row("GET", f"{V0}/{{stopped}}", is_=has(INFO, status="ARCHIVED", url=None, session_api_key=None)),
    Row("GET", f"{V0}/{{unknown}}", status=404, is_=says(status="error")),
    Row("GET", f"{V0}/no-uuid", status=404, is_=says(status="error")),
    Row("GET", f"{V0}/{'a' * 101}", status=400, is_=says(status="error")),
    Row("GET", f"{V0}/a..b", status=400, is_=says(status="error")),
    Row("PATCH", f"{V0}/{{patched}}", body={"title": "new"}, is_=equals(True)),
    Row("PATCH", f"{V0}/{{patched}}", body={"title": ""}, status=422, is_=refused_fields("title")),
    Row("PATCH", f"{V0}/{{patched}}", body={"title": "t" * 201}, status=422, is_=refused_fields("title")),
    Row("PATCH", f"{V0}/{{unknown}}", body={"title": "new"}, status=404, is_=says(msg_id="CONVERSATION$NOT_FOUND")),
    Row("DELETE", f"{V0}/{{unknown}}", is_=equals(False)),
    Row("DELETE", f"{V0}/{{deleted}}", is_=equals(True)),
    Row(
        "POST",
        f"{V0}/{{ready}}/start",
        body={"providers_set": ["github"]},
        is_=has(STARTED, status="ok", conversation_status="RUNNING"),
    ),
    Row("POST", f"{V0}/{{ready}}/start", is_=has(STARTED, status="ok")),
    Row("POST", f"{V0}/{{unknown}}/start", body={}, status=404, is_=says(status="error")),
    Row("POST", f"{V0}/{{halted}}/stop", is_=has(STARTED, status="ok", conversation_status="RUNNING", message=None)),
    Row(
        "POST",
        f"{V0}/{{stopped}}/stop",
        is_=has(STARTED, status="ok", message="Conversation was not running", conversation_status="ARCHIVED"),
    ),
    Row("POST", f"{V0}/{{unknown}}/stop", status=404, is_=says(status="error")),
    Row("GET", f"{V0}/{{ready}}/events", is_=dense(0, more=False, count=3)),
    Row("GET", f"{V0}/{{ready}}/events?limit=2", is_=dense(0, more=True, count=2)),
    Row("GET", f"{V0}/{{ready}}/events?limit=0", is_=dense(0, more=True, count=0)),
    Row("GET", f"{V0}/{{ready}}/events?reverse=true&limit=2", is_=dense(2, more=True, count=2)),
    Row(
        "GET",
        f"{V0}/{{ready}}/events?start_id=1&end_id=1",
        is_=lambda a: [event["id"] for event in a["events"]] == [1] and not a["has_more"],
    ),
    Row("GET", f"{V0}/{{ready}}/events?start_id=50", is_=equals({"events": [], "has_more": False})),
    Row("GET", f"{V0}/{{ready}}/events?limit=101", status=400, is_=says(detail="Invalid limit")),
    Row("GET", f"{V0}/{{ready}}/events?limit=-1", status=400, is_=says(detail="Invalid limit")),
    Row("GET", f"{V0}/{{stopped}}/events", is_=dense(0, more=False, count=3)),
    Row("GET", f"{V0}/{{unknown}}/events", status=404, is_=says(status="error")),
    Row("POST", f"{V0}/{{gone}}/message", body={"message": "hi"}, is_=equals({"success": True})),
    Row("POST", f"{V0}/{{gone}}/message", body={}, status=422, is_=refused_fields("message")),
    Row("POST", f"{V0}/{{unknown}}/message", body={"message": "hi"}, status=404, is_=says(status="error")),
    Row(
        "POST",
        f"{V0}/{{gone}}/events",
        body={"action": "message", "args": {"content": "hi"}},
        is_=equals({"success": True}),
    ),
    Row("POST", f"{V0}/{{gone}}/events", body={"action": "message", "args": {}}, status=422),
    Row(
        "POST",
        f"{V0}/{{gone}}/events",
        body={"action": "run", "args": {"command": "ls"}},
        status=501,
        is_=says(code="not_offered"),
    ),
    Row(
        "GET",
        f"{V0}/{{ready}}/trajectory",
        is_=lambda a: set(a) == {"trajectory"} and [e["id"] for e in a["trajectory"]] == [0, 1, 2],
    ),
    Row("GET", f"{V0}/{{unknown}}/trajectory", status=404, is_=says(status="error")),
    Row("GET", f"{V0}/{{unknown}}/list-files", status=404, is_=says(status="error")),
    Row("GET", f"{V0}/{{paused}}/list-files", status=409, is_=says(status="error")),
    Row("GET", f"{V0}/{{ready}}/select-file", status=422, is_=refused_fields("file")),
    Row("GET", f"{V0}/{{unknown}}/zip-directory", status=404, is_=says(status="error")),
    Row("GET", f"{V0}/{{ready}}/config", is_=lambda a: set(a) == {"runtime_id", "session_id"}),
]

APPS = "/api/v1/app-conversations"
EVENTS = "/api/v1/conversation/{ready}/events"
V1_ROWS = [
    Row("POST", APPS, body={}, is_=has(TASK, detail=None)),
    Row(
        "POST",
        APPS,
        body={
            "initial_message": {"role": "user", "content": [{"text": "hi"}, {"type": "text", "text": "there"}]},
            "conversation_id": None,
            "sandbox_id": None,
            "title": "t",
            "llm_model": "openai/other",
            "selected_repository": None,
            "selected_branch": "main",
            "git_provider": None,
            "system_message_suffix": "s",
            "agent_type": "default",
            "trigger": "manual",
            "pr_number": [1, 2],
            "parent_conversation_id": UNKNOWN,
            "secrets": {"OWN": "v-own"},
            "plugins": [],
            "processors": [],
            "public": False,
            "unheard_of": 1,
        },
        is_=lambda a: set(a) == TASK and a["request"]["pr_number"] == [1, 2] and "v-own" not in str(a),
    ),
    Row("POST", APPS, body={"conversation_id": "no-uuid"}, status=422, is_=refused_fields("conversation_id")),
    Row("POST", APPS, body={"agent_type": "plan"}, status=501, is_=says(code="not_offered")),
    Row("POST", APPS, body={"sandbox_id": "s"}, status=501, is_=says(code="not_offered")),
    Row("POST", APPS, body={"initial_message": {**TEXT, "run": False}}, status=501, is_=says(code="not_offered")),
    Row(
        "GET",
        f"{APPS}/start-tasks?ids={{task_ready}}&ids={{unknown}}",
        is_=lambda a: set(a[0]) == TASK and a[0]["status"] == "READY" and a[0]["agent_server_url"] and a[1] is None,
    ),
    Row("GET", f"{APPS}/start-tasks?ids={{ready}}", is_=lambda a: a[0]["status"] == "READY"),
    Row("GET", f"{APPS}/start-tasks", status=422, is_=refused_fields("ids")),
    Row("GET", f"{APPS}/start-tasks?ids=no-uuid", status=400, is_=says()),
    Row(
        "POST",
        f"{APPS}/stream-start",
        body={"title": "streamed"},
        is_=lambda a: a[-1]["status"] == "READY" and all(set(t) == TASK for t in a),
    ),
    Row(
        "GET",
        f"{APPS}?ids={{ready}}&ids={{unknown}}&ids={{stopped}}",
        is_=lambda a: set(a[0]) == APP and a[1] is None and a[2]["sandbox_status"] == "MISSING",
    ),
    Row("GET", f"{APPS}?ids={{ready}}", is_=lambda a: a[0]["execution_status"] and a[0]["sandbox_status"] == "RUNNING"),
    Row(
        "GET",
        f"{APPS}?ids={{paused}}",
        is_=lambda a: (
            (a[0]["execution_status"], a[0]["sandbox_status"], a[0]["session_api_key"]) == (None, "PAUSED", None)
        ),
    ),
    Row("GET", f"{APPS}?ids=no-uuid", status=400, is_=says()),
    Row("GET", f"{APPS}?" + "&".join(["ids=" + UNKNOWN] * 100), status=400, is_=says()),
    Row("GET", APPS, status=422, is_=refused_fields("ids")),
    Row("GET", f"{APPS}/search", is_=lambda a: set(a) == PAGE and all(set(item) == APP for item in a["items"])),
    Row("GET", f"{APPS}/search?title__contains=STOPP", is_=lambda a: [i["title"] for i in a["items"]] == ["stopped"]),
    Row(
        "GET",
        f"{APPS}/search?title__contains=p&sort_order=TITLE",
        is_=lambda a: [i["title"] for i in a["items"]][-1] == "stopped",
    ),
    Row("GET", f"{APPS}/search?created_at__gte=2100-01-01T00:00:00Z", is_=equals({"items": [], "next_page_id": None})),
    Row("GET", f"{APPS}/search?updated_at__lt=2000-01-01T00:00:00", is_=equals({"items": [], "next_page_id": None})),
    Row("GET", f"{APPS}/search?sandbox_id__eq={{unknown}}", is_=equals({"items": [], "next_page_id": None})),
    Row("GET", f"{APPS}/search?limit=101", status=422, is_=refused_fields("limit")),
    Row("GET", f"{APPS}/search?sort_order=SIZE", status=422, is_=refused_fields("sort_order")),
    Row("GET", f"{APPS}/count?title__contains=stopped", is_=equals(1)),
    Row(
        "PATCH",
        f"{APPS}/{{patched}}",
        body={"public": True, "selected_branch": "b"},
        is_=has(APP, public=True, selected_branch="b"),
    ),
    Row("PATCH", f"{APPS}/{{unknown}}", body={"title": "new"}, status=404, is_=says()),
    Row("DELETE", f"{APPS}/{{unknown}}", status=404, is_=says()),
    Row("DELETE", f"{APPS}/{{dropped}}", is_=equals({"success": True})),
    Row("GET", f"{APPS}/{{unknown}}/download", status=404, is_=says()),
    Row("GET", f"{APPS}/{{unknown}}/file?file_path=a", status=404, is_=says()),
    Row(
        "POST",
        f"{APPS}/{{gone}}/send-message",
        body=TEXT,
        is_=lambda a: set(a) == {"success", "sandbox_status", "message"} and a["success"],
    ),
    Row(
        "POST",
        f"{APPS}/{{gone}}/send-message",
        body={"role": "user", "content": []},
        status=422,
        is_=refused_fields("content"),
    ),
    Row("POST", f"{APPS}/{{unknown}}/send-message", body=TEXT, status=404, is_=says()),
    Row("POST", f"{APPS}/{{paused}}/send-message", body=TEXT, status=409, is_=says(sandbox_status="PAUSED")),
    Row("POST", f"{APPS}/{{stopped}}/send-message", body=TEXT, status=410, is_=says(sandbox_status="MISSING")),
    Row(
        "GET",
        f"{EVENTS}/search",
        is_=lambda a: set(a) == PAGE and [e["source"] for e in a["items"]] == ["user", "agent"],
    ),
    Row(
        "GET",
        f"{EVENTS}/search?sort_order=TIMESTAMP_DESC&limit=1",
        is_=lambda a: a["items"][0]["source"] == "agent" and a["next_page_id"] == "1",
    ),
    Row("GET", f"{EVENTS}/search?page_id=2", is_=lambda a: [e["source"] for e in a["items"]] == ["agent"]),
    Row("GET", f"{EVENTS}/search?page_id=x", status=422, is_=says()),
    Row("GET", f"{EVENTS}/search?kind__eq=PauseEvent", is_=equals({"items": [], "next_page_id": None})),
    Row("GET", f"{EVENTS}/search?kind__eq=openhands.sdk.event.MessageEvent", is_=lambda a: len(a["items"]) == 2),
    Row("GET", f"{EVENTS}/search?timestamp__gte=2100-01-01T00:00:00Z", is_=lambda a: a["items"] == []),
    Row("GET", f"{EVENTS}/search?timestamp__lt=2100-01-01T00:00:00", is_=lambda a: len(a["items"]) == 2),
    Row("GET", f"{EVENTS}/search?limit=0", status=422, is_=refused_fields("limit")),
    Row("GET", f"{EVENTS}/count", is_=equals(2)),
    Row("GET", f"{EVENTS}/count?kind__eq=PauseEvent", is_=equals(0)),
    Row("GET", f"{EVENTS}?id={{event}}&id=not-there", is_=lambda a: a[0]["kind"] == "MessageEvent" and a[1] is None),
    Row("GET", "/api/v1/conversation/{paused}/events/count", is_=equals(2)),
    Row("GET", "/api/v1/conversation/{stopped}/events/search", is_=lambda a: len(a["items"]) == 2),
    Row("GET", "/api/v1/conversation/{unknown}/events/search", status=404, is_=says()),
    Row("GET", "/api/v1/events/search?conversation_id__eq={ready}", is_=lambda a: len(a["items"]) == 2),
]


@pytest.mark.parametrize("row", V0_ROWS + V1_ROWS, ids=str)
async def test_a_row_of_the_contract(place: Place, row: Row) -> None:
    if row.body == {"conversation_id": "{ready}"}:  # an id that is there joins it, whatever its form
        row = Row(row.method, row.path, body={"conversation_id": place.ids["ready"].replace("-", "")})
    answer = await place.ask(row)
    assert answer.status_code == row.status, answer.text
    assert row.is_(answer.json()), answer.text


@pytest.mark.parametrize("path", [V0, f"{V0}/{{gone}}/message", APPS, f"{APPS}/{{gone}}/send-message"])
@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 422),
        (b"[]", 422),
        (b'"text"', 422),
        (b'{"title": "\\u0000", "message": "\\u0000"}', 422),
        (b'{"title": "\\ud800", "message": "\\ud800"}', 422),
        (b'{"secrets": ' + b"[" * 40 + b"]" * 40 + b"}", 422),
        (b'{"message": NaN}', 422),
        (b'{"message": "' + b"x" * (2 * 1024 * 1024) + b'"}', 413),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_a_body_that_nobody_can_keep_is_refused_in_words(
    place: Place, path: str, content: bytes, status: int
) -> None:
    async def pieces() -> AsyncIterator[bytes]:  # without a length, so that it is read
        for start in range(0, len(content), 65_536):
            yield content[start : start + 65_536]

    headers = {"Authorization": f"Bearer {place.key}", "Content-Type": "application/json"}
    answer = await place.nestor.http.post(path.format_map(place.ids), headers=headers, content=pieces())
    assert answer.status_code == status, answer.text
    assert isinstance(answer.json()["error"], str)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{EVENTS}/search?timestamp__gte=0001-01-01T00:00:00%2B14:00", 200),
        (f"{EVENTS}/search?timestamp__lt=9999-12-31T23:59:59-14:00", 200),
        (f"{EVENTS}/search?timestamp__lt=yesterday", 422),
        (f"{EVENTS}/search?page_id=%00", 422),
        (f"{EVENTS}/search?page_id=999999999999999", 200),
        (f"{EVENTS}/search?sort_order=TIMESTAMP_DESC&page_id=999999999999999", 200),
        (f"{EVENTS}/search?kind__eq=%00", 200),
        (f"{EVENTS}?id=%00", 200),
        (f"{APPS}/search?page_id=garbage", 422),
        (f"{APPS}/search?page_id=-1&sort_order=TITLE", 422),
        (f"{APPS}/search?created_at__gte=0001-01-01T00:00:00%2B14:00", 200),
        (f"{APPS}?ids=%00", 400),
        (f"{V0}?page_id=garbage", 422),
        (f"{V0}/%00", 400),
        (f"{V0}/{{ready}}/events?start_id=9007199254740992", 422),
        (f"{V0}/{{ready}}/events?end_id=-1", 422),
        (f"{V0}/{{ready}}/events?start_id=9&end_id=3&reverse=true", 200),
    ],
)
async def test_a_strange_question_has_an_answer(place: Place, path: str, status: int) -> None:
    answer = await place.ask(Row("GET", path))
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize("row", [row for row in V0_ROWS + V1_ROWS if "{" in row.path], ids=str)
async def test_what_another_tenant_has_is_answered_as_what_is_not_there(place: Place, row: Row) -> None:
    nowhere = dict.fromkeys(place.ids, UNKNOWN) | {"event": place.ids["event"]}
    theirs, nobodys = [await place.ask(row, key=place.other, ids=ids) for ids in (place.ids, nowhere)]
    assert theirs.status_code == nobodys.status_code
    told, expected = theirs.json(), nobodys.json()
    if isinstance(told, dict):
        told.pop("request_id", None), expected.pop("request_id", None)
    assert told == expected


@pytest.mark.parametrize("path", sorted(MISSING))
async def test_what_is_not_offered_says_what_is_missing(place: Place, path: str) -> None:
    shown = path.replace("{rest:path}", "models").format_map({"conversation": place.ids["ready"], "key": "k"})
    answer = await place.ask(Row("GET", shown))
    assert answer.status_code == 501, answer.text
    assert says(code="not_offered")(answer.json())
    assert answer.json()["hint"]
    assert (await place.nestor.http.get(shown)).status_code == 401


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key", "X-Access-Token", "X-Session-API-Key"])
@pytest.mark.parametrize("path", [V0, f"{APPS}/search"])
async def test_a_key_is_taken_in_four_headers(place: Place, header: str, path: str) -> None:
    sent = f"Bearer {place.key}" if header == "Authorization" else place.key
    assert (await place.nestor.http.get(path, headers={header: sent})).status_code == 200
    wrong = await place.nestor.http.get(path, headers={header: sent + "x"})
    assert wrong.status_code == 401
    assert says()(wrong.json())
    decided = {header: sent, "X-Session-API-Key": "another"} if header != "X-Session-API-Key" else {header: sent}
    assert (await place.nestor.http.get(path, headers=decided)).status_code == 200
