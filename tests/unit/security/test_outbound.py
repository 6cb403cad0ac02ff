"""The guard of addresses that callers choose. No packet is sent here: names are resolved by the test."""

import ipaddress
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.security.outbound import Guard, TargetRefused, inside, parse

pytestmark = pytest.mark.anyio

INSIDE = [
    "https://127.0.0.1/",
    "https://127.1/",
    "https://127.0.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0x7F.1/",
    "https://0177.0.0.1/",
    "https://017700000001/",
    "https://127.0.0.01/",
    "https://127.0.0.1./",
    "https://1.2.3.0x7f/",
    "https://0/",
    "https://0.0.0.0/",
    "https://0x/",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://172.31.255.254/",
    "https://192.168.1.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://100.64.0.1/",
    "https://100.100.100.200/",
    "https://192.0.0.192/",
    "https://198.18.0.1/",
    "https://192.0.2.1/",
    "https://198.51.100.7/",
    "https://203.0.113.9/",
    "https://192.88.99.1/",
    "https://224.0.0.1/",
    "https://239.255.255.250/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    "https://[::]/",
    "https://[::1]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::ffff:169.254.169.254]/",
    "https://[::127.0.0.1]/",
    "https://[::7f00:1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b::10.0.0.1]/",
    "https://[64:ff9b:1::1]/",
    "https://[2002:7f00:1::]/",
    "https://[2002:a00:1::1]/",
    "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "https://[2001:db8::1]/",
    "https://[2001:10::1]/",
    "https://[3fff::1]/",
    "https://[100::1]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fe80::1%eth0]/",
    "https://[fec0::1]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",
    "https://[ff02::1]/",
    "https://[2a00:1450:4001:81b:0:5efe:10.0.0.1]/",
    "https://localhost/",
    "https://LOCALHOST/",
    "https://localhost./",
    "https://foo.localhost/",
    "https://metadata.google.internal/",
    "https://printer.local/",
    "https://router.lan/",
    "https://redis/",
    "https://redis:6379/",
    "https://1.0.0.127.in-addr.arpa/",
]

MALFORMED = [
    "",
    "example.com",
    "//example.com/",
    "https:/example.com",
    "https:example.com",
    "https:///path",
    "https://",
    "http://example.com/",  # not without TLS
    "HTTPS://example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "javascript:alert(1)",
    "https://user@example.com/",
    "https://user:secret@example.com/",
    "https://example.com@127.0.0.1/",
    "https://127.0.0.1#@example.com/",
    "https://example.com\\@127.0.0.1/",
    "https://example.com\\.evil.test/",
    "https://example.com/\nHost: other",
    "https://example.com/a b",
    " https://example.com/",
    "https://example.com/ ",
    "https://exam\tple.com/",
    "https://example.com\x00.evil.test/",
    "https://example.com:/",
    "https://example.com:0/",
    "https://example.com:65536/",
    "https://example.com:080/",
    "https://example.com:+443/",
    "https://example.com:443:443/",
    "https://example.com:https/",
    "https://%31%32%37.0.0.1/",
    "https://127%2e0%2e0%2e1/",
    "https://[::1/",
    "https://::1/",
    "https://[127.0.0.1]/",
    "https://[v1.x]/",
    "https://[::1]x/",
    "https://[::1]:x/",
    "https://example..com/",
    "https://.example.com/",
    "https://-example.com/",
    "https://example-.com/",
    "https://" + "a" * 64 + ".com/",
    "https://" + "a." * 127 + "com/",
    "https://\u24d4xample.com/",
    "https://\uff11\uff12\uff17.0.0.1/",
    "https://127\u30020.0.1/",
    "https://ex\u00e4mple.com/",
    "https://example.com/#fragment",
    "https://example.com/" + "a" * 2048,
]

PUBLIC = {
    "https://example.com": ("example.com", 443, "/", "example.com"),
    "https://Example.COM./hook": ("example.com", 443, "/hook", "example.com"),
    "https://example.com:8443/a/b?c=d&e=%20": ("example.com", 8443, "/a/b?c=d&e=%20", "example.com:8443"),
    "https://example.com?x=1": ("example.com", 443, "/?x=1", "example.com"),
    "https://xn--exmple-cua.com/": ("xn--exmple-cua.com", 443, "/", "xn--exmple-cua.com"),
    "https://hooks_1.example.com/": ("hooks_1.example.com", 443, "/", "hooks_1.example.com"),
    "https://8.8.8.8/": ("8.8.8.8", 443, "/", "8.8.8.8"),
    "https://[2606:4700:4700::1111]:444/": ("2606:4700:4700::1111", 444, "/", "[2606:4700:4700::1111]:444"),
    "https://[64:ff9b::808:808]/": ("64:ff9b::808:808", 443, "/", "[64:ff9b::808:808]"),
    "https://1and1.example/": ("1and1.example", 443, "/", "1and1.example"),
}


