"""What stands in the house: every service and every loop, each made once and given what it works with.

`furnish` is one list on purpose: who needs whom is read from top to bottom, and nothing is made anywhere else.
"""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from orchestrator.api.context import Services
from orchestrator.api.links import link_url
from orchestrator.app.addresses import forgotten, runtime_url_of, webhook_of, woken
from orchestrator.app.containers import Isolation
from orchestrator.app.facing import Facing
from orchestrator.app.ports import PublicPorts
from orchestrator.app.routing import Routes
from orchestrator.app.state_health import StateHealth
from orchestrator.app.tokens import reading
from orchestrator.domain.clock import SystemClock
from orchestrator.domain.conversation import Conversation, Kind
from orchestrator.domain.errors import NotFound
from orchestrator.domain.ids import ConversationId, TenantId, new_uuid
from orchestrator.domain.secrets import SecretText
from orchestrator.domain.step_seconds import step_seconds
from orchestrator.drivers.base import Driver, Spareable
from orchestrator.nested.client import RuntimeClients
from orchestrator.nested.streams import Streams
from orchestrator.proxy.cache import RouteCache
from orchestrator.proxy.route import Wake
from orchestrator.security.envelope import Envelope
from orchestrator.security.master_keys import MasterKeys
from orchestrator.security.outbound import Guard
from orchestrator.security.outbound_http import Outbound
from orchestrator.security.page_marks import PageMarks
from orchestrator.security.session_keys import check_operator_key
from orchestrator.security.tokens import Tokens
from orchestrator.services.activity import Activity
from orchestrator.services.admission import WAKE_MS, Admission
from orchestrator.services.arrivals import Arrivals
from orchestrator.services.auditing import Auditing
from orchestrator.services.call_rates import CallRates
from orchestrator.services.conversations import ConversationService
from orchestrator.services.copying import Copying
from orchestrator.services.deaths import Deaths
from orchestrator.services.deletion import Deletion
from orchestrator.services.disk_watch import DiskWatch
from orchestrator.services.effective import Effective
from orchestrator.services.event_archiving import Bounds, EventArchiving
from orchestrator.services.event_feed import EventFeed
from orchestrator.services.events import EventLog
from orchestrator.services.files import Files
from orchestrator.services.forking import Forking
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
from orchestrator.services.lease_keeper import LeaseKeeper
from orchestrator.services.lifecycle import Lifecycle
from orchestrator.services.links import Links
from orchestrator.services.messages import Messages
from orchestrator.services.overrides import OverrideSeal
from orchestrator.services.pool import WarmPool
from orchestrator.services.queueing import QueueKeeper
from orchestrator.services.reconciler import Reconciler
from orchestrator.services.retiring import Retiring
from orchestrator.services.reviewing import Reviewing
from orchestrator.services.sandbox_access import SandboxAccess
from orchestrator.services.shares import Shares
from orchestrator.services.snapshots import Snapshots
from orchestrator.services.start import Surroundings
from orchestrator.services.suspension import Suspension
from orchestrator.services.tenancy import Tenancy
from orchestrator.services.tending import Tending
from orchestrator.services.thawing import Thawing
from orchestrator.services.token_callers import TokenCallers
from orchestrator.services.transcript import Transcript
from orchestrator.services.warm_start import stages_of
from orchestrator.services.watching import EngineWatch
from orchestrator.services.webhooks import Webhooks
from orchestrator.services.workers import Workers
from orchestrator.settings import OrchestratorSettings
from orchestrator.state.embedded import EmbeddedServer
from orchestrator.state.event_archive.archive import EventArchive
from orchestrator.state.hooks import QUEUE_BYTES
from orchestrator.state.journal.shipper import Shipper
from orchestrator.state.redis_store import RedisStore

log = structlog.get_logger(__name__)


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


