"""The life of `nestor up`: open the house, listen, work until a signal, and end in order.

Asked to end before it serves, it removes what it has made until then. Order of ending: no new connections, and nothing
is claimed any more; requests and tunnels end, acts under way get a few seconds; those that are not done by then unwind
and give their leases back, due now; with `ephemeral` every runtime is removed; then the stores. What takes longer than
`LAST_SECONDS` is left to whoever finds it, as after a kill. A second signal ends the process at once.
"""

import asyncio
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

import anyio
import structlog
import uvicorn

from orchestrator.api import runtime_facing
from orchestrator.app import api, data_plane, listening, ports
from orchestrator.app.claims import claims_of
from orchestrator.app.descriptors import shares
from orchestrator.app.furnishing import House
from orchestrator.app.house import open_house
from orchestrator.app.nginx_plan import Plan
from orchestrator.app.state_watch import keep_running
from orchestrator.domain.errors import NestorError, StoreUnavailable
from orchestrator.domain.secrets import SecretText
from orchestrator.drivers.base import Prunable
from orchestrator.proxy import links
from orchestrator.proxy.behind import behind_protocol
from orchestrator.proxy.claims import ClaimRoutes
from orchestrator.proxy.context import FrontContext
from orchestrator.proxy.limits import FrontLimits
from orchestrator.proxy.ports import listen_for_runtime
from orchestrator.proxy.protocol import front_protocol
from orchestrator.security.redaction import Redactor
from orchestrator.services.reconciler import UNOWNED_FENCE
from orchestrator.settings import OrchestratorSettings
from orchestrator.telemetry import logging, stalls

log = structlog.get_logger(__name__)
DRAIN_SECONDS = 5
LAST_SECONDS = 25.0  #: from the signal to the end: supervisors wait for thirty before they kill
CUT_SHORT_STATUS = 130
Ready = Callable[[str, SecretText | None, Mapping[str, str]], None]  #: url, operator key to show once, what runs


class Server(uvicorn.Server):
    """uvicorn's server, which calls back when it serves and does not raise the signal again when it has ended."""

    def __init__(
        self, config: uvicorn.Config, *, on_ready: Callable[[], None], on_drain: Callable[[], None], last_seconds: float
    ) -> None:
        """`last_seconds` after the first signal the process ends, whatever is left to do; 0 for no such limit."""
        super().__init__(config)
        self._on_ready = on_ready
        self._on_drain = on_drain
        self._last_seconds = last_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and not self.should_exit:
            gc.collect()
            gc.freeze()  # a collection that looks at all that was imported holds every request for a tenth of a second
            self._on_ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Without uvicorn's re-raise: being asked to end is no failure, the exit status is 0. The handlers stay: what
        comes after the server's end is a part of ending."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._asked_to_end)
        yield

    def _asked_to_end(self, number: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(CUT_SHORT_STATUS)
        self._on_drain()
        if self._last_seconds:
            threading.Thread(target=self._end_at_last, name="last-seconds", daemon=True).start()
        self.handle_exit(number, frame)

    def _end_at_last(self) -> None:
        """A thread, since what keeps the process from ending may keep its loop as well."""
        time.sleep(self._last_seconds)
        log.error("drain.cut_short", seconds=self._last_seconds, hint="what was under way is taken up as after a crash")
        os._exit(0)


async def serve(settings: OrchestratorSettings, ready: Ready) -> None:
    """Run until a signal. `ready` is called once, when requests are served. Raises as `open_house`."""
    redactor = Redactor()
    if settings.operator_key is not None:
        redactor.add([SecretText(settings.operator_key.get_secret_value())])
    logging.configure(redactor, json_lines=settings.log_format == "json")
    async with data_plane.claimed(settings, _limits(settings)) as plan:
        listener = listening.bind(settings)
        try:
            url = settings.public_url or _origin(settings.host, listener.getsockname()[1])
            async with open_house(settings, url) as house:
                await _serve(settings, listener, plan, url, house, ready)
                await (_remove_runtimes(house) if settings.ephemeral else _tell_what_goes_on(house))
        finally:
            listener.close()


async def _serve(
    settings: OrchestratorSettings, listener: socket.socket, plan: Plan | None, url: str, house: House, ready: Ready
) -> None:
    claims = claims_of(house)
    front = _front(settings, house, claims)
    if plan is not None:
        front.limits = replace(front.limits, connections_per_address=0, connections=0)  # nginx counts them
    house.health.also(lambda: front.problem)
    nginx = None if plan is None else data_plane.Nginx(plan, listener)
    config = uvicorn.Config(
        api.build(house.services),
        http=front_protocol(front) if plan is None else behind_protocol(front),
        uds=None if plan is None else str(plan.front),
        ws="websockets-sansio",
        loop="uvloop",
        lifespan="off",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # uvicorn would believe whoever connects from loopback
        log_config=None,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )

    def drain() -> None:
        house.workers.drain()
        if nginx is not None:
            nginx.quit()

    server = Server(
        config,
        on_ready=lambda: ready(url, house.new_operator_key, house.services.about),
        on_drain=drain,
        last_seconds=0 if settings.ephemeral else LAST_SECONDS,
    )
    config.load()
    if settings.runtime_ports and settings.domain is None:
        house.ports.listen_with(lambda runtime, port: listen_for_runtime(server, front, runtime, settings.host, port))
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_reopen_ports, house)
            tasks.start_soon(stalls.watch)
            tasks.start_soon(house.workers.run)
            tasks.start_soon(house.reconciler.run)
            tasks.start_soon(house.queue.run)
            tasks.start_soon(house.reviewing.run)
            if house.images is not None:
                tasks.start_soon(house.images.run)
            if house.pool is not None:
                tasks.start_soon(house.pool.run)
            tasks.start_soon(house.watch.run)
            tasks.start_soon(house.disk_watch.run)
            tasks.start_soon(house.activity.run)
            tasks.start_soon(house.shipper.run)
            tasks.start_soon(house.recover)
            tasks.start_soon(house.feed.run)
            tasks.start_soon(house.hooks.run)
            if house.facing is not None:
                tasks.start_soon(house.facing.serve, runtime_facing.build(house.intake))
            tasks.start_soon(house.health.run)
            tasks.start_soon(claims.watch, front.upstreams.all_open)
            tasks.start_soon(links.watch, front.upstreams.all_open)
            if house.state_server is not None:
                tasks.start_soon(keep_running, house.state_server)
            if plan is None or nginx is None:
                await server.serve(sockets=[listener])
            else:
                async with data_plane.carrying(nginx, front, plan):
                    await server.serve()
            with anyio.move_on_after(DRAIN_SECONDS):
                await house.workers.drained()
            tasks.cancel_scope.cancel()
    finally:
        house.ports.close()
        await front.close()
        await house.routes.close()


