"""When the security reporter writes, and that no request waits for it."""

import asyncio
import io
import json
from datetime import UTC, datetime
from typing import Any

from tollgate.audit.security_reporter import ADDRESSES_REMEMBERED, LINE_SECONDS, PAUSE_SECONDS, SecurityReporter
from tollgate.core.errors import DatabaseUnavailable
from tollgate.process import logs

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Hatch:
    """A door that records calls, answers when it is told to, and can fail."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.broken = False

    async def call(self, function: str, **arguments: Any) -> Any:
        self.calls.append((function, arguments))
        assert "request_id" not in logs.noted()
        await self.answers.wait()
        if self.broken:
            raise DatabaseUnavailable
        return {}

    async def close(self) -> None: ...


class Site:
    def __init__(self) -> None:
        self.seconds = 0.0
        self.hatch = Hatch()
        self.reporter = SecurityReporter(self.hatch, clock=lambda: self.seconds, now=lambda: NOON)

    def guess(self, ip: str = "192.0.2.1") -> None:
        self.reporter.ended("GET", "/user/balance", {"error_code": "invalid_api_key"}, {"ip": ip})

    def handed_over(self) -> list[int]:
        return [
            sum(one["times"] for one in given["refusals"])
            for name, given in self.hatch.calls
            if "security_counts" in name
        ]


async def test_sums_go_beside_a_later_request_and_seconds_apart() -> None:
    site = Site()
    logs.note(request_id="req_1")
    for _ in range(100):
        site.reporter.begins()
        site.guess()
        await asyncio.sleep(0)
    assert site.handed_over() == []
    site.seconds += PAUSE_SECONDS
    for _ in range(100):
        site.reporter.begins()
        site.guess()
        await asyncio.sleep(0)
    assert site.handed_over() == [100]
    logs.begin()
    await site.reporter.finish()
    assert site.handed_over() == [100, 100]


async def test_without_anything_seen_the_database_is_left_alone() -> None:
    site = Site()
    site.seconds += PAUSE_SECONDS
    site.reporter.begins()
    await site.reporter.finish()
    assert site.hatch.calls == []


async def test_a_database_that_stands_still_holds_nobody_up_and_gets_one_call_at_a_time() -> None:
    site = Site()
    site.hatch.answers.clear()
    for _ in range(5):
        site.guess()
        site.seconds += PAUSE_SECONDS
        site.reporter.begins()
        await asyncio.sleep(0)
    assert site.handed_over() == [1]
    site.hatch.answers.set()
    await site.reporter.finish()
    assert site.handed_over() == [1, 4]


async def test_a_database_out_of_order_costs_the_counts_and_nothing_else() -> None:
    site = Site()
    site.hatch.broken = True
    site.guess()
    await site.reporter.finish()
    site.hatch.broken = False
    site.guess()
    await site.reporter.finish()
    assert site.handed_over() == [1, 1]


def test_the_first_failed_authentication_of_an_address_and_minute_is_logged_and_the_others_are_counted() -> None:
    site, out = Site(), io.StringIO()
    logs.configure("info", [], out)
    for ip in ("192.0.2.1", "192.0.2.1", "2001:db8::1", "2001:db8::2", "192.0.2.1"):
        site.guess(ip)
    site.reporter.ended("GET", "/user/balance", {"error_code": "not_found"}, {"ip": "192.0.2.9"})
    site.reporter.ended("GET", "/auth/me", {"error_code": "missing_api_key"}, {"ip": "192.0.2.9"})  # a sign-in page
    site.seconds += LINE_SECONDS
    site.guess("192.0.2.1")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["address"], line["left_out"]) for line in lines] == [
        ("192.0.2.1", 0),
        ("2001:db8::/64", 0),
        ("192.0.2.1", 2),
    ]
    assert {(line["source"], line["event"], line["error_code"]) for line in lines} == {
        ("security", "authentication_failed", "invalid_api_key")
    }


def test_other_refusals_that_may_concern_security_have_lines_of_their_own() -> None:
    site, out = Site(), io.StringIO()
    logs.configure("info", [], out)
    refused = [("permission_denied", "/admin/keys"), ("rate_limit_exceeded", "/v1/x"), ("quota_exhausted", "/v1/x")]
    for code, path in [*refused, ("permission_denied", "/v1/x"), ("insufficient_credits", "/v1/x")]:
        site.reporter.ended("POST", path, {"error_code": code, "key_id": "key_1"}, {"ip": "192.0.2.1"})
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["source"], line["event"], line["error_code"]) for line in lines] == [
        ("security", "operators_only", "permission_denied"),
        ("security", "limit_exceeded", "rate_limit_exceeded"),
    ]


def test_addresses_beyond_a_bound_are_forgotten() -> None:
    site = Site()
    for number in range(2 * ADDRESSES_REMEMBERED):
        site.guess(f"10.0.{number // 256}.{number % 256}")
    assert len(site.reporter._lines) == ADDRESSES_REMEMBERED