async def nobody(host: str, port: int) -> Sequence[str]:
    raise AssertionError(f"{host} was looked up")


@pytest.mark.parametrize("url", INSIDE + MALFORMED)
def test_what_leads_inside_or_can_be_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(TargetRefused) as refused:
        Guard().read(url)
    assert "secret" not in refused.value.message


@pytest.mark.parametrize("url", PUBLIC)
async def test_public_addresses_pass(url: str) -> None:
    target = Guard().read(url)
    assert (target.host, target.port, target.path, target.authority) == PUBLIC[url]
    if target.host[0].isdigit() and target.host[-1].isdigit():
        assert await Guard().addresses(target, nobody) == [target.host]


@pytest.mark.parametrize(
    "answer",
    [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "100.64.3.2",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.251",
        "::1",
        "::",
        "::ffff:10.0.0.1",
        "::ffff:8.8.8.8",
        "64:ff9b::a00:1",
        "fe80::1",
        "fe80::1%eth0",
        "2606:4700::1%eth0",
        "fd12::1",
        "fec0::1",
        "2002:a00:1::",
        "2001::1",
        "ff02::1",
        "not an address",
        "",
    ],
)
async def test_a_name_that_leads_inside_is_refused_even_beside_a_public_address(answer: str) -> None:
    async def resolver(host: str, port: int) -> Sequence[str]:
        return ["93.184.215.14", answer]

    guard = Guard()
    with pytest.raises(TargetRefused):
        await guard.addresses(guard.read("https://rebinding.example/"), resolver)


async def test_the_address_that_was_judged_is_the_one_that_is_used() -> None:
    asked = []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["93.184.215.14", "2606:4700::1111", "93.184.215.14"] if len(asked) == 1 else ["127.0.0.1"]

    guard = Guard()
    assert await guard.addresses(guard.read("https://rebinding.example/"), rebinding) == [
        "93.184.215.14",
        "2606:4700::1111",
    ]
    assert asked == ["rebinding.example"]


async def test_a_host_without_an_address_is_refused() -> None:
    async def empty(host: str, port: int) -> Sequence[str]:
        return []

    with pytest.raises(TargetRefused):
        await Guard().addresses(Guard().read("https://example.com/"), empty)


async def test_the_operator_may_allow_hosts_and_no_others() -> None:
    async def at_home(host: str, port: int) -> Sequence[str]:
        return ["10.0.0.9"]

    guard = Guard(frozenset({"hooks.internal", "127.0.0.1", "::1"}))
    assert await guard.addresses(guard.read("http://hooks.internal:8080/x"), at_home) == ["10.0.0.9"]
    assert await guard.addresses(guard.read("http://127.0.0.1:9/"), nobody) == ["127.0.0.1"]
    assert guard.read("http://[0:0::1]/").host == "::1"
    for url in ("https://other.internal/", "http://example.com/", "https://127.0.0.2/", "http://127.1/"):
        with pytest.raises(TargetRefused):
            guard.read(url)
    with pytest.raises(TargetRefused):
        await guard.addresses(guard.read("https://example.com/"), at_home)


@given(st.ip_addresses(v=4))
def test_no_private_address_of_the_library_passes(address: ipaddress.IPv4Address) -> None:
    if not address.is_global or address.is_multicast:
        assert inside(address) is not None
        assert inside(ipaddress.IPv6Address(f"::ffff:{address}")) is not None
        assert inside(ipaddress.IPv6Address(f"64:ff9b::{address}")) is not None


@given(st.ip_addresses(v=6))
def test_no_special_address_of_ipv6_passes(address: ipaddress.IPv6Address) -> None:
    if not address.is_global and address not in ipaddress.ip_network("64:ff9b::/96"):
        assert inside(address) is not None


@given(st.text(max_size=40), st.text(max_size=20))
def test_what_passes_is_read_by_the_http_library_as_the_same(host: str, rest: str) -> None:
    import httpx

    url = f"https://{host}.example{rest}"
    try:
        target = parse(url)
    except TargetRefused:
        return
    theirs = httpx.URL(url)
    assert theirs.host.removesuffix(".") == target.host
    assert (theirs.port or 443) == target.port
