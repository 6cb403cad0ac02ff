"""A stock agent server, the released package, under our orchestrator: provisioned, configured, proxied, talked to."""

from pathlib import Path

import anyio
import pytest
from support import containers, stock_server
from support.docker_nestor import container_of, nestor_in

pytestmark = [pytest.mark.docker, pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("start", ["dormant", "configured"])
async def test_one_conversation_with_a_stock_agent_server(folder: Path, start: str):
    image = containers.stock_image()
    async with nestor_in(folder, NESTOR_ALLOWED_IMAGES=image, NESTOR_STOCK_START=start) as nestor:
        key = await stock_server.configured(nestor)
        conversation = await nestor.conversation(key, image=image)
        id = conversation["id"]
        await stock_server.holds_what_it_was_told(conversation["runtime"])
        await stock_server.plays_a_turn(nestor, key, id)
        await stock_server.pauses_and_goes_on(nestor, key, id)

        shown = containers.docker("inspect", container_of(id))
        inner = containers.docker("exec", container_of(id), "cat", "/proc/1/cmdline")
        for secret in (stock_server.SECRET, stock_server.TOKEN, conversation["runtime"]["session_key"]):
            assert secret not in shown + inner
        assert "OH_SECRET_KEY=" not in shown
        assert ("OH_DEFERRED_INIT=true" in shown) == (start == "dormant")
        if start == "dormant":
            refused = await nestor.call(
                "POST", "/api/v2/conversations", key, json={"image": image, "repository": "acme/app"}, status=202
            )
            failed = await nestor.until(key, refused["id"], "failed")
            assert (failed["reason"], failed["step"]) == ("config_rejected", "converse")
        await stock_server.is_deleted(nestor, key, id)
        with anyio.fail_after(20):  # the record goes first
            while containers.docker("ps", "-aq", "--filter", f"label=io.nestor.conversation={id}").split():
                await anyio.sleep(0.1)
