"""The snapshot and the routes to own upstreams in the database, through both doors."""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from gateway import BOTH_DOORS, ONE_DOOR
from people import refused
from tollgate.audit import store as audit
from tollgate.catalog import store
from tollgate.core.errors import BadRequest, NotFound, PermissionDenied
from tollgate.database import Door
from tollgate.keys.authentication import console
from tollgate.upstreams import store as upstreams

pytestmark = BOTH_DOORS

PRICING = {"prompt": "0.000001", "completion": "0.000002"}
DAY = 86_400


@pytest.fixture
def source() -> str:
    return f"https://{secrets.token_hex(8)}.example/api/v1"


@pytest.fixture
def model() -> str:
    return f"ours/{secrets.token_hex(8)}"


@pytest.fixture
def operator(door: Door) -> Door:
    return console(door, "tests")


def rows(*names: str, listing: str = "{}") -> list[dict[str, Any]]:
    return [{"id": name, "also": f"{name}-2025", "listing": listing} for name in names]


def a_server(**change: Any) -> dict[str, Any]:
    return {"name": "GPU", "base_url": "http://10.0.0.1:8000/v1", "dialect": "vllm", **change}


async def serving(operator: Door, model: str, **change: Any) -> str:
    """Creates an upstream with a route for this model, and returns its id."""
    made = await upstreams.make(operator, a_server(**change))
    await store.put_route(operator, {"model": model, "upstream_id": made["id"], "pricing": PRICING})
    return str(made["id"])


async def test_a_source_that_nobody_kept_has_no_snapshot(door: Door, source: str) -> None:
    found = await store.catalog(door, source, ["a/b"], DAY)
    assert found == {"age_seconds": None, "models": None, "routes": [], "upstreams": [], "aliases": []}


async def test_what_was_kept_is_found_by_any_of_its_names_in_the_order_of_the_list(door: Door, source: str) -> None:
    models = [{"id": name, "also": also, "listing": f'{{"n":"{name}"}}'} for name, also in (("z", None), ("a", "a-1"))]
    assert await store.keep(door, source, models, 0) == {"kept": True}
    every = await store.catalog(door, source, None, DAY)
    assert every["models"] == ['{"n":"z"}', '{"n":"a"}']
    assert every["age_seconds"] in range(60)
    for names in (["a"], ["a-1"], ["a", "a-1", "nothing"]):
        assert (await store.catalog(door, source, names, DAY))["models"] == ['{"n":"a"}']
    assert (await store.catalog(door, source, ["nothing"], DAY))["models"] == []
    assert (await store.catalog(door, source, [], DAY))["models"] == []


async def test_a_listing_comes_back_letter_by_letter(door: Door, source: str) -> None:
    listing = '{"a": 1.10, "b": "\\u0000 \\\\ ü 🙂", "c": 1e300, "a": 2}'
    await store.keep(door, source, rows("a", listing=listing), 0)
    assert (await store.catalog(door, source, ["a"], DAY))["models"] == [listing]


async def test_a_snapshot_that_is_too_old_is_not_read_but_its_age_is_told(door: Door, source: str) -> None:
    await store.keep(door, source, rows("a"), 400_000)
    old = await store.catalog(door, source, ["a"], 300)
    assert old["models"] is None
    assert old["age_seconds"] in range(400, 460)
    assert (await store.catalog(door, source, ["a"], 500))["models"] == ["{}"]


async def test_sources_are_kept_apart(door: Door, source: str) -> None:
    await store.keep(door, source, rows("a"), 0)
    assert (await store.catalog(door, f"{source}/other", ["a"], DAY))["models"] is None


async def test_a_newer_snapshot_replaces_all_of_the_older(door: Door, source: str) -> None:
    await store.keep(door, source, rows("a", "b", "c"), 10_000)
    await store.keep(door, source, rows("c", "d", listing='{"new":1}'), 0)
    assert (await store.catalog(door, source, None, DAY))["models"] == ['{"new":1}'] * 2
    assert (await store.catalog(door, source, ["a"], DAY))["models"] == []


