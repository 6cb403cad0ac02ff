"""Nestor in a container on a bridge: runtimes tell it their events, and reach nothing else of it or of the machine."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support import containers
from support.docker_nestor import Client, container_of
from support.nestor_container import API_PORT, FACING_PORT, Contained, contained_nestor
from support.outside import outside, run
from support.walled import FETCH

pytestmark = [pytest.mark.docker, pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(600)]

REACH = """
import json, socket, sys
for host, port in json.loads(sys.argv[1]):
    try:
        socket.create_connection((host, port), 1.5).close()
        print("open")
    except ConnectionRefusedError:
        print("refused")
    except OSError:
        print("closed")
"""
PYTHON = "/opt/nestor/bin/python"


def reached(id: str, *places: tuple[str, int]) -> list[str]:
    """What a process in that conversation's runtime sees of each address and port."""
    return containers.docker("exec", container_of(id), PYTHON, "-c", REACH, json.dumps(places)).split()


def address_in(container: str, net: str) -> str:
    networks = containers.inspect("container", container)["NetworkSettings"]["Networks"].values()
    return next(str(one["IPAddress"]) for one in networks if str(one["IPAddress"]).startswith(f"{net}."))


def say(text: str) -> dict[str, object]:
    return {"tool": "terminal", "args": {"command": f"echo {text} | tee -a /workspace/said", "summary": "Say it"}}


async def told(nestor: Client) -> float:
    """How many events runtimes have told at the listener by themselves."""
    headers = {"Authorization": f"Bearer {nestor.operator_key}"}
    figures = (await nestor.http.get(f"{nestor.url}/metrics", headers=headers)).text
    return next(float(line.split()[1]) for line in figures.splitlines() if line.startswith("nestor_events_told_total "))


async def test_runtimes_of_a_nestor_in_a_container_reach_its_listener_and_nothing_else():
    with outside() as ground, socket.create_server(("0.0.0.0", 0)) as machine:
        port = machine.getsockname()[1]
        async with contained_nestor(NESTOR_EGRESS_HOSTS=f"{ground.public}:80") as (made, nestor):
            about = await nestor.call("GET", "/server_info", nestor.operator_key, status=200)
            assert "; not: " not in about["hardening"].replace(not_required(about), "")
            await nestor.tenant("globex")  # a second one is refused where something does not hold
            key = await nestor.tenant()
            one = await nestor.conversation(key)
            await nestor.run(key, one["id"], say("first"))
            assert await told(nestor) > 0

            seat = address_in(made.name, made.net)
            with neighbour_on(made.left()[0]) as neighbour:
                assert reached(
                    one["id"],
                    (seat, FACING_PORT),
                    (seat, API_PORT),
                    (neighbour, 8000),
                    (made.gateway, port),
                    (ground.machine, port),
                    (address_of_redis(made), 6379),
                    (nestor.url.split("/")[2].split(":")[0], API_PORT),
                    (ground.public, 80),
                ) == ["open", *["closed"] * 7]
            urls = (f"http://{ground.public}", f"http://{ground.public}:81", f"http://{seat}:{API_PORT}")
            fetched = containers.docker("exec", container_of(one["id"]), PYTHON, "-c", FETCH, *urls[:2])
            assert fetched.split() == ["200", "403"]  # through the forward proxy, the only neighbour

            await is_replaced(made, nestor, key, one["id"], seat)
            await nestor.call("DELETE", f"/api/v2/conversations/{one['id']}?purge=true", key, status=202)
            await nestor.gone(key, one["id"])
            helper = f"label=io.nestor.rules={made.installation}"
            assert containers.docker("ps", "--quiet", "--filter", helper)
            containers.docker("stop", "--time", "30", made.name)
            assert made.left() == []  # bridge, proxy and helper went with it
            assert made.net not in run("iptables-save")
            assert not containers.docker("ps", "--all", "--quiet", "--filter", helper)


@contextmanager
def neighbour_on(bridge: str) -> Iterator[str]:
    """The address of a container on that bridge that serves everybody on port 8000."""
    serve = ("--entrypoint", "python3", containers.standin_image(), "-m", "http.server", "8000")
    id = containers.docker("run", "--detach", "--network", bridge, *serve).strip()
    try:
        networks = containers.inspect("container", id)["NetworkSettings"]["Networks"]
        yield str(next(iter(networks.values()))["IPAddress"])
    finally:
        containers.docker("rm", "--force", id)


async def is_replaced(made: Contained, nestor: Client, key: str, id: str, seat: str) -> None:
    """A new container, of a new version say, takes the same seat: the runtime tells its events as before."""
    container = containers.inspect("container", container_of(id))["Id"]
    containers.docker("rm", "--force", made.name)
    made.run(NESTOR_ACCEPT_WEAKER="untried")
    nestor.url = await made.up()
    assert address_in(made.name, made.net) == seat
    await nestor.until(key, id, "ready")
    await nestor.run(key, id, say("second"))
    assert await told(nestor) > 0
    assert containers.inspect("container", container_of(id))["Id"] == container
    assert containers.docker("exec", container_of(id), "cat", "/workspace/said") == "first\nsecond\n"


def address_of_redis(made: Contained) -> str:
    found: dict[str, Any] = containers.inspect("container", f"{made.mark}-redis")["NetworkSettings"]["Networks"]
    return str(found[made.mark]["IPAddress"])


def not_required(about: dict[str, Any]) -> str:
    """What the report tells as missing, if all of it is not required."""
    _, _, missing = str(about["hardening"]).partition("; not: ")
    return f"; not: {missing}" if missing and missing.count("not required") == missing.count("(") else ""
