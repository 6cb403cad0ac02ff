"""Who waits for a runtime to listen asks cheaply, and is told the truth."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from orchestrator.security import connecting
from orchestrator.security.connecting import Door


@contextmanager
def bound() -> Iterator[socket.socket]:
    """A place where nobody listens yet."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        yield place


@contextmanager
def silent() -> Iterator[tuple[str, int]]:
    """A listener whose queue is full: the kernel answers nobody."""
    with bound() as place, ExitStack() as stack:
        place.listen(0)
        for _ in range(4):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(place.getsockname())
        yield place.getsockname()


def eventually(door: Door) -> bool:
    deadline = time.monotonic() + 20
    while not door.is_open():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def test_it_is_shut_until_somebody_listens():
    with bound() as place:
        door = Door(*place.getsockname())
        assert not any(door.is_open() for _ in range(50))
        place.listen()
        assert eventually(door)


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_where_nobody_answers_it_stays_shut_and_nobody_waits(monkeypatch, seconds):
    monkeypatch.setattr(connecting, "_KNOCK_SECONDS", seconds)
    with silent() as place:
        door = Door(*place)
        began = time.monotonic()
        assert not any(door.is_open() for _ in range(50))
        assert time.monotonic() - began < 5
        door.close()


def test_what_had_no_answer_is_asked_anew_and_found_open(monkeypatch):
    monkeypatch.setattr(connecting, "_KNOCK_SECONDS", 0.01)
    with bound() as place:
        place.listen(0)
        with ExitStack() as stack:
            for _ in range(4):
                caller = stack.enter_context(socket.socket())
                caller.setblocking(False)
                caller.connect_ex(place.getsockname())
            door = Door(*place.getsockname())
            assert not door.is_open()
            place.listen(16)
        while not door.is_open():
            time.sleep(0.002)


def test_a_name_is_left_to_who_sends_a_request():
    assert Door("runtime.internal", 8000).is_open()


def test_one_that_is_left_keeps_no_descriptor():
    with silent() as place:
        door = Door(*place)
        door.is_open()
        assert door._knock is not None
        door.close()
        door.close()
        assert door._knock is None