async def test_an_older_snapshot_never_replaces_a_newer_one(door: Door, source: str) -> None:
    await store.keep(door, source, rows("a"), 0)
    assert await store.keep(door, source, rows("b"), 60_000) == {"kept": False}
    found = await store.catalog(door, source, None, DAY)
    assert len(found["models"]) == 1
    assert found["age_seconds"] < 30
    assert (await store.catalog(door, source, ["a"], DAY))["models"] == ["{}"]


async def test_keepers_at_once_leave_one_whole_snapshot(door: Door, source: str) -> None:
    lists = [rows(*(f"{turn}-{place}" for place in range(50)), listing=f'"{turn}"') for turn in range(8)]
    kept = await asyncio.gather(*(store.keep(door, source, models, turn * 10_000) for turn, models in enumerate(lists)))
    assert kept[0] == {"kept": True}
    found = await store.catalog(door, source, None, DAY)
    assert found["models"] == ['"0"'] * 50


async def test_a_route_is_told_with_its_server(door: Door, operator: Door, source: str, model: str) -> None:
    upstream_id = await serving(operator, model, secret_name="GPU_KEY", concurrency=4)
    found = await store.catalog(door, source, [model], DAY)
    (route,), (upstream,) = found["routes"], found["upstreams"]
    assert isinstance(route.pop("created"), int)
    assert route.pop("id").startswith("rte_")
    assert isinstance(route.pop("created_at"), str)
    assert route == {
        "model": model,
        "upstream_id": upstream_id,
        "upstream_model": model,
        "pricing": PRICING,
        "context_tokens": None,
        "most_output": None,
        "priority": 50,
        "weight": 1,
        "listing": {},
        "state": "active",
        "deprecated_on": None,
        "retires_on": None,
        "replacement": None,
    }
    assert upstream == {
        "id": upstream_id,
        "name": "GPU",
        "base_url": "http://10.0.0.1:8000/v1",
        "dialect": "vllm",
        "secret_name": "GPU_KEY",
        "concurrency": 4,
        "connect_seconds": 5,
        "first_byte_seconds": 120,
        "idle_seconds": 120,
        "health_path": None,
        "takes_org_keys": False,
        "host_id": None,
        "host_key_generation": None,
        "state": "active",
    }
    assert model in [route["model"] for route in (await store.catalog(door, source, None, DAY))["routes"]]


async def test_routes_come_by_priority(door: Door, operator: Door, source: str, model: str) -> None:
    servers = [await serving(operator, model) for _ in range(3)]
    for server, priority in zip(servers, (70, 10, 40), strict=True):
        await store.put_route(operator, {"model": model, "upstream_id": server, "priority": priority})
    found = await store.catalog(door, source, [model], DAY)
    assert [route["upstream_id"] for route in found["routes"]] == [servers[1], servers[2], servers[0]]
    assert len(found["upstreams"]) == 3


async def test_what_is_disabled_is_not_told(door: Door, operator: Door, source: str, model: str) -> None:
    one, other = await serving(operator, model), await serving(operator, model)
    await store.put_route(operator, {"model": model, "upstream_id": one, "state": "disabled"})
    found = await store.catalog(door, source, [model], DAY)
    assert [upstream["id"] for upstream in found["upstreams"]] == [other]
    await upstreams.make(operator, {"id": other, "state": "disabled"})
    found = await store.catalog(door, source, [model], DAY)
    assert (found["routes"], found["upstreams"]) == ([], [])


