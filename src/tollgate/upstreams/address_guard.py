"""Which addresses an upstream that an operator configured may have: public ones, and private ones if the setting
PRIVATE_UPSTREAMS allows them.

A name is resolved once, and the connection goes to an address that was checked here, so a DNS answer that changes
between check and call (DNS rebinding) has no effect. Link-local addresses, such as the metadata service of a cloud, are
always refused.
"""

import asyncio
import socket
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

from tollgate.upstreams.rules import Resolve

Address = IPv4Address | IPv6Address

METADATA: Final = frozenset(
    map(ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"))
)
"""Of clouds that keep it elsewhere than at a link-local address."""
_ADVICE: Final = "an operator can allow private addresses with PRIVATE_UPSTREAMS=true"
_LOCAL_NAT64: Final = IPv6Network("64:ff9b:1::/48")
_LAST_32_BITS: Final = (
    IPv6Network("::/96"),  # IPv4-compatible
    IPv6Network("::ffff:0:0:0/96"),  # IPv4-translated
    IPv6Network("64:ff9b::/96"),  # NAT64
    _LOCAL_NAT64,
)
"""Networks whose addresses end in an IPv4 address."""
_UNSPECIFIED: Final = IPv6Address("::")
_LOOPBACK: Final = IPv6Address("::1")
_ISATAP: Final = 0x5EFE


class Forbidden(Exception):
    """Why the address is refused, for the operator. It names no address."""


async def by_system(host: str, port: int) -> list[str]:
    """Resolves a name with the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Guard:
    def __init__(self, *, allow_private: bool, resolve: Resolve = by_system) -> None:
        self._allow_private = allow_private
        self._resolve = resolve

    def check(self, url: str) -> None:
        """Raises Forbidden for a URL that can be refused without resolving its name."""
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise Forbidden("its URL cannot be parsed") from None
        if parts.scheme not in ("http", "https") or not host:
            raise Forbidden("its URL is not http or https")
        if "@" in parts.netloc:
            raise Forbidden("its URL contains a user name")
        literal = _read(host)
        if literal and self._is_refused(literal):
            raise Forbidden(self._why("its address", [literal]))

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host. One refused address refuses the host."""
        literal = _read(host)
        found = [str(literal)] if literal else list(await self._resolve(host, port))
        if not found:
            raise Forbidden("its name resolves to no address")
        refused = [one for address in found if self._is_refused(one := ip_address(address.partition("%")[0]))]
        if refused:
            raise Forbidden(self._why("an address of its name", refused))
        return found

    def _why(self, what: str, refused: Iterable[Address]) -> str:
        """Says how to allow them, where they can be allowed."""
        if any(_is_never_allowed(one) for address in refused for one in _meant(address)):
            return f"{what} is one that is never allowed, such as that of a metadata service"
        return f"{what} is not public; {_ADVICE}"

    def _is_refused(self, address: Address) -> bool:
        return any(_is_never_allowed(one) or not (_is_open(one) or self._allow_private) for one in _meant(address))


def _is_never_allowed(address: Address) -> bool:
    return (
        address in METADATA
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or (isinstance(address, IPv4Address) and (address.is_reserved or address.packed[0] == 0))
    )


def _is_open(address: Address) -> bool:
    return address.is_global and not (isinstance(address, IPv6Address) and address.is_site_local)


def _meant(address: Address) -> Iterator[Address]:
    """The address itself, or the IPv4 addresses that it embeds."""
    wrapped: list[Address] = list(_wrapped(address)) if isinstance(address, IPv6Address) else []
    yield from wrapped or [address]


def _wrapped(address: IPv6Address) -> Iterator[IPv4Address]:
    """Every IPv4 address that an IPv6 address embeds. An ambiguous form yields both readings."""
    if address.ipv4_mapped:
        yield address.ipv4_mapped
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo
    is_isatap = (int(address) >> 32) & 0xFDFFFFFF == _ISATAP
    if is_isatap or (address not in (_UNSPECIFIED, _LOOPBACK) and any(address in network for network in _LAST_32_BITS)):
        yield _ipv4(int(address))
    if address in _LOCAL_NAT64 and not int(address) & 0xFFFFFF:  # RFC 6052 with a prefix of 64 bits ends in zeros
        yield _ipv4(int(address) >> 24)


def _ipv4(number: int) -> IPv4Address:
    return IPv4Address(number & 0xFFFFFFFF)


def _read(host: str) -> Address | None:
    """None for a name. Raises Forbidden for a number in an unusual form: 127.1 and 0x7f000001 are loopback."""
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        pass
    last = host.rstrip(".").rpartition(".")[2]
    if ":" in host or last.isdigit() or last.lower().startswith("0x") or not host.isascii():
        raise Forbidden("its address is not written in the usual form") from None
    return None
