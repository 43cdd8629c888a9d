"""Heads of the hash chains: taken, signed to be kept elsewhere, and compared with what is there later."""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from tollgate.audit import store
from tollgate.database import Door
from tollgate.keys.rules import fingerprint

LOOKS = 600
PAUSE_SECONDS = 0.1
PURPOSE = b"tollgate audit head"
COMPARED = ("transfers", "transfers_digest", "orgs", "events", "events_digest", "starts")

Head = Mapping[str, Any]


class UnusableHead(ValueError):
    """Why a head proves nothing, in one line."""


class Busy(Exception):
    """A transaction that began before the head was asked for has not ended."""


async def take(door: Door, pause: Callable[[float], Awaitable[Any]] = asyncio.sleep) -> Head:
    """The chains up to the newest transfer, once no transaction can add one before it."""
    sighted = await store.sight_chains(door)
    for _ in range(LOOKS):
        head: dict[str, Any] = await store.chains_at(door, sighted)
        if head.pop("complete"):
            return head
        await pause(PAUSE_SECONDS)
    raise Busy("a transaction that began a minute ago is still running; try again when it has ended")


async def differences(door: Door, head: Head) -> list[str]:
    """The fields in which the chains, up to where the head was taken, are not what it says."""
    now = await store.chains_at(door, {name: head[name] for name in ("position", "event_position")})
    return [name for name in COMPARED if now[name] != head[name]]


def signed(head: Head, pepper: str) -> Head:
    named = {**head, "pepper": fingerprint(pepper)}
    return {**named, "signature": _signature(named, pepper)}


def verified(text: str, peppers: Sequence[str]) -> Head:
    """The head that was signed under one of the peppers."""
    try:
        head = json.loads(text)
        signature, named = head.pop("signature"), head["pepper"]
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        raise UnusableHead("this is not a head of the audit: `audit --head` prints one") from None
    pepper = next((one for one in peppers if fingerprint(one) == named), None)
    if pepper is None:
        raise UnusableHead("the head was signed under a pepper that is neither KEY_PEPPER nor KEY_PEPPER_PREVIOUS")
    if not hmac.compare_digest(str(signature).encode(), _signature(head, pepper).encode()):
        raise UnusableHead("the signature does not fit: the head was changed after it was signed")
    return dict(head)


def _signature(head: Head, pepper: str) -> str:
    key = hmac.digest(pepper.encode(), PURPOSE, "sha256")
    return hmac.digest(key, json.dumps(head, sort_keys=True, separators=(",", ":")).encode(), "sha256").hex()
