"""Blocking calls that do not wait for one another: what the `docker*` files ask an engine and a disk in one go."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def together(first: Callable[[], T], *others: Callable[[], Any]) -> T:
    """What `first` answers, when all have ended. Each of `others` has a thread of its own; `first` has this one. Raises
    what `first` raises, or else what the earliest of `others` that failed did."""
    failures: dict[int, BaseException] = {}

    def run(place: int, work: Callable[[], Any]) -> None:
        try:
            work()
        except BaseException as exc:  # noqa: BLE001 - raised by the caller's thread
            failures[place] = exc

    threads = [
        threading.Thread(target=run, args=(place, work), name="driver", daemon=True)
        for place, work in enumerate(others)
    ]
    for thread in threads:
        thread.start()
    try:
        answer = first()
    finally:
        for thread in threads:
            thread.join()
    if failures:
        raise failures[min(failures)]
    return answer


def each(works: Sequence[Callable[[], T]]) -> list[T]:
    """What each of `works` answers, in their order. Raises as `together`."""
    found: list[T | None] = [None] * len(works)

    def kept(place: int, work: Callable[[], T]) -> None:
        found[place] = work()

    calls = [lambda place=place, work=work: kept(place, work) for place, work in enumerate(works)]
    together(calls[0], *calls[1:])
    return found  # type: ignore[return-value] # each has answered
