"""The state server and the journal."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.app.choices import master_keys_of
from orchestrator.app.doctor.finding import Finding, Level, from_error
from orchestrator.domain.errors import NestorError, Sealed
from orchestrator.settings import OrchestratorSettings
from orchestrator.state import keys
from orchestrator.state.journal.archive import Archive, open_archive
from orchestrator.state.redis_store import RedisStore

_SKEW_SECONDS = 2.0
_SETTLE_SECONDS = 2.0


@dataclass
class Known:
    """What later checks go by."""

    store: RedisStore | None = None  #: None where no state server could be asked
    installation: str | None = None
    findings: list[Finding] = field(default_factory=list)


async def look(settings: OrchestratorSettings, stack: AsyncExitStack) -> Known:
    """Changes nothing, also not in an empty state server."""
    known = Known()
    archive = await _journal(settings, known, stack)
    await _server(settings, known, stack)
    if known.store is not None:
        await _contents(known, archive)
    elif archive is not None:
        await _offline(known, archive)
    if archive is not None:
        await _key_fits(settings, known, archive)
    return known


async def _journal(settings: OrchestratorSettings, known: Known, stack: AsyncExitStack) -> Archive | None:
    about = "journal"
    folder = settings.data_dir / "journal"
    if settings.journal_url is None and not folder.is_dir():
        known.findings.append(Finding(about, Level.WARNING, f"{folder} is not there yet", "the first start makes it"))
        return None
    try:
        archive = open_archive(settings.journal_url, folder)
        stack.push_async_callback(archive.close)
        homes = await archive.homes()
    except NestorError as exc:
        known.findings.append(from_error(about, exc))
        return None
    entries = broken = 0
    for home in homes:
        try:
            entries += (await archive.check(home)).entries
        except NestorError as exc:
            broken += 1
            known.findings.append(from_error(about, exc))
    if not broken:
        words = f"{len(homes)} chains with {entries} entries, every line in its place"
        known.findings.append(Finding(about, Level.OK, words))
    return archive


async def _server(settings: OrchestratorSettings, known: Known, stack: AsyncExitStack) -> None:
    about = "state server"
    url = settings.redis_url.get_secret_value() if settings.redis_url is not None else _embedded(settings.data_dir)
    if url is None:
        words = "the embedded one does not run, so what it holds was not looked at"
        known.findings.append(Finding(about, Level.WARNING, words, "run this beside the orchestrator for the rest"))
        return
    store = RedisStore(url, timeout=5.0)
    stack.push_async_callback(store.close)
    try:
        report = await store.check()
        skew = await _skew(store)
    except NestorError as exc:
        known.findings.append(from_error(about, exc))
        return
    known.store = store
    safe = report["durability"].startswith(("every", "an accepted"))
    hint = "" if safe else "appendonly yes and appendfsync always; until then changes wait for the journal"
    words = f"{report['server']} {report['version']}: {report['durability']}"
    known.findings.append(Finding(about, Level.OK if safe else Level.WARNING, words, hint))
    level = Level.FAILURE if skew > _SKEW_SECONDS else Level.OK
    words = f"{skew:.2f} s apart from the state server's"
    known.findings.append(
        Finding("clock", level, words, "synchronise both machines (NTP)" if skew > _SKEW_SECONDS else "")
    )


def _embedded(data_dir: Path) -> str | None:
    """The address of a running orchestrator's own server."""
    socket = data_dir / "state" / "server.sock"
    return f"unix://{socket}" if socket.exists() else None


async def _skew(store: RedisStore) -> float:
    """The smallest of three, each less what the question took."""
    found = []
    for _ in range(3):
        began = time.time()
        there = await store.clock()
        took = time.time() - began
        found.append(max(0.0, abs(there - (began + took / 2)) - took / 2))
        await asyncio.sleep(0)
    return min(found)


async def _contents(known: Known, archive: Archive | None) -> None:
    store = known.store
    if store is None:
        return
    held = await store.peek(keys.EPOCH, keys.INSTALLATION, keys.ARCHIVE)
    epoch, known.installation, identity = held
    if epoch is None:
        empty = known.installation is None
        homes = await archive.homes() if archive is not None else []
        if empty and homes:
            words = "it is empty although the journal is not"
            known.findings.append(
                Finding("contents", Level.FAILURE, words, "start the orchestrator, or nestor journal restore")
            )
        else:
            known.findings.append(Finding("contents", Level.WARNING, "it was never used, or a rebuild is under way"))
        return
    if archive is not None and identity is not None and identity != await archive.identity():
        known.findings.append(
            Finding(
                "journal",
                Level.FAILURE,
                "it is not the one that the state server's replicas write",
                "set NESTOR_JOURNAL_URL to the one they share; if it is lost: nestor journal begin-anew",
            )
        )
        return
    if archive is not None and (behind := await _behind(store, archive)):
        words = f"it lacks changes of {len(behind)} tenants that the journal holds: it was set back, or lost its end"
        hint = "the next start mends an embedded one; else stop every replica and nestor journal restore --replace"
        known.findings.append(Finding("contents", Level.FAILURE, words, hint))
    backlog = await store.backlog()
    words = "nothing waits for the journal" if not backlog else f"changes of {backlog} tenants wait for the journal"
    known.findings.append(Finding("backlog", Level.OK if backlog < 100 else Level.WARNING, words))


async def _behind(store: RedisStore, archive: Archive) -> set[str]:
    """Looked at twice: beside a running orchestrator, what was just archived may look like it for a moment."""
    restoring = store.restoring(archive)
    try:
        first = set(await restoring.behind())
        if first:
            await asyncio.sleep(_SETTLE_SECONDS)
            first &= set(await restoring.behind())
        return first
    except NestorError:
        return set()  # told by the check of the chains
    finally:
        await restoring.close()


async def _offline(known: Known, archive: Archive) -> None:
    try:
        folded, _ = await archive.read(keys.HOUSE)
    except NestorError:
        return  # told by the check of the chains
    known.installation = dict(folded.of("house")).get("installation")


async def _key_fits(settings: OrchestratorSettings, known: Known, archive: Archive) -> None:
    """By the check value in the journal: another key would leave everything sealed."""
    try:
        folded, _ = await archive.read(keys.HOUSE)
        value = dict(folded.of("house")).get("master_check")
        if value is None or not _has_key(settings):
            return
        master_keys_of(settings).verify(value)
        known.findings.append(Finding("master key", Level.OK, "it is the one that everything is sealed under"))
    except Sealed as exc:
        known.findings.append(from_error("master key", exc))
    except NestorError:
        return  # told elsewhere


def _has_key(settings: OrchestratorSettings) -> bool:
    given = settings.master_key is not None or settings.master_key_file is not None
    return given or (settings.data_dir / "master.key").exists()
