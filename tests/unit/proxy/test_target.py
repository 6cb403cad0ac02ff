"""Which runtime a request is for."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.ids import RuntimeId
from orchestrator.proxy.target import Routing, leads_to_init, without_session_key

ID = "5e2f2c0e-3a52-4a3e-9a0b-0d3d3b7a1c11"
PLAIN = Routing()
BY_HOST = Routing(domain="runtimes.example")

rests = st.binary(max_size=60).map(lambda data: bytes(byte for byte in data if 0x21 <= byte <= 0x7E and byte != 0x23))


@given(st.uuids(), rests)
def test_the_rest_behind_the_prefix_is_kept_byte_for_byte(runtime: uuid.UUID, rest: bytes) -> None:
    found = PLAIN.destination(b"/runtimes/" + str(runtime).encode() + b"/" + rest, b"h")
    assert found is not None
    assert (found.runtime, found.target) == (str(runtime), b"/" + rest)
    assert found.prefix + found.target == b"/runtimes/" + str(runtime).encode() + b"/" + rest


@pytest.mark.parametrize(
    ("target", "inner"),
    [(f"/runtimes/{ID}", b"/"), (f"/runtimes/{ID}?a=/b", b"/?a=/b"), (f"/runtimes/{ID}//x?", b"//x?")],
)
def test_forms_of_the_root(target: str, inner: bytes) -> None:
    found = PLAIN.destination(target.encode(), b"h")
    assert found is not None
    assert (found.runtime, found.target) == (ID, inner)


@pytest.mark.parametrize("name", ["", "x", "..", "%2e", ID + "x", ID[:-1], ID.replace("5", "%35", 1), "g" * 32])
def test_a_malformed_id_is_nobodys_and_not_the_apis(name: str) -> None:
    found = PLAIN.destination(f"/runtimes/{name}/x".encode(), b"h")
    assert found is not None
    assert found.runtime is None


@pytest.mark.parametrize(
    "target",
    ["/", "/api/v2/runtimes/" + ID, "/runtimes", "/Runtimes/" + ID, "//runtimes/" + ID, "/x/../runtimes/" + ID],
)
def test_everything_else_is_the_apis(target: str) -> None:
    assert PLAIN.destination(target.encode(), f"{ID}.runtimes.example".encode()) is None


@pytest.mark.parametrize(
    "host",
    [f"{ID}.runtimes.example", f"{ID.upper()}.RUNTIMES.Example:8080", f"{ID.replace('-', '')}.runtimes.example."],
)
def test_one_label_before_the_domain_is_the_runtime_whatever_the_path(host: str) -> None:
    found = BY_HOST.destination(f"/runtimes/{uuid.uuid4()}/x".encode(), host.encode())
    assert found is not None
    assert (found.runtime, found.prefix) == (ID, b"")
    assert found.target.startswith(b"/runtimes/")


@pytest.mark.parametrize(
    "host",
    [
        "",
        "runtimes.example",
        f"a.{ID}.runtimes.example",
        f"{ID}.example",
        f"{ID}.runtimes.example.evil",
        f"{ID}runtimes.example",
        "console.runtimes.example",
        "[::1]:80",
    ],
)
def test_other_hosts_are_the_apis(host: str) -> None:
    assert BY_HOST.destination(b"/x", host.encode()) is None


def test_a_port_is_wholly_its_runtimes() -> None:
    other = RuntimeId(str(uuid.uuid4()))
    found = Routing("runtimes.example", other).destination(
        f"/runtimes/{ID}/x".encode(), f"{ID}.runtimes.example".encode()
    )
    assert found is not None
    assert (found.runtime, found.target, found.prefix) == (other, f"/runtimes/{ID}/x".encode(), b"")


@pytest.mark.parametrize(
    "path",
    [
        b"/api/init",
        b"/api/init/",
        b"//api///init",
        b"/API/Init",
        b"/%61pi/init",
        b"/api%2Finit",
        b"/api/./init",
        b"/a/../api/init",
        b"/api/init/x",
        b"/api/%69%6e%69%74",
        b"/api/init%3Fx",
        b"/api/init%23x",
        b"/api/init%0a",
        b"/api%09/init%0D%0A",
    ],
)
def test_every_spelling_of_init_is_known(path: bytes) -> None:
    assert leads_to_init(path)


@pytest.mark.parametrize("path", [b"/", b"/init", b"/api/initial", b"/api/x/init", b"/api/%20", b"/x/api/init"])
def test_what_is_not_init_passes(path: bytes) -> None:
    assert not leads_to_init(path)


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b%20c", b"session_api_key", b"session%5Fapi_key", b""]), rests)))
def test_only_the_key_leaves_the_query(parameters: list[tuple[bytes, bytes]]) -> None:
    pairs = [name + b"=" + value.replace(b"&", b"").replace(b"%", b"") for name, value in parameters]
    target, keys = without_session_key(b"/s?" + b"&".join(pairs))
    kept = [pair for pair in pairs if not pair.startswith((b"session_api_key=", b"session%5Fapi_key="))]
    assert len(keys) == len(pairs) - len(kept)
    assert b"session" not in target.partition(b"?")[2].replace(b"%5F", b"_") or any(b"session" in k for k in kept)
    if keys:
        assert target == (b"/s?" + b"&".join(kept) if kept else b"/s")
    else:
        assert target == b"/s?" + b"&".join(pairs)


def test_a_key_is_decoded() -> None:
    assert without_session_key(b"/s?session_api_key=a%2Bb+c") == (b"/s", [b"a+b c"])
