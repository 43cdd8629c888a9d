import asyncio
import io
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tollgate.app import create_app
from tollgate.core.errors import DatabaseUnavailable, InvalidApiKey, KeyRevoked, PermissionDenied, TollgateError
from tollgate.keys.gate import STRANGER_SECONDS, console
from tollgate.keys.rules import digest, fingerprint, mint
from tollgate.runtime import logs
from tollgate.runtime.settings import read

KEY = mint("live", bytes(range(32)))
STRANGER = mint("live", bytes(range(1, 33)))
CHOSEN = "chosen-by-an-operator"
PEPPER, PREVIOUS = "p" * 32, "q" * 32
BALANCE = {
    "prefix": KEY[:12],
    "last_four": KEY[-4:],
    "balance_nanos": 5_000_000_001,
    "held_nanos": 1,
    "org_id": "org_1",
    "user_id": "usr_1",
    "plan": "pro",
    "environment": "live",
    "status": "active",
}
CALLER = {"key_id": "key_1", "org_id": "org_1"}


class FakeDoor:
    """Answers every call with the caller and a balance, or refuses it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.refusal: Callable[[], TollgateError] | None = None

    async def call(self, function: str, **arguments: Any) -> Any:
        self.calls.append((function, arguments))
        if self.refusal:
            raise self.refusal()
        return BALANCE | {"caller": dict(CALLER)}

    async def close(self) -> None: ...

    @property
    def caller(self) -> dict[str, Any]:
        caller: dict[str, Any] = self.calls[-1][1]["caller"]
        return caller


class Site:
    def __init__(self, **environ: str) -> None:
        self.door = FakeDoor()
        self.now = 1000.0
        self.log = io.StringIO()
        chosen = read({"KEY_PEPPER": PEPPER} | environ)
        self.app: FastAPI = create_app(chosen, door=self.door, clock=lambda: self.now)
        logs.configure("info", chosen.secrets(), self.log)

    async def ask(
        self, *headers: tuple[str, str], path: str = "/user/balance", peer: str = "192.0.2.1"
    ) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, client=(peer, 50000))
        async with httpx.AsyncClient(transport=transport, base_url="http://tollgate.test") as http:
            return await http.get(path, headers=list(headers))

    async def ask_with(self, key: str) -> httpx.Response:
        return await self.ask(("authorization", f"Bearer {key}"))

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_key_opens_the_door_to_its_balance_in_one_call() -> None:
    site = Site()
    answer = await site.ask_with(KEY)
    assert answer.status_code == 200
    assert answer.json() == {
        "key": f"{KEY[:12]}…{KEY[-4:]}",
        "credits": 5.000000001,
        "credits_nanos": 5_000_000_001,
        "held_nanos": 1,
        "available_nanos": 5_000_000_000,
        "org_id": "org_1",
        "user_id": "usr_1",
        "plan": "pro",
        "environment": "live",
        "status": "active",
    }
    assert [function for function, _ in site.door.calls] == ["tollgate_balance"]


async def test_the_database_is_told_who_asks_and_never_the_key() -> None:
    site = Site()
    headers = [("authorization", f"Bearer {KEY}"), ("user-agent", "curl/8"), ("x-request-id", "req-7")]
    await site.ask(*headers, peer="203.0.113.7")
    assert site.door.calls == [
        (
            "tollgate_balance",
            {
                "caller": {
                    "digests": [digest(KEY, PEPPER)],
                    "pepper": fingerprint(PEPPER),
                    "ip": "203.0.113.7",
                    "user_agent": "curl/8",
                    "request_id": "req-7",
                }
            },
        )
    ]
    assert KEY not in repr(site.door.calls)


async def test_without_a_key_one_is_asked_for_and_the_database_is_not() -> None:
    site = Site()
    answer = await site.ask()
    assert refused(answer) == (401, "missing_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert site.door.calls == []


@pytest.mark.parametrize(
    "secret", [KEY[:-1], KEY[:20] + "!" + KEY[21:], "tg_test_" + KEY[8:], "x" * 513, "tg_live_" + "x" * 505]
)
async def test_what_cannot_be_a_key_is_refused_without_a_call(secret: str) -> None:
    site = Site()
    assert refused(await site.ask_with(secret)) == (401, "invalid_api_key")
    assert refused(await site.ask(("x-api-key", secret))) == (401, "invalid_api_key")
    assert site.door.calls == []


@pytest.mark.parametrize("secret", [CHOSEN, "x" * 512])
async def test_a_key_without_our_form_is_looked_up(secret: str) -> None:
    site = Site()
    assert (await site.ask_with(secret)).status_code == 200
    assert site.door.caller["digests"] == [digest(secret, PEPPER)]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR", "Bearer "])
async def test_bearer_may_be_written_in_any_case(scheme: str) -> None:
    site = Site()
    assert (await site.ask(("Authorization", f"{scheme} {KEY}"))).status_code == 200


async def test_x_api_key_does_as_well_and_authorization_wins() -> None:
    site = Site()
    assert (await site.ask(("X-API-Key", KEY))).status_code == 200
    assert site.door.caller["digests"] == [digest(KEY, PEPPER)]
    await site.ask(("X-API-Key", KEY), ("Authorization", f"Bearer {CHOSEN}"))
    assert site.door.caller["digests"] == [digest(CHOSEN, PEPPER)]


@pytest.mark.parametrize("name", ["key", "api_key", "access_token", "authorization", "x-api-key", "token"])
async def test_a_key_in_the_query_string_is_not_taken(name: str) -> None:
    site = Site()
    assert refused(await site.ask(path=f"/user/balance?{name}={KEY}")) == (401, "missing_api_key")
    assert site.door.calls == []
    assert KEY not in site.log.getvalue()


async def test_an_unknown_key_is_looked_up_once_in_five_seconds() -> None:
    site = Site()
    site.door.refusal = InvalidApiKey
    for _ in range(3):
        assert refused(await site.ask_with(STRANGER)) == (401, "invalid_api_key")
    site.now += STRANGER_SECONDS - 0.01
    assert refused(await site.ask_with(STRANGER)) == (401, "invalid_api_key")
    assert len(site.door.calls) == 1
    site.now += 0.02
    assert refused(await site.ask_with(STRANGER)) == (401, "invalid_api_key")
    assert len(site.door.calls) == 2


def test_a_stranger_is_remembered_for_five_seconds() -> None:
    assert STRANGER_SECONDS == 5


async def test_a_key_made_since_works_once_it_is_forgotten_as_a_stranger_s() -> None:
    site = Site()
    site.door.refusal = InvalidApiKey
    await site.ask_with(STRANGER)
    site.door.refusal = None
    assert (await site.ask_with(STRANGER)).status_code == 401
    site.now += STRANGER_SECONDS
    assert (await site.ask_with(STRANGER)).status_code == 200


async def test_a_stranger_does_not_shut_the_door_for_others() -> None:
    site = Site()
    site.door.refusal = InvalidApiKey
    await site.ask_with(STRANGER)
    site.door.refusal = None
    assert (await site.ask_with(KEY)).status_code == 200


@pytest.mark.parametrize("refusal", [KeyRevoked, PermissionDenied, DatabaseUnavailable])
async def test_only_an_unknown_key_is_remembered(refusal: type[TollgateError]) -> None:
    site = Site()
    site.door.refusal = refusal
    assert refused(await site.ask_with(KEY)) == (refusal.status, refusal.code)
    site.door.refusal = None
    assert (await site.ask_with(KEY)).status_code == 200


async def test_two_peppers_give_two_digests_newest_first() -> None:
    site = Site(KEY_PEPPER_PREVIOUS=PREVIOUS)
    await site.ask_with(KEY)
    assert site.door.caller["digests"] == [digest(KEY, PEPPER), digest(KEY, PREVIOUS)]
    assert site.door.caller["pepper"] == fingerprint(PEPPER)


@pytest.mark.parametrize(("sent", "kept"), [("a" * 500, 500), ("a" * 501, 500), ("a" * 9000, 500), ("", 0)])
async def test_a_user_agent_is_kept_up_to_500_characters(sent: str, kept: int) -> None:
    site = Site()
    await site.ask(("authorization", f"Bearer {KEY}"), ("user-agent", sent))
    assert site.door.caller["user_agent"] == "a" * kept


@pytest.mark.parametrize(
    ("proxy", "told"),
    [("none", "192.0.2.1"), ("vercel", "203.0.113.7"), ("heroku", "203.0.113.9"), ("alb", "203.0.113.9")],
)
async def test_the_address_is_the_one_that_the_trusted_proxy_names(proxy: str, told: str) -> None:
    site = Site(TRUSTED_PROXY=proxy)
    forged = ("x-forwarded-for", "198.51.100.66, 203.0.113.9")
    await site.ask(("authorization", f"Bearer {KEY}"), forged, ("x-real-ip", "203.0.113.7"))
    assert site.door.caller["ip"] == told


async def test_an_address_that_nothing_names_is_null() -> None:
    site = Site(TRUSTED_PROXY="vercel")
    await site.ask_with(KEY)
    assert site.door.caller["ip"] is None


async def test_key_and_org_land_in_the_request_s_log_line_and_no_key_does() -> None:
    site = Site()
    await site.ask_with(KEY)
    (line,) = site.lines()
    assert (line["event"], line["key_id"], line["org_id"]) == ("request", "key_1", "org_1")
    assert KEY not in site.log.getvalue()


async def test_a_refusal_that_knows_the_key_names_it_in_the_log_line() -> None:
    site = Site()
    site.door.refusal = lambda: KeyRevoked(key_id="key_1")
    assert refused(await site.ask_with(KEY)) == (401, "key_revoked")
    (line,) = site.lines()
    assert (line["key_id"], line["error_code"]) == ("key_1", "key_revoked")


async def test_callers_at_the_same_time_keep_their_own_names() -> None:
    site = Site()
    secrets = [f"{CHOSEN}-{number}" for number in range(30)]
    answers = await asyncio.gather(*(site.ask_with(secret) for secret in secrets))
    assert {answer.status_code for answer in answers} == {200}
    asked = [arguments["caller"]["digests"] for _, arguments in site.door.calls]
    assert sorted(asked) == sorted([digest(secret, PEPPER)] for secret in secrets)


async def test_an_operator_at_the_console_needs_no_key() -> None:
    door = FakeDoor()
    answer = await console(door, "seed-key").call("tollgate_seed", org={"id": "org_1"})
    assert door.calls == [("tollgate_seed", {"caller": {"console": "seed-key"}, "org": {"id": "org_1"}})]
    assert answer == BALANCE
    logs.forget()
