"""A runtime that tells the orchestrator things as fast as it can gets its allowance, and nobody else's."""

from dataclasses import replace
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.api import turnstile
from orchestrator.api.turnstile import CALLER, Caller, Rates, Turnstile, charge_events

pytestmark = pytest.mark.anyio
SLOW = Rates(  # none is earned meanwhile
    posts=1 / 600, bytes=1000, events=1 / 60, strangers=1 / 600, wrong=1 / 600, burst_seconds=2000, hold=0.05
)


class Served:
    """An application that knows one key for each runtime and counts what reaches it."""

    def __init__(self, rates: Rates) -> None:
        self.reached: list[str] = []
        routes = [Route("/runtimes/{runtime}/conversations", self._serve, methods=["POST"])]
        self.turnstile = Turnstile(Starlette(routes=routes), rates)

    async def _serve(self, request: Request) -> Response:
        runtime = request.path_params["runtime"]
        self.reached.append(runtime)
        charge_events(request.scope, int(request.headers.get("x-events", "0")))
        right = request.headers["x-session-api-key"] == f"key of {runtime}"
        await request.body()
        return Response(status_code=200 if right else 401)

    async def post(self, runtime: str, key: str = "", *, address: str = "10.0.0.1", **more: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self.turnstile, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://nestor") as http:
            headers = {"X-Session-API-Key": key or f"key of {runtime}", **more.pop("headers", {})}
            return await http.post(f"/runtimes/{runtime}/conversations", headers=headers, **more)

    async def statuses(self, count: int, runtime: str, key: str = "", **more: Any) -> list[int]:
        return [(await self.post(runtime, key, **more)).status_code for _ in range(count)]


async def test_a_runtime_has_its_allowance_and_takes_nothing_of_another_ones() -> None:
    served = Served(SLOW)
    assert await served.statuses(8, "a") == [200] * 4 + [429] * 4, "the first as a stranger"
    assert await served.statuses(2, "b") == [200, 200]
    assert served.reached.count("a") == 4, "what is refused is not looked at"
    refused = await served.post("a")
    assert (refused.headers["retry-after"], refused.json()["code"]) == ("1", "runtime_too_fast")


async def test_who_shows_wrong_keys_uses_up_the_allowance_of_its_address() -> None:
    served = Served(SLOW)
    assert await served.statuses(1, "a") == [200], "its key is known from here on"
    told = [await served.statuses(1, f"guess-{number}", "wrong") for number in range(6)]
    assert [status for (status,) in told].count(429) == 4
    assert await served.statuses(1, "a") == [200], "a key that was right has its own"
    assert await served.statuses(1, "b") == [429]
    assert await served.statuses(1, "b", address="10.0.0.2") == [200]


async def test_a_wrong_key_costs_more_than_one_that_was_not_known() -> None:
    served = Served(replace(SLOW, wrong=1 / 1800))
    assert await served.statuses(2, "a", "wrong") == [401, 429]
    served = Served(replace(SLOW, wrong=1 / 1800))
    assert [await served.statuses(1, runtime) for runtime in "abc"] == [[200]] * 3


async def test_the_events_of_a_post_count_when_they_are_known() -> None:
    served = Served(SLOW)
    assert await served.statuses(1, "a") == [200]
    assert await served.statuses(3, "a", headers={"X-Events": "40"}) == [200, 429, 429]
    assert await served.statuses(1, "b") == [200]


async def test_a_key_that_is_right_no_more_is_a_strangers() -> None:
    served = Served(SLOW)
    assert await served.statuses(1, "a") == [200]
    assert await served.statuses(2, "a", "an older key") == [401, 401]
    assert served.turnstile._known.keys() == {"a"}, "the right one stays known"


async def test_an_answer_before_the_key_is_looked_at_makes_no_key_right() -> None:
    served = Served(SLOW)
    assert await served.statuses(1, "a") == [200]
    assert await served.statuses(1, "a/nothing", "wrong") == [404]
    assert await served.statuses(1, "b/nothing", "wrong") == [404]
    assert served.turnstile._known.keys() == {"a"}
    assert await served.statuses(1, "b/nothing", "wrong") == [429], "the address's allowance is used up"
    assert await served.statuses(1, "a") == [200], "the right key is known as before"


async def test_a_length_that_is_only_claimed_shuts_nobody_out_for_long() -> None:
    served = Served(Rates(largest=2000, bytes=1000, burst_seconds=2, hold=60))
    with anyio.fail_after(30):
        claimed = {"Content-Length": "99999999999999"}
        assert (await served.post("guess", "wrong", headers=claimed)).status_code == 401
        assert await served.statuses(1, "a") == [200], "of the same address"


async def test_bytes_count_whether_their_number_is_told_or_not() -> None:
    served = Served(Rates(posts=100, bytes=1000, burst_seconds=2, hold=0.05))
    assert await served.statuses(1, "a") == [200]
    assert (await served.post("a", content=b"x" * 5000)).status_code == 200, "one that is larger than a burst, alone"
    assert (await served.post("a", content=b"x")).status_code == 429

    async def untold() -> Any:
        yield b"x"

    assert (await served.post("b", content=untold())).status_code == 200
    assert await served.statuses(1, "b") == [200], "as a stranger it came out of the address's allowance"
    assert (await served.post("b", content=untold())).status_code == 200
    assert await served.statuses(1, "b") == [429]


async def test_who_is_a_little_early_waits_and_is_served() -> None:
    served = Served(Rates(posts=50, burst_seconds=0.02, hold=30))
    with anyio.fail_after(30):
        assert await served.statuses(20, "a") == [200] * 20
    assert not served.turnstile._held


async def test_refusals_take_their_turns_and_end_when_nobody_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turnstile, "_MOST_HELD", 2)
    served = Served(replace(SLOW, strangers=1 / 3000, refusals=1 / 3600, longest_hold=7200))
    assert await served.statuses(1, "a", "wrong") == [401]
    caller = Caller(anyio.Event(), lambda: None)
    answered: list[int] = []

    async def known_caller(scope: Any, receive: Any, send: Any) -> None:
        await served.turnstile({**scope, CALLER: caller}, receive, send)

    async def refused() -> None:
        transport = httpx.ASGITransport(known_caller, client=("10.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://nestor") as http:
            answered.append((await http.post("/runtimes/a/conversations")).status_code)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(refused)
            while not answered:
                await anyio.wait_all_tasks_blocked()
                await anyio.sleep(0.01)
            assert [held.count for held in served.turnstile._held.values()] == [1], "the second one has an hour to wait"
            tasks.start_soon(refused)
            await anyio.wait_all_tasks_blocked()
            assert await served.statuses(1, "a", "wrong") == [429], "more than that are not held"
            caller.over.set()
    assert answered == [429] * 3
    assert not served.turnstile._held
