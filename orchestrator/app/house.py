"""The house: everything that one orchestrator is made of, put together from its settings and taken down in order.

`open_house` is the walk to read first: folder, master key, state server, driver, services. Each piece is ended by the
stack in the reverse order, whatever happened.
"""

import importlib.metadata
import shlex
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import structlog

from orchestrator.api.context import Services
from orchestrator.api.links import link_url
from orchestrator.app import data_folder
from orchestrator.app.containers import Isolation, docker_driver, images_of, pull_missing
from orchestrator.app.facing import Facing
from orchestrator.app.facing import facing as listen_facing
from orchestrator.app.ports import PublicPorts
from orchestrator.app.routing import Rouse, Routes
from orchestrator.app.state_health import StateHealth
from orchestrator.domain.clock import SystemClock
from orchestrator.domain.conversation import Conversation, Kind
from orchestrator.domain.errors import Misconfigured, NestorError, NotFound, StoreUnavailable
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId, new_uuid
from orchestrator.domain.secrets import SecretText
from orchestrator.domain.step_seconds import step_seconds
from orchestrator.drivers.base import Dialect, Driver, Endpoint, Faced, Imaged, Spareable
from orchestrator.drivers.fake import FakeDriver
from orchestrator.drivers.fake_remote import RemoteFakeDriver
from orchestrator.drivers.process import ProcessDriver, own_zygote
from orchestrator.nested.client import RuntimeClients
from orchestrator.nested.streams import Streams
from orchestrator.proxy.cache import RouteCache
from orchestrator.proxy.route import Found, Wake
from orchestrator.security.connecting import is_lost_connection
from orchestrator.security.envelope import Envelope
from orchestrator.security.master_keys import MasterKeys, load_or_create_key_file, read_key_file
from orchestrator.security.outbound import Guard
from orchestrator.security.outbound_http import Outbound
from orchestrator.security.session_keys import check_operator_key
from orchestrator.services.activity import Activity
from orchestrator.services.admission import Admission
from orchestrator.services.arrivals import Arrivals
from orchestrator.services.conversations import ConversationService
from orchestrator.services.deaths import Deaths
from orchestrator.services.deletion import Deletion
from orchestrator.services.disk_watch import DiskWatch
from orchestrator.services.effective import Effective
from orchestrator.services.event_archiving import Bounds, EventArchiving
from orchestrator.services.event_feed import EventFeed
from orchestrator.services.events import EventLog
from orchestrator.services.files import Files
from orchestrator.services.git_tokens import Probe, TokenCheck
from orchestrator.services.holding import Holding
from orchestrator.services.hook_delivery import HookDelivery, Sender
from orchestrator.services.hook_delivery import Policy as HookPolicy
from orchestrator.services.idleness import Idleness
from orchestrator.services.images import Images
from orchestrator.services.inside import Inside
from orchestrator.services.inspection import Inspection
from orchestrator.services.intake import Intake
from orchestrator.services.keys import KeyRing
from orchestrator.services.layers import Layers
from orchestrator.services.lifecycle import Lifecycle
from orchestrator.services.links import Links
from orchestrator.services.messages import Messages
from orchestrator.services.overrides import OverrideSeal
from orchestrator.services.pool import WarmPool
from orchestrator.services.provisioning import Surroundings
from orchestrator.services.queueing import QueueKeeper
from orchestrator.services.reconciler import Reconciler
from orchestrator.services.recovery import Recovery
from orchestrator.services.retiring import Retiring
from orchestrator.services.reviewing import Reviewing
from orchestrator.services.sandbox_access import SandboxAccess
from orchestrator.services.shares import Shares
from orchestrator.services.suspension import Suspension
from orchestrator.services.tenancy import Tenancy
from orchestrator.services.tending import Tending
from orchestrator.services.transcript import Transcript
from orchestrator.services.warm_start import stages_of
from orchestrator.services.watching import EngineWatch
from orchestrator.services.webhooks import Webhooks
from orchestrator.services.workers import Workers
from orchestrator.settings import OrchestratorSettings
from orchestrator.state.embedded import EmbeddedServer
from orchestrator.state.event_archive.archive import EventArchive, event_folder_of, open_event_archive
from orchestrator.state.hooks import QUEUE_BYTES
from orchestrator.state.journal.archive import folder_of, open_archive
from orchestrator.state.journal.shipper import Shipper
from orchestrator.state.redis_store import RedisStore

