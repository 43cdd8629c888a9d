"""What must hold of every operation there is, whoever adds one: made from the document and the routes beside it."""

import io
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Route

from journeys.walk import SCOPELESS, Operation, ids_of, operations, whole_document
from people import PEPPER, Person
from tollgate.admin.routes import hf_tokens
from tollgate.app import OF_AGENTS, OF_EVERYONE, OF_PEOPLE, OF_SESSIONS, create_app
from tollgate.completions import openapi as paid
from tollgate.console.routes import PAGES
from tollgate.credits import store as credits
from tollgate.database.postgres import PostgresDoor
from tollgate.keys import store as keys
from tollgate.keys.authentication import console
from tollgate.process import logs
from tollgate.settings import read
from tollgate.web import aliases

UNDOCUMENTED = {"/", "/openapi.json", "/docs", *PAGES, "/assets/{name}", "/internal/sweep"}
SMUGGLED = {
    "role": "admin",
    "balance": 1e9,
    "balance_nanos": 10**18,
    "held_nanos": 0,
    "is_admin": True,
    "org_id": "org_1",
    "user_id": "usr_1",
    "cost": 0,
    "charge_nanos": 0,
    "scopes": ["admin"],
    "plan": "enterprise",
    "status": "active",
    "markup_ppm": 0,
}


class House:
    def __init__(self, app: FastAPI, door: PostgresDoor, url: str) -> None:
        self.app = app
        self.door = door
        self.url = url
        self.document = whole_document()

    async def person(self, role: str = "member", **key: Any) -> Person:
        made = Person(self.door, role, **key)
        await made.seed()
        await credits.grant(
            console(self.door, "tests"), made.org_id, 10**9, source="funding", reason="", reference=made.org_id
        )
        return made

    def operations(self) -> list[Operation]:
        """The paid ones have tests of their own: they take any body, and look for the model first. So have agents'."""
        found = operations(self.document)
        return [one for one in found if one.path not in paid.paths() and not one.is_for_agents]

    async def ask(
        self, operation: Operation, someone: Person | None, ids: dict[str, str], *, alias: str = "", **extra: Any
    ) -> httpx.Response:
        body = operation.example(self.document)
        headers = {"authorization": f"Bearer {someone.secret}"} if someone else {}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://tollgate.test") as http:
            return await http.request(
                operation.method.upper(),
                operation._replace(path=alias or operation.path).at(ids),
                params=operation.query(self.document),
                json=None if body is None else {**body, **extra},
                headers={**headers, "idempotency-key": secrets.token_hex(8)},
            )

    async def send(self, operation: Operation, someone: Person | None, body: bytes) -> tuple[int, str]:
        """The status, and the code of the refusal."""
        answer = await self.say(operation, someone, body)
        return answer.status_code, answer.json()["error"]["code"]

    async def say(self, operation: Operation, someone: Person | None, body: bytes) -> httpx.Response:
        """Whatever the body is."""
        key = {"authorization": f"Bearer {someone.secret}"} if someone else {}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://tollgate.test") as http:
            return await http.request(
                operation.method.upper(),
                operation.at({}),
                params={"limit": "nonsense", "from": "nonsense"},
                content=body,
                headers={**key, "content-type": "application/json"},
            )

    async def rows(self) -> dict[str, list[str]]:
        """All that is in the database, as text."""
        connection = await asyncpg.connect(self.url)
        names = await connection.fetch(
            "select format('%I.%I', schemaname, tablename) name from pg_tables where schemaname = 'tollgate'"
        )
        found = {
            name: [row[0] for row in await connection.fetch(f"select t::text from {name} t order by 1")]
            for (name,) in names
        }
        await connection.close()
        return found


@pytest.fixture
async def house(own_database: str) -> AsyncIterator[House]:
    door = PostgresDoor(own_database, pool_size=2, deadline_seconds=30)
    given = {
        "KEY_PEPPER": PEPPER,
        "VAULT_KEY": "5e" * 32,
        "AGENT_KEY": "a" * 32,
        "OPENROUTER_BASE_URL": "http://127.0.0.1:9/api/v1",
    }
    yield House(create_app(read(given), door=door, environ=given), door, own_database)
    await door.close()


def random_ids() -> dict[str, str]:
    return {f"{kind}_id": f"{short}_{secrets.token_hex(8)}" for kind, short in
            (("org", "org"), ("user", "usr"), ("key", "key"))}  # fmt: skip


