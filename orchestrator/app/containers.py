"""Runtimes as containers, from the settings: the driver with all that was chosen, and whether what it promises holds.

`house.py` calls it at the start. What does not hold and is required keeps a second tenant out: a person alone may well
run Nestor where tenants could not be kept apart.
"""

from collections.abc import Mapping, Sequence

import structlog

from orchestrator.domain.errors import Misconfigured
from orchestrator.domain.ids import TenantId
from orchestrator.domain.images import Catalogue
from orchestrator.drivers.base import Driver, Imaged, Walled
from orchestrator.drivers.errors import ImageUnavailable
from orchestrator.drivers.values import Dialect, Row
from orchestrator.services.images import Images
from orchestrator.settings import OrchestratorSettings
from orchestrator.state.base import Tenants

log = structlog.get_logger(__name__)
_ALL = "all"
_UNTRIED = "untried"  #: accepted that nothing is tried out, which saves the seconds that it takes


async def pull_missing(driver: Imaged, catalogue: Catalogue) -> None:
    """Fetch what the operator names and the engine does not have. Raises `Misconfigured` where that fails."""
    for name in catalogue.names:
        try:
            await driver.image_id(name)
        except ImageUnavailable:
            log.info("image.pulling", image=name)
            try:
                await driver.pull(name)
            except ImageUnavailable as exc:
                raise Misconfigured(exc.message, hint=exc.hint) from None


async def images_of(
    driver: Driver, catalogue: Catalogue | None, tenants: Tenants, *, fetching: bool = False
) -> Images | None:
    """`fetching` as for `Images`. None where runtimes are made of no images. Raises `Misconfigured` where the engine
    lacks the one that new conversations get, or are to try out."""
    if catalogue is None or not isinstance(driver, Imaged) or not driver.capabilities.images:
        return None

    async def granted(tenant: TenantId) -> Mapping[str, str] | None:
        record = await tenants.tenant(tenant)
        return None if record is None else record.images

    images = Images(driver, catalogue, granted, fetching=fetching)
    missing = await images.look()
    for name in (catalogue.default, catalogue.canary):
        if name is not None and images.id_of(name) is None:
            raise Misconfigured(
                f"the engine has no image {name}",
                hint="build it with scripts/images, or fetch it: docker pull, or NESTOR_PULL_IMAGES=missing",
            )
    for one in missing:
        log.warning("image.missing", problem=one.message, hint=one.hint)
    return images


class Isolation:
    """What was found of the hardening; nothing, and no refusal, for a driver that does not look."""

    def __init__(self, driver: Driver, accepted: frozenset[str]) -> None:
        self._driver = driver
        self._accepted = accepted
        self.rows: Sequence[Row] = ()

    async def establish(self, listener: tuple[str, int] | None, tenants: Tenants) -> None:
        """Set the rules and look at what holds. Raises `Misconfigured` when there are several tenants already and
        something required is missing, or when the operator accepts a row that is not there."""
        if not isinstance(self._driver, Walled):
            return
        await self._driver.wall(listener)
        if _UNTRIED in self._accepted:
            log.warning("hardening.not_tried", hint="NESTOR_ACCEPT_WEAKER has untried in it")
            return
        self.rows = await self._driver.report()
        unknown = sorted(self._accepted - {row.name for row in self.rows} - {_ALL})
        if unknown:
            raise Misconfigured(
                f"NESTOR_ACCEPT_WEAKER: there is no row {unknown[0]}",
                hint=f"rows are: {', '.join(row.name for row in self.rows)}",
            )
        self._tell()
        refusal = self.refusal()
        if refusal is not None and len((await tenants.list_tenants(cursor=None, limit=2)).items) > 1:
            raise Misconfigured(f"there are several tenants, and {refusal}", hint=self.hint)

    def refusal(self) -> str | None:
        """Why there may be no second tenant; None when there may."""
        missing = [row for row in self._missing() if row.required and not self._accepts(row)]
        if not missing:
            return None
        return "on this engine did not take effect: " + "; ".join(f"{row.name} ({row.said})" for row in missing)

    @property
    def hint(self) -> str:
        names = ",".join(row.name for row in self._missing() if row.required)
        return f"mend it, or accept it knowingly with NESTOR_ACCEPT_WEAKER={names}"

    def summary(self) -> str:
        """For people, in one line; empty where nothing was looked at."""
        if not self.rows:
            return ""
        missing = self._missing()
        words = f"{len(self.rows) - len(missing)} of {len(self.rows)} parts took effect"
        if missing:
            words += "; not: " + ", ".join(
                f"{row.name} ({row.said})" + ("" if row.required else ", not required") for row in missing
            )
        return words

    def _missing(self) -> Sequence[Row]:
        return [row for row in self.rows if not row.held]

    def _accepts(self, row: Row) -> bool:
        return _ALL in self._accepted or row.name in self._accepted

    def _tell(self) -> None:
        log.info("hardening.holds", rows=[row.name for row in self.rows if row.held])
        for row in self._missing():
            say = log.warning if row.required else log.info
            say("hardening.missing", row=row.name, found=row.said, required=row.required, accepted=self._accepts(row))


def docker_driver(settings: OrchestratorSettings, installation: str) -> Driver:
    """Raises `Misconfigured` naming the variable."""
    from orchestrator.drivers.docker import Choices, DockerDriver  # an SDK that the other drivers do without
    from orchestrator.drivers.docker_cells import CellKind
    from orchestrator.drivers.docker_rules import Egress, parse_doors
    from orchestrator.drivers.docker_spec import Hardening

    choices = Choices(
        hardening=Hardening(
            oci_runtime=settings.oci_runtime,
            seccomp=_seccomp(settings),
            apparmor=settings.apparmor_profile,
            file_bytes=settings.runtime_disk_megabytes * 1_000_000,
        ),
        pool=settings.runtime_pool,
        cells=CellKind(settings.runtime_cells),
        egress=Egress(settings.egress),
        egress_image=settings.egress_image,
        stock=Dialect(settings.stock_start),
        doors=parse_doors(settings.runtime_reaches, variable="NESTOR_RUNTIME_REACHES"),
        outside=settings.network_rules == "outside",
        container=settings.container,
    )
    return DockerDriver(
        settings.data_dir,
        installation=installation,
        image=settings.runtime_image,
        host=settings.docker_host,
        network=settings.runtime_network,
        subnet=settings.runtime_subnet,
        data_volume=settings.data_volume,
        choices=choices,
    )


def _seccomp(settings: OrchestratorSettings) -> str | None:
    if settings.seccomp_profile is None:
        return None
    try:
        return settings.seccomp_profile.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise Misconfigured(
            f"NESTOR_SECCOMP_PROFILE: {settings.seccomp_profile} cannot be read ({type(exc).__name__})"
        ) from None
