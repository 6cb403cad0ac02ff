"""Reviews: who rests is looked at again because the times of the clock changed. See `base.Reviews`.

Nobody at rest is looked at for any other reason than its own due time. So a change of those times has to come to each,
and comes page by page: the index of reviews says whose list is walked, and up to where.
"""

from orchestrator.domain.ids import TenantId, UserId
from orchestrator.state import cursor, due, keys
from orchestrator.state.funnel import Call, Funnel, command, run
from orchestrator.state.keys import TenantKeys

VISIT_MS = 5_000
PAGE = 100
_EVERYBODY = "*"
_INDEX = (keys.REVIEWS, keys.REVIEWS_AT)


def asked(tenant: TenantId, user: UserId | None) -> Call:
    """Ask for a review of a tenant's conversations at rest, or of one user's. To be sent before and after the change
    that it is for: a visit between the two may end a review that has not seen it."""
    whose = str(tenant) if user is None else f"{tenant}/{user}"
    return run("review_ask", (*_INDEX, keys.REVIEWED_FOR), whose, "")


class RedisReviews:
    def __init__(self, funnel: Funnel) -> None:
        self._funnel = funnel

    async def ask(self, tenant: TenantId, user: UserId | None) -> None:
        await self._funnel.one(asked(tenant, user))

    async def ask_all(self, reason: str) -> bool:
        return bool(await self._funnel.one(run("review_ask", (*_INDEX, keys.REVIEWED_FOR), _EVERYBODY, reason)))

    async def step(self) -> int | None:
        visit = await self._funnel.one(run("review_visit", _INDEX, VISIT_MS))
        if not visit:
            return None
        whose, mark, at = visit
        if whose == _EVERYBODY:
            last, made = await self._tenants(at)
        else:
            page = await self._page(whose, at)
            if not page:
                return 0  # as much as a page is due: it is gone on with after the visit's time
            last, made = page
        await self._funnel.one(run("review_leave", _INDEX, whose, mark, last))
        return int(made)

    async def _tenants(self, at: str) -> tuple[str, int]:
        start = f"({at}" if at else "-"
        entries = await self._funnel.one(command("ZRANGEBYLEX", keys.TENANTS, start, "+", "LIMIT", 0, PAGE))
        calls = [asked(TenantId(cursor.member_id(entry)), None) for entry in entries]
        if calls:
            await self._funnel.batch(*calls)
        return (entries[-1] if len(entries) == PAGE else ""), 0

    async def _page(self, whose: str, at: str) -> tuple[str, int] | None:
        tenant, _, user = whose.partition("/")
        t = TenantKeys(TenantId(tenant))
        index = t.user_conversations(UserId(user)) if user else t.conversations
        call = run("review_page", (index, t.due, t.conversation_prefix), at, PAGE)
        page = await due.waking(self._funnel, TenantId(tenant), call)
        return (str(page[0]), int(page[1])) if page else None
