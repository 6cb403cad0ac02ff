"""Sealing, opening, and everything that must not open."""

import os
import stat
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.errors import Misconfigured, Sealed, Undecryptable
from orchestrator.domain.ids import TenantId, UserId
from orchestrator.domain.secrets import SecretText
from orchestrator.security.envelope import Envelope, MasterKeys, load_or_create_key_file, read_key_file

pytestmark = pytest.mark.anyio
OLD, NEW = b"o" * 32, b"n" * 32
TENANT, OTHER, USER = TenantId("tenant-1"), TenantId("tenant-2"), UserId("user-1")
HERE = (TENANT, USER, "secret", "NAME", 3)


class DataKeys:
    """Wrapped data keys in a dictionary; the stores' own are in the contract tests."""

    def __init__(self) -> None:
        self.kept: dict[tuple[TenantId, int], str] = {}

    async def data_key(self, tenant: TenantId, version: int) -> str | None:
        return self.kept.get((tenant, version))

    async def add_data_key(self, tenant: TenantId, version: int, wrapped: str) -> str:
        return self.kept.setdefault((tenant, version), wrapped)


def line(key: bytes) -> str:
    return urlsafe_b64encode(key).decode()


async def test_what_was_sealed_opens_at_its_place() -> None:
    envelope = Envelope(MasterKeys([OLD]), DataKeys())
    sealed = await envelope.seal(*HERE, SecretText("pässword \ud800"))
    assert sealed.startswith("s1.1.")
    assert (await envelope.open(*HERE, sealed)).open() == "pässword \ud800"
    assert await envelope.seal(*HERE, SecretText("pässword")) != await envelope.seal(*HERE, SecretText("pässword"))


@pytest.mark.parametrize(
    "place",
    [
        (OTHER, USER, "secret", "NAME", 3),
        (TENANT, None, "secret", "NAME", 3),
        (TENANT, UserId("user-2"), "secret", "NAME", 3),
        (TENANT, UserId(""), "secret", "NAME", 3),
        (TENANT, USER, "provider", "NAME", 3),
        (TENANT, USER, "secret", "NAM", 3),
        (TENANT, USER, "secret", "NAME", 4),
        (TENANT, USER, "secre", "tNAME", 3),
    ],
)
async def test_nothing_opens_at_another_place(place: tuple[TenantId, UserId | None, str, str, int]) -> None:
    envelope = Envelope(MasterKeys([OLD]), DataKeys())
    sealed = await envelope.seal(*HERE, SecretText("value"))
    await envelope.seal(OTHER, None, "secret", "X", 1, SecretText("the other tenant has a data key as well"))
    with pytest.raises(Undecryptable):
        await envelope.open(*place, sealed)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1] + ("A" if text[-1] != "A" else "Q"),
        lambda text: text[:-8],
        lambda text: text.replace("s1.1.", "s1.2."),
        lambda text: text.replace("s1.1.", "s2.1."),
        lambda text: text.replace("s1.1.", "s1.x."),
        lambda text: text.replace("s1.1.", "s1.²."),
        lambda text: text.replace("s1.1.", "gAAAAA"),
        lambda text: text + "!",
        lambda text: "",
        lambda text: "s1.1.",
        lambda text: "s1.1.AAAA",
    ],
)
async def test_a_changed_text_does_not_open_and_is_not_quoted(change: Callable[[str], str]) -> None:
    envelope = Envelope(MasterKeys([OLD]), DataKeys())
    sealed = await envelope.seal(*HERE, SecretText("value"))
    with pytest.raises(Undecryptable) as caught:
        await envelope.open(*HERE, change(sealed))
    assert sealed[10:] not in str(caught.value)


async def test_a_former_master_key_still_opens_and_a_missing_one_overwrites_nothing() -> None:
    keys = DataKeys()
    sealed = await Envelope(MasterKeys([OLD]), keys).seal(*HERE, SecretText("value"))
    rotated = Envelope(MasterKeys([NEW, OLD]), keys)
    assert (await rotated.open(*HERE, sealed)).open() == "value"
    before = dict(keys.kept)
    stranger = Envelope(MasterKeys([NEW]), keys)
    with pytest.raises(Undecryptable, match="not loaded"):
        await stranger.open(*HERE, sealed)
    with pytest.raises(Undecryptable, match="not loaded"):
        await stranger.seal(*HERE, SecretText("another"))
    assert keys.kept == before