async def test_no_route_escapes_the_document(house: House) -> None:
    """But for a second path to what is documented under another."""
    documented, escaped = set(), {}
    for route in house.app.routes:
        contexts = getattr(route, "effective_route_contexts", None)
        assert contexts or isinstance(route, Route), f"{route}: a mount hides its routes from this test"
        for shown in contexts() if contexts else [route]:
            path = shown.path.replace(":path", "")
            if path in house.document["paths"]:
                documented.add(shown.endpoint)
            elif path not in UNDOCUMENTED:
                escaped[path] = shown.endpoint
    assert {path for path, endpoint in escaped.items() if endpoint not in documented} == set()


def test_all_that_is_opened_later_is_opened_for_its_path() -> None:
    app = create_app(read({"KEY_PEPPER": PEPPER}))
    at_once = {route.path for route in app.router.routes if isinstance(route, Route)}
    for operation in operations(whole_document()):
        is_later = operation.path.startswith(OF_EVERYONE + OF_PEOPLE + OF_SESSIONS + OF_AGENTS)
        assert is_later or operation.is_open or operation.path in at_once, operation.path


async def test_every_operation_says_what_it_is_and_how_stable(house: House) -> None:
    for operation in operations(house.document):
        assert operation.told["summary"], operation[:2]
        assert operation.told["x-stability"] in ("stable", "experimental"), operation[:2]
        fields = house.document["components"]["schemas"]
        assert operation.is_open or {"401", "503"} <= operation.told["responses"].keys(), operation[:2]
    assert all("title" in schema for schema in fields.values())
    assert not [name for name in fields if "__" in name], "two models have one name"


async def test_without_a_key_only_what_is_open_answers(house: House) -> None:
    for operation in operations(house.document):
        answer = await house.ask(operation, None, random_ids())
        if operation.is_open:
            assert answer.status_code in ((403,) if operation.path == "/auth/sign-in" else (200, 503)), operation.path
        else:
            assert answer.status_code == 401, operation[:2]
            codes = ("host_key_invalid", "enrolment_invalid") if operation.is_for_agents else ("missing_api_key", 401)
            assert answer.json()["error"]["code"] in codes, operation[:2]


async def test_each_alias_answers_as_its_canonical_path_does(house: House) -> None:
    admin = await house.person("admin")
    seen = set()
    for path, item in aliases.documented(house.document["paths"]).items():
        for method, told in item.items():
            seen.add(path)
            operation = Operation(method, told["x-alias-of"], house.document["paths"][told["x-alias-of"]][method])
            for someone in [None, admin] if method == "get" else [None]:
                answer = await house.ask(operation, someone, ids_of(admin))
                other = await house.ask(operation, someone, ids_of(admin), alias=path)
                assert (other.status_code, other.headers["content-type"]) == (
                    answer.status_code, answer.headers["content-type"]), path  # fmt: skip
                if other.is_error and path.startswith("/api/v1/"):
                    assert other.json()["error"]["code"] == other.status_code, path
                elif path != hf_tokens.OLDER_PATH and answer.headers["content-type"] == "application/json":
                    assert fields_of(other) == fields_of(answer), path
    assert set(aliases.ALIASES) - seen == {"/v1/admin", "/api/v1/admin", "/credits"}, "prefixes of resources only"


def fields_of(answer: httpx.Response) -> set[str]:
    """Of an object; a bare list has none."""
    found = answer.json()
    return set(found) if isinstance(found, dict) else set()


async def test_a_member_s_key_opens_nothing_of_an_admin(house: House) -> None:
    member = await house.person(scopes=["chat", "models", "usage", "keys", "admin"])
    before = await house.rows()
    for operation in house.operations():
        if operation.is_for_admins:
            answer = await house.ask(operation, member, ids_of(member))
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied"), operation[:2]
    assert without_traces(await house.rows()) == without_traces(before)


BODIES = {
    "none": b"",
    "broken": b"{",
    "no object": b"[1]",
    "wrong types": b'{"name": [], "email": 5, "org_id": {}, "credits": "much", "ids": 5}',
    "too large": b'{"name": "' + b"x" * 300_000 + b'"}',
}


async def test_whoever_may_not_use_an_admin_route_is_told_that_whatever_the_request(house: House) -> None:
    member = await house.person()
    for operation in house.operations():
        if operation.is_for_admins:
            for name, body in BODIES.items() if "requestBody" in operation.told else [("none", b"")]:
                assert await house.send(operation, member, body) == (403, "permission_denied"), (operation[:2], name)
            assert await house.send(operation, None, body) == (401, "missing_api_key"), operation[:2]


