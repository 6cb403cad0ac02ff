"""Examples of what the native API takes and answers, by the name of the schema: `document.py` puts them on each call.

One story: a tenant, its user Ann, and a conversation of hers. That each is as its schema says is tested, and that what
is sent is taken by a real orchestrator (`test_examples.py`); what is really answered is compared with the same schemas.
"""

from collections.abc import Mapping
from typing import Any

Example = Any
_TENANT, _USER = "0b6f6c1e-6c3b-4f0a-9a54-2a1d3c5e7f90", "5d1c7e0a-93f2-4b7e-8a11-6f2e4d3c2b1a"
_KEY, _HOOK = "c3a9e8d7-1f2b-4c6d-8e5f-0a9b8c7d6e5f", "7e4d2c1b-0a9f-4e8d-9c7b-6a5f4e3d2c1b"
_CONVERSATION, _RUNTIME = "9f8e7d6c-5b4a-4392-8170-6f5e4d3c2b1a", "2a4c6e80-1b3d-4f5a-8c7e-9d0b1f2e3a4c"
_OPERATION, _LINK = "4b5c6d7e-8f90-4a1b-9c2d-3e4f5a6b7c8d", "1d2e3f4a-5b6c-4d7e-8f90-a1b2c3d4e5f6"
_MORNING, _LATER = "2026-03-02T09:00:00.000Z", "2026-03-02T09:00:04.200Z"

REQUESTS: Mapping[str, Example] = {
    "TenantBody": {"name": "Acme"},
    "TenantPatchBody": {
        "limits": {"max_runtimes": 50, "starts_per_minute": None},
        "sizes": [1],
        "budget": {"monthly_usd": 500.0, "monthly_usd_per_user": 50.0, "when_reached": "pause"},
    },
    "UserBody": {"name": "Ann", "external_id": "crm-4711"},
    "KeyBody": {"name": "backend", "scopes": ["read", "write"], "expires_at": "2090-01-01T00:00:00Z"},
    "SettingsBody": {
        "agent_settings": {"llm": {"model": "openai/gpt-4o", "api_key": "the model's key"}},
        "conversation_settings": {"max_iterations": 200},
        "limits": {"idle_pause_seconds": 900},
    },
    "SecretBody": {"value": "what it is", "description": "For the package registry"},
    "ProviderBody": {"token": "a token of that provider"},
    "ConversationBody": {
        "repository": "acme/shop",
        "branch": "main",
        "git_provider": "github",
        "initial_message": "Make the tests pass.",
        "title": "Broken tests",
        "labels": {"ticket": "4711"},
    },
    "DescriptionBody": {"title": "Tests of the shop", "labels": {"ticket": "4711", "draft": None}},
    "LabelsBody": {"labels": {"team": "blue", "draft": None}},
    "AllLabelsBody": {"ticket": "4711", "team": "blue"},
    "ForkBody": {"title": "Another way", "at": 12},
    "UpgradeBody": {},
    "InboxMessageBody": {"content": "Now the linter.", "client_id": "m-2"},
    "LinkBody": {"port": 3000, "expires_in": 3600},
    "BareRuntimeBody": {"name": "box", "environment": {"CI": "1"}, "labels": {"team": "blue"}},
    "WebhookBody": {"url": "https://hooks.example.com/nestor", "events": ["conversation.status_changed"]},
    "WebhookChange": {"description": "For the dashboard", "enabled": True},
    "Rotation": {"overlap_seconds": 3600},
}

