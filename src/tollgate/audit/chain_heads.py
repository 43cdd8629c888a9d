"""Takes and signs the heads of the hash chains, and compares them with the chains later."""

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
    """A head that cannot be used. The message says why."""


class Busy(Exception):
    """A transaction that began before the head was requested is still running."""


async def take(door: Door, pause: Callable[[float], Awaitable[Any]] = asyncio.sleep) -> Head:
    """The heads of the chains up to the newest transfer. Waits for transactions that may add a transfer before it."""
    sighted = await store.sight_chains(door)
    for _ in range(LOOKS):
        head: dict[str, Any] = await store.chains_at(door, sighted)
        if head.pop("complete"):
            return head
        await pause(PAUSE_SECONDS)
    raise Busy("a transaction that began a minute ago is still running; try again later")


async def differences(door: Door, head: Head) -> list[str]:
    """The fields of the head that differ from the chains up to the same position."""
    now = await store.chains_at(door, {name: head[name] for name in ("position", "event_position")})
    return [name for name in COMPARED if now[name] != head[name]]


def is_newer(head: Head, other: Head) -> bool:
    """Whether a chain went further when the head was taken."""
    return any(head[name] > other[name] for name in ("position", "event_position"))


def signed(head: Head, pepper: str) -> Head:
    named = {**head, "pepper": fingerprint(pepper)}
    return {**named, "signature": _signature(named, pepper)}


def verified(text: str, peppers: Sequence[str]) -> Head:
    """The head, if one of the peppers signed it."""
    try:
        head = json.loads(text)
        signature, named = head.pop("signature"), head["pepper"]
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        raise UnusableHead("this is not a chain head: `audit --head` prints one") from None
    pepper = next((one for one in peppers if fingerprint(one) == named), None)
    if pepper is None:
        raise UnusableHead("the head was signed with a pepper that is neither KEY_PEPPER nor KEY_PEPPER_PREVIOUS")
    if not hmac.compare_digest(str(signature).encode(), _signature(head, pepper).encode()):
        raise UnusableHead("the signature does not match: the head was changed after it was signed")
    return dict(head)


def _signature(head: Head, pepper: str) -> str:
    key = hmac.digest(pepper.encode(), PURPOSE, "sha256")
    return hmac.digest(key, json.dumps(head, sort_keys=True, separators=(",", ":")).encode(), "sha256").hex()
