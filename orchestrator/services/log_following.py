"""What a runtime prints, as it prints it: its last lines are asked for again and again, and what is new is passed on.

Every driver can tell the last lines and none has to do more, so a follower costs a look each second and keeps no
connection to the engine. New lines are found by what they have in common with those that were seen: more than a look
holds are said to be missing, and of a run of equal lines some may be.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio

from orchestrator.domain.conversation import Conversation
from orchestrator.domain.errors import Conflict, DriverUnavailable
from orchestrator.services.inspection import Inspection

LOOK_SECONDS = 1.0
_LOOKED_AT = 1000
_SIGN_SECONDS = 15.0  #: without a line, so that what stands between sees a connection in use


@dataclass(frozen=True)
class Said:
    """`gap`: lines before these were missed. `over`: nothing more will come of this runtime. Neither, and no lines: a
    sign of life."""

    lines: Sequence[str] = ()
    gap: bool = False
    over: bool = False


async def follow(
    inspection: Inspection, load: Callable[[], Awaitable[Conversation]], *, lines: int
) -> AsyncGenerator[Said]:
    """The last `lines` of the runtime, then what comes, until this runtime is over. Raises as `load`, and `Conflict`
    where there is no runtime."""
    conversation = await load()
    generation = conversation.runtime.generation if conversation.runtime is not None else 0
    seen = await inspection.printed(conversation, lines=_LOOKED_AT)
    yield Said(await inspection.discreet(conversation, seen[-lines:]))
    quiet = 0.0
    while True:
        await anyio.sleep(LOOK_SECONDS)
        conversation = await load()
        if conversation.runtime is None or conversation.runtime.generation != generation:
            break
        alive = await inspection.runs(conversation)  # before its lines: the last ones are not to be missed
        try:
            now = await inspection.printed(conversation, lines=_LOOKED_AT)
        except Conflict:
            break
        except DriverUnavailable:
            continue
        fresh, gap = news(seen, now)
        seen, quiet = now, quiet + LOOK_SECONDS
        if fresh:
            quiet = 0.0
            yield Said(await inspection.discreet(conversation, fresh), gap=gap)
        elif quiet >= _SIGN_SECONDS:
            quiet = 0.0
            yield Said()
        if not alive:
            break
    last, gap = await _last_words(inspection, await load(), generation, seen)
    if last:
        yield Said(last, gap=gap)
    yield Said(over=True)


async def _last_words(
    inspection: Inspection, conversation: Conversation, generation: int, seen: Sequence[str]
) -> tuple[Sequence[str], bool]:
    """Of one that failed and was gone before the next look: what was kept of its end and was not told yet."""
    kept = next((each.why.log_tail for each in reversed(conversation.failures) if each.generation == generation), ())
    told = await inspection.discreet(conversation, seen[-len(kept) :]) if kept else ()
    return news(told, kept)


def news(seen: Sequence[str], now: Sequence[str]) -> tuple[Sequence[str], bool]:
    """The lines of `now` that are not in `seen`, of which it is a later look, and whether some between are missing."""
    for overlap in range(min(len(seen), len(now)), 0, -1):
        if list(seen[-overlap:]) == list(now[:overlap]):
            return now[overlap:], False
    return now, bool(seen)
