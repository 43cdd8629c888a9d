"""Whose address a request comes from. A header is believed only where a known proxy writes it."""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from starlette.datastructures import Headers
from starlette.types import Scope

from tollgate.runtime.settings import TrustedProxy


def client_ip(scope: Scope, proxy: TrustedProxy) -> str | None:
    """The caller's address, or None when nothing trustworthy names one."""
    headers = Headers(scope=scope)
    peer = (scope.get("client") or ("",))[0]
    match proxy:
        case "vercel" | "railway":
            claimed = headers.get("x-real-ip", "")
        case "heroku":
            claimed = _last_forwarded(headers)
        case "alb":
            claimed = _last_forwarded(headers) or peer.split(",")[-1]
        case "none" | "lambda":
            claimed = peer
    return _normal(claimed)


def _last_forwarded(headers: Headers) -> str:
    """The element that the nearest proxy added; those before it are the caller's own claims."""
    return ",".join(headers.getlist("x-forwarded-for")).split(",")[-1]


@lru_cache(maxsize=4096)
def _normal(claimed: str) -> str | None:
    try:
        address = ip_address(claimed.strip().partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(address)
