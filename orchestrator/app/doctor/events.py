"""The archive of events."""

from orchestrator.app.doctor.finding import Finding, Level, from_error
from orchestrator.domain.errors import NestorError
from orchestrator.settings import OrchestratorSettings
from orchestrator.state import keys
from orchestrator.state.event_archive.archive import open_event_archive
from orchestrator.state.redis_store import RedisStore

_ABOUT = "events"
_NAMED = 20  #: problems that are told one by one


async def look(settings: OrchestratorSettings, store: RedisStore | None) -> list[Finding]:
    """Every block of every segment, and whether it is the archive that the state server's replicas write. Changes
    nothing, also not in a place that was never used."""
    folder = settings.data_dir / "events"
    if settings.events_url is None and settings.journal_url is None and not folder.is_dir():
        return [Finding(_ABOUT, Level.OK, "nothing was archived yet")]
    try:
        archive = open_event_archive(settings.events_url, journal=settings.journal_url, default=folder)
    except NestorError as exc:
        return [from_error(_ABOUT, exc)]
    try:
        found = await archive.check()
        identity = await archive.known_identity()
    except NestorError as exc:
        return [from_error(_ABOUT, exc)]
    finally:
        await archive.close()
    hint = "bring it back from a copy; until then who reads there gets 503, and no event is passed over"
    findings = [Finding(_ABOUT, Level.FAILURE, problem, hint) for problem in found.problems[:_NAMED]]
    if len(found.problems) > _NAMED:
        findings.append(Finding(_ABOUT, Level.FAILURE, f"and {len(found.problems) - _NAMED} more", hint))
    if not found.problems:
        words = f"{found.logs} logs with {found.events} events in {found.segments} segments, every block sound"
        findings.append(Finding(_ABOUT, Level.OK, words))
    return findings + await _same(store, identity)


async def _same(store: RedisStore | None, identity: str | None) -> list[Finding]:
    if store is None:
        return []
    try:
        (known,) = await store.peek(keys.EVENT_ARCHIVE)
    except NestorError:
        return []  # told by the check of the state server
    if known is None or known == identity:
        return []
    words = "it is not the archive that the state server's replicas write, or it was lost"
    hint = "set NESTOR_EVENTS_URL to the one they share; if it is lost for good: nestor journal begin-anew"
    return [Finding(_ABOUT, Level.FAILURE, words, hint)]
