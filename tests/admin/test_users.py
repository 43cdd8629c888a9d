"""/admin/users over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from gateway import BOTH_DOORS
from operators import CREDIT, EVENTS, admitted, bearing, operating, pages, settled, word
from people import Person, refused
from tollgate.core.errors import KeyDisabled, KeyRevoked, PermissionDenied
from tollgate.credits import store as credits
from tollgate.database import Door
from tollgate.database.postgres import PostgresDoor

Sql = Callable[..., Any]

ROW = "select to_jsonb(u)::text from tollgate.users u where id = $1"


@pytest.fixture
async def operator(door: Door, person: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with operating(door, await person("admin")) as made:
        yield made


@pytest.fixture
async def alone(own_database: str) -> AsyncIterator[tuple[httpx.AsyncClient, Person]]:
    """The only admin, and a client."""
    door = PostgresDoor(own_database, pool_size=4, deadline_seconds=30.0)
    admin = Person(door, "admin")
    await admin.seed()
    async with operating(door, admin) as made:
        yield made, admin
    await door.close()


def address() -> str:
    return f"{word()}@example.com"


async def test_a_user_is_made_in_an_org(
    operator: httpx.AsyncClient, person: Any, shared_database: str, sql: Sql
) -> None:
    someone, email = await person(), address()
    said = {"email": f" {email} ", "org_id": someone.org_id, "name": "Ada", "role": "admin"}
    answer = await operator.post("/admin/users", json=said)
    assert answer.status_code == 201
    user = answer.json()
    assert user == {
        "id": user["id"],
        "org_id": someone.org_id,
        "org_name": "Org",
        "email": email,
        "name": "Ada",
        "role": "admin",
        "status": "active",
        "keys": 0,
        "has_password": False,
        "created_at": user["created_at"],
        "updated_at": user["updated_at"],
    }
    assert user["id"].startswith("usr_")
    assert (await operator.get(f"/admin/users/{user['id']}")).json() == user
    assert json.loads(await sql(shared_database, EVENTS, user["id"])) == [
        {
            "action": "user.created",
            "org": someone.org_id,
            "details": {"email": email, "name": "Ada", "role": "admin"},
        }
    ]
    assert (await operator.get(f"/admin/users/{someone.user_id}")).json()["keys"] == 1


async def test_a_user_made_alone_gets_a_personal_org(
    operator: httpx.AsyncClient, shared_database: str, sql: Sql
) -> None:
    for name, expected in (("Ada", "Ada"), ("", None), ("é" * 200, "é" * 200)):
        email = address()
        user = (await operator.post("/admin/users", json={"email": email, "name": name})).json()
        assert (user["email"], user["name"], user["role"]) == (email, name, "member")
        org = (await operator.get(f"/admin/orgs/{user['org_id']}")).json()
        assert (org["name"], org["plan"], org["users"], org["credits_nanos"]) == (expected or email, "free", 1, 0)
        assert [event["action"] for event in json.loads(await sql(shared_database, EVENTS, org["id"]))] == [
            "org.created"
        ]


async def test_an_address_belongs_to_one_user_and_a_refusal_leaves_no_org_behind(
    operator: httpx.AsyncClient, person: Any, shared_database: str, sql: Sql
) -> None:
    someone, email, name = await person(), address(), word()
    assert (await operator.post("/admin/users", json={"email": email})).status_code == 201
    for more in ({}, {"org_id": someone.org_id}):
        answer = await operator.post("/admin/users", json={"email": email.upper(), "name": name, **more})
        assert answer.status_code == 409
        error = answer.json()["error"]
        assert (error["code"], error["param"], error["reason"]) == ("conflict", "email", "email_taken")
    assert await sql(shared_database, "select count(*) from tollgate.orgs where name = $1", name) == 0
    answer = await operator.patch(f"/admin/users/{someone.user_id}", json={"email": email, "name": name})
    assert (answer.status_code, answer.json()["error"]["reason"]) == (409, "email_taken")
    assert (await operator.get(f"/admin/users/{someone.user_id}")).json()["name"] == ""


async def test_two_creations_at_once_with_one_address_make_one_user(
    operator: httpx.AsyncClient, shared_database: str, sql: Sql
) -> None:
    email, name = address(), word()
    answers = await asyncio.gather(
        *(operator.post("/admin/users", json={"email": email, "name": name}) for _ in range(8))
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert await sql(shared_database, "select count(*) from tollgate.users where email = $1", email) == 1
    assert await sql(shared_database, "select count(*) from tollgate.orgs where name = $1", name) == 1


SMUGGLED: list[dict[str, Any]] = [
    {"id": "usr_mine"},
    {"is_admin": True},
    {"balance_nanos": 10**15},
    {"credits": 1000},
    {"initial_credits": 10**9},
    {"cost": 0},
    {"scopes": ["admin"]},
    {"deleted_at": None},
    {"plan": "enterprise"},
    {"role": "owner"},
    {"status": "superuser"},
]


async def test_fields_that_are_not_asked_for_change_nothing(
    operator: httpx.AsyncClient, person: Any, shared_database: str, sql: Sql
) -> None:
    someone, name = await person(), word()
    before = await sql(shared_database, ROW, someone.user_id)
    for extra in SMUGGLED:
        made = await operator.post("/admin/users", json={"email": address(), "name": name, **extra})
        changed = await operator.patch(f"/admin/users/{someone.user_id}", json={"name": name, **extra})
        assert (made.status_code, changed.status_code) == (400, 400), extra
    assert await sql(shared_database, ROW, someone.user_id) == before
    assert await sql(shared_database, "select count(*) from tollgate.users where name = $1", name) == 0
    assert await sql(shared_database, "select count(*) from tollgate.orgs where name = $1", name) == 0


async def test_an_address_that_is_none_is_refused(operator: httpx.AsyncClient, person: Any) -> None:
    someone = await person()
    for email in ("", "a", "@", "a@", "@b", "a b@c", "a@b@c", "a\0@b", f"{'x' * 320}@b", 5, ["a@b"], None):
        answer = await operator.post("/admin/users", json={"email": email})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "email"), email
        if email is not None:
            assert (await operator.patch(f"/admin/users/{someone.user_id}", json={"email": email})).status_code == 400


async def test_a_change_shows_is_traced_and_touches_only_that_user(
    operator: httpx.AsyncClient, person: Any, shared_database: str, sql: Sql
) -> None:
    bystander, email = await person(), address()
    others = await sql(shared_database, ROW, bystander.user_id)
    for change, field, was in (
        ({"email": email}, "email", None),
        ({"name": "Ada"}, "name", ""),
        ({"role": "admin"}, "role", "member"),
        ({"status": "disabled"}, "status", "active"),
    ):
        someone = await person()
        before = (await operator.get(f"/admin/users/{someone.user_id}")).json()
        changed = await operator.patch(f"/admin/users/{someone.user_id}", json=change)
        assert changed.status_code == 200, changed.text
        now = changed.json()
        assert now == before | change | {"updated_at": now["updated_at"]}
        for same in (change, {}, {"name": None, "email": None, "role": None, "status": None, "org_id": None}):
            assert (await operator.patch(f"/admin/users/{someone.user_id}", json=same)).json() == now
        trail = {field: {"was": was if was is not None else before["email"], "is": change[field]}}
        assert json.loads(await sql(shared_database, EVENTS, someone.user_id))[1:] == [
            {"action": "user.updated", "org": someone.org_id, "details": trail}
        ]
    assert await sql(shared_database, ROW, bystander.user_id) == others


async def test_disabling_a_user_stops_the_keys_at_once(operator: httpx.AsyncClient, door: Door, customer: Any) -> None:
    someone = await customer()
    assert "granted" in await admitted(door, someone)
    await operator.patch(f"/admin/users/{someone.user_id}", json={"status": "disabled"})
    stopped = await refused(credits.balance(someone.at_the_door()))
    assert isinstance(stopped, KeyDisabled)
    assert stopped.facts["disabled"] == "user"
    assert (await admitted(door, someone))["refusal"]["code"] == "key_disabled"
    await operator.patch(f"/admin/users/{someone.user_id}", json={"status": "active"})
    assert "granted" in await admitted(door, someone)


async def test_an_admin_no_more_is_no_operator_from_the_next_call_on(operator: httpx.AsyncClient, person: Any) -> None:
    other = await person("admin")
    assert (await operator.get("/admin/users", headers=bearing(other))).status_code == 200
    await operator.patch(f"/admin/users/{other.user_id}", json={"role": "member"})
    answer = await operator.get("/admin/users", headers=bearing(other))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, PermissionDenied.code)


async def test_a_user_moves_with_the_keys_and_the_new_org_pays_from_then_on(
    operator: httpx.AsyncClient, door: Door, customer: Any, shared_database: str, sql: Sql
) -> None:
    someone, host = await customer(), await customer()
    await sql(shared_database, "update tollgate.api_keys set line = id where id = $1", someone.key_id)  # as if rotated
    running = await admitted(door, someone)
    answer = await operator.patch(f"/admin/users/{someone.user_id}", json={"org_id": host.org_id})
    assert (answer.status_code, answer.json()["org_id"], answer.json()["keys"]) == (200, host.org_id, 1)
    await settled(door, running, 5)
    later = await admitted(door, someone)
    assert later["granted"]["org_id"] == host.org_id
    await settled(door, later, 7)
    books = [
        (org["credits_nanos"], org["held_nanos"], org["users"])
        for org in [(await operator.get(f"/admin/orgs/{one.org_id}")).json() for one in (someone, host)]
    ]
    assert books == [(CREDIT - 5, 0, 0), (CREDIT - 7, 0, 2)]
    balance = await credits.balance(someone.at_the_door())
    assert (balance["org_id"], balance["balance_nanos"]) == (host.org_id, CREDIT - 7)
    moves = json.loads(await sql(shared_database, EVENTS, someone.user_id))[1:]
    trail = {"org_id": {"was": someone.org_id, "is": host.org_id}}
    assert sorted(moves, key=lambda event: event["org"] == host.org_id) == [
        {"action": "user.updated", "org": someone.org_id, "details": trail},
        {"action": "user.updated", "org": host.org_id, "details": trail},
    ]


async def test_a_move_to_nowhere_moves_nobody(operator: httpx.AsyncClient, person: Any) -> None:
    someone = await person()
    answer = await operator.patch(f"/admin/users/{someone.user_id}", json={"org_id": "org_missing", "name": "Ada"})
    assert answer.status_code == 404
    assert (answer.json()["error"]["kind"], answer.json()["error"]["id"]) == ("org", "org_missing")
    user = (await operator.get(f"/admin/users/{someone.user_id}")).json()
    assert (user["org_id"], user["name"]) == (someone.org_id, "")


async def test_requests_and_moves_at_once_keep_the_books(
    operator: httpx.AsyncClient, door: Door, customer: Any
) -> None:
    someone, host = await customer(), await customer()
    homes = [someone.org_id, host.org_id]

    async def move() -> None:
        for turn in range(1, 7):
            answer = await operator.patch(f"/admin/users/{someone.user_id}", json={"org_id": homes[turn % 2]})
            assert answer.status_code == 200, answer.text

    async def spend() -> int:
        spent = 0
        for _ in range(12):
            answer = await admitted(door, someone)
            if "granted" in answer:  # or the move came between, and the key looked unknown
                await settled(door, answer, 3)
                spent += 3
        return spent

    _, *spent = await asyncio.gather(move(), *(spend() for _ in range(3)))
    orgs = [(await operator.get(f"/admin/orgs/{home}")).json() for home in homes]
    assert sum(org["credits_nanos"] for org in orgs) == 2 * CREDIT - sum(spent)
    assert [org["held_nanos"] for org in orgs] == [0, 0]


async def test_deleting_a_user_revokes_the_keys_and_keeps_what_was_done(
    operator: httpx.AsyncClient, door: Door, customer: Any, shared_database: str, sql: Sql
) -> None:
    someone = await customer()
    email = f"{someone.number}@example.com"
    await settled(door, await admitted(door, someone), 9)
    answer = await operator.delete(f"/admin/users/{someone.user_id}")
    assert (answer.status_code, answer.json()) == (200, {"id": someone.user_id, "deleted": True, "keys_revoked": 1})

    assert isinstance(await refused(credits.balance(someone.at_the_door())), KeyRevoked)
    assert (await admitted(door, someone))["refusal"]["code"] == "key_revoked"
    assert json.loads(await sql(shared_database, EVENTS, someone.key_id))[-1] == {
        "action": "key.revoked",
        "org": someone.org_id,
        "details": {"was": "active", "because": "user.deleted"},
    }
    assert json.loads(await sql(shared_database, EVENTS, someone.user_id))[-1] == {
        "action": "user.deleted",
        "org": someone.org_id,
        "details": {"email": email, "name": "", "role": "member", "keys_revoked": 1},
    }
    assert await sql(shared_database, "select count(*) from tollgate.requests where user_id = $1", someone.user_id) == 1
    org = (await operator.get(f"/admin/orgs/{someone.org_id}")).json()
    assert (org["credits_nanos"], org["users"]) == (CREDIT - 9, 0)

    row = await sql(shared_database, ROW, someone.user_id)
    assert email not in row
    for method, body in (("GET", None), ("PATCH", {"status": "active"}), ("DELETE", None)):
        assert (await operator.request(method, f"/admin/users/{someone.user_id}", json=body)).status_code == 404
    assert await sql(shared_database, ROW, someone.user_id) == row
    for query in ({"q": someone.user_id}, {"org_id": someone.org_id}, {"q": email}):
        assert (await pages(operator, "/admin/users", **query))[0]["total"] == 0
    assert (await operator.post("/admin/users", json={"email": email})).status_code == 201


@pytest.mark.parametrize(
    "change", [{"role": "member"}, {"status": "disabled"}, {"org_id": "org_closed"}, None], ids=str
)
async def test_the_last_admin_shuts_nobody_out(
    alone: tuple[httpx.AsyncClient, Person], own_database: str, sql: Sql, change: dict[str, str] | None
) -> None:
    operator, admin = alone
    closed = "insert into tollgate.orgs (id, name, status) values ('org_closed', 'Closed', 'suspended')"
    keyless = "insert into tollgate.users (org_id, email, role) values ($1, 'keyless@example.com', 'admin')"
    await sql(own_database, closed)
    await sql(own_database, keyless, admin.org_id)  # an admin who cannot come in is no way in
    path = f"/admin/users/{admin.user_id}"
    answer = await (operator.delete(path) if change is None else operator.patch(path, json=change))
    assert answer.status_code == 409
    assert (answer.json()["error"]["code"], answer.json()["error"]["reason"]) == ("conflict", "last_admin")
    user = (await operator.get(path)).json()
    assert (user["role"], user["status"], user["org_id"], user["keys"]) == ("admin", "active", admin.org_id, 1)
    assert len(json.loads(await sql(own_database, EVENTS, admin.user_id))) == 1
    assert (await operator.patch(path, json={"name": "Still here"})).status_code == 200


async def test_two_admins_who_demote_each_other_at_once_do_not_both_succeed(
    alone: tuple[httpx.AsyncClient, Person], own_database: str, sql: Sql
) -> None:
    operator, first = alone
    second = Person(first.door, "admin")
    await second.seed()
    for _ in range(5):
        answers = await asyncio.gather(
            operator.patch(f"/admin/users/{second.user_id}", json={"role": "member"}),
            operator.delete(f"/admin/users/{first.user_id}", headers=bearing(second)),
            operator.patch(f"/admin/users/{first.user_id}", json={"status": "disabled"}, headers=bearing(second)),
        )
        assert [answer.status_code for answer in answers].count(200) >= 1
        admins = "select count(*) from tollgate.users where role = 'admin' and status = 'active'"
        assert await sql(own_database, admins) == 1
        restore = "update tollgate.users set role = 'admin', status = 'active', deleted_at = null"
        await sql(own_database, restore)
        await sql(own_database, "update tollgate.api_keys set revoked_at = null")


SORTS = {"created_at": "created_at", "email": "email", "name": "name"}


async def test_a_list_is_paged_in_any_order_without_gap_or_repetition(operator: httpx.AsyncClient, person: Any) -> None:
    home = (await person()).org_id
    mark = word()
    for name in ("b", "a", "b", "c", "a"):
        email = f"{word()}.{mark}@example.com"
        await operator.post("/admin/users", json={"email": email, "name": name, "org_id": home})
    for field in SORTS:
        for direction in ("asc", "desc"):
            query = {"q": mark, "sort": f"{field}:{direction}"}
            (whole,) = await pages(operator, "/admin/users", **query)
            keys = [(user[field], user["id"]) for user in whole["data"]]
            assert len(set(keys)) == 5
            assert keys == sorted(keys, reverse=direction == "desc")
            by_twos = await pages(operator, "/admin/users", limit=2, **query)
            assert [len(page["data"]) for page in by_twos] == [2, 2, 1]
            assert [user for page in by_twos for user in page["data"]] == whole["data"]
            assert {page["total"] for page in [whole, *by_twos]} == {5}


@BOTH_DOORS
async def test_filters_narrow_the_list_and_keep_orgs_apart(operator: httpx.AsyncClient, person: Any) -> None:
    mark, one, other = word(), await person(), await person()

    async def made(**more: Any) -> str:
        answer = await operator.post("/admin/users", json={"email": f"{word()}@{mark}.example", **more})
        return str(answer.json()["id"])

    ada = await made(org_id=one.org_id, name=f"Ada {mark}")
    bob = await made(org_id=one.org_id, role="admin")
    eve = await made(org_id=other.org_id)
    await operator.patch(f"/admin/users/{bob}", json={"status": "disabled"})
    for query, expected in [
        ({}, [ada, bob, eve]),
        ({"org_id": one.org_id}, [ada, bob]),
        ({"org_id": other.org_id}, [eve]),
        ({"org_id": "org_missing"}, []),
        ({"role": "admin"}, [bob]),
        ({"status": "active"}, [ada, eve]),
        ({"status": "disabled", "org_id": other.org_id}, []),
        ({"q": f"ada {mark}"}, [ada]),
        ({"q": eve}, [eve]),
        ({"q": mark[:-1] + "_"}, []),
    ]:
        (page,) = await pages(operator, "/admin/users", **{"q": mark, "sort": "created_at:asc", **query})
        assert [user["id"] for user in page["data"]] == expected, query
    (home,) = await pages(operator, "/admin/users", org_id=other.org_id)
    assert {user["id"] for user in home["data"]} == {eve, other.user_id}


async def test_a_question_that_makes_no_sense_is_refused_by_name(operator: httpx.AsyncClient) -> None:
    anywhere: list[dict[str, Any]] = [{"limit": 0}, {"limit": 1001}, {"q": "a\0b"}, {"password": "x"}]
    listed: list[dict[str, Any]] = [
        {"sort": "role:asc"},
        {"sort": "email"},
        {"role": "owner"},
        {"status": "gone"},
        {"cursor": "usr_unknown"},
    ]
    questions = [("/admin/users", query) for query in anywhere + listed]
    questions += [("/admin/users/lookup", query) for query in anywhere]
    for path, query in questions:
        answer = await operator.get(path, params=query)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(query))), query


async def test_a_lookup_gives_what_a_picker_shows(operator: httpx.AsyncClient) -> None:
    mark = word()
    for start in "ba":
        await operator.post("/admin/users", json={"email": f"{start}@{mark}.example", "name": "Ada"})
    found = (await operator.get("/admin/users/lookup", params={"q": mark})).json()["data"]
    assert [(user["name"], user["email"]) for user in found] == [
        ("Ada", f"a@{mark}.example"),
        ("Ada", f"b@{mark}.example"),
    ]
    assert set(found[0]) == {"id", "name", "email"}
    assert len((await operator.get("/admin/users/lookup", params={"q": mark, "limit": 1})).json()["data"]) == 1


CALLS = [
    ("GET", "/admin/users"),
    ("GET", "/admin/users/lookup"),
    ("POST", "/admin/users"),
    ("GET", "/admin/users/{id}"),
    ("PATCH", "/admin/users/{id}"),
    ("DELETE", "/admin/users/{id}"),
]


async def test_members_do_nothing_here_even_to_themselves(
    operator: httpx.AsyncClient, person: Any, shared_database: str, sql: Sql
) -> None:
    someone = await person()
    before = await sql(shared_database, ROW, someone.user_id)
    for method, path in CALLS:
        body = {"POST": {"email": address()}, "PATCH": {"role": "admin"}}.get(method)
        his = path.format(id=someone.user_id)
        answer = await operator.request(method, his, json=body, headers=bearing(someone))
        assert (answer.status_code, answer.json()["error"]["scope"]) == (403, "admin")
        assert (await operator.request(method, his, json=body, headers={"authorization": ""})).status_code == 401
    assert await sql(shared_database, ROW, someone.user_id) == before


async def test_an_id_that_is_nobody_s_is_not_found(operator: httpx.AsyncClient) -> None:
    for unknown in ("usr_0123456789abcdef", "org_1", "x"):
        for method, body in (("GET", None), ("PATCH", {"name": "x"}), ("DELETE", None)):
            answer = await operator.request(method, f"/admin/users/{unknown}", json=body)
            assert answer.status_code == 404
            assert (answer.json()["error"]["code"], answer.json()["error"]["kind"]) == ("not_found", "user")
    joining = await operator.post("/admin/users", json={"email": address(), "org_id": "org_missing"})
    assert (joining.status_code, joining.json()["error"]["kind"]) == (404, "org")
    assert (await operator.get("/admin/users/a%00b")).status_code == 400