async def _reopen_ports(house: House) -> None:
    """Of those that policy put to rest before this process began."""
    while True:
        try:
            opened = await ports.reopen(house.ports, house.store.conversations)
        except StoreUnavailable:
            await anyio.sleep(DRAIN_SECONDS)
            continue
        if opened:
            log.info("runtime.ports_reopened", ports=opened)
        return


def _front(settings: OrchestratorSettings, house: House, claims: ClaimRoutes) -> FrontContext:
    front = FrontContext(
        resolve=claims.resolve,
        known=claims.known,
        invalidate=claims.invalidate,
        touch=lambda route: house.activity.touch(route.tenant, route.conversation),
        wake=claims.wake,
        domain=settings.domain,
        limits=_limits(settings),
    )
    house.routes.subscribe(front.recheck)
    house.feed.subscribe(house.routes.changed)
    house.activity.watch(front.upstreams.in_use)
    return front


def _limits(settings: OrchestratorSettings) -> FrontLimits:
    local, most = settings.allow_local_origins, settings.connections_per_address
    of_tenant = settings.connections_per_tenant
    mine = shares()
    return FrontLimits(
        allowed_origins=settings.origins,
        local_origins=listening.is_loopback(settings.host) if local is None else local,
        connections_per_address=mine.address if most is None else most,
        connections_per_tenant=mine.tenant if of_tenant is None else of_tenant,
        connections=mine.clients,
    )


def _origin(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _tell_what_goes_on(house: House) -> None:
    """Runtimes outlive their orchestrator on purpose; who ends it by hand should know."""
    try:
        left = len(await house.driver.list(house.installation))
    except NestorError as exc:
        log.warning("runtimes.not_counted", problem=exc.message)
        return
    if left:
        log.info(
            "runtimes.go_on",
            runtimes=left,
            hint="start the orchestrator again, or set NESTOR_EPHEMERAL=1 to end them with it",
        )


async def _remove_runtimes(house: House) -> None:
    """Every runtime of this installation, and its workspace: nothing of an ephemeral orchestrator outlives it."""
    for handle in await house.driver.list(house.installation):
        try:
            await house.driver.destroy(handle, fence=UNOWNED_FENCE)
            await house.driver.remove_volume(handle.labels, fence=UNOWNED_FENCE)
        except NestorError as exc:
            log.error("runtime.not_removed", name=handle.name, problem=exc.message)
    if isinstance(house.driver, Prunable):
        try:
            await house.driver.prune(house.installation, fence=UNOWNED_FENCE)
        except NestorError as exc:
            log.error("volumes.not_removed", problem=exc.message)


def run(settings: OrchestratorSettings, ready: Ready) -> None:
    """`serve` on uvloop, from the main thread. A SIGTERM before it serves is no failure either."""
    asked = asyncio.Event()
    with asyncio.Runner(loop_factory=_loop) as runner:
        try:
            runner.run(_begun(serve(settings, ready), asked))
        except asyncio.CancelledError:
            if not asked.is_set():
                raise


async def _begun(work: Coroutine[Any, Any, None], asked: asyncio.Event) -> None:
    """`work`, which a SIGTERM breaks off as SIGINT does; the server has handlers of its own once it serves. A second
    one ends the process at once."""
    loop, begun = asyncio.get_running_loop(), asyncio.ensure_future(work)

    def break_off(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            os._exit(CUT_SHORT_STATUS)
        asked.set()
        loop.call_soon_threadsafe(begun.cancel)

    signal.signal(signal.SIGTERM, break_off)
    await begun


def _loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()
