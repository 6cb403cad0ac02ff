"""Claims in front of the routes: believed for a moment, opened by the caller's key, ended when they do not hold."""

from dataclasses import dataclass, field, replace

import pytest

from orchestrator.domain.errors import StoreUnavailable
from orchestrator.domain.ids import ConversationId, RuntimeId, TenantId
from orchestrator.domain.secrets import SecretText
from orchestrator.proxy import answers
from orchestrator.proxy.admission import Refused
from orchestrator.proxy.claims import ClaimRoutes
from orchestrator.proxy.route import Found, Route, Unavailable
from orchestrator.proxy.single_origin import Claim, Place
from orchestrator.proxy.tunnel import Tunnel
from orchestrator.proxy.upstream import UpstreamConnection

pytestmark = pytest.mark.anyio
RUNTIME = RuntimeId("r")
CLAIM = Claim(b"key", Place(ConversationId("c")))
CLAIMED = RuntimeId(CLAIM)
ROUTE = Route(
    RUNTIME, TenantId("t"), ConversationId("c"), 1, "127.0.0.1", 9, "hash-of-session-key", SecretText("inner")
)


@dataclass
class House:
    """What is behind the claims, and what was asked of it."""

    now: float = 0.0
    found: Found = ROUTE
    holder: RuntimeId | Unavailable | Exception | None = RUNTIME
    asked: list[str] = field(default_factory=list)

    def routes(self) -> ClaimRoutes:
        return ClaimRoutes(
            lambda runtime: self.found if isinstance(self.found, Route) and runtime == RUNTIME else None,
            self.resolve,
            lambda runtime: self.asked.append(f"forget {runtime}"),
            self.wake,
            look=self.look,
            prepare=self.prepare,
            clock=lambda: self.now,
        )

    async def resolve(self, runtime: RuntimeId) -> Found:
        return self.found

    async def wake(self, runtime: RuntimeId, seconds: float) -> Found:
        self.asked.append(f"wake {runtime}")
        return ROUTE

    async def look(self, claim: Claim) -> RuntimeId | Unavailable | None:
        self.asked.append("look")
        if isinstance(self.holder, Exception):
            raise self.holder
        return self.holder

    async def prepare(self, claim: Claim, seconds: float) -> RuntimeId | Unavailable | None:
        self.asked.append("prepare")
        return RUNTIME


async def test_a_claim_is_believed_for_less_than_a_second_and_opened_by_its_own_key() -> None:
    house = House()
    routes = house.routes()
    assert routes.known(CLAIMED) is None
    opened = await routes.resolve(CLAIMED)
    assert isinstance(opened, Route)
    assert (opened.session_key_hash, opened.own_key_hash, opened.place) == (
        CLAIM.digest,
        "hash-of-session-key",
        ROUTE.place,
    )
    assert routes.known(CLAIMED) is opened
    assert ROUTE.leads_to(opened), "the same runtime, so that what is open by it stays"
    house.now += 0.9
    assert routes.known(CLAIMED) is None
    house.holder = Refused(answers.UNAUTHORIZED)
    with pytest.raises(Refused):
        await routes.resolve(CLAIMED)
    assert house.asked == ["look", "look"]


async def test_while_nobody_can_be_asked_what_held_a_moment_ago_goes_on_holding() -> None:
    house = House()
    routes = house.routes()
    await routes.resolve(CLAIMED)
    house.holder = StoreUnavailable("away")
    for _ in range(3):
        house.now += 4.0
        assert isinstance(await routes.resolve(CLAIMED), Route)
    house.now += 10.0
    with pytest.raises(StoreUnavailable):
        await routes.resolve(CLAIMED)


async def test_what_is_no_claim_goes_through() -> None:
    house = House()
    routes = house.routes()
    assert routes.known(RUNTIME) is await routes.resolve(RUNTIME) is ROUTE
    routes.invalidate(RUNTIME)
    assert house.asked == ["forget r"]


async def test_a_sleeping_one_is_woken_by_the_claim_s_key_and_a_missing_home_is_made() -> None:
    house = House(found=Unavailable("sleeps", session_key_hash="hash-of-session-key"))
    routes = house.routes()
    asleep = await routes.resolve(CLAIMED)
    assert isinstance(asleep, Unavailable)
    assert asleep.session_key_hash == CLAIM.digest
    woken = await routes.wake(CLAIMED, 5.0)
    assert isinstance(woken, Route)
    assert woken.session_key_hash == CLAIM.digest
    assert house.asked == ["look", "prepare", "wake r"]
    house.holder, house.now = Unavailable("made by its first use", session_key_hash=CLAIM.digest), 9.0
    assert await routes.resolve(CLAIMED) == house.holder
    routes.invalidate(CLAIMED)
    assert house.asked[-1] == "forget r"


async def test_sockets_and_answers_end_when_their_claim_does_and_not_while_nobody_can_be_asked() -> None:
    house = House()
    routes = house.routes()
    opened = await routes.resolve(CLAIMED)
    assert isinstance(opened, Route)
    ended: list[str] = []

    class Socket(Tunnel):
        def __init__(self) -> None:
            self.route = opened

        def revoke(self) -> None:
            ended.append("ended")

    class Connection(UpstreamConnection):
        def __init__(self, *, carries: bool) -> None:
            self.route = opened
            self.asker = Socket() if carries else None  # type: ignore[assignment]  # whoever it is, it is asked for

        def revoke(self) -> None:
            ended.append("answer ended")

    await routes.look_again([Socket(), Connection(carries=True)])
    house.holder = StoreUnavailable("away")
    await routes.look_again([Socket(), Connection(carries=True)])
    assert ended == []
    house.holder = Refused(answers.UNAUTHORIZED)
    await routes.look_again([Socket(), Connection(carries=False), Connection(carries=True), Socket()])
    assert ended == ["ended", "answer ended", "ended"]
    assert routes.known(CLAIMED) is None


async def test_who_took_a_connection_over_while_its_claim_was_looked_up_goes_on() -> None:
    house = House()
    routes = house.routes()
    opened = await routes.resolve(CLAIMED)
    assert isinstance(opened, Route)
    others = replace(opened, claim=Claim(b"another key", Place(ConversationId("c"))))
    ended: list[str] = []

    class Connection(UpstreamConnection):
        def __init__(self) -> None:
            self.route, self.asker = opened, house  # type: ignore[assignment]  # whoever it is, it is asked for

        def revoke(self) -> None:
            ended.append("ended")

    taken_over, same = Connection(), Connection()

    async def look(claim: Claim) -> RuntimeId | Unavailable | None:
        taken_over.route = others
        return None

    house.look = look  # type: ignore[method-assign]
    await house.routes().look_again([taken_over, same])
    assert ended == ["ended"]


async def test_a_round_ends_where_nobody_can_be_asked() -> None:
    house = House()
    opened = await house.routes().resolve(CLAIMED)
    assert isinstance(opened, Route)

    class Socket(Tunnel):
        def __init__(self, key: bytes) -> None:
            self.route = replace(opened, claim=Claim(key, Place(ConversationId("c"))))

    house.holder = StoreUnavailable("away")
    house.asked.clear()
    await house.routes().look_again([Socket(bytes([number])) for number in range(50)])
    assert house.asked == ["look"]
