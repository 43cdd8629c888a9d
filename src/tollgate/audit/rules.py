"""Which refusals are counted, by which address or network, and how long the period of a report may be."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from ipaddress import IPv6Network, ip_address, ip_network
from typing import Literal

from tollgate.core.errors import BadRequest, Unauthenticated

RefusalKind = Literal["authentication_failed", "limit_exceeded", "ip_refused"]

KINDS: Mapping[str, RefusalKind] = {
    "invalid_api_key": "authentication_failed",
    "key_revoked": "authentication_failed",
    "key_disabled": "authentication_failed",
    "key_expired": "authentication_failed",
    "sign_in_failed": "authentication_failed",
    "invalid_link": "authentication_failed",
    "too_many_sign_ins": "authentication_failed",
    "host_key_invalid": "authentication_failed",
    "enrolment_invalid": "authentication_failed",
    "ip_not_allowed": "ip_refused",
    "rate_limit_exceeded": "limit_exceeded",
    "too_many_in_flight": "limit_exceeded",
    "quota_exhausted": "limit_exceeded",
    "key_budget_exhausted": "limit_exceeded",
}
"""The kind of a refusal by its code. A missing key, an ended session and missing credits raise no security event."""

REFUSED_CALLS = frozenset(
    (
        "insufficient_credits", "key_budget_exhausted", "quota_exhausted",
        "permission_denied", "model_not_allowed", "ip_not_allowed", "paid_calls_suspended",
        "rate_limit_exceeded", "too_many_in_flight",
    )
)  # fmt: skip
"""The codes of refused paid calls that are counted: 402, 403 and 429."""

WHO_IS_SIGNED_IN = "/auth/me"
"""Pages ask this before anybody has signed in, so a missing key there is no failure."""
UNAUTHENTICATED = frozenset(error.code for error in Unauthenticated.__subclasses__()) | {
    "ip_not_allowed", "host_key_invalid", "enrolment_invalid",
}  # fmt: skip
"""The codes of failed authentications."""

OPERATORS_ONLY = "permission_denied"
OPERATOR_PATH = "/admin/"
MOST_DAYS = 366


@lru_cache(maxsize=4096)
def network_of(ip: str) -> str:
    """The network that a key is used from: /24 for IPv4, /48 for IPv6."""
    return str(ip_network((ip, 24 if ip_address(ip).version == 4 else 48), strict=False))


@lru_cache(maxsize=4096)
def address_of(ip: str) -> str:
    """The address that is counted. For IPv6 it is the /64, because one client usually has all of it."""
    network = ip_network((ip, 32 if ip_address(ip).version == 4 else 64), strict=False)
    return str(network) if isinstance(network, IPv6Network) else ip


def is_forbidden_call(error_code: str, path: str | None) -> bool:
    """Whether a valid key without the role called a path for operators."""
    return error_code == OPERATORS_ONLY and path is not None and path.startswith(OPERATOR_PATH)


def check_span(since: datetime, until: datetime) -> None:
    if not timedelta() < until - since <= timedelta(days=MOST_DAYS):
        raise BadRequest(
            f"to: must be after `from`, by at most {MOST_DAYS} days. Request a longer period in parts.",
            param="to",
            most_days=MOST_DAYS,
        )
