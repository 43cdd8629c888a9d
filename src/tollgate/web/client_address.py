"""The client's address. A header is trusted only if a known proxy sets it."""

import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from starlette.types import Scope

from tollgate.settings import TrustedProxy

WITH_PORT = re.compile(r"\[([^][]+)](?::\d{1,5})?|([\d.]+):\d{1,5}", re.ASCII)
"""[2001:db8::1]:443 and 203.0.113.7:443: load balancers can be configured to add the port."""


def headers_of(scope: Scope) -> Mapping[str, str]:
    """The headers by lower-case name, decoded once for each request. Of two with one name, the first counts."""
    state = scope.setdefault("state", {})
    if "headers" not in state:
        state["headers"] = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])
        }
    known: Mapping[str, str] = state["headers"]
    return known


def announced_bytes(headers: Mapping[str, str]) -> int:
    """Content-Length, or 0 when it is absent or not a number."""
    announced = headers.get("content-length", "").lstrip("0")
    return int(announced[:20]) if announced.isascii() and announced.isdigit() else 0


def client_ip(scope: Scope, proxy: TrustedProxy) -> str | None:
    """The client's address, or None when no trusted source has one."""
    peer = (scope.get("client") or ("",))[0]
    match proxy:
        case "none" | "lambda":
            claimed = peer
        case "vercel" | "railway":
            claimed = _only(scope, b"x-real-ip")
        case "digitalocean":
            claimed = _only(scope, b"do-connecting-ip")
        case "heroku" | "proxy":
            claimed = _last_forwarded(scope)
        case "alb":
            claimed = _last_forwarded(scope) or peer.split(",")[-1]
    return _normal(claimed)


def _only(scope: Scope, name: bytes) -> str:
    """A header that the proxy overwrites comes once. If there are two, neither is trusted."""
    sent = _sent(scope, name)
    return sent[0] if len(sent) == 1 else ""


def _last_forwarded(scope: Scope) -> str:
    """The element that the nearest proxy added; a client can forge those before it."""
    return ",".join(_sent(scope, b"x-forwarded-for")).split(",")[-1]


def _sent(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for sent, value in scope["headers"] if sent == name]


@lru_cache(maxsize=4096)
def _normal(claimed: str) -> str | None:
    bare = claimed.strip()
    if found := WITH_PORT.fullmatch(bare):
        bare = found[1] or found[2]
    try:
        address = ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(address)