_tenant = {
    "id": _TENANT,
    "name": "Acme",
    "limits": {"max_runtimes": 50},
    "sizes": [1],
    "images": None,
    "budget": {
        "monthly_usd": 500.0,
        "monthly_tokens": None,
        "monthly_usd_per_user": 50.0,
        "monthly_tokens_per_user": None,
        "thresholds": [50, 80, 100],
        "when_reached": "pause",
    },
    "version": 2,
    "created_at": _MORNING,
}
_user = {"id": _USER, "name": "Ann", "external_id": "crm-4711", "tenant": _TENANT, "created_at": _MORNING}
_key = {
    "id": _KEY,
    "name": "backend",
    "kind": "tenant",
    "user": None,
    "scopes": ["read", "write"],
    "created_at": _MORNING,
    "expires_at": "2090-01-01T00:00:00.000Z",
    "revoked": False,
}
_settings = {
    "agent_settings": {"llm": {"model": "openai/gpt-4o", "api_key": "**********"}},
    "conversation_settings": {"max_iterations": 200},
    "limits": {"idle_pause_seconds": 900.0},
    "llm_api_key_is_set": True,
}
_secret = {"name": "REGISTRY_TOKEN", "description": "For the package registry", "version": 1}
_provider = {"provider": "github", "host": None, "user_id": None, "version": 1}
_why = {"reason": "requested", "message": "", "hint": "", "retryable": False, "step": None, "log_tail": []}
_record = {
    "user": _USER,
    "labels": {"ticket": "4711"},
    "phase": "ready",
    "status": "running",
    "desired": "running",
    **_why,
    "attempt": 1,
    "restart_at": None,
    "version": 9,
    "fence": 1,
    "image": None,
    "size": 1,
    "operation": _OPERATION,
    "archived_at": None,
    "purge_at": None,
    "created_at": _MORNING,
    "updated_at": _LATER,
    "phase_since": _LATER,
}
_url = f"https://nestor.example.com/runtimes/{_RUNTIME}"
_conversation = {
    "id": _CONVERSATION,
    "title": "Broken tests",
    "repository": "acme/shop",
    "branch": "main",
    "git_provider": "github",
    "fork_of": None,
    "runtime": {"id": _RUNTIME, "generation": 1, "url": _url, "session_key": None},
    **_record,
}
_runtime = {"id": _RUNTIME, "name": "box", "generation": 1, "url": _url, "session_key": None, **_record}
_details: dict[str, Example] = {
    "idle": {"pause_after_seconds": 900.0, "unused_since": _LATER, "pauses_at": "2026-03-02T09:15:04.200Z"},
    "holds": [],
    "schedule": [{"act": "pause", "at": "2026-03-02T09:15:04.200Z", "reason": "idle"}],
    "failures": [],
    "configuration": {
        "held": "3.1",
        "digest": "5f0c2d1e",
        "wanted": "3.1",
        "current": True,
        "names": {"settings": ["/llm/model"], "git_providers": ["github"], "secrets": ["REGISTRY_TOKEN"]},
        "pushed_at": _LATER,
        "compared": "values",
        "drifted": [],
        "drift": None,
        "trouble": None,
    },
    "queue": None,
    "stuck": [],
}
_webhook = {
    "id": _HOOK,
    "url": "https://hooks.example.com/nestor",
    "events": ["conversation.status_changed"],
    "description": "For the dashboard",
    "enabled": True,
    "disabled_reason": None,
    "secrets": [{"number": 1, "expires_at": None}],
    "waiting": 0,
    "waiting_bytes": 0,
    "failures": 0,
    "failing_since": None,
    "next_attempt_at": None,
    "version": 1,
    "created_at": _MORNING,
    "updated_at": _MORNING,
}
_delivery = {
    "id": "1772442004200-0",
    "event_id": "evt_9f8e7d6c_3",
    "type": "conversation.status_changed",
    "sequence": 3,
    "conversation_id": _CONVERSATION,
    "attempt": 1,
    "state": "delivered",
    "status": 204,
    "problem": None,
    "milliseconds": 41,
    "at": _LATER,
}
_message = {"id": "m-2", "state": "accepted", "sequence": 2, "event_sequence": 14}
_link = {
    "id": _LINK,
    "port": 3000,
    "path": None,
    "user": _USER,
    "generation": 1,
    "created_at": _LATER,
    "expires_at": "2026-03-02T10:00:04.200Z",
}
_snapshot = {
    "id": "6a7b8c9d-0e1f-4a2b-8c3d-4e5f6a7b8c9d",
    "at": 14,
    "bytes": 1_048_576,
    "user": _USER,
    "created_at": _LATER,
}
_cost = {"usd": 0.41827, "prompt_tokens": 61_204, "completion_tokens": 3_911}
_spent = {
    "month": "2026-03",
    "ends_at": "2026-04-01T00:00:00.000Z",
    "usd": 412.07551,
    "prompt_tokens": 58_311_920,
    "completion_tokens": 2_204_118,
}
_limit = {"rule": "tenant.runtimes", "limit": 50, "current": 3}
_audit = {
    "id": "e1d2c3b4-a596-4877-8695-a4b3c2d1e0f9",
    "at": _MORNING,
    "actor": {"kind": "tenant", "key": _KEY, "user": _USER, "runtime": None, "subject": None},
    "address": "203.0.113.7",
    "verb": "POST",
    "resource": "/api/v2/conversations",
    "object": {"kind": "conversation", "id": _CONVERSATION, "user": _USER},
    "outcome": "accepted",
    "code": None,
    "request_id": "7f3c1d2e9b4a4f6e8d0c5b6a79881234",
}


def _page(*items: Example, following: str | None = None) -> Example:
    return {"items": list(items), "next_page_id": following}


