"""`python -m orchestrator.drivers.fake_server SOCKET`: a fake engine in a process of its own, until SIGTERM.

For tests of several orchestrators: `NESTOR_DRIVER=fake` and `NESTOR_FAKE_ENGINE=SOCKET` on each of them. Beside the
verbs of a driver it takes those of a test: what to break, and what was seen (`census`, `memory`).
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from orchestrator.domain.errors import NestorError, NotFound
from orchestrator.domain.secrets import SecretText
from orchestrator.drivers import fake_wire
from orchestrator.drivers.fake import FakeDriver
from orchestrator.drivers.fake_engine import FakeEngine
from orchestrator.drivers.values import Handle, OwnerLabels, RuntimeSpec

Verb = Callable[[Mapping[str, Any]], Awaitable[Any]]
_SPEC, _LABELS, _HANDLE = TypeAdapter(RuntimeSpec), TypeAdapter(OwnerLabels), TypeAdapter(Handle)


class FakeServer:
    """Serves one engine. What fails inside it is answered, never raised."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self._driver = FakeDriver(engine)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, which asks one thing."""
        try:
            asked = json.loads(await reader.readline() or "{}")
            if asked.get("verb") == "events":
                await self._hint(writer)
                return
            writer.write(fake_wire.line(await self._answer(asked)))
            await writer.drain()
        except (ConnectionError, ValueError):
            pass  # the driver left: as with an engine, what it asked for is done
        except asyncio.CancelledError:
            pass  # the engine ends. Python 3.11 tells of a connection's task that ends cancelled as of a fault
        finally:
            writer.close()

    async def _answer(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            verb = getattr(self, f"_do_{asked.get('verb')}", None)
            if verb is None:
                raise NotFound(f"the fake engine has no verb {asked.get('verb')!r}")
            return {"answer": await verb(asked)}
        except NestorError as error:
            return fake_wire.told(error)

    async def _hint(self, writer: asyncio.StreamWriter) -> None:
        async for hint in self._driver.events():
            writer.write(fake_wire.line(hint.name))
            await writer.drain()

    # -- a driver's verbs

    async def _do_ensure_volume(self, asked: Mapping[str, Any]) -> bool:
        return await self._driver.ensure_volume(_LABELS.validate_python(asked["labels"]), fence=asked["fence"])

    async def _do_remove_volume(self, asked: Mapping[str, Any]) -> None:
        await self._driver.remove_volume(_LABELS.validate_python(asked["labels"]), fence=asked["fence"])

    async def _do_create(self, asked: Mapping[str, Any]) -> Handle:
        return await self._driver.create(_SPEC.validate_python(asked["spec"]), fence=asked["fence"])

    async def _do_start(self, asked: Mapping[str, Any]) -> Any:
        return await self._driver.start(_handle(asked), fence=asked["fence"], init_key=SecretText(asked["init_key"]))

    async def _do_inspect(self, asked: Mapping[str, Any]) -> Any:
        return await self._driver.inspect(_handle(asked))

    async def _do_logs(self, asked: Mapping[str, Any]) -> Any:
        return await self._driver.logs(_handle(asked), lines=asked["lines"])

    async def _do_stop(self, asked: Mapping[str, Any]) -> None:
        await self._driver.stop(_handle(asked), fence=asked["fence"], grace=asked["grace"])

    async def _do_destroy(self, asked: Mapping[str, Any]) -> None:
        await self._driver.destroy(_handle(asked), fence=asked["fence"])

    async def _do_pause(self, asked: Mapping[str, Any]) -> None:
        await self._driver.pause(_handle(asked), fence=asked["fence"])

    async def _do_unpause(self, asked: Mapping[str, Any]) -> Any:
        return await self._driver.unpause(_handle(asked), fence=asked["fence"])

    async def _do_spare_kind(self, asked: Mapping[str, Any]) -> Any:
        return await self._driver.spare_kind(asked["image"])

    async def _do_find(self, asked: Mapping[str, Any]) -> Any:
        return await self._driver.find(asked["name"])

    async def _do_list(self, asked: Mapping[str, Any]) -> Any:
        return await self._driver.list(asked["installation"])

    # -- a test's verbs

    async def _do_crash(self, asked: Mapping[str, Any]) -> None:
        """Kill a runtime, if it is there."""
        if asked["name"] in self._engine.runtimes:
            self._engine.crash(asked["name"])

    async def _do_fail(self, asked: Mapping[str, Any]) -> None:
        """Let a verb fail, before its work or (`after`) behind it."""
        error = fake_wire.raised({"error": asked["error"], "message": asked.get("message", "scripted")})
        self._engine.fail(asked["verb_to_fail"], error, times=asked.get("times", 1), after=asked.get("after", False))

    async def _do_script(self, asked: Mapping[str, Any]) -> None:
        """Plan what goes wrong inside runtimes: a method of `Script` and its arguments."""
        getattr(self._engine.script, asked["rule"])(*asked.get("given", ()), **asked.get("options", {}))

    async def _do_census(self, asked: Mapping[str, Any]) -> Any:
        """What was ever started, which conversations ever had two runtimes alive at once, and what is there now."""
        return {
            "starts": self._engine.starts,
            "doubles": self._engine.doubles,
            "alive": [name for name, one in self._engine.runtimes.items() if one.alive],
            "configured": {
                name: one.server.configured for name, one in self._engine.runtimes.items() if one.server is not None
            },
            "serves": {name: sorted(one.serves) for name, one in self._engine.runtimes.items() if one.serves},
            "runtimes": list(self._engine.runtimes),
            "volumes": list(self._engine.volumes),
        }

    async def _do_memory(self, asked: Mapping[str, Any]) -> Any:
        """The event logs of every conversation that lives on a volume, by conversation."""
        return {id: log for volume in self._engine.volumes.values() for id, log in volume.memory.conversations.items()}

    async def _do_pushed(self, asked: Mapping[str, Any]) -> Any:
        """How many events of each conversation were acknowledged by the receiver of this name."""
        pushed = [volume.memory.pushed.get(asked["name"], {}) for volume in self._engine.volumes.values()]
        return {id: count for one in pushed for id, count in one.items()}

    async def _do_requests(self, asked: Mapping[str, Any]) -> Any:
        """What runtimes were asked, oldest first: (runtime, method, path)."""
        return [(one.runtime, one.method, one.path) for one in self._engine.script.received]


def _handle(asked: Mapping[str, Any]) -> Handle:
    return _HANDLE.validate_python(asked["handle"])


async def serve(path: Path, made: Callable[[FakeEngine], FakeServer] = FakeServer) -> None:
    """Until SIGTERM or SIGINT."""
    engine = FakeEngine()
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    server = await asyncio.start_unix_server(made(engine).serve, path, limit=fake_wire.LINE_LIMIT_BYTES)
    await over.wait()
    server.close()
    await engine.shut_down()


def main(arguments: list[str]) -> int:
    """Exit status."""
    if len(arguments) != 1:
        print("usage: python -m orchestrator.drivers.fake_server SOCKET", file=sys.stderr)  # noqa: T201 # a person's
        return 2
    path = Path(arguments[0])
    path.unlink(missing_ok=True)
    os.umask(0o177)
    asyncio.run(serve(path))
    path.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