async def test_whoever_has_a_revoked_key_is_told_that_whatever_the_request(house: House) -> None:
    operator, revoked = await house.person("admin"), await house.person("admin")
    await keys.set_key_state(operator.at_the_door(), revoked.key_id, "revoked")
    for operation in house.operations():
        if not operation.is_open:
            answer = await house.say(operation, revoked, b"{")
            assert (answer.status_code, "revoked" in answer.text) == (401, True), operation[:2]


async def test_a_name_that_occurs_twice_is_refused_wherever_a_body_is_read(house: House) -> None:
    operator = await house.person("admin")
    for operation in house.operations():
        if "requestBody" in operation.told:
            answer = await house.say(operation, operator, b'{"name": 1, "name": 2}')
            assert (answer.status_code, "occurs twice" in answer.text) == (400, True), operation[:2]


async def test_a_key_without_a_scope_opens_only_what_needs_none(house: House) -> None:
    bare = await house.person("admin", scopes=[])
    for operation in house.operations():
        if not operation.is_open:
            answer = await house.ask(operation, bare, ids_of(bare))
            refused = answer.status_code == 403
            assert refused == ((operation.method, operation.path) not in SCOPELESS), operation[:2]


async def test_another_org_s_id_is_answered_like_one_that_does_not_exist(house: House) -> None:
    someone, other = await house.person(), await house.person()
    theirs = ids_of(other)
    before = await house.rows()
    for operation in house.operations():
        if operation.is_for_admins or not set(operation.names) & theirs.keys():
            continue
        answers = []
        for ids in (theirs, random_ids()):
            answer = await house.ask(operation, someone, ids)
            assert answer.status_code == 404, operation[:2]
            told = json.dumps(answer.json())
            for name, value in ids.items():
                told = told.replace(value, name)
            answers.append(told)
        assert answers[0] == answers[1], operation[:2]
    assert without_traces(await house.rows()) == without_traces(before)


async def test_a_field_that_a_body_does_not_know_is_refused_and_changes_nothing(house: House) -> None:
    admin, member = await house.person("admin"), await house.person()
    before = await house.rows()
    for operation in house.operations():
        body = operation.example(house.document)
        if not isinstance(body, dict):
            continue
        someone = admin if operation.is_for_admins else member
        for name, value in SMUGGLED.items():
            if name not in known_fields(operation, house.document):
                answer = await house.ask(operation, someone, ids_of(member), **{name: value})
                assert answer.status_code == 400, (operation[:2], name, answer.text)
                assert name in json.dumps(answer.json()), (operation[:2], name)
    assert without_traces(await house.rows()) == without_traces(before)


async def test_every_answer_is_documented_and_nothing_tells_a_secret(house: House) -> None:
    log = io.StringIO()
    logs.configure("debug", [], log)
    admin, other = await house.person("admin"), await house.person()
    known = {admin.secret, other.secret, PEPPER}
    told_once: set[str] = set()
    told: list[str] = []
    for operation in sorted(house.operations(), key=lambda one: one.method == "delete"):
        for someone in (admin, other):
            answer = await house.ask(operation, someone, ids_of(other))
            assert str(answer.status_code) in operation.told["responses"], (operation[:2], answer.text)
            assert answer.status_code < 500 or "catalog_unavailable" in answer.text, operation[:2]
            issued = answer.json().get("key") if operation.method == "post" and answer.is_success else None
            if isinstance(issued, str) and issued.startswith("tg_"):
                told_once.add(issued)
            else:
                told.append(answer.text + str(answer.headers))
    assert told_once, "nothing issued a key"
    rows = await house.rows()
    everything = "\n".join([log.getvalue(), *told, *(row for name in rows for row in rows[name])])
    for secret in known | told_once:
        assert secret not in everything, secret[:12]


def known_fields(operation: Operation, document: dict[str, Any]) -> set[str]:
    schema = operation.told["requestBody"]["content"]["application/json"]["schema"]
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return set(schema.get("properties", {}))


def without_traces(rows: dict[str, list[str]]) -> dict[str, list[str]]:
    """Without the tables that any request may write: the last use of a key, its networks, refusals and health."""
    names = ("api_keys", "audit_events", "event_links", "key_networks", "security_events", "upstreams")
    traces = {f"tollgate.{name}" for name in names}
    return {name: found for name, found in rows.items() if name not in traces}
