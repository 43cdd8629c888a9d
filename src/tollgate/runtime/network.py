"""Whose address a request comes from. A header is believed only where a known proxy writes it."""

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from starlette.datastructures import Headers
from starlette.types import Scope

from tollgate.runtime.settings import TrustedProxy


def headers_of(scope: Scope) -> Mapping[str, str]:
    """A request's headers by their names in lower case, decoded once for all who look. The first of two counts."""
    state = scope.setdefault("state", {})
    if "headers" not in state:
        state["headers"] = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])
        }
    known: Mapping[str, str] = state["headers"]
    return known


def client_ip(scope: Scope, proxy: TrustedProxy) -> str | None:
    """The caller's address, or None when nothing trustworthy names one."""
    peer = (scope.get("client") or ("",))[0]
    match proxy:
        case "vercel" | "railway":
            claimed = headers_of(scope).get("x-real-ip", "")
        case "heroku":
            claimed = _last_forwarded(Headers(scope=scope))
        case "alb":
            claimed = _last_forwarded(Headers(scope=scope)) or peer.split(",")[-1]
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
