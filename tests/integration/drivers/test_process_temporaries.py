"""A runtime's temporary folder has room for the path of a socket, however deep the data folder lies."""

import socket
from pathlib import Path

import pytest

from orchestrator.drivers.process_temporaries import Temporaries

NAME = "nestor-0b7c9a52-5e0e-4d6c-9a4e-4f4f5d9f6a11-g12345"


@pytest.mark.parametrize("folder", [Path("/srv/nestor/tmp"), Path("/home/" + "deep/" * 30 + "tmp")])
def test_a_socket_in_a_folder_of_it_can_be_bound(folder: Path):
    path = Temporaries(folder).of(NAME) / "nestor-abcdefgh" / "some-service.sock"
    with socket.socket(socket.AF_UNIX) as listener, pytest.raises(FileNotFoundError):  # and not "path too long"
        listener.bind(str(path))


def test_two_data_folders_do_not_share_one():
    first, second = (Temporaries(Path(f"/home/{'deep/' * 30}{end}")) for end in ("a", "b"))
    assert first.of(NAME) != second.of(NAME)


def test_a_usual_data_folder_keeps_it_to_itself():
    assert Temporaries(Path("/srv/nestor/tmp")).of(NAME).is_relative_to("/srv/nestor/tmp")
