"""Whoever takes all of one share of the descriptors, or of every share at once, leaves the orchestrator its own."""

import resource

import pytest

from orchestrator.app.descriptors import shares
from orchestrator.app.facing_connections import seats

_FOR_ITSELF = 64


@pytest.mark.parametrize("descriptors", [256, 1000, 1024, 4096, 20_000, 1_048_576])
def test_all_shares_together_leave_some(descriptors: int) -> None:
    mine = shares(descriptors)
    taken = mine.runtimes + mine.sleeping + 2 * mine.clients  # a client's connection may need one to a runtime
    assert descriptors - taken >= _FOR_ITSELF
    assert 0 < mine.tenant < mine.clients, "others have room beside one tenant"
    assert min(mine.runtimes, mine.sleeping, mine.clients) >= 32


def test_without_a_limit_any_number_is_taken() -> None:
    mine = shares(resource.RLIM_INFINITY)
    assert (mine.clients, mine.address, mine.tenant) == (0, 0, 0)
    assert mine.runtimes > 10_000


def test_the_listener_of_runtimes_has_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    mine = seats()
    assert sum(mine.take("127.0.0.1") for _ in range(1024)) == shares(1024).runtimes