@dataclass(frozen=True)
class Ground:
    """What is open before anything is put into the house."""

    settings: OrchestratorSettings
    public_url: str
    store: RedisStore
    master: MasterKeys
    driver: Driver
    installation: str
    probe: Probe | None  #: None: tokens of git providers are not asked about
    state_server: EmbeddedServer | None  #: the one that we started ourselves
    clients: RuntimeClients
    shipper: Shipper
    archive: EventArchive
    recover: Callable[[], Coroutine[Any, Any, None]]
    facing: Facing | None
    guard: Guard
    outbound: Outbound
    tokens: Tokens | None  #: None: only API keys are taken
    health: StateHealth
    isolation: Isolation
    images: Images | None
    about: Mapping[str, str]


async def furnish(ground: Ground) -> House:
    """Nothing runs yet: the server starts the loops."""
    settings, store, driver, images = ground.settings, ground.store, ground.driver, ground.images
    installation, clients, shipper, health = ground.installation, ground.clients, ground.shipper, ground.health
    clock, envelope = SystemClock(), Envelope(ground.master, store.configuration)
    tokens = (
        None if ground.tokens is None else TokenCallers(ground.tokens.claims, reading(settings), store.tenants, clock)
    )
    operator_key = settings.operator_key
    tenancy = Tenancy(
        store.tenants,
        clock,
        operator_key=check_operator_key(operator_key.get_secret_value()) if operator_key else None,
        refusal=ground.isolation.refusal,
        hint=lambda: ground.isolation.hint,
        sizes=settings.known_sizes,
        by_token=None if tokens is None else tokens.caller,
    )
    layers = Layers(store.configuration, envelope)
    overrides = OverrideSeal(envelope)
    effective = Effective(layers, overrides)
    keys = KeyRing(envelope)
    archiving = EventArchiving(
        store.events, ground.archive, Bounds(settings.events_held, settings.events_held_kilobytes * 1024)
    )
    events = EventLog(store.events, archiving, clients, keys, clock)
    routes = Routes(store.traffic, keys)
    ports, cache = PublicPorts(), RouteCache(routes.load)
    shares = Shares(None if ground.state_server is not None else store.presence, new_uuid())
    reconciler = Reconciler(installation, driver, store.conversations, store.spares, ports.expose, shares)
    health.also(lambda: reconciler.problem)
    health.also(lambda: ports.problem)
    activity = Activity(store.traffic, written=cache.confirm)
    runtime_url = runtime_url_of(settings, ground.public_url)

    pool = None
    if isinstance(driver, Spareable) and driver.capabilities.spares:
        stocks, told = settings.stocks, settings.runtime_variables
        pool = WarmPool(
            installation, driver, store.spares, clients, ground.master, stocks, images=images, variables=told
        )
    elif any(stock.minimum for stock in settings.stocks):
        log.warning("pool.not_possible", driver=driver.name, hint="every start is cold: this driver has no spares")

    arrivals = Arrivals()

    def published(conversation: Conversation) -> None:
        forgotten(cache, conversation)
        arrivals.tell(conversation.id)

    def withdraw(conversation: Conversation) -> None:
        ports.withdraw(conversation)
        forgotten(cache, conversation)

    surroundings = Surroundings(
        installation=installation,
        driver=driver,
        conversations=store.conversations,
        effective=effective,
        keys=keys,
        clients=clients,
        clock=clock,
        public_urls=lambda conversation: [url for url in (ground.public_url, runtime_url(conversation)) if url],
        allow_http_hosts=sorted(settings.http_hosts),
        reached_hosts=settings.reached_hosts,
        allowed_origins=sorted(settings.origins),
        keys_in_commands=settings.sandbox_key,
        expose=ports.expose,
        published=published,
        withdraw=withdraw,
        archived=shipper.ship,
        generation=store.configuration.generation,
        webhook=webhook_of(ground.facing, driver),
        alive_seconds=min(60.0, settings.start_timeout / 2),
        step_seconds=step_seconds(settings.step_seconds),
        pool=pool,
        images=images,
        variables=settings.runtime_variables,
        source=lambda fork: forking.given_out(fork),
    )
    feed = EventFeed(events, store.changes)
    feed.subscribe(arrivals.tell)
    idleness = Idleness(
        store.conversations,
        effective,
        activity,
        clients,
        keys,
        clock,
        settings.spans,
    )
    admission = Admission(store, layers.settings, idleness, settings.limits, clock)
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
        Retiring(
            surroundings,
            store,
            idleness,
            archiving=archiving,
            undelete_seconds=settings.undelete_seconds,
        ),
        archiving,
        start_timeout=settings.start_timeout,
    )
    lease_seconds, replica = settings.lease_seconds, new_uuid()
    keeper = LeaseKeeper(store.leases, clock, lease_seconds=lease_seconds)
    workers = Workers(store.conversations, lifecycle, keeper, owner=replica, lease_seconds=lease_seconds)
    queue = QueueKeeper(store.slots, store.conversations, admission, workers.wake)
    admission.subscribe(queue.look_again)
    sender = Sender(ground.outbound.post, envelope, clock)
    webhooks = Webhooks(store.hooks, envelope, ground.guard, sender, clock, queue_bytes=QUEUE_BYTES)
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

    lifecycle.subscribe(partial(conversations.wake, wait_ms=WAKE_MS))

    files = Files(conversations, keys, Streams(), arrivals, activity.touch)
    copying = Copying(files, keys, clients, Streams())
    snapshots = Snapshots(
        conversations,
        files,
        copying,
        Thawing(surroundings, keeper, owner=replica, lease_seconds=lease_seconds, wake=workers.wake),
        ground.archive.snapshots,
        clock,
        most=settings.snapshots,
        limit_bytes=settings.snapshot_megabytes * 1_000_000,
    )
    forking = Forking(conversations, effective, files, copying, snapshots)
    services = Services(
        tenancy=tenancy,
        call_rates=CallRates(
            store.buckets, per_key=settings.calls_per_second_per_key, per_tenant=settings.tenant_calls_per_second
        ),
        layers=layers,
        effective=effective,
        conversations=conversations,
        runtimes=runtimes,
        arrivals=arrivals,
        auditing=Auditing(store.audit, clock, settings.audit_kept),
        messages=Messages(store.inbox, conversations, wake=workers.wake),
        idleness=idleness,
        admission=admission,
        holding=Holding(store.inbox, idleness, admission, clock),
        inspection=Inspection(driver, effective, keys),
        inside=Inside(clients, keys),
        feed=feed,
        transcript=Transcript(events),
        links=Links(conversations, clock, changed=partial(forgotten, cache)),
        runtime_links=Links(runtimes, clock, changed=partial(forgotten, cache)),
        link_url=link_url(ground.public_url, settings.domain),
        files=files,
        forking=forking,
        snapshots=snapshots,
        webhooks=webhooks,
        page_marks=PageMarks(ground.master),
        keys=keys,
        sandbox_access=SandboxAccess(store.conversations, layers, overrides),
        sealer=envelope,
        store=store,
        clock=clock,
        token_check=TokenCheck(ground.probe),
        images=images,
        http_hosts=settings.http_hosts,
        runtime_url=runtime_url,
        about=ground.about,
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
        wake=lambda runtime, seconds: woken(cache, routes, runtime, seconds, rouse, admission),
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
        facing=ground.facing,
        intake=Intake(store.conversations, events, store.spending, keys, clock, activity.touch),
        disk_watch=DiskWatch(installation, driver, shares, limit_bytes=settings.runtime_disk_megabytes * 1_000_000),
        watch=EngineWatch(installation, driver, store.conversations, store.spares, workers.wake, shares),
        installation=installation,
        state_server=ground.state_server,
        shipper=shipper,
        recover=ground.recover,
        health=health,
        new_operator_key=await tenancy.ensure_operator_key(),
    )
