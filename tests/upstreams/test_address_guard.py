from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.upstreams.address_guard import Forbidden, Guard, by_system

NEVER = [
    "169.254.169.254",
    "169.254.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "fd20:ce::254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "224.0.0.1",
    "ff02::1",
    "255.255.255.255",
    "240.0.0.1",
    "::ffff:169.254.169.254",
    "2002:a9fe:a9fe::1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe",
    "::169.254.169.254",
    "::ffff:0:169.254.169.254",
    "2001:0:a9fe:a9fe::",
]
PRIVATE = [
    "127.0.0.1",
    "127.8.9.10",
    "::1",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "fc00::1",
    "fd12:3456::1",
    "fec0::1",
    "::ffff:10.0.0.1",
    "::ffff:7f00:1",
    "2002:7f00:1::",
    "64:ff9b::10.0.0.1",
    "::ffff:0:10.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
]
OPEN = [
    "1.1.1.1",
    "104.18.2.115",
    "2606:4700::6812:273",
    "64:ff9b::101:101",
    "64:ff9b:1::101:101",
    "::ffff:1.1.1.1",
    "::ffff:0:1.1.1.1",
]

EMBEDDINGS = {
    "mapped": lambda ipv4, _: (0xFFFF << 32) | ipv4,
    "translated": lambda ipv4, _: (0xFFFF << 48) | ipv4,
    "compatible": lambda ipv4, _: ipv4,
    "NAT64": lambda ipv4, _: (0x64FF9B << 96) | ipv4,
    "local NAT64 /96": lambda ipv4, rest: (0x64FF9B0001 << 80) | (rest & 0xFFFFFFFFFFFF) << 32 | ipv4,
    "local NAT64 /64": lambda ipv4, rest: (0x64FF9B0001 << 80) | (rest & 0xFFFF) << 64 | ipv4 << 24,
    "local NAT64 /56": lambda ipv4, rest: (0x64FF9B0001 << 80) | (rest & 0xFF) << 72 | _around_octet(ipv4, 1) << 32,
    "local NAT64 /48": lambda ipv4, _: (0x64FF9B0001 << 80) | _around_octet(ipv4, 2) << 40,
    "6to4": lambda ipv4, rest: (0x2002 << 112) | ipv4 << 80 | rest,
    "Teredo server": lambda ipv4, rest: (0x20010000 << 96) | ipv4 << 64 | rest & 0xFFFFFFFFFFFFFFFF,
    "Teredo client": lambda ipv4, rest: (
        (0x20010000 << 96) | 0x01010101 << 64 | (rest & 0xFFFFFFFF) << 32 | ~ipv4 & 0xFFFFFFFF
    ),
    "ISATAP": lambda ipv4, rest: (0x26064700 << 96) | (rest & 0xFFFFFFFF) << 64 | 0x5EFE << 32 | ipv4,
}
"""The number of the IPv6 address that carries an IPv4 address; `rest` fills the bits that the form leaves free."""


def _around_octet(ipv4: int, octets_before: int) -> int:
    """RFC 6052 keeps bits 64 to 71 zero, so an address that crosses them is written in two parts."""
    bits_after = 32 - 8 * octets_before
    return (ipv4 >> bits_after) << (bits_after + 8) | ipv4 & ((1 << bits_after) - 1)


@st.composite
def within(draw: st.DrawFn, *networks: str) -> IPv4Address:
    network = ip_network(draw(st.sampled_from(networks)))
    return IPv4Address(draw(st.integers(int(network[0]), int(network[-1]))))


def resolving_to(*addresses: str) -> "Resolver":
    return Resolver(addresses)


class Resolver:
    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = addresses

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        return self.addresses


async def is_let_through(address: str, *, allow_private: bool) -> bool:
    """By name and as it stands; the two must agree."""
    guard = Guard(allow_private=allow_private, resolve=resolving_to(address))
    verdicts = []
    for host in ("upstream.example", address):
        try:
            await guard.addresses(host, 443)
            verdicts.append(True)
        except Forbidden:
            verdicts.append(False)
    literal = f"[{address}]" if ":" in address else address
    try:
        guard.check(f"https://{literal}/v1")
        verdicts.append(True)
    except Forbidden:
        verdicts.append(False)
    assert len(set(verdicts)) == 1, verdicts
    return verdicts[0]


@pytest.mark.parametrize("address", NEVER)
async def test_nobody_may_send_us_there(address: str) -> None:
    assert not await is_let_through(address, allow_private=False)
    assert not await is_let_through(address, allow_private=True)


@pytest.mark.parametrize("address", PRIVATE)
async def test_within_only_by_the_operators_leave(address: str) -> None:
    assert not await is_let_through(address, allow_private=False)
    assert await is_let_through(address, allow_private=True)


@pytest.mark.parametrize("address", OPEN)
async def test_the_open_network_is_open(address: str) -> None:
    assert await is_let_through(address, allow_private=False)


@pytest.mark.parametrize("embedding", EMBEDDINGS)
@given(
    ipv4=within("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"),
    rest=st.integers(0, 2**80 - 1),
)
async def test_no_form_of_ipv6_leads_to_an_ipv4_address_that_is_refused(
    embedding: str, ipv4: IPv4Address, rest: int
) -> None:
    address = str(IPv6Address(EMBEDDINGS[embedding](int(ipv4), rest)))
    assert not await is_let_through(address, allow_private=False)
    if ipv4.is_link_local:
        assert not await is_let_through(address, allow_private=True)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "upstream.example",
        "//upstream.example",
        "file:///etc/passwd",
        "gopher://upstream.example",
        "unix:///run/x.sock",
        "http://",
        "http://user@upstream.example",
        "http://:word@upstream.example",
        "http://upstream.example:99999",
        "http://[::1",
        "http://2130706433",
        "http://0x7f000001",
        "http://0x7f.1",
        "http://0177.0.0.1",
        "http://127.1",
        "http://127.0.0.1.",
        "http://①②⑦.0.0.1",
    ],
)
def test_an_address_must_be_written_as_addresses_are(url: str) -> None:
    with pytest.raises(Forbidden):
        Guard(allow_private=False).check(url)


@pytest.mark.parametrize(
    "url", ["https://upstream.example/v1", "http://gpu-1.upstream.example:8000", "https://1.1.1.1"]
)
def test_an_ordinary_address_passes(url: str) -> None:
    Guard(allow_private=False).check(url)


async def test_one_bad_address_spoils_all() -> None:
    guard = Guard(allow_private=False, resolve=resolving_to("1.1.1.1", "127.0.0.1"))
    with pytest.raises(Forbidden):
        await guard.addresses("upstream.example", 443)


async def test_a_name_without_an_address_leads_nowhere() -> None:
    with pytest.raises(Forbidden):
        await Guard(allow_private=True, resolve=resolving_to()).addresses("upstream.example", 443)


async def test_the_system_knows_itself() -> None:
    assert set(await by_system("localhost", 80)) <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize(("address", "advised"), [*((one, True) for one in PRIVATE), *((one, False) for one in NEVER)])
async def test_a_refusal_names_the_setting_that_allows_the_address_where_one_does(address: str, advised: bool) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return [address]

    guard = Guard(allow_private=False, resolve=resolve)
    with pytest.raises(Forbidden) as by_name:
        await guard.addresses("gpu.example", 443)
    with pytest.raises(Forbidden) as by_number:
        guard.check(f"http://[{address}]/v1" if ":" in address else f"http://{address}/v1")
    assert {"PRIVATE_UPSTREAMS=true" in str(caught.value) for caught in (by_name, by_number)} == {advised}
