"""Where the operator's settings choose: master keys, state server, driver, and whether git providers are asked."""

import shlex
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import httpx

from orchestrator.app.containers import docker_driver, pull_missing
from orchestrator.domain.errors import Misconfigured
from orchestrator.drivers.base import Driver, Imaged
from orchestrator.drivers.fake import FakeDriver
from orchestrator.drivers.fake_remote import RemoteFakeDriver
from orchestrator.drivers.process import ProcessDriver, own_zygote
from orchestrator.drivers.values import Dialect
from orchestrator.security.connecting import is_lost_connection
from orchestrator.security.master_keys import MasterKeys, load_or_create_key_file, read_key_file
from orchestrator.services.git_tokens import Probe
from orchestrator.settings import OrchestratorSettings
from orchestrator.state.embedded import EmbeddedServer
from orchestrator.state.event_archive.archive import event_folder_of
from orchestrator.state.journal.archive import folder_of


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


async def place_of(driver: Driver) -> dict[str, str]:
    """Where runtimes reach this machine, if that is another address than loopback; where to listen for them, if that is
    yet another; how they start, if there is more than one way."""
    details = (await driver.fingerprint()).details
    return {name: text for name in ("gateway", "listen", "starts") if (text := details.get(name))}


@asynccontextmanager
async def probe_of(settings: OrchestratorSettings) -> AsyncIterator[Probe | None]:
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
