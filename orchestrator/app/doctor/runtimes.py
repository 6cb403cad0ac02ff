"""The driver, and whether what runs is what the records want."""

from contextlib import AsyncExitStack

from orchestrator.app.choices import driver_of
from orchestrator.app.doctor.finding import Finding, Level, from_error
from orchestrator.app.doctor.state import Known
from orchestrator.domain.conversation import LIVE_PHASES, Phase
from orchestrator.domain.errors import NestorError, RuntimeNotFound, Unreadable
from orchestrator.drivers.base import Driver
from orchestrator.drivers.values import Condition, Handle, is_spare
from orchestrator.services.reconciler import labels_of
from orchestrator.services.start import runtime_name
from orchestrator.settings import OrchestratorSettings
from orchestrator.state.base import Conversations, Spares

_SHOWN = 20


async def look(settings: OrchestratorSettings, known: Known, stack: AsyncExitStack) -> list[Finding]:
    about = f"{settings.driver} driver"
    if settings.driver == "process" and not settings.data_dir.is_dir():
        return []  # making the driver would make the folder
    try:
        # Without a zygote: the one of a running orchestrator is in the same folder.
        alone = settings.model_copy(update={"zygote": "off"})
        driver = await driver_of(alone, known.installation or "none yet")
    except NestorError as exc:
        return [from_error(about, exc)]
    stack.push_async_callback(driver.close)
    fingerprint = await driver.fingerprint()
    findings = [Finding(about, Level.OK, fingerprint.message)]
    for name in fingerprint.details.get("damaged_claims", "").split():
        findings.append(
            Finding("claim", Level.FAILURE, f"{name} is damaged", "remove its folder when nothing runs in it")
        )
    if known.installation is None:
        return findings
    try:
        handles = await driver.list(known.installation)
        if known.store is None:
            findings.append(Finding("runtimes", Level.OK, f"{len(handles)} exist; whose they are was not looked at"))
            return findings
        pool = await known.store.spares.counts()
        wanted = sum(stock.minimum for stock in settings.stocks)
        if wanted or any((pool.making, pool.ready, pool.leaving, pool.bound)):
            words = f"{pool.ready} ready of {wanted}, {pool.making} being made, {pool.leaving} being removed, "
            words += f"{pool.bound} in use; {pool.hits} hits and {pool.misses} misses so far"
            findings.append(Finding("warm pool", Level.OK, words))
        wrong = [await _wrong(driver, handle, known.store.conversations, known.store.spares) for handle in handles]
        zombies = [words for words in wrong if words]
    except NestorError as exc:
        return [*findings, from_error("runtimes", exc)]
    findings += [
        Finding("zombie", Level.FAILURE, words, "the reconciler ends it within a minute, unless it was left on purpose")
        for words in zombies[:_SHOWN]
    ]
    if len(zombies) > _SHOWN:
        findings.append(Finding("zombie", Level.FAILURE, f"and {len(zombies) - _SHOWN} more"))
    if not zombies:
        findings.append(Finding("runtimes", Level.OK, f"{len(handles)} exist, each with its record"))
    return findings


async def _wrong(driver: Driver, handle: Handle, conversations: Conversations, spares: Spares) -> str | None:
    """Why this runtime should not be as it is, or None."""
    if handle.name in await conversations.unclaimed():
        return f"{handle.name} was left by a rebuild: no record claims it; look at it and end it by hand"
    labels = await labels_of(handle, spares)
    if labels is None:
        return None  # a spare of the warm pool
    if is_spare(labels):
        return f"{handle.name} is a spare that the warm pool does not know"
    try:
        record = await conversations.get(labels.tenant, labels.conversation)
    except Unreadable:
        return f"{handle.name} belongs to a record that this version cannot read"
    if record is None or record.runtime is None:
        return f"{handle.name} belongs to no record"
    starting = record.phase in (Phase.PENDING, Phase.PROVISIONING, Phase.CONFIGURING)
    if not starting and (
        record.phase not in LIVE_PHASES or handle.name != runtime_name(record, record.runtime.generation)
    ):
        generation = record.runtime.generation
        return f"{handle.name} exists although its conversation is {record.phase} with generation {generation}"
    try:
        observed = await driver.inspect(handle)
    except RuntimeNotFound:
        return None  # gone meanwhile
    if observed.condition is Condition.EXITED and record.phase is Phase.READY:
        return f"{handle.name} has ended although its conversation is ready"
    return None
