"""Which image a conversation runs, for good; what the engine has of the images that the operator named.

A request asks the engine nothing: the ids behind the operator's names are looked up now and then, and what is not known
yet is asked for by the start. What a tenant may use is kept with its ids, which no later tag changes.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio
import structlog

from orchestrator.domain.conversation import Conversation
from orchestrator.domain.errors import InvalidRequest, NestorError
from orchestrator.domain.ids import ConversationId, TenantId
from orchestrator.domain.images import Catalogue, Pin, choose
from orchestrator.drivers.base import Imaged
from orchestrator.drivers.errors import ImageUnavailable

log = structlog.get_logger(__name__)
_LOOK_SECONDS = 10.0
_FETCH_AGAIN_SECONDS = 60.0
NO_IMAGES = "the driver in use has no images"
#: What the operator allows one tenant in the place of the catalogue: ids by name; None for no such list.
Granted = Callable[[TenantId], Awaitable[Mapping[str, str] | None]]


class Images:
    """Of one replica."""

    def __init__(self, driver: Imaged, catalogue: Catalogue, granted: Granted, *, fetching: bool = False) -> None:
        """`fetching`: what the operator names and the engine lost is pulled again, beside everything else."""
        self._fetching = fetching
        self._driver = driver
        self._granted = granted
        self.catalogue = catalogue
        self._ids: dict[str, str] = {}

    async def run(self) -> None:
        """Until cancelled: what the names stand for by now."""
        async with anyio.create_task_group() as tasks:
            if self._fetching:
                tasks.start_soon(self._fetch_again_and_again)
            while True:
                await anyio.sleep(_LOOK_SECONDS)
                try:
                    await self.look()
                except NestorError as exc:
                    log.warning("images.not_looked_at", problem=exc.message)

    async def fetch(self) -> int:
        """Pull what `look` did not find; answers how many came. One that cannot be had is told, and tried again later:
        conversations on it fail with `image_pull` meanwhile. May be repeated."""
        came = 0
        for name in [name for name in self.catalogue.names if name not in self._ids]:
            try:
                await self._driver.pull(name)
                self._ids[name] = await self._driver.image_id(name)
            except NestorError as exc:
                log.warning("image.not_fetched", image=name, problem=exc.message, hint=exc.hint)
                continue
            log.info("image.fetched", image=name, id=self._ids[name])
            came += 1
        return came

    async def _fetch_again_and_again(self) -> None:
        while True:
            await anyio.sleep(_FETCH_AGAIN_SECONDS)
            await self.fetch()

    async def look(self) -> Sequence[ImageUnavailable]:
        """Ask the engine for all of them; answers what it does not have. Raises `DriverUnavailable`."""
        missing = []
        for name in self.catalogue.names:
            try:
                found = await self._driver.image_id(name)
            except ImageUnavailable as exc:
                missing.append(exc)
                if self._ids.pop(name, None):
                    log.warning("image.gone", image=name, hint=exc.hint)
                continue
            if self._ids.get(name, found) != found:
                log.info("image.moved", image=name, id=found)
            self._ids[name] = found
        return missing

    @property
    def known(self) -> Mapping[str, str]:
        """Ids by the operator's names, as they were looked up last."""
        return dict(self._ids)

    def id_of(self, name: str | None) -> str | None:
        """What that name, or the default, stands for; None where that is not known."""
        return self._ids.get(name or self.catalogue.default)

    async def pin(self, tenant: TenantId, asked: str | None, conversation: ConversationId) -> Pin | None:
        """For a new conversation; None where the engine has to be asked first. Raises `ImageRefused`."""
        choice = choose(self.catalogue, await self._granted(tenant), asked, conversation)
        id = choice.id or self._ids.get(choice.name)
        return Pin(choice.name, id, choice.canary) if id else None

    async def pin_now(self, tenant: TenantId, asked: str | None, conversation: ConversationId) -> Pin:
        """The same with the engine's answer of now. Raises `ImageRefused`, `ImageUnavailable`, `DriverUnavailable`."""
        choice = choose(self.catalogue, await self._granted(tenant), asked, conversation)
        return Pin(choice.name, await self._driver.image_id(choice.id or choice.name), choice.canary)

    async def grant(self, names: Sequence[str]) -> Mapping[str, str]:
        """What these stand for now, to be kept with a tenant. Raises `InvalidRequest` for one that the engine does not
        have, `DriverUnavailable`."""
        found = {}
        for name in names:
            try:
                found[name] = await self._driver.image_id(name)
            except ImageUnavailable as exc:
                raise InvalidRequest(exc.message, field="images", hint=exc.hint) from exc
        return found

    def share_of(self, conversation: Conversation) -> str:
        """For figures: `default` or `canary`, by what these names stand for now, else `other`."""
        pin = conversation.image
        if pin is None:
            return "other"
        if pin.id == self._ids.get(self.catalogue.default):
            return "default"
        return "canary" if pin.canary or pin.id == self._ids.get(self.catalogue.canary or "") else "other"
