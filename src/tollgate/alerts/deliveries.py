"""Sends what is due to be told: one page of deliveries in a round, each within its time, and keeps how each ended.

Any number of instances may send: each delivery is leased to one of them. Nothing here can delay the sweeping of
requests by more than the time of one attempt.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from tollgate.alerts import rules, store
from tollgate.alerts.rules import Outgoing
from tollgate.core.errors import VaultLocked
from tollgate.database import Door
from tollgate.process import logs
from tollgate.process.clock import Monotonic
from tollgate.process.http_client import USER_AGENT
from tollgate.upstreams.address_guard import Forbidden, Guard
from tollgate.upstreams.rules import TransportFailed
from tollgate.upstreams.transports import Answer, Transport
from tollgate.vault.rules import Vault

log = logs.source("application")

PAGE: Final = 16
ATTEMPT_SECONDS: Final = 5.0
BODY_SECONDS: Final = 1.0
LEASE_SECONDS: Final = 60
SUCCESSES: Final = range(200, 300)
REDIRECTS: Final = range(300, 400)
SYSTEM_ERRORS: Final = {"gaierror": "its host name is not known", "ConnectionRefusedError": "it takes no connections"}
OUT_OF_TIME: Final = f"no answer within {ATTEMPT_SECONDS:g} seconds"

Delivery = Mapping[str, Any]


class _Failed(Exception):
    """How an attempt failed, for the owner of the channel."""

    def __init__(self, told: str, status: int | None = None, answer: str = "") -> None:
        self.status = status
        self.answer = answer
        super().__init__(told)


class Deliveries:
    """Owners never reach a private address; operators do where PRIVATE_UPSTREAMS allows it."""

    def __init__(
        self,
        door: Door,
        transport: Transport,
        vault: Vault,
        *,
        guard: Guard,
        guard_of_owners: Guard,
        clock: Monotonic,
        now: Callable[[], datetime],
        randomness: Callable[[], float],
    ) -> None:
        self._door = door
        self._transport = transport
        self._vault = vault
        self._guard = guard
        self._guard_of_owners = guard_of_owners
        self._clock = clock
        self._now = now
        self._randomness = randomness

    async def send_due(self) -> Mapping[str, Any]:
        """Sends one page. `more` says that there may be more, and that no receiver let us wait."""
        due = (await store.lease_deliveries(self._door, PAGE, LEASE_SECONDS))["data"]
        if not due:
            return {"sent": 0, "more": False}
        ended = await asyncio.gather(*(self._attempt(delivery) for delivery in due))
        await store.end_deliveries(self._door, ended)
        waited = any(item["attempt"]["error"] == OUT_OF_TIME for item in ended)
        return {"sent": sum(item["sent"] for item in ended), "more": len(due) == PAGE and not waited}

    async def _attempt(self, delivery: Delivery) -> dict[str, Any]:
        """How it ended, as the database keeps it. Never raises."""
        at, began = self._now().isoformat(), self._clock()
        status, error, answer = None, None, ""
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                status, answer = await self._send(delivery)
        except _Failed as failed:
            status, error, answer = failed.status, str(failed), failed.answer
        except TimeoutError:
            error = OUT_OF_TIME
        except (Forbidden, TransportFailed, OSError, UnicodeError) as failed:
            error = _told(failed)
        except VaultLocked:
            error = "its secret cannot be read: VAULT_KEY is missing or another"
        except Exception:  # a delivery that cannot be sent must not stop the others
            log.exception("delivery_not_sent", delivery_id=delivery["id"])
            error = "an internal error; see the log"
        took_ms = round((self._clock() - began) * 1000)
        facts = {"delivery_id": delivery["id"], "channel_id": delivery["channel"]["id"], "tries": delivery["tries"]}
        if error:
            log.warning("delivery_failed", **facts, why=error)
        else:
            log.debug("delivery_sent", **facts, status=status, duration_ms=took_ms)
        return {
            "id": delivery["id"],
            "tries": delivery["tries"],
            "sent": error is None,
            "again_seconds": rules.again_seconds(delivery["tries"], self._randomness(), status),
            "attempt": rules.attempt(at, took_ms, status=status, error=error, answer=answer),
        }

    async def _send(self, delivery: Delivery) -> tuple[int, str]:
        channel = delivery["channel"]
        guard = self._guard if channel["org_id"] is None else self._guard_of_owners
        secret = self._vault.open(delivery["secret"]).get_secret_value() if delivery["secret"] else None
        if channel["kind"] == "email":
            return await self._mail(delivery, secret, guard)
        if secret is None:
            raise _Failed("it has no secret; store it again")
        return await self._post(self._outgoing(delivery, secret), guard)

    def _outgoing(self, delivery: Delivery, secret: str) -> Outgoing:
        channel = delivery["channel"]
        match channel["kind"]:
            case "slack":
                return rules.slack(secret, delivery["content"])
            case "pagerduty":
                return rules.pagerduty(channel["address"], secret, delivery)
            case _:
                return rules.webhook(channel["address"], secret, delivery, int(self._now().timestamp()))

    async def _mail(self, delivery: Delivery, password: str | None, guard: Guard) -> tuple[int, str]:
        from tollgate.alerts import mail_servers  # noqa: PLC0415  # a cold start need not pay for it

        channel = delivery["channel"]
        try:
            status = await mail_servers.send(
                channel["settings"], channel["address"], password, delivery, guard.addresses, ATTEMPT_SECONDS
            )
        except mail_servers.MailRefused as refused:
            raise _Failed(str(refused), refused.status) from refused
        return status, ""

    async def _post(self, outgoing: Outgoing, guard: Guard) -> tuple[int, str]:
        guard.check(outgoing.url)
        ours = {
            "accept": "*/*",
            "accept-encoding": "identity",
            "content-type": "application/json",
            "user-agent": USER_AGENT,
        }
        answer = await self._transport.send(
            "POST",
            outgoing.url,
            {**ours, **outgoing.headers},
            outgoing.body,
            connect_seconds=ATTEMPT_SECONDS,
            resolve=guard.addresses,
        )
        try:
            if answer.status in REDIRECTS:
                raise _Failed(f"HTTP {answer.status}: redirects are not followed", answer.status)
            told = await _beginning(answer)
        finally:
            await answer.close()
        if answer.status not in SUCCESSES:
            raise _Failed(f"HTTP {answer.status}", answer.status, told)
        return answer.status, told


def _told(failed: Exception) -> str:
    """For the owner of the channel. A transport tells errors of the system by the name of their class."""
    name = type(failed).__name__ if isinstance(failed, OSError) else str(failed)
    return SYSTEM_ERRORS.get(name, str(failed) or name)


async def _beginning(answer: Answer) -> str:
    """What fits into the log and comes soon. The status says how it ended, so the rest is not read."""
    body = bytearray()
    with contextlib.suppress(TimeoutError, TransportFailed):
        async with asyncio.timeout(BODY_SECONDS):
            while len(body) < rules.MOST_ANSWER and (piece := await answer.piece()):
                body += piece
    return rules.answer_kept(bytes(body))
