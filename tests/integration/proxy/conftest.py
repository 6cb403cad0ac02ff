"""What the tests of the front share: a front on uvloop, and a runtime that keeps what it was sent."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.front_rig import Rig

#: With the embedded front alone: its manner, its shutdown, the ports of runtimes, TLS, what it counts of connections
#: that ask nothing, and the parser itself (behind nginx: `test_nginx.py`).
EMBEDDED_ONLY = (
    "test_manner.py",
    "test_shutdown.py",
    "test_ports.py",
    "test_tls.py",
    "test_differential.py",
    "test_addresses.py",
)
#: In each run; `DATA_PLANE=nginx` runs all that is equal.
SELECTED = {
    "test_the_clients_key_is_swapped_for_the_inner_key",
    "test_what_the_caller_must_not_say_does_not_arrive",
    "test_target_bytes_are_kept",
    "test_the_runtime_is_found_by_host",
    "test_redirects_stay_with_the_runtime",
    "test_a_wrong_key_and_no_key_are_401",
    "test_init_never_passes[POST-/api/%69nit]",
    "test_only_a_right_key_wakes_a_runtime",
    "test_nobody_listening_is_502_and_forgets_the_route",
    "test_a_body_is_not_sent_again_to_a_new_generation",
    "test_large_bodies_go_up_in_flat_memory[True]",
    "test_events_arrive_as_they_are_sent",
    "test_a_client_that_goes_away_ends_the_request_at_the_runtime",
    "test_many_requests_to_many_runtimes_never_cross",
    "test_the_key_in_a_header",
    "test_the_key_in_the_first_frame_is_swallowed",
    "test_a_withdrawn_route_closes_its_sockets_and_no_others",
    "test_another_generation_never_gets_an_old_connection",
    "test_runtimes_of_one_tenant_have_a_bounded_number_of_connections_together",
    "test_a_runtime_has_a_bounded_number_of_connections",
    "test_a_runtime_that_answers_nonsense_is_502",
    "test_answers_by_path_are_sandboxed_and_cleaned",
    "test_the_body_of_a_refused_request_is_no_request",
    "test_a_request_pipelined_behind_a_runtimes_is_answered_in_its_turn_or_not_at_all",
    "test_trailers_reach_nobody",
    "test_a_body_that_stalls_is_given_up[/runtimes/{}/x]",
    "test_an_oversize_head_is_refused[many lines]",
    "test_another_key_of_the_runtime_closes_the_door",
    "test_chunks_by_line_feed_have_one_reading",
} | {
    f"test_an_ambiguous_head_is_refused_and_the_connection_closed[{case}]"
    for case in (
        "two lengths",
        "length and chunks",
        "bare line feed",
        "length behind a bare line feed",
        "chunks behind a bare line feed and a dropped name",
        "the credential twice, the right one first",
        "upgrade with a body",
    )
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test of the front against each data plane that is to behave the same."""
    if "data_plane" in metafunc.fixturenames:
        alone = metafunc.module.__file__.endswith(EMBEDDED_ONLY)
        metafunc.parametrize("data_plane", ["embedded"] if alone else ["embedded", "nginx"])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Behind nginx what is selected, or all of it alone."""
    wanted = os.environ.get("DATA_PLANE", "")
    kept, left_out = [], []
    for item in items:
        plane = getattr(item, "callspec", None) and item.callspec.params.get("data_plane")
        name = item.name.replace("nginx-", "").replace("-nginx", "").replace("[nginx]", "")
        take = plane == "nginx" if wanted == "nginx" and plane else plane != "nginx" or name in SELECTED
        (kept if take else left_out).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}  # as in production: its transports differ from asyncio's


@pytest.fixture
async def rig(data_plane: str) -> AsyncIterator[Rig]:
    rig = Rig(data_plane)
    try:
        await rig.open()
        yield rig
    finally:
        await rig.close()


@pytest.fixture
async def bare_rig(data_plane: str) -> AsyncIterator[Rig]:
    """A rig that is not open yet, for tests with limits of their own."""
    rig = Rig(data_plane)
    try:
        yield rig
    finally:
        await rig.close()


@pytest.fixture
async def recorder(rig: Rig) -> dict[str, Any]:
    """An upstream that keeps the exact bytes of every request without a body and answers 200."""
    seen: dict[str, Any] = {"requests": [], "connections": 0}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen["connections"] += 1
        while True:
            seen["requests"].append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    seen["port"] = await rig.raw(serve)
    return seen
