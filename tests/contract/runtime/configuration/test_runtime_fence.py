"""A late holder of a conversation's lease is refused by the runtime itself, also after a restart."""

from pathlib import Path

import pytest

from tests.support.runtimes import runtime_at

pytestmark = pytest.mark.anyio

PATH = "/api/settings"


async def test_a_lower_fence_is_refused_for_ever_after(tmp_path: Path) -> None:
    async with runtime_at(tmp_path) as runtime:

        async def status(fence: str) -> int:
            return (
                await runtime.http.patch(PATH, json={"misc_settings_diff": {}}, headers={"X-Fence": fence})
            ).status_code

        assert [await status(fence) for fence in ("3", "3", "7", "3", "7")] == [200, 200, 200, 409, 200]
        refused = await runtime.http.get(PATH, headers={"X-Fence": "6"})
        assert (refused.status_code, refused.json()["detail"]) == (409, "stale fence: another holder has come since")
        assert (await runtime.http.get(PATH)).status_code == 200, "who carries none is no holder"
    async with runtime_at(tmp_path) as again:
        assert (await again.http.get(PATH, headers={"X-Fence": "6"})).status_code == 409
        assert (await again.http.get(PATH, headers={"X-Fence": "8"})).status_code == 200


@pytest.mark.parametrize("fence", ["-1", "x", "1.5", "9" * 30, ""])
async def test_what_is_no_fence_is_refused(tmp_path: Path, fence: str) -> None:
    async with runtime_at(tmp_path) as runtime:
        assert (await runtime.http.get(PATH, headers={"X-Fence": fence})).status_code == 400


async def test_nobody_without_a_key_raises_the_fence(tmp_path: Path) -> None:
    async with runtime_at(tmp_path) as runtime:
        headers = {"X-Fence": "1000", "X-Session-API-Key": "wrong"}
        assert (await runtime.http.get(PATH, headers=headers)).status_code == 401
        assert (
            await runtime.http.get("/health", headers={"X-Fence": "1000", "X-Session-API-Key": ""})
        ).status_code in (
            200,
            401,
        )
        assert (await runtime.http.get(PATH, headers={"X-Fence": "1"})).status_code == 200


async def test_another_generation_is_refused(tmp_path: Path) -> None:
    async with runtime_at(tmp_path, generation=4) as runtime:
        assert (await runtime.http.get(PATH, headers={"X-Generation": "4"})).status_code == 200
        assert (await runtime.http.get(PATH, headers={"X-Generation": "3"})).status_code == 409
