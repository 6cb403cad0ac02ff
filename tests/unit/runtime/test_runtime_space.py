"""When a disk counts as full."""

import os
from pathlib import Path

import pytest

from runtime.machine.space import LEAST_BYTES, is_full


def found(monkeypatch: pytest.MonkeyPatch, **changed: int) -> bool:
    numbers = {"f_bavail": 1000, "f_frsize": 4096, "f_files": 100, "f_favail": 10} | changed
    monkeypatch.setattr(os, "statvfs", lambda folder: type("Found", (), numbers))
    return is_full(Path("/anywhere"))


def test_bytes_and_names_of_files_both_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not found(monkeypatch)
    assert found(monkeypatch, f_bavail=LEAST_BYTES // 4096 - 1)
    assert not found(monkeypatch, f_bavail=LEAST_BYTES // 4096)
    assert found(monkeypatch, f_favail=0)
    assert not found(monkeypatch, f_files=0, f_favail=0)  # of a file system that does not count them


def test_what_cannot_be_looked_at_is_not_full(tmp_path: Path) -> None:
    assert not is_full(tmp_path / "missing")
