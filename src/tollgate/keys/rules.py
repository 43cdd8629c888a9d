"""The form of a key, and what is stored of it. Randomness is an argument."""

import hashlib
import hmac
import ipaddress
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

from tollgate.core.errors import InvalidApiKey, MissingApiKey

Environment = Literal["live", "test"]

PREFIXES: dict[Environment, str] = {"live": "tg_live_", "test": "tg_test_"}
RANDOM_BYTES = 32
RANDOM_CHARACTERS = 43  # what 256 bits need in base 62
CHECKSUM_CHARACTERS = 6
SHOWN_OF_RANDOM = 4
SHORTEST_CHOSEN = 20
LONGEST = 512
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

MEMBER_SCOPES = ("chat", "completions", "embeddings", "models", "usage", "keys")
ADMIN_SCOPES = (*MEMBER_SCOPES, "admin")


class UnusableSecret(ValueError):
    """A chosen secret that cannot be a key. The message says why."""


class NoNetwork(ValueError):
    """A text that is not a network. The message leaves the text out, because it may be a secret in the wrong field."""


def mint(environment: Environment, randomness: bytes) -> str:
    """A new secret. Its last six characters are a checksum, so a mistyped key is refused without a database call."""
    body = PREFIXES[environment] + _base62(int.from_bytes(randomness), RANDOM_CHARACTERS)
    return body + _checksum(body)


def environment_of(secret: str) -> Environment:
    return "test" if secret.startswith(PREFIXES["test"]) else "live"


def is_whole(secret: str) -> bool:
    """False for a generated key with a wrong checksum. A key that an operator chose has no checksum."""
    if not secret.startswith(tuple(PREFIXES.values())):
        return True
    body, checksum = secret[:-CHECKSUM_CHARACTERS], secret[-CHECKSUM_CHARACTERS:]
    right_length = len(secret) == len(PREFIXES["live"]) + RANDOM_CHARACTERS + CHECKSUM_CHARACTERS
    return right_length and checksum == _checksum(body)


def check_chosen(secret: str) -> None:
    """Refuses a chosen secret that cannot be a key."""
    if len(secret) < SHORTEST_CHOSEN:
        raise UnusableSecret(f"the value has {len(secret)} characters; a key needs at least {SHORTEST_CHOSEN}")
    if len(secret) > LONGEST:
        raise UnusableSecret(f"the value has {len(secret)} characters; a key has at most {LONGEST}")
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise UnusableSecret("the value must be printable ASCII without spaces, because it is sent in an HTTP header")
    if not is_whole(secret):
        raise UnusableSecret("the value looks like a Tollgate key with a wrong checksum; check that it is complete")


def presented(headers: Mapping[str, str]) -> str:
    """The secret in the headers of a request. Authorization takes precedence over X-API-Key."""
    scheme, _, credential = headers.get("authorization", "").strip().partition(" ")
    bearer = credential.strip() if scheme.lower() == "bearer" else ""
    secret = bearer or headers.get("x-api-key", "").strip()
    if not secret:
        raise MissingApiKey
    return checked(secret)


def checked(secret: str) -> str:
    """The secret, if it can be a key."""
    if len(secret) > LONGEST or not is_whole(secret):
        raise InvalidApiKey
    return secret


def digest(secret: str, pepper: str) -> str:
    mac = _keyed(pepper).copy()
    mac.update(secret.encode())
    return mac.hexdigest()


@lru_cache(16)
def _keyed(pepper: str) -> hmac.HMAC:
    """Each call has the same few peppers."""
    return hmac.new(pepper.encode(), digestmod="sha256")


def fingerprint(pepper: str) -> str:
    """Identifies a pepper without revealing it."""
    return hashlib.sha256(b"tollgate pepper " + pepper.encode()).hexdigest()[:8]


def stored(
    secret: str,
    pepper: str,
    *,
    name: str,
    scopes: Sequence[str],
    ip_allowlist: Sequence[str] | None = None,
    expires_at: str | None = None,
) -> dict[str, Any]:
    """The fields of a key that the database stores."""
    return imprint(secret, pepper) | {
        "name": name,
        "scopes": list(scopes),
        "ip_allowlist": list(ip_allowlist) if ip_allowlist is not None else None,
        "expires_at": expires_at,
    }


def imprint(secret: str, pepper: str) -> dict[str, Any]:
    """The fields of a secret that the database stores: its digest to look it up, and its ends to show it masked."""
    shown = len(PREFIXES["live"]) + SHOWN_OF_RANDOM if secret.startswith(tuple(PREFIXES.values())) else SHOWN_OF_RANDOM
    return {
        "digest": digest(secret, pepper),
        "pepper": fingerprint(pepper),
        "prefix": secret[:shown],
        "last_four": secret[-4:],
        "environment": environment_of(secret),
    }


def masked(prefix: str, last_four: str) -> str:
    return f"{prefix}…{last_four}"


def network(text: str) -> str:
    """A network in the form that Postgres writes. A single address is a network too.

    Host bits are refused: 10.0.0.5/8 is probably a mistake, and 10.0.0.0/8 would allow more than was meant.
    """
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise NoNetwork("must be an address or a network, such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32") from None
    if found.prefixlen != found.max_prefixlen and ipaddress.ip_interface(text).ip != found.network_address:
        raise NoNetwork("has host bits set: send the first address of the network, or a single address without a mask")
    if isinstance(found, ipaddress.IPv6Network) and found.network_address.scope_id:
        raise NoNetwork("must not have a zone such as %eth0")
    return str(found)


def _base62(number: int, width: int) -> str:
    digits = ""
    for _ in range(width):
        number, place = divmod(number, 62)
        digits = ALPHABET[place] + digits
    return digits


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), CHECKSUM_CHARACTERS)
