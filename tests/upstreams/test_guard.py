from collections.abc import Sequence

import pytest

from tollgate.upstreams.guard import Forbidden, Guard, by_system

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
    "192.0.2.1",
    "198.18.0.1",
]
OPEN = ["1.1.1.1", "104.18.2.115", "2606:4700::6812:273", "64:ff9b::101:101", "::ffff:1.1.1.1"]


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