log = structlog.get_logger(__name__)
_LAST_SHIPPING_SECONDS = 3.0


@dataclass
class House:
    """What the server runs and the API serves."""

    settings: OrchestratorSettings
    services: Services
    store: RedisStore
    driver: Driver
    routes: RouteCache
    wake: Wake
    activity: Activity
    ports: PublicPorts
    workers: Workers
    shares: Shares
    reconciler: Reconciler
    queue: QueueKeeper
    reviewing: Reviewing
    pool: WarmPool | None  #: None where the driver has no spares
    images: Images | None  #: None where runtimes are made of none
    feed: EventFeed
    hooks: HookDelivery
    facing: Facing | None
    intake: Intake
    watch: EngineWatch
    disk_watch: DiskWatch
    installation: str
    state_server: EmbeddedServer | None  #: the one that we started ourselves
    shipper: Shipper
    health: StateHealth
    recover: Callable[[], Coroutine[Any, Any, None]]  #: runs until cancelled: mends the loss of the state server's data
    new_operator_key: SecretText | None  #: to be shown now and never again


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
        probe = await stack.enter_async_context(_probe(settings))
        guard = Guard(settings.hook_hosts)
        outbound = Outbound(guard, seconds=settings.hook_seconds)
        stack.push_async_callback(outbound.close)
        place = await _place(driver)
        facing = stack.enter_context(listen_facing(settings, place.pop("listen", None) or place.get("gateway")))
        isolation = Isolation(driver, settings.accepted)
        await isolation.establish(facing.address if facing is not None else None, store.tenants)
        fetching = settings.pull_images == "missing"
        images = await images_of(driver, settings.catalogue, store.tenants, fetching=fetching)
        clients = RuntimeClients()
        await recovery.adopt(driver, installation, clients)
        house = await _furnish(
            settings,
            public_url,
            store,
            master,
            Envelope(master, store.configuration),
            driver,
            installation,
            probe,
            state_server,
            clients,
            shipper,
            event_archive,
            partial(recovery.run, driver, installation, clients),
            facing,
            guard,
            outbound,
            StateHealth(store, [lambda: recovery.problem, lambda: shipper.problem, lambda: event_archive.problem]),
            isolation,
            images,
            {
                "version": importlib.metadata.version("nestor"),
                "driver": driver.name,
                "isolation": driver.capabilities.isolation,
                **({"hardening": summary} if (summary := isolation.summary()) else {}),
                **place,
                **about,
            },
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


async def _furnish(
    settings: OrchestratorSettings,
    public_url: str,
    store: RedisStore,
    master: MasterKeys,
    envelope: Envelope,
    driver: Driver,
    installation: str,
    probe: Probe | None,
    state_server: EmbeddedServer | None,
    clients: RuntimeClients,
    shipper: Shipper,
    archive: EventArchive,
    recover: Callable[[], Coroutine[Any, Any, None]],
    facing: Facing | None,
    guard: Guard,
    outbound: Outbound,
    health: StateHealth,
    isolation: Isolation,
    images: Images | None,
    about: Mapping[str, str],
) -> House:
    clock = SystemClock()
    operator_key = settings.operator_key
    tenancy = Tenancy(
        store.tenants,
        clock,
        operator_key=check_operator_key(operator_key.get_secret_value()) if operator_key else None,
        refusal=isolation.refusal,
        hint=lambda: isolation.hint,
        sizes=settings.known_sizes,
    )
    layers = Layers(store.configuration, envelope)
    overrides = OverrideSeal(envelope)
    effective = Effective(layers, overrides)
    keys = KeyRing(envelope)
    archiving = EventArchiving(
        store.events, archive, Bounds(settings.events_held, settings.events_held_kilobytes * 1024)
    )
    events = EventLog(store.events, archiving, clients, keys, clock)
    routes = Routes(store.conversations, keys)
    ports, cache = PublicPorts(), RouteCache(routes.load)
    shares = Shares(None if state_server is not None else store.presence, new_uuid())
    reconciler = Reconciler(installation, driver, store.conversations, store.spares, ports.expose, shares)
    health.also(lambda: reconciler.problem)
    health.also(lambda: ports.problem)
    activity = Activity(store.conversations)
    runtime_url = _runtime_url(settings, public_url)

    pool = None
    if isinstance(driver, Spareable) and driver.capabilities.spares:
        stocks = settings.stocks
        pool = WarmPool(installation, driver, store.spares, clients, master, stocks, images=images)
    elif any(stock.minimum for stock in settings.stocks):
        log.warning("pool.not_possible", driver=driver.name, hint="every start is cold: this driver has no spares")

    arrivals = Arrivals()

    def published(conversation: Conversation) -> None:
        _forget(cache, conversation)
        arrivals.tell(conversation)

    def withdraw(conversation: Conversation) -> None:
        ports.withdraw(conversation)
        _forget(cache, conversation)

    surroundings = Surroundings(
        installation=installation,
        driver=driver,
        conversations=store.conversations,
        effective=effective,
        keys=keys,
        clients=clients,
        clock=clock,
        public_urls=lambda conversation: [url for url in (public_url, runtime_url(conversation)) if url],
        allow_http_hosts=sorted(settings.http_hosts),
        reached_hosts=settings.reached_hosts,
        allowed_origins=sorted(settings.origins),
        expose=ports.expose,
        published=published,
        withdraw=withdraw,
        archived=shipper.ship,
        generation=store.configuration.generation,
        webhook=_webhook_of(facing, driver),
        alive_seconds=min(60.0, settings.start_timeout / 2),
        step_seconds=step_seconds(settings.step_seconds),
        pool=pool,
        images=images,
    )
    feed = EventFeed(events, store.changes)
    idleness = Idleness(
        store.conversations,
        effective,
        activity,
        clients,
        keys,
        clock,
        settings.spans,
    )
    admission = Admission(store, layers.settings, idleness, settings.limits)
    deaths = Deaths(surroundings, store.operations, store.saga, admission, settings.restarts)
    tending = Tending(surroundings, store.inbox, events, deaths, drift_seconds=settings.drift_seconds)
    suspension = Suspension(surroundings, store, deaths, events, idleness, admission)
    lifecycle = Lifecycle(
        surroundings,
        store,
        tending,
        events,
        suspension,
        idleness,
        admission,
        Deletion(surroundings, store, events, archiving, admission),
        Retiring(surroundings, store, idleness, undelete_seconds=settings.undelete_seconds),
        archiving,
        start_timeout=settings.start_timeout,
    )
    workers = Workers(store.conversations, lifecycle, clock, owner=new_uuid(), lease_seconds=settings.lease_seconds)
    queue = QueueKeeper(store.slots, store.conversations, admission, workers.wake)
    admission.subscribe(queue.look_again)
    sender = Sender(outbound.post, envelope, clock)
    webhooks = Webhooks(store.hooks, envelope, guard, sender, clock, queue_bytes=QUEUE_BYTES)
    hooks = HookDelivery(
        store.hooks,
        sender,
        webhooks.disable,
        clock,
        HookPolicy(
            base_ms=int(settings.hook_backoff_seconds * 1000),
            dead_seconds=settings.hook_dead_seconds,
            call_seconds=settings.hook_seconds,
        ),
    )
    conversations, runtimes = (
        ConversationService(
            store,
            effective,
            overrides,
            events,
            admission,
            clock,
            wake=workers.wake,
            gone=withdraw,
            undelete_seconds=settings.undelete_seconds,
            images=images,
            sizes=settings.sizes,
            stages=lambda: stages_of(surroundings),
            kind=kind,
        )
        for kind in (Kind.CONVERSATION, Kind.RUNTIME)
    )

    async def rouse(tenant: TenantId, id: ConversationId) -> None:
        try:
            await conversations.wake(tenant, id)
        except NotFound:
            await runtimes.wake(tenant, id)

    services = Services(
        tenancy=tenancy,
        layers=layers,
        effective=effective,
        conversations=conversations,
        runtimes=runtimes,
        arrivals=arrivals,
        messages=Messages(store.inbox, conversations, wake=workers.wake),
        idleness=idleness,
        admission=admission,
        holding=Holding(store.inbox, idleness, admission, clock),
        inspection=Inspection(driver, effective, keys),
        inside=Inside(clients, keys),
        feed=feed,
        transcript=Transcript(events),
        links=Links(conversations, clock, changed=partial(_forget, cache)),
        link_url=link_url(public_url, settings.domain),
        files=Files(conversations, keys, Streams(), arrivals, activity.touch),
        webhooks=webhooks,
        keys=keys,
        sandbox_access=SandboxAccess(store.conversations, layers, overrides),
        sealer=envelope,
        store=store,
        clock=clock,
        token_check=TokenCheck(probe),
        images=images,
        http_hosts=settings.http_hosts,
        runtime_url=runtime_url,
        about=about,
        figures=store.figures,
        problems=health.problems,
        unready=health.unready,
    )
    return House(
        settings=settings,
        services=services,
        store=store,
        driver=driver,
        routes=cache,
        wake=lambda runtime, seconds: _woken(cache, routes, runtime, seconds, rouse, admission),
        activity=activity,
        ports=ports,
        workers=workers,
        shares=shares,
        reconciler=reconciler,
        queue=queue,
        reviewing=Reviewing(store.reviews, workers.wake, settings.spans),
        pool=pool,
        images=images,
        feed=feed,
        hooks=hooks,
        facing=facing,
        intake=Intake(store.conversations, events, keys, activity.touch),
        disk_watch=DiskWatch(installation, driver, shares, limit_bytes=settings.runtime_disk_megabytes * 1_000_000),
        watch=EngineWatch(installation, driver, store.conversations, store.spares, workers.wake, shares),
        installation=installation,
        state_server=state_server,
        shipper=shipper,
        recover=recover,
        health=health,
        new_operator_key=await tenancy.ensure_operator_key(),
    )


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


def master_keys_of(settings: OrchestratorSettings) -> MasterKeys:
    if settings.master_key is not None:
        return MasterKeys.parse(settings.master_key.get_secret_value(), source="NESTOR_MASTER_KEY")
    if settings.master_key_file is not None:
        return read_key_file(settings.master_key_file)
    return load_or_create_key_file(settings.data_dir / "master.key")


async def state_server_of(settings: OrchestratorSettings, stack: AsyncExitStack) -> EmbeddedServer | None:
    if settings.redis_url is not None:
        return None
    return await stack.enter_async_context(EmbeddedServer(settings.data_dir))


def state_url_of(settings: OrchestratorSettings, own: EmbeddedServer | None) -> str:
    if own is not None:
        return own.url
    return settings.redis_url.get_secret_value() if settings.redis_url is not None else ""


async def driver_of(settings: OrchestratorSettings, installation: str) -> Driver:
    driver: Driver
    if settings.driver == "fake":
        driver = FakeDriver() if settings.fake_engine is None else RemoteFakeDriver(settings.fake_engine)
    elif settings.driver == "docker":
        driver = docker_driver(settings, installation)
    else:
        command = shlex.split(settings.runtime_command) if settings.runtime_command else None
        hidden = [settings.master_key_file] if settings.master_key_file else []
        if settings.journal_url is not None and (journal := folder_of(settings.journal_url)) is not None:
            hidden.append(journal)
        if (events := event_folder_of(settings.events_url, settings.journal_url)) is not None:
            hidden.append(events)
        driver = ProcessDriver(
            settings.data_dir,
            command=command,
            stock=Dialect(settings.stock_start),
            namespaces=settings.namespaces,
            hidden=hidden,
            zygote=None if settings.zygote == "off" else own_zygote,
        )
    if settings.pull_images == "missing" and settings.catalogue is not None and isinstance(driver, Imaged):
        await pull_missing(driver, settings.catalogue)
    fingerprint = await driver.fingerprint()
    if not fingerprint.usable:
        await driver.close()
        raise Misconfigured(f"the {driver.name} driver cannot run anything: {fingerprint.message}")
    return driver


async def _place(driver: Driver) -> dict[str, str]:
    """Where runtimes reach this machine, if that is another address than loopback; where to listen for them, if that is
    yet another; how they start, if there is more than one way."""
    details = (await driver.fingerprint()).details
    return {name: text for name in ("gateway", "listen", "starts") if (text := details.get(name))}


def _webhook_of(
    facing: Facing | None, driver: Driver
) -> Callable[[Conversation, Endpoint | None], Mapping[str, Any] | None]:
    """What a runtime is told of the runtime-facing listener."""

    def webhook(conversation: Conversation, endpoint: Endpoint | None) -> Mapping[str, Any] | None:
        if facing is None:
            return None
        known = driver.facing_host(endpoint) if isinstance(driver, Faced) and endpoint is not None else None
        return facing.webhook(conversation, known)

    return webhook


@asynccontextmanager
async def _probe(settings: OrchestratorSettings) -> AsyncIterator[Probe | None]:
    """How providers' APIs are asked, or None when they are not to be."""
    if not settings.verify_git_tokens:
        yield None
        return
    async with httpx.AsyncClient(timeout=5.0, follow_redirects=False) as client:

        async def ask(address: str, headers: Mapping[str, str]) -> int | None:
            try:
                return (await client.get(address, headers=dict(headers))).status_code
            except httpx.HTTPError:
                return None
            except AttributeError as exc:  # the environment's proxies are wanted here, so there is no transport of ours
                if not is_lost_connection(exc):
                    raise
                return None

        yield ask


async def _woken(
    cache: RouteCache,
    routes: Routes,
    runtime: RuntimeId,
    seconds: float,
    rouse: Rouse,
    admission: Admission,
) -> Found:
    found = await routes.wake(runtime, rouse, admission.waits_for, seconds=seconds)
    cache.invalidate(runtime)  # what is cached says that it sleeps
    return found


def _forget(cache: RouteCache, conversation: Conversation) -> None:
    """The route changed: whoever asks next gets it as it is stored now."""
    if conversation.runtime is not None:
        cache.invalidate(conversation.runtime.id)


def _runtime_url(settings: OrchestratorSettings, public_url: str) -> Callable[[Conversation], str | None]:
    """The origin of one runtime for clients: its own host name, else its own port, else a path (DESIGN section 3)."""
    scheme, _, rest = public_url.partition("://")
    host, _, port = rest.rpartition(":") if not rest.endswith("]") and ":" in rest else (rest, "", "")

    def url(conversation: Conversation) -> str | None:
        runtime = conversation.runtime
        if runtime is None:
            return None
        if settings.domain is not None:
            return f"{scheme}://{runtime.id}.{settings.domain}" + (f":{port}" if port else "")
        if runtime.public_port:
            return f"{scheme}://{host}:{runtime.public_port}"
        return f"{public_url}/runtimes/{runtime.id}"

    return url
