"""`nestor journal verify`, `restore` and `begin-anew`: the journal by hand."""

from collections.abc import Callable
from contextlib import AsyncExitStack

from orchestrator.app import data_folder
from orchestrator.app.choices import driver_of, master_keys_of, state_server_of, state_url_of
from orchestrator.domain.clock import SystemClock
from orchestrator.domain.errors import Misconfigured
from orchestrator.domain.ids import new_uuid
from orchestrator.nested.client import RuntimeClients
from orchestrator.services.recovery import Recovery
from orchestrator.settings import OrchestratorSettings
from orchestrator.state.journal.archive import DamagedArchive, open_archive
from orchestrator.state.redis_store import RedisStore

Say = Callable[[str], None]


async def verify(settings: OrchestratorSettings, say: Say) -> bool:
    """Read the whole archive and check every line's place in its chain; True if all of it is in order."""
    archive = open_archive(settings.journal_url, settings.data_dir / "journal")
    sound, entries = True, 0
    try:
        homes = await archive.homes()
        for home in homes:
            try:
                found = await archive.check(home)
            except DamagedArchive as exc:
                say(f"{home}: DAMAGED: {exc.message}")
                sound = False
                continue
            entries += found.entries
            say(f"{home}: {found.entries} entries, {found.objects} objects, {found.segments} files")
    finally:
        await archive.close()
    say(f"{len(homes)} journals, {entries} entries: {'all in order' if sound else 'DAMAGED, see above'}")
    return sound


async def restore(settings: OrchestratorSettings, say: Say, *, replace: bool) -> None:
    """Write the state server anew from the archive, and take over what runs. One that is not empty is left as it is,
    unless `replace`. Raises `Misconfigured`."""
    async with AsyncExitStack() as stack:
        stack.enter_context(data_folder.hold(settings.data_dir, shared=settings.redis_url is not None))
        master = master_keys_of(settings)
        own = await state_server_of(settings, stack)
        url = state_url_of(settings, own)
        store = RedisStore(url)
        stack.push_async_callback(store.close)
        archive = open_archive(settings.journal_url, settings.data_dir / "journal")
        stack.push_async_callback(archive.close)
        await store.check()
        restoring = store.restoring(archive)
        if replace:
            await restoring.forget()
        recovery = Recovery(restoring, store, master, SystemClock(), owner=new_uuid(), alone=own is not None)
        stack.push_async_callback(recovery.close)
        if not await recovery.at_start():
            raise Misconfigured(
                "nothing was restored: the state server is not empty, or the journal is",
                hint="to replace what the state server holds by what the journal knows: --replace",
            )
        master.verify(await store.master_check(master.check_value()))
        driver = await driver_of(settings.model_copy(update={"zygote": "off"}), await store.installation())
        stack.push_async_callback(driver.close)
        await recovery.adopt(driver, await store.installation(), RuntimeClients())
        say("restored: start the orchestrator")


async def begin_anew(settings: OrchestratorSettings, say: Say) -> None:
    """Accept that the archive is lost: the next start notes everything that the state server holds in the archive that
    it then finds. Every orchestrator has to be stopped."""
    async with AsyncExitStack() as stack:
        stack.enter_context(data_folder.hold(settings.data_dir, shared=False))
        url = state_url_of(settings, await state_server_of(settings, stack))
        store = RedisStore(url)
        stack.push_async_callback(store.close)
        await store.forget_archive()
        say("the next start writes a new journal from what the state server holds")
