"""Whether a key may act is decided once: a plain function call and an admission refuse alike."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from completions.test_admission import item
from people import Person
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.credits import store as credits
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console

DECIDED_ELSEWHERE = """
create or replace function tollgate.key_refusal(
  key tollgate.api_keys, owner_status text, owner_role text, org_status text, caller jsonb, scope text
) returns jsonb language sql set search_path = '' as $$ select {}::jsonb $$
"""
MADE_UP = {"status": 401, "code": "made_up", "facts": {}}


@dataclass(frozen=True)
class Case:
    code: str | None  # of the refusal; null when the key may act
    change: str = ""
    caller: dict[str, Any] = field(default_factory=dict)
    scope: str | None = "chat"


CASES = {
    "an ordinary key": Case(None),
    "an unknown key": Case("invalid_api_key", caller={"digests": ["00" * 32]}),
    "no key": Case("invalid_api_key", caller={"digests": []}),
    "a revoked key": Case("key_revoked", "update tollgate.api_keys set revoked_at = now()"),
    "a disabled key": Case("key_disabled", "update tollgate.api_keys set disabled_at = now()"),
    "a disabled user": Case("key_disabled", "update tollgate.users set status = 'disabled'"),
    "a suspended org": Case("key_disabled", "update tollgate.orgs set status = 'suspended'"),
    "an expired key": Case("key_expired", "update tollgate.api_keys set expires_at = now()"),
    "a key that expires later": Case(None, "update tollgate.api_keys set expires_at = now() + interval '1 hour'"),
    "another network": Case("ip_not_allowed", "update tollgate.api_keys set ip_allowlist = '{198.51.100.0/24}'"),
    "no network": Case("ip_not_allowed", "update tollgate.api_keys set ip_allowlist = '{}'"),
    "no address": Case(
        "ip_not_allowed", "update tollgate.api_keys set ip_allowlist = '{192.0.2.0/24}'", caller={"ip": None}
    ),
    "its own network": Case(None, "update tollgate.api_keys set ip_allowlist = '{198.51.100.0/24,192.0.2.0/24}'"),
    "a scope that the key has not": Case("permission_denied", scope="unheard"),
    "the scope admin of a member": Case(
        "permission_denied", "update tollgate.api_keys set scopes = '{chat,admin}'", scope="admin"
    ),
    "the scope admin of an admin": Case(
        None,
        "with users as (update tollgate.users set role = 'admin') update tollgate.api_keys set scopes = '{admin}'",
        scope="admin",
    ),
    "no scope in particular": Case(None, scope=None),
    "a test key": Case(None, "update tollgate.api_keys set environment = 'test'"),
    "a revoked key that is expired, of a disabled user, at another network": Case(
        "key_revoked",
        "with users as (update tollgate.users set status = 'disabled') update tollgate.api_keys "
        "set revoked_at = now(), disabled_at = now(), expires_at = now(), ip_allowlist = '{}', scopes = '{usage}'",
    ),
    "an expired key at another network without the scope": Case(
        "key_expired", "update tollgate.api_keys set expires_at = now(), ip_allowlist = '{}', scopes = '{usage}'"
    ),
    "another network without the scope": Case(
        "ip_not_allowed", "update tollgate.api_keys set ip_allowlist = '{}', scopes = '{usage}'"
    ),
}
OF_PAID_CALLS = {
    "suspended paid calls": Case("paid_calls_suspended", "update tollgate.orgs set paid_suspended_at = now()"),
    "another model": Case("model_not_allowed", "update tollgate.api_keys set allowed_models = '{other/*}'"),
    "its own model": Case(None, "update tollgate.api_keys set allowed_models = '{maker/*}'"),
}


class Ways:
    """The two ways in: a function that recognises its caller, and an admission."""

    def __init__(self, connection: asyncpg.Connection, payer: Person) -> None:
        self.connection = connection
        self.payer = payer

    async def refusals(self, cases: dict[str, Case]) -> dict[str, list[Any]]:
        return {name: await self._refusals(case) for name, case in cases.items()}

    async def _refusals(self, case: Case) -> list[Any]:
        transaction = self.connection.transaction()
        await transaction.start()
        if case.change:
            await self.connection.execute(case.change)
        asked = item(self.payer, scope=case.scope)
        asked["caller"] |= case.caller
        plain = await self.connection.fetchval(
            "select (tollgate.identify($1, $2)).refusal", json.dumps(asked["caller"]), case.scope
        )
        answers = json.loads(await self.connection.fetchval("select public.tollgate_admit($1)", json.dumps([asked])))
        await transaction.rollback()
        return [json.loads(plain or "null"), answers[asked["id"]].get("refusal")]


@pytest.fixture
async def ways(own_database: str) -> AsyncIterator[Ways]:
    door = PostgresDoor(own_database, pool_size=1, deadline_seconds=30)
    payer = Person(door)
    await payer.seed()
    await credits.grant(
        console(door, "tests"), payer.org_id, NANOS_PER_CREDIT, source="funding", reason="", reference="1"
    )
    await door.close()
    connection = await asyncpg.connect(own_database)
    yield Ways(connection, payer)
    await connection.close()


async def test_a_function_and_an_admission_refuse_alike(ways: Ways) -> None:
    for name, (plain, admission) in (await ways.refusals(CASES)).items():
        assert plain == admission, name
        assert (plain and plain["code"]) == CASES[name].code, name


async def test_what_only_paid_calls_are_refused_for_refuses_no_other_function(ways: Ways) -> None:
    for name, (plain, admission) in (await ways.refusals(OF_PAID_CALLS)).items():
        assert plain is None, name
        assert (admission and admission["code"]) == OF_PAID_CALLS[name].code, name


async def test_nothing_but_key_refusal_refuses_a_key(ways: Ways) -> None:
    """A condition that was written into one of the two ways alone would still refuse here."""
    known = {name: case for name, case in CASES.items() if case.code != "invalid_api_key"}
    await ways.connection.execute(DECIDED_ELSEWHERE.format("null"))
    assert await ways.refusals(known) == {name: [None, None] for name in known}


async def test_what_key_refusal_refuses_is_refused_in_both_ways(ways: Ways) -> None:
    await ways.connection.execute(DECIDED_ELSEWHERE.format(f"'{json.dumps(MADE_UP)}'"))
    assert await ways.refusals(CASES) == {name: [MADE_UP, MADE_UP] for name in CASES}