async def test_a_data_key_moved_to_another_tenant_does_not_open() -> None:
    keys = DataKeys()
    envelope = Envelope(MasterKeys([OLD]), keys)
    await envelope.seal(*HERE, SecretText("value"))
    keys.kept[OTHER, 1] = keys.kept[TENANT, 1]
    with pytest.raises(Undecryptable):
        await Envelope(MasterKeys([OLD]), keys).seal(OTHER, None, "secret", "X", 1, SecretText("value"))


async def test_a_lost_data_key_is_told_and_not_made_anew_on_opening() -> None:
    keys = DataKeys()
    sealed = await Envelope(MasterKeys([OLD]), keys).seal(*HERE, SecretText("value"))
    keys.kept.clear()
    with pytest.raises(Undecryptable, match="data key is gone"):
        await Envelope(MasterKeys([OLD]), keys).open(*HERE, sealed)
    assert keys.kept == {}


@given(st.lists(st.text(max_size=8), min_size=2, max_size=2), st.lists(st.text(max_size=8), min_size=2, max_size=2))
def test_no_two_places_are_bound_alike(one: list[str], two: list[str]) -> None:
    from orchestrator.security.envelope import _place

    same = _place(TENANT, None, one[0], one[1], 1) == _place(TENANT, None, two[0], two[1], 1)
    assert same == (one == two)


def test_the_check_value_knows_its_keys() -> None:
    value = MasterKeys([OLD]).check_value()
    MasterKeys([OLD]).verify(value)
    MasterKeys([NEW, OLD]).verify(value)
    for keys, text in ((MasterKeys([NEW]), value), (MasterKeys([OLD]), value[:-2] + "AA"), (MasterKeys([OLD]), "")):
        with pytest.raises(Sealed):
            keys.verify(text)


def test_keys_are_read_one_a_line_and_never_shown() -> None:
    keys = MasterKeys.parse(f"# current\n{line(NEW)}\n\n  {line(OLD).rstrip('=')}\n", source="NESTOR_MASTER_KEY")
    assert keys.current_id == MasterKeys([NEW]).current_id
    keys.verify(MasterKeys([OLD]).check_value())
    assert repr(keys) == f"MasterKeys(current={keys.current_id}, older=1)"


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "short", line(b"x" * 31), line(b"x" * 33), "ä" * 43, "=" * 44])
def test_what_is_no_key_is_refused_by_name_without_being_quoted(text: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        MasterKeys.parse(text, source="NESTOR_MASTER_KEY")
    assert "NESTOR_MASTER_KEY" in caught.value.message
    assert not text.strip() or text not in caught.value.message


def test_a_key_file_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    before = os.umask(0)
    try:
        made = load_or_create_key_file(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_key_file(path).current_id == made.current_id == read_key_file(path).current_id
    assert [entry.name for entry in tmp_path.iterdir()] == ["master.key"]


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o660])
def test_a_key_file_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master.key"
    path.write_text(line(OLD))
    path.chmod(mode)
    with pytest.raises(Misconfigured) as caught:
        load_or_create_key_file(path)
    assert str(path) in caught.value.message
    assert caught.value.hint == f"run: chmod 0600 {path}"


def test_a_key_file_given_to_a_group_by_a_secret_volume_is_read(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    path.write_text(line(OLD))
    path.chmod(0o440)
    assert read_key_file(path).current_id == MasterKeys([OLD]).current_id


def test_a_damaged_or_missing_key_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    path.touch(mode=0o600)
    with pytest.raises(Misconfigured, match="holds no master key"):
        load_or_create_key_file(path)
    assert path.read_text() == ""
    with pytest.raises(Misconfigured, match="cannot be read"):
        read_key_file(tmp_path / "none")
    with pytest.raises(Misconfigured, match="cannot be made"):
        load_or_create_key_file(tmp_path / "no folder" / "key")