async def test_a_change_changes_what_it_names_and_nothing_else(
    door: Door, operator: Door, source: str, model: str
) -> None:
    server = await serving(operator, model, concurrency=4)
    dearer = {"prompt": "1", "completion": "2", "overrides": [{"min_prompt_tokens": 1000, "prompt": "3"}]}
    put = [
        await upstreams.make(operator, {"id": server, "name": "Faster", "idle_seconds": 0.5, "concurrency": None}),
        await store.put_route(operator, {"model": model, "upstream_id": server, "pricing": dearer, "weight": 9}),
    ]
    assert [answer["created"] for answer in put] == [False, False]
    found = await store.catalog(door, source, [model], DAY)
    (route,), (upstream,) = found["routes"], found["upstreams"]
    assert (route["pricing"], route["weight"], route["priority"]) == (dearer, 9, 50)
    assert (upstream["name"], upstream["idle_seconds"], upstream["concurrency"]) == ("Faster", 0.5, None)
    assert (upstream["base_url"], upstream["connect_seconds"]) == ("http://10.0.0.1:8000/v1", 5)


async def test_every_change_is_an_event(operator: Door, model: str) -> None:
    server = await serving(operator, model)
    await upstreams.make(operator, {"id": server, "state": "disabled"})
    events = (await audit.events(operator, {"target_id": server}, 10))["data"]
    assert [event["action"] for event in events] == ["upstream.changed", "upstream.created"]
    assert events[0]["details"] == {"state": "disabled"}
    route = await store.put_route(operator, {"model": model, "upstream_id": server, "weight": 2})
    events = (await audit.events(operator, {"target_id": route["id"]}, 10))["data"]
    assert [event["action"] for event in events] == ["route.changed", "route.created"]


async def test_the_same_at_once_is_made_once(operator: Door, model: str) -> None:
    chosen = f"ups_{secrets.token_hex(8)}"
    made = await asyncio.gather(*(upstreams.make(operator, a_server(id=chosen)) for _ in range(6)))
    assert sorted(answer["created"] for answer in made) == [False] * 5 + [True]
    route = {"model": model, "upstream_id": chosen, "pricing": PRICING}
    routes = await asyncio.gather(*(store.put_route(operator, route) for _ in range(6)))
    assert sorted(answer["created"] for answer in routes) == [False] * 5 + [True]
    assert len({answer["id"] for answer in routes}) == 1


@ONE_DOOR
@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"dialect": "openrouter"}, "dialect"),
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"base_url": "ftp://gpu"}, "base_url"),
        ({"base_url": "http://user:secret@gpu/v1"}, "base_url"),
        ({"base_url": "http://gpu/v1/"}, "base_url"),
        ({"base_url": "http://gpu/v1?key=secret"}, "base_url"),
        ({"base_url": "http://gpu/v1#top"}, "base_url"),
        ({"base_url": "http:///v1"}, "base_url"),
        ({"base_url": "http://gpu /v1"}, "base_url"),
        ({"secret_name": "sk-or-v1-secret"}, "secret_name"),
        ({"secret_name": "lower"}, "secret_name"),
        ({"secret_name": ""}, "secret_name"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": "many"}, "concurrency"),
        ({"concurrency": 10**12}, "concurrency"),
        ({"connect_seconds": 0}, "connect_seconds"),
        ({"idle_seconds": "NaN"}, "idle_seconds"),
        ({"first_byte_seconds": "Infinity"}, "first_byte_seconds"),
        ({"health_path": "health"}, "health_path"),
        ({"state": "asleep"}, "state"),
        ({"id": "gpu"}, "id"),
        ({"colour": "red"}, "colour"),
        ({"created_at": "2000-01-01"}, "created_at"),
    ],
)
async def test_a_server_that_makes_no_sense_is_refused_by_name(
    operator: Door, change: dict[str, Any], param: str
) -> None:
    error = await refused(upstreams.make(operator, a_server(**change)))
    assert isinstance(error, BadRequest)
    assert error.param == param


