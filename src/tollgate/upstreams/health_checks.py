"""How servers of our own are, asked on an operator's word: a few at a time, within deadlines, and behind the guard that
stands before every call. What they answer is not read, so nobody can look through us at what they say."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from tollgate.core.errors import BadRequest
from tollgate.core.host_keys import HostKey
from tollgate.core.models import Upstream
from tollgate.process.http_client import USER_AGENT
from tollgate.upstreams import key_variables, rules
from tollgate.upstreams.address_guard import Forbidden, Guard
from tollgate.upstreams.dialects import DIALECTS
from tollgate.upstreams.rules import NoConnection, TransportFailed
from tollgate.upstreams.transports import Transport

MOST_AT_ONCE: Final = 8
PROBE_SECONDS: Final = 5.0
ROUND_SECONDS: Final = 20.0
"""For all together: a serverless host gives no more."""
LEAST_SECONDS: Final = 0.5
"""Who has less than that left is not asked: its silence would say nothing."""
LOOK_UP_SECONDS: Final = 3.0
USUAL_PATH: Final = "/models"
"""Below the base URL: what every dialect answers to."""


class Probe(NamedTuple):
    """What came of asking one. The error is ours to word, and quotes nothing of what came back."""

    upstream_id: str
    status: Literal["up", "down"]
    http_status: int | None = None
    latency_ms: int | None = None
    error: str | None = None


class Checkup:
    def __init__(self, transport: Transport, guard: Guard, secrets: Mapping[str, str]) -> None:
        self._transport = transport
        self._guard = guard
        self._secrets = secrets

    async def refuse_forbidden(self, base_url: str) -> None:
        """BadRequest where no call would ever go. A name that leads nowhere yet is looked at again at each call."""
        try:
            self._guard.check(base_url)
            parts = urlsplit(base_url)
            async with asyncio.timeout(LOOK_UP_SECONDS):
                await self._guard.addresses(parts.hostname or "", parts.port or 443)
        except Forbidden as error:
            raise BadRequest(f"base_url: {error}.", param="base_url") from None
        except (OSError, UnicodeError):
            return

    def has_secret(self, name: str) -> bool:
        return rules.fit_secret(self._secrets.get(name)) is not None

    async def is_up(self, upstream: Upstream) -> bool | None:
        """None when we had no connection to ask with."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                return is_well(await self._ask(upstream))
        except NoConnection:
            return None
        except (TimeoutError, Forbidden, TransportFailed):
            return False

    async def probe(self, upstreams: Sequence[Upstream]) -> list[Probe]:
        """All of them, and none that its turn did not come to before the time was over."""
        until = asyncio.get_running_loop().time() + ROUND_SECONDS
        places = asyncio.Semaphore(MOST_AT_ONCE)
        probes = await asyncio.gather(*(self._in_turn(upstream, places, until) for upstream in upstreams))
        return [probe for probe in probes if probe is not None]

    async def _in_turn(self, upstream: Upstream, places: asyncio.Semaphore, until: float) -> Probe | None:
        async with places:
            began = asyncio.get_running_loop().time()
            if until - began < LEAST_SECONDS:
                return None
            try:
                async with asyncio.timeout_at(min(began + PROBE_SECONDS, until)):
                    status = await self._ask(upstream)
            except TimeoutError:
                return Probe(upstream.id, "down", error="no answer in time")
            except (Forbidden, TransportFailed) as failure:
                return Probe(upstream.id, "down", error=str(failure))
            took = round((asyncio.get_running_loop().time() - began) * 1000)
            return _judged(upstream.id, status, took)

    async def _ask(self, upstream: Upstream) -> int:
        headers = self._headers(upstream)
        self._guard.check(upstream.base_url)
        answer = await self._transport.send(
            "GET",
            address(upstream),
            headers,
            b"",
            connect_seconds=upstream.connect_seconds,
            resolve=self._guard.addresses,
        )
        await answer.close()
        return answer.status

    def _headers(self, upstream: Upstream) -> dict[str, str]:
        ours = {"accept": "*/*", "accept-encoding": "identity", "user-agent": USER_AGENT}
        name = key_variables.name_of(upstream)
        if name is None:
            return ours
        secret = key_variables.key_of(upstream, self._secrets)
        if secret is None:
            raise Forbidden(rules.has_no_key(name))
        return {**ours, **DIALECTS[upstream.dialect].auth(secret, "messages")}


def address(upstream: Upstream) -> str:
    """A health path is one of the server; without one, the list of its models says that it lives."""
    if upstream.health_path is None:
        return upstream.base_url.rstrip("/") + USUAL_PATH
    parts = urlsplit(upstream.base_url)
    return f"{parts.scheme}://{parts.netloc}{upstream.health_path}"


def of_row(row: Mapping[str, Any]) -> Upstream:
    """What is needed of an upstream to ask how it is."""
    return Upstream(
        row["id"],
        row["dialect"],
        row["base_url"],
        secret_name=row["secret_name"],
        connect_seconds=float(row["connect_seconds"]),
        health_path=row["health_path"],
        host_key=HostKey(row["host_id"], row["host_key_generation"]) if row["host_id"] else None,
    )


def is_well(status: int) -> bool:
    return 200 <= status < 300


def _judged(upstream_id: str, status: int, took_ms: int) -> Probe:
    if is_well(status):
        return Probe(upstream_id, "up", status, took_ms)
    return Probe(upstream_id, "down", status, took_ms, f"HTTP {status}")
