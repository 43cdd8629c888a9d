"""What of a request is worth counting and who is meant, and how long a time one report may tell of."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from ipaddress import IPv6Network, ip_address, ip_network
from typing import Literal

from tollgate.core.errors import BadRequest

Kind = Literal["authentication_failed", "limit_exceeded", "ip_refused"]

KINDS: Mapping[str, Kind] = {
    "invalid_api_key": "authentication_failed",
    "key_revoked": "authentication_failed",
    "key_disabled": "authentication_failed",
    "key_expired": "authentication_failed",
    "ip_not_allowed": "ip_refused",
    "rate_limit_exceeded": "limit_exceeded",
    "too_many_in_flight": "limit_exceeded",
    "quota_exhausted": "limit_exceeded",
    "key_budget_exhausted": "limit_exceeded",
}
"""By the code of the refusal. A request without a key is no attempt to get in, and one without credits no offence."""

TRESPASS = "permission_denied"
FOR_OPERATORS = ("/admin/", "/v1/admin/")
MOST_DAYS = 366


@lru_cache(maxsize=4096)
def network_of(ip: str) -> str:
    """Where a key is used from: machines of one site are one place."""
    return str(ip_network((ip, 24 if ip_address(ip).version == 4 else 48), strict=False))


@lru_cache(maxsize=4096)
def address_of(ip: str) -> str:
    """Who an address stands for. Whoever has one of IPv6 has its whole /64 to choose from."""
    network = ip_network((ip, 32 if ip_address(ip).version == 4 else 64), strict=False)
    return str(network) if isinstance(network, IPv6Network) else ip


def is_trespass(error_code: str, path: str | None) -> bool:
    """Whether a known key asked for what only operators may."""
    return error_code == TRESPASS and path is not None and path.startswith(FOR_OPERATORS)


def check_span(since: datetime, until: datetime) -> None:
    if not timedelta() < until - since <= timedelta(days=MOST_DAYS):
        raise BadRequest(
            f"to: a report ends after it begins and spans at most {MOST_DAYS} days. Ask for a longer time in parts.",
            param="to",
            most_days=MOST_DAYS,
        )
