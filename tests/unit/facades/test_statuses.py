"""The four older vocabularies (outer-api.md 7), and which generation of clients a request comes from."""

from dataclasses import replace

import pytest
from starlette.datastructures import Headers
from support.records import a_conversation

from orchestrator.domain.conversation import Desired, Phase, Reason, Why
from orchestrator.facades.dialect import Dialect, of_body, of_headers
from orchestrator.facades.statuses import TABLE, sandbox_of, statuses_of


def test_every_phase_has_its_words() -> None:
    assert set(TABLE) == set(Phase)
    assert [phase for phase, row in TABLE.items() if row.pod == "ready" or row.sandbox == "RUNNING"] == [Phase.READY]


def test_a_lost_runtime_is_missing_and_a_failed_start_is_an_error() -> None:
    failed = replace(a_conversation(), phase=Phase.FAILED, why=Why(Reason.IMAGE_PULL, "no"))
    lost = replace(failed, why=Why(Reason.RUNTIME_LOST, "gone"))
    assert (sandbox_of(failed), statuses_of(failed).conversation) == ("ERROR", "ERROR")
    assert (sandbox_of(lost), statuses_of(lost).conversation) == ("MISSING", "ARCHIVED")
    recovering = replace(lost, restart_at=lost.created_at)
    assert statuses_of(recovering).conversation == "ERROR"


def test_a_stopped_one_is_missing_where_its_conversation_still_refers_to_it() -> None:
    stopped = replace(a_conversation(), phase=Phase.STOPPED)
    assert (statuses_of(stopped).sandbox, sandbox_of(stopped)) == (None, "MISSING")


def test_what_a_resume_or_a_use_brings_back_is_paused_also_where_a_driver_had_to_stop_it() -> None:
    stopped = replace(a_conversation(), phase=Phase.STOPPED, desired=Desired.PAUSED)
    idle = replace(a_conversation(), phase=Phase.STOPPED, why=Why(Reason.IDLE, "unused"))
    assert {statuses_of(one).sandbox for one in (stopped, idle)} == {"PAUSED"}
    assert statuses_of(replace(idle, desired=Desired.STOPPED)).sandbox is None


def test_a_deletion_is_told_at_once_and_a_restart_while_it_is_coming() -> None:
    assert statuses_of(replace(a_conversation(), phase=Phase.READY, desired=Desired.DELETED)).runtime == "stopped"
    again = replace(a_conversation(), restart_at=a_conversation().created_at)
    assert (statuses_of(again).sandbox, statuses_of(again).conversation) == ("STARTING", "ERROR")


@pytest.mark.parametrize(
    ("headers", "dialect"),
    [
        ({"authorization": "Bearer k"}, Dialect.V0),
        ({"x-access-token": "k"}, Dialect.V0),
        ({"x-api-key": "k"}, Dialect.V0),
        ({"x-session-api-key": "k"}, Dialect.AGENT_SERVER),
        ({"authorization": "Bearer k", "x-session-api-key": "s"}, Dialect.V0),
        ({}, Dialect.V0),
    ],
)
def test_the_credential_tells_the_dialect(headers: dict[str, str], dialect: Dialect) -> None:
    assert of_headers(Headers(headers)) is dialect


@pytest.mark.parametrize("key", ["agent", "agent_settings", "agent_profile_id", "workspace"])
def test_a_start_body_with_one_of_four_keys_is_the_agent_servers(key: str) -> None:
    assert of_body(b'{"%s": null, "other": 1}' % key.encode()) is Dialect.AGENT_SERVER


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"agent"', b"{}", b'{"initial_user_msg": "agent"}'])
def test_any_other_start_body_is_v0(body: bytes) -> None:
    assert of_body(body) is Dialect.V0
