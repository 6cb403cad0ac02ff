"""The house: everything that one orchestrator is made of, put together from its settings and taken down in order.

`open_house` is the walk to read first: folder, master key, state server, driver, services. Each piece is ended by the
stack in the reverse order, whatever happened.
"""

import importlib.metadata
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import anyio
import structlog

from orchestrator.app import data_folder
from orchestrator.app.choices import driver_of, master_keys_of, place_of, probe_of, state_server_of, state_url_of
from orchestrator.app.containers import Isolation, images_of
from orchestrator.app.facing import facing as listen_facing
from orchestrator.app.furnishing import Ground, House, furnish
from orchestrator.app.state_health import StateHealth
from orchestrator.app.tokens import tokens_of
from orchestrator.domain.clock import SystemClock
from orchestrator.domain.errors import Misconfigured, NestorError, StoreUnavailable
from orchestrator.domain.ids import new_uuid
from orchestrator.drivers.base import Driver
from orchestrator.nested.client import RuntimeClients
from orchestrator.security.outbound import Guard
from orchestrator.security.outbound_http import Outbound
from orchestrator.services.recovery import Recovery
from orchestrator.settings import OrchestratorSettings
from orchestrator.state.event_archive.archive import open_event_archive
from orchestrator.state.journal.archive import open_archive
from orchestrator.state.journal.shipper import Shipper
from orchestrator.state.redis_store import RedisStore

log = structlog.get_logger(__name__)
_LAST_SHIPPING_SECONDS = 3.0


@asynccontextmanager
async def open_house(
    settings: OrchestratorSettings, public_url: str, *, driver: Driver | None = None
) -> AsyncIterator[House]:
    """Everything up to, not including, the listening server; `driver` instead of the one that the settings name.
    Raises `Misconfigured`, `Sealed`, `StoreUnavailable`."""
    async with AsyncExitStack() as stack:
        stack.enter_context(data_folder.hold(settings.data_dir, shared=settings.redis_url is not None))
        master = master_keys_of(settings)
        state_server = await state_server_of(settings, stack)
        store = RedisStore(state_url_of(settings, state_server))
        stack.push_async_callback(store.close)
        archive = open_archive(settings.journal_url, settings.data_dir / "journal")
        stack.push_async_callback(archive.close)
        event_archive = open_event_archive(
            settings.events_url, journal=settings.journal_url, default=settings.data_dir / "events"
        )
        stack.push_async_callback(event_archive.close)
        shipper = store.archive_to(archive)
        about = await _checked(settings, store)
        recovery = Recovery(
            store.restoring(archive), store, master, SystemClock(), owner=new_uuid(), alone=state_server is not None
        )
        stack.push_async_callback(recovery.close)
        await recovery.at_start()
        if not await store.same_archive(await archive.identity()):
            raise other_archive()
        if not await store.same_event_archive(await event_archive.identity()):
            raise other_event_archive()
        master.verify(await store.master_check(master.check_value()))
        installation = await store.installation()
        if driver is None:
            driver = await driver_of(settings, installation)
        stack.push_async_callback(driver.close)
        probe = await stack.enter_async_context(probe_of(settings))
        guard = Guard(settings.hook_hosts)
        outbound = Outbound(guard, seconds=settings.hook_seconds)
        stack.push_async_callback(outbound.close)
        tokens = await tokens_of(settings, stack)
        place = await place_of(driver)
        facing = stack.enter_context(listen_facing(settings, place.pop("listen", None) or place.get("gateway")))
        isolation = Isolation(driver, settings.accepted)
        await isolation.establish(facing.address if facing is not None else None, store.tenants)
        fetching = settings.pull_images == "missing"
        images = await images_of(driver, settings.catalogue, store.tenants, fetching=fetching)
        clients = RuntimeClients()
        await recovery.adopt(driver, installation, clients)
        house = await furnish(
            Ground(
                settings=settings,
                public_url=public_url,
                store=store,
                master=master,
                driver=driver,
                installation=installation,
                probe=probe,
                state_server=state_server,
                clients=clients,
                shipper=shipper,
                archive=event_archive,
                recover=partial(recovery.run, driver, installation, clients),
                facing=facing,
                guard=guard,
                outbound=outbound,
                tokens=tokens,
                health=StateHealth(
                    store, [lambda: recovery.problem, lambda: shipper.problem, lambda: event_archive.problem]
                ),
                isolation=isolation,
                images=images,
                about={
                    "version": importlib.metadata.version("nestor"),
                    "driver": driver.name,
                    "isolation": driver.capabilities.isolation,
                    **({"hardening": summary} if (summary := isolation.summary()) else {}),
                    **place,
                    **about,
                },
            )
        )
        yield house
        await house.shares.leave()
        await _ship_the_rest(shipper)


async def _checked(settings: OrchestratorSettings, store: RedisStore) -> dict[str, str]:
    """What the state server is. Raises `Misconfigured` naming its address, without the credentials in it."""
    try:
        return {f"state_{name}" if name == "version" else name: text for name, text in (await store.check()).items()}
    except StoreUnavailable as exc:
        if settings.redis_url is None:
            raise
        parts = urlsplit(settings.redis_url.get_secret_value())
        place = f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
        raise Misconfigured(
            f"{exc.message} at {place}",
            hint="start it, or correct NESTOR_REDIS_URL; without that Nestor starts its own",
        ) from None


def other_archive() -> Misconfigured:
    return Misconfigured(
        "the journal of this replica is not the one that the state server's other replicas write, or it was lost",
        hint="set NESTOR_JOURNAL_URL to the one they share; if it is lost for good: nestor journal begin-anew",
    )


def other_event_archive() -> Misconfigured:
    return Misconfigured(
        "this replica's archive of events is not the one that the state server's other replicas use, or it was lost",
        hint="set NESTOR_EVENTS_URL to the one they share; if it is lost for good: nestor journal begin-anew",
    )


async def _ship_the_rest(shipper: Shipper) -> None:
    """What was accepted and is not in the archive yet. Another replica, or the next life, does what is left."""
    with anyio.move_on_after(_LAST_SHIPPING_SECONDS):
        try:
            while await shipper.tick():
                pass
        except NestorError as exc:
            log.warning("journal.not_shipped", problem=exc.message)