@ONE_DOOR
@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": "a b"}, "model"),
        ({"model": "a/b/c"}, "model"),
        ({"model": None}, "model"),
        ({"upstream_model": ""}, "upstream_model"),
        ({"pricing": None}, "pricing"),
        ({"pricing": {}}, "pricing"),
        ({"pricing": {"prompt": "0"}}, "pricing"),
        ({"pricing": PRICING | {"prompt": "-1"}}, "pricing"),
        ({"pricing": PRICING | {"prompt": "NaN"}}, "pricing"),
        ({"pricing": PRICING | {"prompt": "1e400"}}, "pricing"),
        ({"pricing": PRICING | {"prompt": 0.1}}, "pricing"),
        ({"pricing": PRICING | {"image": None}}, "pricing"),
        ({"pricing": PRICING | {"overrides": {}}}, "pricing"),
        ({"pricing": PRICING | {"overrides": [5]}}, "pricing"),
        ({"pricing": PRICING | {"overrides": [{"prompt": "1"}]}}, "pricing"),
        ({"pricing": PRICING | {"overrides": [{"min_prompt_tokens": -1, "prompt": "1"}]}}, "pricing"),
        ({"pricing": PRICING | {"overrides": [{"min_prompt_tokens": 1, "prompt": "-1"}]}}, "pricing"),
        ({"context_tokens": 0}, "context_tokens"),
        ({"most_output": -1}, "most_output"),
        ({"priority": 1001}, "priority"),
        ({"weight": 0}, "weight"),
        ({"listing": []}, "listing"),
        ({"listing": {"description": "x" * 30_000}}, "listing"),
        ({"state": "asleep"}, "state"),
        ({"id": "rte_1"}, "id"),
    ],
)
async def test_a_route_that_makes_no_sense_is_refused_by_name(
    operator: Door, model: str, change: dict[str, Any], param: str
) -> None:
    server = (await upstreams.make(operator, a_server()))["id"]
    route = {"model": model, "upstream_id": server, "pricing": PRICING, **change}
    error = await refused(store.put_route(operator, route))
    assert isinstance(error, BadRequest)
    assert error.param == param


async def test_a_route_needs_a_server(operator: Door, model: str) -> None:
    error = await refused(store.put_route(operator, {"model": model, "upstream_id": "ups_x", "pricing": PRICING}))
    assert isinstance(error, NotFound)
    assert error.facts == {"kind": "upstream", "id": "ups_x"}


async def test_only_an_admin_puts_servers_and_routes(person: Any, model: str) -> None:
    someone, admin = await person(), await person("admin")
    for work in (upstreams.make(someone.at_the_door(), a_server()), store.put_route(someone.at_the_door(), {})):
        assert isinstance(await refused(work), PermissionDenied)
    assert (await upstreams.make(admin.at_the_door(), a_server()))["created"] is True


