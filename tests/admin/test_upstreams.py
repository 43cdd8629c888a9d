"""/admin/upstreams over HTTP, with real servers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest

from admin.api_client import KEY, PRICING, VARIABLE, ApiClient, a_server, admin_api, unique
from gateway import BOTH_DOORS, CHAT, Upstream
from people import Person
from sandbox.serving import PATIENCE_SECONDS, a_chat, until
from tollgate.database import Door
from tollgate.database.postgres import PostgresDoor
from tollgate.settings import Settings
from tollgate.upstreams import health_checks
from upstreams.scripted import Scripted, answer, hang

PATH = "/admin/upstreams"


@pytest.fixture
async def api(door: Door, sandbox: Upstream, person: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ApiClient]:
    monkeypatch.setattr(health_checks, "PROBE_SECONDS", PATIENCE_SECONDS)
    async with admin_api(door, sandbox, await person("admin")) as made:
        yield made


@pytest.fixture
def kept(shared_database: str, sql: Callable[..., Any]) -> Callable[..., Any]:
    """Counts the upstreams of this name in the database."""

    async def ask(name: str) -> Any:
        return await sql(shared_database, "select count(*) from tollgate.upstreams where name = $1", name)

    return ask


async def test_a_server_is_made_shown_and_listed(api: ApiClient) -> None:
    name = unique("gpu")
    made = await api.upstream(name=name, base_url="http://10.0.0.7:8000/v1/", concurrency=4, health_path="/health")
    assert made.pop("visible") == {"here": True, "elsewhere_within_seconds": 300}
    assert made["created_at"] == made["updated_at"]
    assert {field: made[field] for field in made if not field.endswith("_at")} == {
        "id": made["id"],
        "name": name,
        "dialect": "vllm",
        "base_url": "http://10.0.0.7:8000/v1",
        "secret_name": None,
        "secret_is_set": None,
        "concurrency": 4,
        "connect_seconds": 5,
        "first_byte_seconds": 120,
        "idle_seconds": 120,
        "health_path": "/health",
        "takes_org_keys": False,
        "host_id": None,
        "state": "active",
        "routes": 0,
        "health": None,
        "here": None,
    }
    assert await api.ask("GET", f"{PATH}/{made['id']}") == made | {"checks": []}
    assert made in [entry for page in await api.pages(PATH) for entry in page]
    assert await api.events(made["id"]) == [
        (
            "upstream.created",
            a_server(name=name, base_url="http://10.0.0.7:8000/v1", concurrency=4) | {"health_path": "/health"},
        )
    ]


async def test_of_a_secret_only_its_name_is_shown_and_whether_it_is_set(api: ApiClient) -> None:
    made = await api.upstream(secret_name=VARIABLE)
    assert (made["secret_name"], made["secret_is_set"]) == (VARIABLE, True)
    made = await api.ask("PATCH", f"{PATH}/{made['id']}", json={"secret_name": "UPSTREAM_NOT_SET_KEY"})
    assert (made["secret_name"], made["secret_is_set"]) == ("UPSTREAM_NOT_SET_KEY", False)


async def test_no_other_secret_can_be_named(api: ApiClient, kept: Any) -> None:
    ours = {str(field.alias) for field in Settings.model_fields.values()} | {"SUPABASE_SERVICE_ROLE_KEY"}
    for name in ours | {"AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "sk-or-v1-a-key-itself", "upstream_key", ""}:
        server = unique("gpu")
        error = await api.refused("POST", PATH, 400, json=a_server(name=server, secret_name=name))
        assert error["param"] == "secret_name", name
        assert await kept(server) == 0


async def test_no_other_secret_can_be_named_later(api: ApiClient) -> None:
    made = await api.upstream(secret_name=VARIABLE)
    error = await api.refused("PATCH", f"{PATH}/{made['id']}", 400, json={"secret_name": "KEY_PEPPER"})
    assert error["param"] == "secret_name"
    assert (await api.ask("GET", f"{PATH}/{made['id']}"))["secret_name"] == VARIABLE


async def test_the_database_takes_none_of_our_own_either(shared_database: str, sql: Any) -> None:
    made = "insert into tollgate.upstreams (name, base_url, dialect, secret_name) values ('x', 'http://x', 'vllm', $1)"
    for name in ("KEY_PEPPER", "KEY_PEPPER_PREVIOUS", "DATABASE_URL", "SUPABASE_SECRET_KEY", "CRON_SECRET"):
        with pytest.raises(Exception, match="secret_name_check"):
            await sql(shared_database, made, name)


async def test_a_variable_of_ours_that_a_row_names_all_the_same_is_sent_nowhere(
    api: ApiClient, customer: Any, shared_database: str, sql: Any
) -> None:
    """A row written by hand may name one of our own variables. It is set, but upstreams cannot use it."""
    async with Scripted(answer(b"{}")).listening() as there:
        made, model = await api.upstream(base_url=there.url), unique("ours/model")
        change = "update tollgate.upstreams set secret_name = 'LOG_LEVEL' where id = $1"
        await sql(shared_database, change, made["id"])
        await api.route(made["id"], model)
        assert (await api.ask("GET", f"{PATH}/{made['id']}"))["secret_is_set"] is False
        told = await api.ask("POST", f"{PATH}/refresh-health", json={"ids": [made["id"]]})
        assert told["data"][0]["error"] == "LOG_LEVEL is not set: set it in the environment of Tollgate and restart it"
        await api.of(await customer()).refused("POST", CHAT, 502, json=a_chat(model=model))
        assert there.seen == []


FORBIDDEN = (
    "http://127.0.0.1:8000/v1",
    "http://localhost:8000/v1",
    "http://10.1.2.3/v1",
    "http://169.254.169.254/latest/meta-data",
    "http://[::1]/v1",
    "http://2130706433/v1",
    "ftp://8.8.8.8/v1",
    "http://user:word@8.8.8.8/v1",
    "http://8.8.8.8/v1?key=word",
    "8.8.8.8",
)


async def test_where_no_call_may_go_no_server_is_written(door: Door, sandbox: Upstream, person: Any, kept: Any) -> None:
    async with admin_api(door, sandbox, await person("admin"), PRIVATE_UPSTREAMS="") as api:
        name = unique("gpu")
        made = await api.upstream(base_url="http://8.8.8.8/v1")
        for url in FORBIDDEN:
            error = await api.refused("POST", PATH, 400, json=a_server(name=name, base_url=url))
            assert error["param"] == "base_url", url
            await api.refused("PATCH", f"{PATH}/{made['id']}", 400, json={"base_url": url})
        assert await kept(name) == 0
        assert (await api.ask("GET", f"{PATH}/{made['id']}"))["base_url"] == "http://8.8.8.8/v1"


async def test_where_clouds_keep_credentials_nobody_may_go_at_all(api: ApiClient, kept: Any) -> None:
    name = unique("gpu")
    body = a_server(name=name, base_url="http://169.254.169.254/latest")
    assert (await api.refused("POST", PATH, 400, json=body))["param"] == "base_url"
    assert await kept(name) == 0


async def test_a_member_is_refused_before_anything_else_is_looked_at(api: ApiClient, person: Any) -> None:
    made = await api.upstream()
    member = api.of(await person())
    bad = {"base_url": "http://169.254.169.254"}
    for method, path, body in (
        ("GET", PATH, None),
        ("POST", PATH, a_server(**bad)),
        ("POST", f"{PATH}/refresh-health", {"ids": [made["id"]]}),
        ("GET", f"{PATH}/{made['id']}", None),
        ("PATCH", f"{PATH}/{made['id']}", bad),
        ("DELETE", f"{PATH}/{made['id']}", None),
    ):
        assert (await member.refused(method, path, 403, json=body))["scope"] == "admin"
    assert (await api.ask("GET", f"{PATH}/{made['id']}"))["health"] is None


async def test_a_change_changes_what_it_names_once(api: ApiClient) -> None:
    made = await api.upstream(concurrency=4, secret_name=VARIABLE)
    path, change = f"{PATH}/{made['id']}", {"name": "faster", "idle_seconds": 0.5, "concurrency": None}
    first = await api.ask("PATCH", path, json=change)
    again = await api.ask("PATCH", path, json=change)
    assert first == again
    updated = {"updated_at": first["updated_at"]}
    assert first == made | change | updated
    assert (await api.events(made["id"]))[1:] == [("upstream.changed", change)]


NONSENSE: list[tuple[dict[str, Any], str]] = [
    ({"name": None}, "name"),
    ({"name": ""}, "name"),
    ({"name": "a\x00b"}, "name"),
    ({"dialect": "openrouter"}, "dialect"),
    ({"base_url": None}, "base_url"),
    ({"base_url": "http://10.0.0.1/v1#top"}, "base_url"),
    ({"concurrency": 0}, "concurrency"),
    ({"concurrency": 10**12}, "concurrency"),
    ({"idle_seconds": None}, "idle_seconds"),
    ({"connect_seconds": "NaN"}, "connect_seconds"),
    ({"health_path": "health"}, "health_path"),
    ({"health_path": "/health?key=word"}, "health_path"),
    ({"state": "asleep"}, "state"),
]


async def test_what_makes_no_sense_is_refused_by_name(api: ApiClient) -> None:
    made = await api.upstream()
    for change, param in NONSENSE:
        assert (await api.refused("PATCH", f"{PATH}/{made['id']}", 400, json=change))["param"] == param, change
    assert len(await api.events(made["id"])) == 1


STRANGE: list[dict[str, Any]] = [
    {"id": "ups_chosen"},
    {"role": "admin"},
    {"balance": 1},
    {"is_admin": True},
    {"org_id": "org_1"},
    {"cost": 0},
    {"trusted": True},
    {"created_at": "2000-01-01T00:00:00Z"},
    {"health": {"status": "up"}},
    {"secret": "sk-word"},
]


async def test_a_field_that_is_not_its_own_writes_nothing(api: ApiClient, kept: Any) -> None:
    name, refused = unique("gpu"), unique("gpu")
    made = await api.upstream(name=name)
    for extra in STRANGE:
        (field,) = extra
        error = await api.refused("POST", PATH, 400, json=a_server(name=refused, **extra))
        assert error["param"] == field
        await api.refused("PATCH", f"{PATH}/{made['id']}", 400, json={"name": refused, **extra})
    assert (await kept(name), await kept(refused)) == (1, 0)


async def test_one_with_routes_stays_until_they_go_too(api: ApiClient, customer: Any, sandbox: Upstream) -> None:
    made = await api.upstream(base_url=sandbox.url, dialect="openai", secret_name=VARIABLE)
    model = unique("ours/echo")
    routes = [await api.route(made["id"], name, upstream_model="sandbox/echo") for name in (model, f"{model}-2")]
    someone = api.of(await customer())
    await someone.ask("POST", CHAT, json=a_chat(model=model))
    path = f"{PATH}/{made['id']}"
    assert (await api.ask("GET", path))["routes"] == 2
    refusal = await api.refused("DELETE", path, 409)
    assert (refusal["code"], refusal["routes"], refusal["id"]) == ("conflict", 2, made["id"])
    assert (await api.ask("GET", path))["routes"] == 2
    gone = await api.ask("DELETE", path, params={"routes": True})
    assert gone == {"id": made["id"], "routes": 2, "visible": {"here": True, "elsewhere_within_seconds": 300}}
    await api.refused("DELETE", path, 404)
    assert (await someone.refused("POST", CHAT, 404, json=a_chat(model=model)))["code"] == "model_not_found"
    assert [action for action, _ in await api.events(made["id"])] == ["upstream.created", "upstream.deleted"]
    for route in routes:
        ((_, created), (action, details)) = await api.events(route["id"])
        assert (action, details["model"]) == ("route.deleted", created["model"])


async def test_what_was_asked_of_it_stays_on_record(
    api: ApiClient, customer: Any, sandbox: Upstream, shared_database: str, sql: Any
) -> None:
    made = await api.upstream(base_url=sandbox.url, dialect="openai", secret_name=VARIABLE)
    model = unique("ours/echo")
    await api.route(made["id"], model, upstream_model="sandbox/echo")
    someone = await customer()
    await api.of(someone).ask("POST", CHAT, json=a_chat(model=model))
    await api.ask("DELETE", f"{PATH}/{made['id']}", params={"routes": True})
    upstream = await sql(shared_database, "select upstream from tollgate.requests where org_id = $1", someone.org_id)
    assert upstream == made["id"]


async def test_one_without_routes_just_goes(api: ApiClient) -> None:
    made = await api.upstream()
    assert (await api.ask("DELETE", f"{PATH}/{made['id']}"))["routes"] == 0
    await api.refused("GET", f"{PATH}/{made['id']}", 404)


async def test_a_route_that_comes_while_its_server_goes_is_not_made(
    api: ApiClient, shared_database: str, sql: Any
) -> None:
    made, model = await api.upstream(), unique("ours/model")
    waiting = "select exists (select from pg_stat_activity where datname = current_database() and wait_event = $1)"

    async def waits() -> bool:
        return bool(await sql(shared_database, waiting, "transactionid"))

    leaving = await asyncpg.connect(shared_database)
    async with leaving.transaction():
        await leaving.execute("delete from tollgate.upstreams where id = $1", made["id"])
        body = {"model": model, "upstream_id": made["id"], "pricing": PRICING}
        coming = asyncio.create_task(api.refused("POST", "/admin/models/registry", 404, json=body))
        await until(waits)
    assert (await coming)["kind"] == "upstream"
    await leaving.close()


async def test_an_id_that_is_none_is_not_found(api: ApiClient) -> None:
    for name in ("ups_0000", "nonsense", "usr_1"):
        for method, body in (("GET", None), ("PATCH", {"name": "x"}), ("DELETE", None)):
            error = await api.refused(method, f"{PATH}/{name}", 404, json=body)
            assert (error["kind"], error["id"]) == ("upstream", name)


async def test_pages_are_the_whole_list_in_order(api: ApiClient) -> None:
    twin = unique("page")
    for name in (twin, unique("page"), twin, twin):
        await api.upstream(name=name, dialect="llamacpp")
    for sort in ("name:asc", "name:desc", "created_at:asc", "created_at:desc"):
        (whole,) = await api.pages(PATH, sort=sort, limit=1000)
        field, _, direction = sort.partition(":")
        assert whole == sorted(whole, key=lambda one: (one[field], one["id"]), reverse=direction == "desc")
        by_ones = await api.pages(PATH, sort=sort, dialect="llamacpp", limit=1)
        assert [page[0] for page in by_ones] == [one for one in whole if one["dialect"] == "llamacpp"]
        assert (await api.ask("GET", PATH, params={"limit": 1}))["total"] == len(whole)


@BOTH_DOORS
async def test_paging_goes_on_after_the_last_was_changed(api: ApiClient) -> None:
    for _ in range(3):
        await api.upstream(dialect="tgi")
    first = await api.ask("GET", PATH, params={"dialect": "tgi", "state": "active", "limit": 2})
    await api.ask("PATCH", f"{PATH}/{first['next_cursor']}", json={"state": "disabled"})
    query = {"dialect": "tgi", "state": "active", "cursor": first["next_cursor"], "limit": 1}
    (following,) = (await api.ask("GET", PATH, params=query))["data"]
    assert following["id"] < first["next_cursor"]


async def test_filters_narrow_the_list(api: ApiClient) -> None:
    one, other = await api.upstream(dialect="sglang"), await api.upstream(state="disabled")
    assert {entry["dialect"] for entry in (await api.pages(PATH, dialect="sglang", limit=1000))[0]} == {"sglang"}
    (disabled,) = await api.pages(PATH, state="disabled", limit=1000)
    ids = [entry["id"] for entry in disabled]
    assert other["id"] in ids
    assert one["id"] not in ids


BAD_FILTERS: list[tuple[dict[str, Any], str]] = [
    ({"limit": 0}, "limit"),
    ({"limit": 1001}, "limit"),
    ({"sort": "secret_name"}, "sort"),
    ({"state": "asleep"}, "state"),
    ({"dialect": "openrouter"}, "dialect"),
    ({"cursor": "ups_unknown"}, "cursor"),
    ({"ids": "ups_1"}, "ids"),
]


async def test_a_filter_that_makes_no_sense_is_refused_by_name(api: ApiClient) -> None:
    for query, param in BAD_FILTERS:
        assert (await api.refused("GET", PATH, 400, params=query))["param"] == param


async def test_what_a_round_finds_is_answered_and_kept(api: ApiClient) -> None:
    async with Scripted(answer(b"[]")).listening() as well, Scripted(answer(b"", status=503)).listening() as ill:
        servers = [
            await api.upstream(base_url=well.url, secret_name=VARIABLE, health_path="/health"),
            await api.upstream(base_url=ill.url, state="disabled"),
        ]
        gone = await api.upstream(base_url="http://127.0.0.1:1/v1")
        ids = [server["id"] for server in (*servers, gone)]
        told = await api.ask("POST", f"{PATH}/refresh-health", json={"ids": ids})
    assert told["left_out"] == []
    assert well.seen[0].target == "/health"
    assert well.seen[0].headers["authorization"] == f"Bearer {KEY}"
    found = {probe.pop("upstream_id"): probe for probe in told["data"]}
    assert [found[name]["status"] for name in ids] == ["up", "down", "down"]
    assert [found[name]["http_status"] for name in ids] == [200, 503, None]
    for name in ids:
        assert (await api.ask("GET", f"{PATH}/{name}"))["health"] == found[name]


async def test_all_are_asked_where_none_is_named(own_database: str, sandbox: Upstream) -> None:
    door = PostgresDoor(own_database, pool_size=4, deadline_seconds=30)
    admin = Person(door, "admin")
    await admin.seed()
    async with admin_api(door, sandbox, admin) as api, Scripted(answer(b"[]")).listening() as there:
        assert (await api.ask("POST", f"{PATH}/refresh-health"))["data"] == []
        made = [await api.upstream(base_url=there.url) for _ in range(3)]
        told = await api.ask("POST", f"{PATH}/refresh-health")
        assert [probe["upstream_id"] for probe in told["data"]] == [server["id"] for server in made]
        assert await api.events("upstreams") == [("upstreams.probed", {"up": 3, "down": 0})]
    await door.close()


async def test_rounds_at_once_do_not_stand_in_each_others_way(api: ApiClient) -> None:
    async with Scripted(answer(b"[]")).listening() as there:
        ids = [(await api.upstream(base_url=there.url))["id"] for _ in range(4)]
        rounds = await asyncio.gather(
            *(api.ask("POST", f"{PATH}/refresh-health", json={"ids": ids[::turn]}) for turn in (1, -1, 1, -1))
        )
    assert [[probe["status"] for probe in told["data"]] for told in rounds] == [["up"] * 4] * 4


async def test_one_that_goes_while_it_is_asked_is_left_out(api: ApiClient) -> None:
    async with Scripted(hang).listening() as there:
        made = await api.upstream(base_url=there.url)

        async def plays(line: Any) -> None:
            await api.ask("DELETE", f"{PATH}/{made['id']}")
            await answer(b"[]")(line)

        there.plays = [plays]
        told = await api.ask("POST", f"{PATH}/refresh-health", json={"ids": [made["id"]]})
    assert (told["data"], told["left_out"]) == ([], [])


async def test_a_round_of_one_that_is_not_there_asks_nobody(api: ApiClient) -> None:
    async with Scripted(answer(b"[]")).listening() as there:
        made = await api.upstream(base_url=there.url)
        body = {"ids": [made["id"], "ups_0000"]}
        assert (await api.refused("POST", f"{PATH}/refresh-health", 404, json=body))["id"] == "ups_0000"
        assert there.seen == []


async def test_the_breaker_of_a_model_that_fails_is_shown(api: ApiClient, customer: Any) -> None:
    """Only the breaker of the model that fails."""
    async with Scripted(answer(b"", status=500)).listening() as there:
        made = await api.upstream(base_url=there.url, secret_name=VARIABLE)
        model = unique("ours/model")
        await api.route(made["id"], model, upstream_model="on-disk")
        people = [api.of(await customer()) for _ in range(2)]
        for number in range(5):
            await people[number % 2].refused("POST", CHAT, 502, json=a_chat(model=model))
    here = (await api.ask("GET", f"{PATH}/{made['id']}"))["here"]
    assert here["breaker"] in ("open", "half")  # after a second it is half open
    assert (here["breakers"], here["in_flight"]) == ({"on-disk": here["breaker"]}, 0)
    assert here["failures"] >= 5
    assert here["last_error"] == "HTTP 500"


async def test_a_changed_address_is_gone_to_at_once(api: ApiClient, customer: Any, sandbox: Upstream) -> None:
    made = await api.upstream(dialect="openai", secret_name=VARIABLE)
    model = unique("ours/echo")
    await api.route(made["id"], model, upstream_model="sandbox/echo")
    someone = api.of(await customer())
    await someone.refused("POST", CHAT, 502, json=a_chat(model=model))
    await api.ask("PATCH", f"{PATH}/{made['id']}", json={"base_url": sandbox.url})
    await someone.ask("POST", CHAT, json=a_chat(model=model))
    await api.ask("PATCH", f"{PATH}/{made['id']}", json={"state": "disabled"})
    await someone.refused("POST", CHAT, 404, json=a_chat(model=model))


@BOTH_DOORS
async def test_the_last_fifty_checks_are_kept(api: ApiClient, shared_database: str, sql: Callable[..., Any]) -> None:
    made = await api.upstream(name=unique("gpu"))
    await sql(
        shared_database,
        "insert into tollgate.past_probes (upstream_id, probed_at, status)"
        " select $1, now() - make_interval(mins => n), 'up' from generate_series(1, 60) n",
        made["id"],
    )
    await api.ask("POST", f"{PATH}/refresh-health", json={"ids": [made["id"]]})
    found = await api.ask("GET", f"{PATH}/{made['id']}")
    assert [check["status"] for check in found["checks"]] == ["down"] + ["up"] * 49
    assert found["checks"][0] == found["health"]


async def test_a_vendor_is_added_by_its_name(api: ApiClient) -> None:
    made = await api.ask("POST", PATH, 201, json={"name": unique("vendor"), "preset": "groq", "concurrency": 9})
    api.made.append(made["id"])
    assert (made["dialect"], made["base_url"]) == ("groq", "https://api.groq.com/openai/v1")
    assert (made["secret_name"], made["secret_is_set"], made["concurrency"]) == ("UPSTREAM_GROQ_KEY", False, 9)
    own = {"preset": "openai", "base_url": "https://proxy.example/v1", "secret_name": VARIABLE}
    made = await api.ask("POST", PATH, 201, json={"name": unique("vendor"), **own})
    api.made.append(made["id"])
    assert (made["dialect"], made["base_url"]) == ("openai-platform", own["base_url"])
    assert (made["secret_name"], made["secret_is_set"]) == (VARIABLE, True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"preset": "azure-openai"}, "https://YOUR-RESOURCE.openai.azure.com/openai/v1"),
        ({"preset": "groq", "dialect": "groq"}, "Send preset or dialect, not both"),
        ({"dialect": "vllm"}, "Send preset, or dialect and base_url"),
        ({"base_url": "http://10.0.0.1/v1"}, "Send preset, or dialect and base_url"),
        ({"preset": "nobody"}, "preset"),
    ],
)
async def test_half_a_server_is_refused(api: ApiClient, given: dict[str, Any], said: str) -> None:
    assert said in (await api.refused("POST", PATH, 400, json={"name": "half", **given}))["message"]


async def test_the_vendors_are_listed_with_their_endpoints(api: ApiClient) -> None:
    found = {one["preset"]: one for one in (await api.ask("GET", f"{PATH}/presets"))["data"]}
    assert set(found) == {"openai", "azure-openai", "anthropic", "groq", "mistral", "together"}
    assert found["anthropic"]["endpoints"] == ["/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens"]
    assert found["azure-openai"]["base_url"] is None
