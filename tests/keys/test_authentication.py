import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tollgate.app import create_app
from tollgate.core.errors import (
    DatabaseUnavailable,
    InvalidApiKey,
    KeyDisabled,
    KeyRevoked,
    NotFound,
    PermissionDenied,
    TollgateError,
)
from tollgate.keys.authentication import MOST_UNKNOWN_BYTES, UNKNOWN_SECONDS, console
from tollgate.keys.rules import digest, fingerprint, mint
from tollgate.process import logs
from tollgate.settings import read
from tollgate.web.routing import MOST_VALUES

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
        "masked_key": f"{KEY[:12]}…{KEY[-4:]}",
        "credits": "5.000000001",
        "credits_nanos": 5_000_000_001,
        "held_nanos": 1,
        "held_credits": "0.000000001",
        "available_credits": "5.00",
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
    for path in ("/user/balance", "/v1/models", "/auth/me"):
        answer = await site.ask(("authorization", f"Bearer {STRANGER}"), path=path)
        assert refused(answer) == (401, "invalid_api_key")
    site.now += UNKNOWN_SECONDS - 0.01
    assert refused(await site.ask_with(STRANGER)) == (401, "invalid_api_key")
    assert len(site.door.calls) == 1
    site.now += 0.02
    assert refused(await site.ask_with(STRANGER)) == (401, "invalid_api_key")
    assert len(site.door.calls) == 2


def test_a_stranger_is_remembered_for_five_seconds() -> None:
    assert UNKNOWN_SECONDS == 5


async def test_a_key_made_since_works_once_it_is_forgotten_as_a_stranger_s() -> None:
    site = Site()
    site.door.refusal = InvalidApiKey
    await site.ask_with(STRANGER)
    site.door.refusal = None
    assert (await site.ask_with(STRANGER)).status_code == 401
    site.now += UNKNOWN_SECONDS
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
    (line,) = (line for line in site.lines() if line["event"] == "request")
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
    logs.begin()


class Sent:
    """A body in pieces; counts how many were read."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.read = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            self.read += 1
            yield piece


async def post(site: Site, key: str, body: Any, path: str = "/admin/orgs", **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(site.app, client=("192.0.2.1", 50000))
    sent = {"authorization": f"Bearer {key}", "content-type": "application/json", **headers}
    async with httpx.AsyncClient(transport=transport, base_url="http://tollgate.test") as http:
        return await http.post(path, content=body, headers=sent)


EVERY_WAY_IN = {
    "/admin/orgs": "tollgate_operator",
    "/user/api-keys": "tollgate_identify",
    "/auth/password": "tollgate_identify",
    "/v1/chat/completions": "tollgate_identify",
    "/v1/generate/batch": "tollgate_identify",
}
"""And what the database is asked about the key before a fault of the request is told."""


@pytest.mark.parametrize("path", EVERY_WAY_IN)
async def test_nothing_is_read_of_a_body_whose_key_cannot_be_one(path: str) -> None:
    site, body = Site(), Sent(b"{", b"}")
    assert refused(await post(site, KEY[:-1], body, path)) == (401, "invalid_api_key")
    assert (body.read, site.door.calls) == (0, [])


@pytest.mark.parametrize("path", EVERY_WAY_IN)
@pytest.mark.parametrize("secret", [STRANGER, CHOSEN])
async def test_of_a_large_body_only_the_beginning_is_read_for_a_key_that_nobody_knows(path: str, secret: str) -> None:
    site, body = Site(), Sent(*[b"[" * 10_000] * 20)
    site.door.refusal = InvalidApiKey
    assert refused(await post(site, secret, body, path)) == (401, "invalid_api_key")
    assert body.read == MOST_UNKNOWN_BYTES // 10_000 + 1
    assert [function for function, _ in site.door.calls] == [EVERY_WAY_IN[path]]
    assert refused(await post(site, secret, body, path)) == (401, "invalid_api_key")
    assert body.read == MOST_UNKNOWN_BYTES // 10_000 + 1, "whom nobody knew a moment ago is not read at all"


@pytest.mark.parametrize("path", EVERY_WAY_IN)
async def test_nothing_is_read_of_a_body_that_is_announced_large_until_the_key_is_known(path: str) -> None:
    site, body = Site(), Sent(b"{", b"}")
    site.door.refusal = KeyDisabled
    answer = await post(site, KEY, body, path, **{"content-length": str(MOST_UNKNOWN_BYTES + 1)})
    assert (refused(answer), body.read) == ((401, "key_disabled"), 0)


@pytest.mark.parametrize("body", [b"{", b"[1]", b'{"name": 5, "model": "a"}', b'{"name":"a","name":"b"}', b"\xff"])
@pytest.mark.parametrize("path", EVERY_WAY_IN)
async def test_a_key_that_may_not_come_in_is_told_that_and_no_fault_of_its_request(path: str, body: bytes) -> None:
    site = Site()
    site.door.refusal = KeyRevoked
    assert refused(await post(site, KEY, body, path)) == (401, "key_revoked")
    assert [function for function, _ in site.door.calls] == [EVERY_WAY_IN[path]]
    site.door.refusal = None
    assert refused(await post(site, KEY, body, path)) == (400, "invalid_request")
    assert [function for function, _ in site.door.calls] == [EVERY_WAY_IN[path]] * 2


async def test_what_the_database_refuses_is_not_asked_about_again() -> None:
    site = Site()
    site.door.refusal = NotFound
    assert refused(await post(site, KEY, b'{"name": "Acme"}')) == (404, "not_found")
    assert len(site.door.calls) == 1


@pytest.mark.parametrize("path", [*EVERY_WAY_IN, "/auth/sign-in", "/agent/enrol"])
async def test_a_name_that_stands_twice_is_refused_on_every_route(path: str) -> None:
    site = Site(AGENT_KEY="a" * 32)
    answer = await post(site, KEY, b'{"model": "a", "name": "Acme", "name": "Other"}', path)
    assert refused(answer) == (400, "invalid_request")
    assert answer.json()["error"]["message"] == '"name" occurs twice in one object. Send each name once.'


async def test_a_form_of_the_admin_api_has_so_many_values_and_no_more() -> None:
    site = Site()
    for path in ("/admin/orgs", "/user/api-keys", "/auth/password", "/auth/sign-in"):
        answer = await post(site, KEY, b'{"name": [' + b"1," * MOST_VALUES + b"1]}", path)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["limit"]) == (400, "body_too_complex", MOST_VALUES)
