"""Who holds an API key, and what of theirs a request on the single origin means: a conversation, or their home.

The home is one bare runtime for each user of a tenant, and for the tenant itself, made when it is first asked for.
"""

from orchestrator.api.acceptance import until_ready
from orchestrator.api.auth import Owner, owner_as
from orchestrator.api.context import Services
from orchestrator.app.furnishing import House
from orchestrator.domain.conversation import Conversation, Phase, StartRequest
from orchestrator.domain.errors import (
    CapacityReached,
    Conflict,
    Elapsed,
    Forbidden,
    InvalidRequest,
    KeysUnavailable,
    LimitReached,
    NotFound,
    Unauthenticated,
)
from orchestrator.domain.ids import RuntimeId
from orchestrator.domain.tenancy import Scope
from orchestrator.facades.home import HOME
from orchestrator.proxy import answers
from orchestrator.proxy.admission import Refused
from orchestrator.proxy.claims import ClaimRoutes
from orchestrator.proxy.route import Unavailable
from orchestrator.proxy.single_origin import Claim
from orchestrator.services.drafting import Wanted
from orchestrator.services.overrides import Overrides
from orchestrator.services.resting import may_wake, will_wake


def claims_of(house: House) -> ClaimRoutes:
    """Claims in front of the house's routes."""
    claims = Claims(house.services)
    routes = house.routes
    return ClaimRoutes(
        routes.known, routes.resolve, routes.invalidate, house.wake, look=claims.look, prepare=claims.prepare
    )


class Claims:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def look(self, claim: Claim) -> RuntimeId | Unavailable | None:
        """As `claims.Look`."""
        owner = await self._owner(claim)
        record = await self._record(claim, owner)
        if record is None:
            return None if claim.place.conversation else _waits(claim, "the caller's home is made by its first use")
        if record.phase is not Phase.READY and await self._starts(record):
            return _waits(claim, f"the {record.kind} is {record.phase}")
        if record.phase is Phase.FAILED and not claim.place.conversation:
            return _waits(claim, "the caller's home failed, and is started again by its next use")
        wakes = may_wake(record) or will_wake(record)
        if record.phase in (Phase.STOPPING, Phase.STOPPED) and not claim.place.conversation and not wakes:
            return Unavailable(f"the caller's home is stopped: POST /api/v2/runtimes/{record.id}/start")
        return RuntimeId(record.runtime.id) if record.runtime is not None else None

    async def prepare(self, claim: Claim, seconds: float) -> RuntimeId | Unavailable | None:
        """As `claims.Prepare`: what starts is waited for, and a home that is not there is made."""
        owner = await self._owner(claim)
        try:
            record = await self._record(claim, owner) or await self._home(claim, owner)
            if record is None:
                return None
            if record.phase is Phase.FAILED and not claim.place.conversation and not await self._starts(record):
                record = await self._services.runtimes.start(owner.tenant, owner.user, record.id, key=owner.caller.key)
            if record.phase is not Phase.READY and await self._starts(record):
                record = await until_ready(self._services, owner.tenant, owner.user, record, seconds)
        except (LimitReached, CapacityReached) as exc:
            return Unavailable(exc.message, retry_after=max(1, round(exc.retry_after)), details=dict(exc.details))
        except (Elapsed, Conflict, InvalidRequest) as exc:
            return Unavailable(exc.message)
        except NotFound:
            return None
        if record.phase is Phase.FAILED:
            return Unavailable(f"the {record.kind} could not be started: {record.why.message}", retry_after=10)
        return RuntimeId(record.runtime.id) if record.runtime is not None else None

    async def _owner(self, claim: Claim) -> Owner:
        """Who claims it, with the right to write: what runs there takes every command. Raises `Refused`."""
        try:
            caller = await self._services.tenancy.authenticate(claim.key.open())
            return await owner_as(self._services, caller, claim.acts_for, Scope.WRITE)
        except Unauthenticated:
            raise Refused(answers.UNAUTHORIZED) from None
        except Forbidden as exc:
            raise Refused(answers.problem(403, exc.message, exc.code)) from None
        except KeysUnavailable as exc:  # not as with the state server: this may outlast what a token is good for
            raise Refused(answers.problem(503, exc.message, exc.code)) from None
        except InvalidRequest as exc:
            raise Refused(answers.problem(422, exc.message, exc.code)) from None

    async def _record(self, claim: Claim, owner: Owner) -> Conversation | None:
        if claim.place.conversation is None:
            return await self._services.runtimes.named(owner.tenant, owner.user, HOME)
        try:
            return await self._services.conversations.get(owner.tenant, owner.user, claim.place.conversation)
        except NotFound:
            return None

    async def _home(self, claim: Claim, owner: Owner) -> Conversation | None:
        if claim.place.conversation is not None:
            return None
        wanted = Wanted(None, StartRequest(), Overrides(), None, {}, name=HOME)
        return await self._services.runtimes.create(owner.tenant, owner.user, wanted, key=owner.caller.key)

    async def _starts(self, record: Conversation) -> bool:
        return await self._services.conversations.is_starting(record)


def _waits(claim: Claim, message: str) -> Unavailable:
    """There is something to wait for, which the holder of the key may ask for."""
    return Unavailable(message, session_key_hash=claim.digest)
