"""Which image a new conversation gets."""

import pytest

from orchestrator.domain.errors import ImageRefused
from orchestrator.domain.ids import new_uuid
from orchestrator.domain.images import Catalogue, Choice, choose, in_share

PLAIN = Catalogue("runtime:latest", ("tools@sha256:1",))
TRIED = Catalogue("runtime:latest", canary="runtime:next", percent=100)
GRANTED = {"tools:2": "sha256:t2", "runtime:latest": "sha256:r1"}


@pytest.mark.parametrize(
    ("catalogue", "granted", "asked", "choice"),
    [
        (PLAIN, None, None, Choice("runtime:latest")),
        (PLAIN, None, "tools@sha256:1", Choice("tools@sha256:1")),
        (TRIED, None, None, Choice("runtime:next", canary=True)),
        (TRIED, None, "runtime:latest", Choice("runtime:latest")),
        (TRIED, None, "runtime:next", Choice("runtime:next")),
        (PLAIN, GRANTED, None, Choice("runtime:latest", "sha256:r1")),
        (PLAIN, GRANTED, "tools:2", Choice("tools:2", "sha256:t2")),
        (PLAIN, GRANTED, "sha256:t2", Choice("tools:2", "sha256:t2")),
        (PLAIN, {"tools:2": "sha256:t2"}, None, Choice("tools:2", "sha256:t2")),
        (TRIED, GRANTED, None, Choice("runtime:latest", "sha256:r1")),
        (TRIED, {**GRANTED, "runtime:next": "sha256:r2"}, None, Choice("runtime:next", "sha256:r2", canary=True)),
    ],
)
def test_by_what_is_asked_for_and_who_asks(
    catalogue: Catalogue, granted: dict[str, str] | None, asked: str | None, choice: Choice
) -> None:
    assert choose(catalogue, granted, asked, new_uuid()) == choice


@pytest.mark.parametrize(("granted", "asked"), [(None, "mine:1"), (GRANTED, "tools@sha256:1"), (GRANTED, "mine:1")])
def test_any_other_is_refused(granted: dict[str, str] | None, asked: str) -> None:
    with pytest.raises(ImageRefused):
        choose(PLAIN, granted, asked, new_uuid())


def test_a_share_is_about_as_large_as_it_says_and_the_same_each_time() -> None:
    ids = [new_uuid() for _ in range(4000)]
    tried = {id for id in ids if in_share(id, 10)}
    assert 280 < len(tried) < 520
    assert tried == {id for id in ids if in_share(id, 10)}
    assert tried < {id for id in ids if in_share(id, 20)}, "a larger share keeps who was in the smaller one"
    assert not any(in_share(id, 0) for id in ids)
    assert all(in_share(id, 100) for id in ids)