async def test_a_caller_is_told_the_markup_and_the_models_of_the_key(
    person: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await person()
    none = dict.fromkeys(("allowed_models", "allowed_models_of_org", "markup_ppm", "default_model"))
    access = await store.model_access(someone.at_the_door())
    assert access == {"environment": "live", **none}
    await sql(
        shared_database,
        "update tollgate.orgs set markup_ppm = 50000, allowed_models = '{a/*}', default_model = 'a/b' where id = $1",
        someone.org_id,
    )
    await sql(
        shared_database, "update tollgate.api_keys set allowed_models = '{a/*,b}' where org_id = $1", someone.org_id
    )
    access = await store.model_access(someone.at_the_door())
    assert access == {
        "environment": "live",
        "allowed_models": ["a/*", "b"],
        "allowed_models_of_org": ["a/*"],
        "markup_ppm": 50_000,
        "default_model": "a/b",
    }


async def test_the_plans_markup_counts_where_the_org_has_none(
    person: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await person()
    plan = f"plan-{someone.number}"
    await sql(shared_database, "insert into tollgate.plans (id, name, markup_ppm) values ($1, 'Plan', 70000)", plan)
    await sql(shared_database, "update tollgate.orgs set plan_id = $2 where id = $1", someone.org_id, plan)
    assert (await store.model_access(someone.at_the_door()))["markup_ppm"] == 70_000
    await sql(shared_database, "update tollgate.orgs set markup_ppm = 0 where id = $1", someone.org_id)
    assert (await store.model_access(someone.at_the_door()))["markup_ppm"] == 0


async def test_a_key_without_the_scope_sees_no_models(person: Any) -> None:
    someone = await person(scopes=["chat"])
    error = await refused(store.model_access(someone.at_the_door()))
    assert isinstance(error, PermissionDenied)
    assert error.facts["scope"] == "models"


async def put(operator: Door, name: str, *targets: str, **change: Any) -> Any:
    of = [{"model": target, "weight": 1} for target in targets]
    return await store.put_alias(operator, {"name": name, "targets": of, **change})


async def test_an_alias_is_made_changed_told_and_deleted(door: Door, operator: Door, source: str, model: str) -> None:
    name = f"alias-{model}"
    made = await put(operator, name, model, fallbacks=["a/b"])
    assert (made["created"], made["alias"]["targets"]) == (True, [{"model": model, "weight": 1}])
    again = await put(operator, name, model, fallbacks=["a/b"])
    assert (again["created"], again["alias"]) == (False, made["alias"])
    changed = await store.put_alias(operator, {"name": name, "retires_on": "2030-01-31", "replacement": model})
    assert changed["alias"]["targets"] == made["alias"]["targets"], "what is left out stays"
    (told,) = (await store.catalog(door, source, [name], DAY))["aliases"]
    assert told == {
        "name": name,
        "targets": [{"model": model, "weight": 1}],
        "fallbacks": ["a/b"],
        "description": "",
        "deprecated_on": None,
        "retires_on": "2030-01-31",
        "replacement": model,
    }
    await store.put_alias(operator, {"name": name, "state": "disabled"})
    assert (await store.catalog(door, source, [name], DAY))["aliases"] == []
    assert [row["name"] for row in (await store.aliases(operator, {"model": model}, 10))["data"]] == [name]
    await store.delete_alias(operator, name)
    assert isinstance(await refused(store.alias(operator, name)), NotFound)
    events = (await audit.events(operator, {"target_id": name}, 10))["data"]
    assert [event["action"] for event in reversed(events)] == [
        "alias.created", "alias.changed", "alias.changed", "alias.deleted"
    ]  # fmt: skip


async def test_a_cold_instance_reads_an_alias_with_the_models_that_it_stands_for(
    door: Door, operator: Door, source: str, model: str
) -> None:
    upstream_id = await serving(operator, model)
    await store.keep(door, source, rows("a/b"), 0)
    name = f"alias-{model}"
    await put(operator, name, model, fallbacks=["a/b:nitro"])
    found = await store.catalog(door, source, [name], DAY)
    assert [route["upstream_id"] for route in found["routes"]] == [upstream_id]
    assert (found["models"], len(found["aliases"])) == (["{}"], 1)
    await store.delete_alias(operator, name)


async def test_no_alias_stands_for_another(operator: Door, model: str) -> None:
    one, other = f"one-{model}", f"other-{model}"
    await put(operator, one, model, one)
    refusal = await refused(put(operator, other, one))
    assert refusal.facts["reason"] == "alias_of_alias"
    assert f"{one} is an alias too" in str(refusal)
    refusal = await refused(put(operator, model, "a/b"))
    assert (refusal.facts["reason"], refusal.facts["alias"]) == ("alias_of_alias", one)
    await store.delete_alias(operator, one)


@ONE_DOOR
@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("targets", []),
        ("targets", {"model": "a"}),
        ("targets", [{"model": "a b", "weight": 1}]),
        ("targets", [{"model": "a", "weight": 0}]),
        ("targets", [{"model": "a", "weight": "1"}]),
        ("targets", [{"weight": 1}]),
        ("targets", [None]),
        ("fallbacks", ["a b"]),
        ("fallbacks", None),
        ("name", "a/b/c"),
        ("retires_on", "never"),
        ("odd", 1),
    ],
)
async def test_an_alias_that_makes_no_sense_is_refused_by_its_field(
    operator: Door, model: str, field: str, wrong: Any
) -> None:
    given = {"name": f"alias-{model}", "targets": [{"model": model, "weight": 1}], field: wrong}
    refusal = await refused(store.put_alias(operator, given))
    assert isinstance(refusal, BadRequest)
    assert refusal.param == field
