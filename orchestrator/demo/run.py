"""The demo as a whole: servers, orchestrator, two customers, three conversations, the table, and nothing left over.

`nestor demo` calls `run_demo`. Every part is a block that ends what it started, so a signal at any moment unwinds
them in order.
"""

import contextlib
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import httpx

from orchestrator.demo.act import Act, Guest, Surroundings
from orchestrator.demo.display import Display, PlainDisplay
from orchestrator.demo.git_backend import GitUnavailable
from orchestrator.demo.house import House, house_for
from orchestrator.demo.leftovers import processes_left
from orchestrator.demo.live_display import LiveDisplay
from orchestrator.demo.native import NativeApi
from orchestrator.demo.options import DemoFailed, DemoOptions
from orchestrator.demo.outcome import Outcome
from orchestrator.demo.story import CUSTOMERS, FILES, PROVIDER, SECRET_NAME, Customer
from orchestrator.domain.secrets import new_secret

#: How long one agent may work: a script plays in seconds, a real model thinks.
_SCRIPTED_RUN_SECONDS = 120
_MODEL_RUN_SECONDS = 900
_LEFTOVER_SECONDS = 10
_REMOVE_SECONDS = 90
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


async def run_demo(options: DemoOptions) -> int:
    """Play the demo once and answer its exit status: 0 when all of it happened, 1 when something is missing.

    SIGINT, SIGTERM and SIGHUP (a closed terminal) are taken over while it runs; then the status is 130, 143 or 129,
    after everything was ended.
    """
    display: Display = PlainDisplay() if options.plain or not sys.stdout.isatty() else LiveDisplay()
    caught: list[signal.Signals] = []
    status = 1
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals, display:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_obey, signals, tasks.cancel_scope, caught, display)
            status = await _run(options, display)
            tasks.cancel_scope.cancel()
    return 128 + caught[0] if caught else status


async def _obey(
    signals: AsyncIterator[signal.Signals],
    scope: anyio.CancelScope,
    caught: list[signal.Signals],
    display: Display,
) -> None:
    async for number in signals:
        caught.append(number)
        display.note(f"{number.name}: ending everything")
        scope.cancel()


async def _run(options: DemoOptions, display: Display) -> int:
    """The whole run inside its folder; says at the end what is missing."""
    misses: list[str] = []
    try:
        with _folder(options) as folder:
            try:
                misses += await _perform(options, folder, display)
            finally:
                with anyio.CancelScope(shield=True):
                    left = await processes_left(folder, within=_LEFTOVER_SECONDS)
                misses += [f"still running: {process}" for process in left]
        if options.keep:
            display.note(f"Kept: {folder}")
    except (DemoFailed, GitUnavailable, OSError) as exc:
        misses.append(str(exc))
    finally:
        for miss in misses:
            display.miss(miss)
    if not misses:
        display.note("All of it happened." if options.keep else "All of it happened, and nothing is left behind.")
    return 1 if misses else 0


@contextlib.contextmanager
def _folder(options: DemoOptions) -> Iterator[Path]:
    """The data folder; one that the demo made itself is removed, unless it shall be kept."""
    if options.data_dir is not None:
        options.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield options.data_dir
        return
    folder = Path(tempfile.mkdtemp(prefix="nestor-demo-"))
    try:
        yield folder
    finally:
        if not options.keep:
            shutil.rmtree(folder)


async def _perform(options: DemoOptions, folder: Path, display: Display) -> list[str]:
    """Play everything; answers with the misses, each with the conversation it belongs to."""
    async with house_for(options, folder, display) as house:
        through_proxy = urlsplit(house.orchestrator.url).hostname not in _LOOPBACK
        async with httpx.AsyncClient(
            base_url=house.orchestrator.url, timeout=httpx.Timeout(60, connect=10), trust_env=through_proxy
        ) as client:
            operator = NativeApi(client, house.orchestrator.operator_key)
            guests = [await _welcome(customer, operator, house) for customer in CUSTOMERS]
            around = Surroundings(
                git=house.git,
                display=display,
                scripted=options.model is None,
                run_seconds=_SCRIPTED_RUN_SECONDS if options.model is None else _MODEL_RUN_SECONDS,
                through_proxy=through_proxy,
            )
            acts = _acts(guests, around)
            others = options.url is not None
            await _play(acts, display, others_server=others, keep=others and options.keep)
    return [f"[{act.outcome.label}] {miss}" for act in acts for miss in act.outcome.misses]


async def _welcome(customer: Customer, operator: NativeApi, house: House) -> Guest:
    """Make a tenant with a user and its key, a private repository, and store what the user's agents need."""
    tenant = await operator.create_tenant(customer.name)
    user = await operator.create_user(tenant, customer.user)
    api = operator.acting_as(await operator.create_key(tenant, "demo", user=user))
    guest = Guest(customer, tenant, api, secret=new_secret(), token=new_secret())
    await house.git.create_repository(customer.repository, files=FILES, token=guest.token.open())
    await api.change_settings({"agent_settings": {"llm": house.model.settings()}})
    await api.put_git_provider(PROVIDER, token=guest.token, host=house.git.origin)
    await api.put_secret(SECRET_NAME, guest.secret, description="A value of this tenant alone")
    return guest


def _acts(guests: Sequence[Guest], around: Surroundings) -> list[Act]:
    """One act for each task; the stranger of each is another tenant's user."""
    acts = []
    for place, guest in enumerate(guests):
        stranger = guests[(place + 1) % len(guests)].api
        for task in guest.customer.tasks:
            outcome = Outcome(str(uuid.uuid4()), tenant=guest.customer.name, tenant_id=guest.tenant, task=task)
            acts.append(Act(outcome, guest=guest, stranger=stranger, around=around))
    return acts


async def _play(acts: Sequence[Act], display: Display, *, others_server: bool, keep: bool) -> None:
    """All acts at once, then the table, then the deletions; with `keep` the word where the conversations are.

    On somebody else's orchestrator the conversations are deleted when the run is broken off, `keep` or not; the demo's
    own removes what it runs when it ends.
    """
    try:
        async with anyio.create_task_group() as tasks:
            for act in acts:
                tasks.start_soon(act.play)
        display.table([act.outcome for act in acts])
    except BaseException:
        if others_server:
            with anyio.move_on_after(_REMOVE_SECONDS, shield=True):
                await _remove(acts)
        raise
    if not keep:
        await _remove(acts)
        return
    for outcome in (act.outcome for act in acts):
        display.note(f"Kept: conversation {outcome.conversation} of tenant {outcome.tenant_id} ({outcome.tenant})")


async def _remove(acts: Sequence[Act]) -> None:
    async with anyio.create_task_group() as tasks:
        for act in acts:
            tasks.start_soon(act.remove)
