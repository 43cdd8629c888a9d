"""What is counted of requests, by which address or network, and how long the period of a report may be."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv6Network, ip_address, ip_network
from typing import Any, Final, Literal, NamedTuple

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

SpreadKind = Literal[
    "missing_ids", "models_read", "reused_keys", "repeated_from", "failed_addresses", "failed_credentials"
]
INSTALLATION: Final = "installation"
OF_ALL: Final = frozenset[SpreadKind](("failed_addresses", "failed_credentials"))
"""Counted of all callers together."""
MARKS: Final = 512
"""Bits of a spread."""


OWN_FORM: Final = re.compile(r"[a-z]{3}_([0-9a-f]{12})[0-9a-f]{16}")
"""Of an id: its time in milliseconds, and 64 random bits."""
FIRST_MS: Final = 1_735_689_600_000
"""2025, before the first id."""


class Spread(NamedTuple):
    """Something that a caller did, of which it is counted how often, and with how many different things."""

    kind: SpreadKind
    thing: str
    about: str = ""
    """What it was done to, where that is counted apart."""


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


def spreads(
    code: str | None, facts: Mapping[str, Any], caller: Mapping[str, Any], now: Callable[[], datetime]
) -> list[Spread]:
    """What a request adds to the spreads. Of one that went well: a model that was read, or an answer given again."""
    ip = caller.get("ip") or ""
    repeated = facts.get("replayed") or facts.get("refusal", {}).get("request_id")
    match code:
        case None:
            read = [Spread("models_read", facts["model_read"])] if "model_read" in facts else []
            return [*read, *_repeated(repeated, ip)]
        case "not_found" | "model_not_found":
            missing = str(facts.get("missing", ""))
            return [Spread("missing_ids", missing)] if missing and not is_from_us(missing, now()) else []
        case "idempotency_key_reused":
            return [Spread("reused_keys", str(repeated)), *_repeated(repeated, ip)]
        case "request_in_progress" | "answer_not_kept":
            return _repeated(repeated, ip)
        case "invalid_api_key" | "sign_in_failed" | "too_many_sign_ins":
            tried = facts.get("account") or next(iter(caller.get("digests", ())), "")
            if tried and ip:
                return [Spread("failed_addresses", address_of(ip)), Spread("failed_credentials", tried)]
    return []


def is_from_us(missing: str, now: datetime) -> bool:
    """Whether an id that does not exist was made here once: it has our form and a time of the past. Nobody guesses one
    of the 2^64 ids of a millisecond, so who asks for such an id has it from before it was deleted."""
    made = OWN_FORM.fullmatch(missing)
    return made is not None and FIRST_MS <= int(made[1], 16) <= now.timestamp() * 1000


def _repeated(request_id: str | None, ip: str) -> list[Spread]:
    return [Spread("repeated_from", network_of(ip), about=request_id)] if request_id and ip else []


def mark_of(thing: str, key: bytes) -> int:
    """The bit of a thing. The key keeps a client from choosing things that share one."""
    return 1 << int.from_bytes(blake2b(thing.encode(errors="replace"), digest_size=8, key=key).digest()) % MARKS


def is_forbidden_call(error_code: str, path: str | None) -> bool:
    """Whether a valid key without the role called a path for operators."""
    return error_code == OPERATORS_ONLY and path is not None and path.startswith(OPERATOR_PATH)


def line_about(error_code: str, path: str | None) -> str | None:
    """The event of the log line about a refusal that may concern security; None for all others."""
    if error_code in UNAUTHENTICATED:
        return None if (error_code, path) == ("missing_api_key", WHO_IS_SIGNED_IN) else "authentication_failed"
    if is_forbidden_call(error_code, path):
        return "operators_only"
    return "limit_exceeded" if KINDS.get(error_code) == "limit_exceeded" else None


def check_span(since: datetime, until: datetime) -> None:
    if not timedelta() < until - since <= timedelta(days=MOST_DAYS):
        raise BadRequest(
            f"to: must be after `from`, by at most {MOST_DAYS} days. Request a longer period in parts.",
            param="to",
            most_days=MOST_DAYS,
        )
