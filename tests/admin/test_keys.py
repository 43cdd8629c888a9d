"""/admin/keys and its aliases over HTTP."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway import BOTH_DOORS
from operators import admitted, settled
from people import PEPPER, Person
from tollgate.app import create_app
from tollgate.database import Door
from tollgate.keys import rules
from tollgate.settings import read

MOUNTS = ["/admin/keys", "/v1/admin/keys", "/admin/api/api-keys"]
PATH = MOUNTS[0]


@pytest.fixture
async def client(door: Door) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(read({"KEY_PEPPER": PEPPER}), door=door)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate") as made:
        yield made


def bearing(secret: Person | str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret.secret if isinstance(secret, Person) else secret}"}


async def create(client: httpx.AsyncClient, admin: Person, someone: Person, **body: Any) -> dict[str, Any]:
    body = {"user_id": someone.user_id, "name": "Made", **body}
    answer = await client.post(PATH, json=body, headers=bearing(admin))
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def pages(client: httpx.AsyncClient, admin: Person, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        answer = await client.get(PATH, params=query, headers=bearing(admin))
        assert answer.status_code == 200, answer.text
        found += answer.json()["data"]
        if answer.json()["next_cursor"] is None:
            return found
        query["cursor"] = answer.json()["next_cursor"]


def refusal(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["code"] == code
    return error


@pytest.mark.parametrize("mount", MOUNTS)
async def test_the_whole_life_of_a_key_by_each_name_of_the_path(
    client: httpx.AsyncClient, person: Any, mount: str
) -> None:
    admin, someone = await person("admin"), await person()
    headers = bearing(admin)
    body = {"user_id": someone.user_id, "name": "Server", "scopes": ["usage"], "budget_credits": 25}
    answer = await client.post(mount, json=body, headers=headers)
    made = answer.json()
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    assert (made["org_id"], made["user_id"], made["role"]) == (someone.org_id, someone.user_id, "member")
    assert (await client.get("/user/balance", headers=bearing(made["key"]))).json()["org_id"] == someone.org_id

    path = f"{mount}/{made['id']}"
    changed = (await client.patch(path, json={"name": "Renamed", "budget_credits": None}, headers=headers)).json()
    assert (changed["name"], changed["budget_nanos"]) == ("Renamed", None)
    assert (await client.post(f"{path}/disable", headers=headers)).json()["status"] == "disabled"
    refusal(await client.get("/user/balance", headers=bearing(made["key"])), 401, "key_disabled")
    assert (await client.post(f"{path}/enable", headers=headers)).json()["status"] == "active"
    new = (await client.post(f"{path}/rotate", json={"grace_hours": 0}, headers=headers)).json()
    refusal(await client.get("/user/balance", headers=bearing(made["key"])), 401, "key_expired")
    assert (await client.get("/user/balance", headers=bearing(new["key"]))).status_code == 200
    assert (await client.delete(f"{mount}/{new['id']}", headers=headers)).json()["status"] == "revoked"
    refusal(await client.get("/user/balance", headers=bearing(new["key"])), 401, "key_revoked")
    listed = (await client.get(mount, params={"user_id": someone.user_id}, headers=headers)).json()
    assert [key["status"] for key in listed["data"]] == ["revoked", "expired", "active"]


@pytest.mark.parametrize("mount", MOUNTS)
async def test_only_operators_are_served(client: httpx.AsyncClient, person: Any, mount: str) -> None:
    """Older systems served keys, orgs and users to anybody."""
    someone = await person()
    callers = [someone, await person("admin", scopes=rules.MEMBER_SCOPES), await person(scopes=rules.ADMIN_SCOPES)]
    path = f"{mount}/{someone.key_id}"
    for method, url, body in (
        ("GET", mount, None),
        ("POST", mount, {"user_id": someone.user_id, "name": "Mine"}),
        ("GET", path, None),
        ("PATCH", path, {"name": "Mine"}),
        ("DELETE", path, None),
        ("POST", f"{path}/rotate", None),
        ("POST", f"{path}/disable", None),
        ("POST", f"{path}/enable", None),
    ):
        refusal(await client.request(method, url, json=body), 401, "missing_api_key")
        for caller in callers:
            answer = await client.request(method, url, json=body, headers=bearing(caller))
            assert refusal(answer, 403, "permission_denied")["scope"] == "admin"
    shown = (await client.get(f"/user/api-keys/{someone.key_id}", headers=bearing(someone))).json()
    assert (shown["name"], shown["status"], shown["rotated_to"]) == ("Of the tests", "active", None)


async def test_the_list_tells_the_role_the_state_and_the_use_of_each_key(
    client: httpx.AsyncClient, person: Any
) -> None:
    """An older system showed every key without a name and as not disabled."""
    admin, someone = await person("admin"), await person()
    made = await create(client, admin, someone, name="Watched", tokens_in_all=5)
    await client.post(f"{PATH}/{made['id']}/disable", headers=bearing(admin))
    watched, first = await pages(client, admin, org_id=someone.org_id)
    assert (watched["name"], watched["status"], watched["tokens_used_in_all"]) == ("Watched", "disabled", 0)
    assert (first["role"], first["last_used_at"]) == ("member", None)
    assert first["email"] == f"{someone.number}@example.com"
    assert first["masked_key"] == f"{someone.secret[:12]}…{someone.secret[-4:]}"
    (own,) = await pages(client, admin, user_id=admin.user_id)
    assert own["role"] == "admin"
    assert own["last_used_at"] is not None


async def test_filters_narrow_the_list_and_pages_and_orders_agree(client: httpx.AsyncClient, person: Any) -> None:
    admin, one, other = await person("admin"), await person(), await person()
    mark = one.number
    for number in range(3):
        await create(client, admin, one, name=f"{mark} {number}")
    test = await create(client, admin, other, name=f"{mark} test", environment="test")
    own = await client.post(PATH, json={"user_id": admin.user_id, "name": f"{mark} own"}, headers=bearing(admin))

    async def names(**query: Any) -> list[str]:
        return [key["name"].removeprefix(f"{mark} ") for key in await pages(client, admin, q=mark, **query)]

    assert await names(sort="name:asc") == ["0", "1", "2", "own", "test"]
    assert await names(sort="name:desc", limit=2) == ["test", "own", "2", "1", "0"]
    assert await names(sort="created_at:asc", limit=1) == ["0", "1", "2", "test", "own"]
    assert await names(org_id=one.org_id) == ["2", "1", "0"]
    assert await names(user_id=other.user_id) == ["test"]
    assert await names(org_id=one.org_id, user_id=other.user_id) == []
    assert await names(environment="test") == ["test"]
    assert await names(role="admin") == ["own"]
    await client.delete(f"{PATH}/{test['id']}", headers=bearing(admin))
    assert await names(status="revoked") == ["test"]
    assert await names(status="active", role="member", sort="name:asc") == ["0", "1", "2"]
    page = (await client.get(PATH, params={"q": mark, "limit": 2}, headers=bearing(admin))).json()
    assert (page["total"], len(page["data"])) == (5, 2)
    found = (await client.get(PATH, params={"q": own.json()["key"][:12]}, headers=bearing(admin))).json()["data"]
    assert own.json()["id"] in [key["id"] for key in found]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": 1001}, "limit"),
        ({"sort": "name"}, "sort"),
        ({"status": "gone"}, "status"),
        ({"environment": "staging"}, "environment"),
        ({"role": "owner"}, "role"),
        ({"cursor": "key_unknown"}, "cursor"),
        ({"org_id": "x" * 201}, "org_id"),
        ({"digest": "00"}, "digest"),
    ],
)
async def test_a_filter_that_makes_no_sense_is_refused_by_name(
    client: httpx.AsyncClient, person: Any, query: dict[str, Any], param: str
) -> None:
    admin = await person("admin")
    error = refusal(await client.get(PATH, params=query, headers=bearing(admin)), 400, "invalid_request")
    assert error["param"] == param


async def test_names_and_forms_of_older_gateways_are_understood(client: httpx.AsyncClient, person: Any) -> None:
    admin, someone = await person("admin"), await person()
    made = await create(
        client, admin, someone, scopes="chat, usage", token_limit=9, ip_allowlist="192.0.2.0/24,198.51.100.7"
    )
    assert (made["scopes"], made["tokens_in_all"]) == (["chat", "usage"], 9)
    assert made["ip_allowlist"] == ["192.0.2.0/24", "198.51.100.7/32"]
    body = {"label": "Theirs", "is_active": False, "role": "member", "token_limit": None}
    changed = (await client.patch(f"{PATH}/{made['id']}", json=body, headers=bearing(admin))).json()
    assert (changed["name"], changed["status"], changed["tokens_in_all"]) == ("Theirs", "disabled", None)
    assert changed["scopes"] == list(rules.MEMBER_SCOPES)
    enabled = await client.patch(f"{PATH}/{made['id']}", json={"active": True}, headers=bearing(admin))
    assert (enabled.json()["status"], enabled.json()["name"]) == ("active", "Theirs")

    own = await client.post(PATH, json={"label": "Mine", "role": "admin"}, headers=bearing(admin))
    assert (own.json()["user_id"], own.json()["scopes"]) == (admin.user_id, list(rules.ADMIN_SCOPES))
    refusal(await client.post(PATH, json={"label": "a", "name": "b"}, headers=bearing(admin)), 400, "invalid_request")


async def test_a_member_s_first_key_manages_keys_and_reads_their_events(client: httpx.AsyncClient, person: Any) -> None:
    admin, someone = await person("admin"), await person()
    first = (await create(client, admin, someone, role="member"))["key"]
    made = await client.post("/user/api-keys", json={"name": "Second"}, headers=bearing(first))
    assert made.status_code == 201
    events = await client.get("/user/api-keys/audit-logs", headers=bearing(first))
    assert events.json()["data"][0]["key_id"] == made.json()["id"]


@BOTH_DOORS
async def test_the_list_includes_what_each_key_used_if_asked(
    client: httpx.AsyncClient, door: Door, person: Any, customer: Any
) -> None:
    admin, someone, other = await person("admin"), await customer(), await person()
    unused = await create(client, admin, someone)
    for tokens in (1, 2):
        await settled(door, await admitted(door, someone), tokens)
    query = {"org_id": someone.org_id, "include": "usage", "sort": "created_at:asc"}
    used, nothing = await pages(client, admin, **query)
    assert used["usage"]["last_request_at"] is not None
    assert used["usage"]["charge_nanos"] == 3
    assert [used["usage"][name] for name in ("requests", "prompt_tokens", "completion_tokens")] == [2, 20, 40]
    assert (nothing["id"], nothing["usage"]["requests"]) == (unused["id"], 0)
    assert (await pages(client, admin, user_id=other.user_id))[0]["usage"] is None
    own = await client.get("/user/api-keys", params={"include": "usage"}, headers=bearing(someone))
    assert {key["user_id"] for key in own.json()["data"]} == {someone.user_id}
    assert sum(key["usage"]["requests"] for key in own.json()["data"]) == 2


async def test_a_key_for_nobody_is_not_made(client: httpx.AsyncClient, person: Any) -> None:
    admin = await person("admin")
    body = {"user_id": "usr_nobody", "name": "x"}
    error = refusal(await client.post(PATH, json=body, headers=bearing(admin)), 404, "not_found")
    assert (error["kind"], error["id"]) == ("user", "usr_nobody")


@pytest.mark.parametrize("field", ["balance", "is_admin", "org_id", "cost", "budget_spent_nanos"])
async def test_a_field_that_is_not_known_makes_and_changes_nothing(
    client: httpx.AsyncClient, person: Any, shared_database: str, sql: Any, field: str
) -> None:
    admin, someone = await person("admin"), await person()
    rows = """
        select jsonb_build_array(
          (select jsonb_agg(to_jsonb(k)) from tollgate.api_keys k where k.org_id = $1),
          (select jsonb_agg(to_jsonb(u)) from tollgate.users u where u.org_id = $1),
          (select jsonb_agg(to_jsonb(o)) from tollgate.orgs o where o.id = $1)
        )
    """
    before = await sql(shared_database, rows, someone.org_id)
    made = await client.post(
        PATH, json={"user_id": someone.user_id, "name": "x", field: "admin"}, headers=bearing(admin)
    )
    assert refusal(made, 400, "invalid_request")["param"] == field
    changed = await client.patch(f"{PATH}/{someone.key_id}", json={field: "admin"}, headers=bearing(admin))
    assert refusal(changed, 400, "invalid_request")["param"] == field
    assert await sql(shared_database, rows, someone.org_id) == before


async def test_what_an_operator_does_is_audited_as_the_operator_s(client: httpx.AsyncClient, person: Any) -> None:
    admin, someone = await person("admin"), await person()
    made = await create(client, admin, someone)
    for _ in range(2):
        await client.delete(f"{PATH}/{made['id']}", headers=bearing(admin))
    answer = await client.get("/admin/audit-logs", params={"target_id": made["id"]}, headers=bearing(admin))
    events = answer.json()["data"]
    assert [event["action"] for event in events] == ["key.revoked", "key.created"]
    assert {event["actor"]["key_id"] for event in events} == {admin.key_id}
    assert {event["org_id"] for event in events} == {someone.org_id}
    assert made["key"] not in answer.text


async def test_thousands_of_keys_are_listed_within_a_moment(
    client: httpx.AsyncClient, person: Any, shared_database: str, sql: Any
) -> None:
    admin, someone = await person("admin"), await person()
    many = """
        insert into tollgate.api_keys (org_id, user_id, name, digest, pepper, prefix, last_four, scopes)
        select $1, $2, 'Many ' || n, sha256(($1 || n)::bytea), '00000000', 'tg_live_', 'abcd', '{chat}'
        from generate_series(1, 3000) n
    """
    await sql(shared_database, many, someone.org_id, someone.user_id)
    found = await pages(client, admin, org_id=someone.org_id, limit=1000)
    assert len(found) == len({key["id"] for key in found}) == 3001
