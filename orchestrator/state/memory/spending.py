"""What conversations used, and what their tenants and users spent, in memory: what `scripts/spending.lua` does, step by
step the same. See `base.Spending`."""

import hashlib
import json
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from orchestrator.domain.clock import rfc3339
from orchestrator.domain.hooks import TENANT_LANE, Draft, HookEvent, threshold_frame
from orchestrator.domain.ids import ConversationId, TenantId, UserId
from orchestrator.domain.spending import MONTHS_KEPT, NOTHING, Month, Spent, Unit, amount, month_of, used

if TYPE_CHECKING:
    from orchestrator.state.memory.shelf import Shelf


@dataclass
class Ledger:
    """What one tenant, or one of its users, spent in one month."""

    spent: Spent = NOTHING
    told: list[str] = field(default_factory=list)  #: thresholds, as `told:<unit>:<limit>:<percent>`

    def body(self) -> str:
        """As the journal has it."""
        spent = self.spent
        pairs = {"micros": spent.micros, "prompt": spent.prompt_tokens, "completion": spent.completion_tokens}
        marks = dict.fromkeys(self.told, 1)
        return json.dumps([str(part) for pair in (pairs | marks).items() for part in pair], separators=(",", ":"))


class MemorySpending:
    def __init__(self, shelf: "Shelf") -> None:
        self._shelf = shelf

    async def report(self, tenant: TenantId, id: ConversationId, spent: Spent, *, at: datetime) -> None:
        charge(self._shelf, tenant, id, spent, at)

    async def of_conversation(self, tenant: TenantId, id: ConversationId) -> Spent:
        place = self._shelf.places.get((tenant, id))
        return NOTHING if place is None else place.used

    async def of(self, tenant: TenantId, user: UserId | None, month: Month) -> Spent:
        found = self._shelf.ledgers.get((tenant, user, month.name))
        return NOTHING if found is None else found.spent


def charge(shelf: "Shelf", tenant: TenantId, id: ConversationId, told: Spent, at: datetime) -> None:
    """Raises `NotFound`."""
    place, month = shelf.place(tenant, id), month_of(at)
    before, place.used = place.used, place.used.up_to(told)
    more = place.used.more_than(before)
    if more == NOTHING:
        return
    sums = (place.used.micros, place.used.prompt_tokens, place.used.completion_tokens)
    shelf.note(tenant, "used", id, json.dumps(sums, separators=(",", ":")))
    user = place.conversation.user
    for scope in (None,) if user is None else (None, user):
        ledger = shelf.ledgers.get((tenant, scope, month.name))
        if ledger is None:
            ledger = shelf.ledgers[tenant, scope, month.name] = Ledger()
            shelf.note(tenant, "spent", f"{scope or ''}|{month.later(-MONTHS_KEPT).name}", None)
        ledger.spent = ledger.spent.plus(more)
        tell_reached(shelf, tenant, scope, at)
        note(shelf, tenant, scope, month)


def note(shelf: "Shelf", tenant: TenantId, user: UserId | None, month: Month) -> None:
    shelf.note(tenant, "spent", f"{user or ''}|{month.name}", shelf.ledgers[tenant, user, month.name].body())


def tell_reached(shelf: "Shelf", tenant: TenantId, user: UserId | None, at: datetime) -> bool:
    """Whether there was something to tell."""
    found, ledger = shelf.tenants.get(tenant), shelf.ledgers.get((tenant, user, month_of(at).name))
    budget = found.budget if found is not None else None
    if budget is None or ledger is None:
        return False
    before = len(ledger.told)
    for unit in Unit:
        limit = budget.limit(unit, of_user=user is not None)
        for percent in budget.thresholds if limit else ():
            mark = f"told:{unit}:{limit}:{percent}"
            if used(ledger.spent, unit) * 100 >= limit * percent and mark not in ledger.told:
                ledger.told.append(mark)
                told = _draft(tenant, user, at, unit, percent, mark, limit=limit, spent=used(ledger.spent, unit))
                shelf.publish(tenant, TENANT_LANE, [told])
    return len(ledger.told) > before


def _draft(
    tenant: TenantId,
    user: UserId | None,
    at: datetime,
    unit: Unit,
    percent: int,
    mark: str,
    *,
    limit: int,
    spent: int,
) -> Draft:
    month, (head, neck, tail) = month_of(at), threshold_frame(tenant, at)
    digest = hashlib.sha1("|".join((tenant, user or "", month.name, mark)).encode(), usedforsecurity=False)
    data = {
        "rule": f"{'tenant' if user is None else 'user'}.monthly_{unit}",
        "unit": unit,
        "threshold_percent": percent,
        "limit": amount(unit, limit),
        "spent": amount(unit, spent),
        "month": month.name,
        "resets_at": rfc3339(month.ends),
        "user_id": user,
    }
    text = f"{head}evt_{uuid.UUID(digest.hexdigest()[:32])}{neck}{json.dumps(data, separators=(',', ':'))}{tail}"
    return Draft(HookEvent.BUDGET_REACHED, text)