ANSWERS: Mapping[str, Example] = {
    "Tenant": _tenant,
    "TenantPage": _page(_tenant),
    "User": _user,
    "UserPage": _page(_user),
    "ApiKey": _key,
    "NewApiKey": {**_key, "key": f"nst_tenant_{_KEY.replace('-', '')}_shown-this-once"},
    "ApiKeyPage": _page(_key),
    "Settings": _settings,
    "EffectiveSettings": {
        **_settings,
        "origin": {"/agent_settings/llm/model": "tenant", "/limits/idle_pause_seconds": "operator"},
    },
    "Secret": _secret,
    "SecretPage": _page(_secret),
    "GitProvider": _provider,
    "GitProviderPage": _page(_provider),
    "Conversation": _conversation | _details | {"cost": _cost},
    "ConversationPage": _page(_conversation, following="MTc3MjQ0MjAwMDAwMDo5ZjhlN2Q2Yw"),
    "Runtime": _runtime | _details,
    "RuntimePage": _page(_runtime),
    "Count": {"count": 1284, "next_page_id": None},
    "DryRun": {
        "decision": "queue",
        "when_full": "queue",
        "rule": "tenant.runtimes",
        "limit": 50,
        "current": 50,
        "retry_after": None,
        "place": 3,
        "would_pause": [],
        "waiting": 2,
        "limits": [_limit | {"current": 50}],
    },
    "Operation": {
        "id": _OPERATION,
        "kind": "start",
        "state": "succeeded",
        "conversation": _CONVERSATION,
        "failure": None,
        "stages": [
            {"name": "create", "state": "succeeded", "started_at": _MORNING, "seconds": 0.8},
            {"name": "start", "state": "succeeded", "started_at": "2026-03-02T09:00:00.800Z", "seconds": 3.4},
        ],
        "created_at": _MORNING,
        "updated_at": _LATER,
    },
    "TenantUsage": {"spent": _spent, "runtimes": 3, "waiting": 0, "when_full": "reject", "limits": [_limit]},
    "Webhook": _webhook,
    "NewWebhook": _webhook | {"secret": "whsec_shown-this-once"},
    "WebhookPage": _page(_webhook),
    "Delivery": _delivery,
    "DeliveryPage": _page(_delivery),
    "Redelivery": {"event_id": "evt_9f8e7d6c_3", "type": "conversation.status_changed", "state": "queued"},
    "Redeliveries": {"queued": 12, "first_sequence": 40, "last_sequence": 57, "complete": True},
    "Message": _message,
    "MessagePage": _page(_message),
    "EventPage": _page({"sequence": 14, "event": {"kind": "MessageEvent", "source": "user", "id": "m-2"}}),
    "EntryPage": _page({"name": "README.md", "kind": "file", "size": 812, "modified_at": _LATER, "etag": '"32c-1"'}),
    "Written": {"path": "notes/plan.md", "size": 812},
    "Link": _link,
    "NewLink": _link | {"url": "https://l-shown-this-once.nestor.example.com/"},
    "LinkPage": _page(_link),
    "Snapshot": _snapshot,
    "SnapshotPage": _page(_snapshot),
    "Usage": {
        "cpu_seconds": 12.5,
        "memory_bytes": 268_435_456,
        "memory_limit_bytes": 2_147_483_648,
        "processes": 9,
        "disk_bytes": 52_428_800,
        "size": 1,
        "cpu_limit": 1.0,
        "processes_limit": 512,
        "open_files_limit": 4096,
        "log_limit_bytes": 10_485_760,
        "disk_limit_bytes": 10_737_418_240,
    },
    "Logs": {"lines": ["the server listens"], "live": True},
    "AuditPage": _page(_audit),
}

_AT_ONCE = {"phase": "pending", "status": "starting"}
#: what a record says in the answer of a call that has been accepted and not done, by the last part of its path
UNDER_WAY: Mapping[str, Mapping[str, Example]] = {
    "pause": {"desired": "paused"},
    "stop": {"desired": "stopped"},
    "undelete": {"phase": "deleting", "status": "stopped", "desired": "stopped"},
    "resume": {"phase": "paused", "status": "paused"},
    "start": {"phase": "stopped", "status": "stopped"},
}
_GONE = {"desired": "deleted", "purge_at": "2026-03-02T09:10:00.000Z"}


def answer(name: str, *, status: int, method: str, path: str) -> Example:
    """What a call answers, by the schema. Raises `KeyError` for one that has none."""
    example = ANSWERS[name]
    if status != 202 or name not in ("Conversation", "Runtime"):
        return example
    if method == "delete":
        return _unaddressed(example, _GONE)
    verb = path.rpartition("/")[2]
    if verb in ("pause", "stop"):
        return example | UNDER_WAY[verb]
    return _unaddressed(example, UNDER_WAY.get(verb, _AT_ONCE))


def _unaddressed(record: Example, more: Mapping[str, Example]) -> Example:
    """One that has no runtime now."""
    none: dict[str, Example] = {"url": None, "idle": None, "configuration": None, "schedule": []}
    shown = {name: none.get(name, value) for name, value in (record | more).items()}
    return shown | ({"runtime": record["runtime"] | {"url": None}} if "runtime" in record else {})
