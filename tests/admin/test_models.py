"""The catalog for operators over HTTP: refresh, status, and routes to own upstreams."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, strategies
from pydantic import ValidationError

from admin.api_client import PRICING, VARIABLE, ApiClient, admin_api, unique
from completions.paid import Watched, eventually
from gateway import BOTH_DOORS, CHAT, Upstream
from sandbox.serving import PATIENCE_SECONDS, a_chat
from tollgate.admin.schemas.pricing import PriceOverride, RoutePrices, RoutePricing
from tollgate.catalog import rules
from tollgate.catalog.cache import Catalog
from tollgate.catalog.rules import CatalogState
from tollgate.catalog.source import Source
from tollgate.core import models, prices
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.database import Door
from tollgate.process import clock
from tollgate.process.http_client import Http
from tollgate.upstreams import health_checks
from upstreams.scripted import Line, Scripted, answer

PATH = "/admin/models/registry"
REFRESH = "/admin/refresh-models"
STATUS = "/admin/cache-status"
VISIBLE = {"here": True, "elsewhere_within_seconds": 300}


@pytest.fixture
async def api(door: Door, sandbox: Upstream, person: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ApiClient]:
    monkeypatch.setattr(health_checks, "PROBE_SECONDS", PATIENCE_SECONDS)
    async with admin_api(door, sandbox, await person("admin")) as made:
        yield made


@pytest.fixture
def served(api: ApiClient, sandbox: Upstream) -> Callable[..., Any]:
    """Adds the sandbox as an upstream with a route for this model, and returns the route."""

    async def make(model: str, **change: Any) -> Any:
        upstream = await api.upstream(base_url=sandbox.url, dialect="openai", secret_name=VARIABLE)
        return await api.route(upstream["id"], model, upstream_model="sandbox/echo", **change)

    return make


def cost_nanos(usage: dict[str, int], prompt: int, completion: int) -> int:
    return usage["prompt_tokens"] * prompt + usage["completion_tokens"] * completion


class Lister:
    """An OpenRouter with these models. `flowing` delays its answers."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.url = ""
        self.status = 200
        self.lists = 0
        self.reached = asyncio.Event()
        self.flowing = asyncio.Event()
        self.flowing.set()

    async def __call__(self, line: Line) -> None:
        listed: list[Any] = []
        if line.target.startswith("/api/v1/models?"):
            self.lists += 1
            self.reached.set()
            await self.flowing.wait()
            listed = [{"id": name, "name": name, "pricing": PRICING} for name in self.names]
        await answer(json.dumps({"data": listed}).encode(), status=self.status)(line)


@pytest.fixture
async def lister() -> AsyncIterator[Lister]:
    made = Lister("a/b", "a/c")
    async with Scripted(made).listening() as there:
        made.url = there.url
        yield made


@pytest.fixture
async def office(door: Door, sandbox: Upstream, person: Any, lister: Lister) -> AsyncIterator[ApiClient]:
    """A client of an installation with that OpenRouter. Its address is new, so no snapshot of it exists."""
    async with admin_api(door, sandbox, await person("admin"), OPENROUTER_BASE_URL=lister.url) as made:
        yield made


async def test_a_route_is_made_by_the_url_of_its_server_and_deleted_by_the_name_it_serves(api: ApiClient) -> None:
    url, name = f"http://10.0.0.7:8000/{unique('v')}", unique("team/model")
    entry = {"served_name": name, "url": f"{url}/", "pricing": PRICING}
    error = await api.refused("POST", PATH, 404, json=entry)
    assert (error["kind"], error["id"]) == ("upstream", url)
    first = await api.upstream(base_url=url)
    made = await api.ask("POST", PATH, 201, json=entry)
    assert (made["model"], made["upstream_id"]) == (name, first["id"])
    assert made["upstream_name"] == first["name"]
    await api.refused("POST", PATH, 400, json=entry | {"upstream_id": first["id"]})
    await api.refused("POST", PATH, 400, json={"model": name, "pricing": PRICING})

    other = await api.route((await api.upstream())["id"], name)
    error = await api.refused("DELETE", f"{PATH}/{name}", 409)
    assert error["route_ids"] == sorted([made["id"], other["id"]])
    await api.ask("DELETE", f"{PATH}/{other['id']}")
    assert (await api.ask("DELETE", f"{PATH}/{name}"))["id"] == made["id"]
    error = await api.refused("DELETE", f"{PATH}/{name}", 404)
    assert (error["kind"], error["id"]) == ("route", name)


async def test_a_route_serves_is_paid_by_its_price_and_is_gone_when_it_is_deleted(
    api: ApiClient, served: Any, customer: Any, shared_database: str, sql: Any
) -> None:
    model = unique("ours/echo")
    someone = await customer()
    client = api.of(someone)
    assert (await client.refused("POST", CHAT, 404, json=a_chat(model=model)))["code"] == "model_not_found"
    route = await served(model)
    assert (route["created"], route["visible"]) == (True, VISIBLE)
    usage = (await client.ask("POST", CHAT, json=a_chat(model=model)))["usage"]
    balance = "select balance_nanos from tollgate.orgs where id = $1"
    spent = NANOS_PER_CREDIT - await sql(shared_database, balance, someone.org_id)
    assert spent == cost_nanos(usage, 1000, 2000) > 0
    gone = await api.ask("DELETE", f"{PATH}/{route['id']}")
    assert gone == {"id": route["id"], "visible": VISIBLE}
    assert (await client.refused("POST", CHAT, 404, json=a_chat(model=model)))["code"] == "model_not_found"
    await api.refused("DELETE", f"{PATH}/{route['id']}", 404)
    assert [action for action, _ in await api.events(route["id"])] == ["route.created", "route.deleted"]


async def test_a_new_price_is_charged_and_listed_at_once(
    api: ApiClient, served: Any, customer: Any, shared_database: str, sql: Any
) -> None:
    model = unique("ours/echo")
    route = await served(model)
    someone = await customer()
    client = api.of(someone)
    await client.ask("POST", CHAT, json=a_chat(model=model))
    assert (await client.ask("GET", f"/v1/models/{model}"))["pricing"] == PRICING
    dearer = {"prompt": "0.00001", "completion": "0.00002"}
    await api.route(route["upstream_id"], model, 200, pricing=dearer)
    assert (await client.ask("GET", f"/v1/models/{model}"))["pricing"] == dearer
    usage = (await client.ask("POST", CHAT, json=a_chat("another one", model=model)))["usage"]
    last = "select charge_nanos from tollgate.requests where org_id = $1 order by created_at desc limit 1"
    assert await sql(shared_database, last, someone.org_id) == cost_nanos(usage, 10_000, 20_000)


@BOTH_DOORS
async def test_a_route_is_shown_whole(api: ApiClient) -> None:
    upstream = await api.upstream()
    model = unique("ours/model")
    made = await api.route(
        upstream["id"],
        model,
        context_tokens=8192,
        most_output=1024,
        priority=7,
        weight=3,
        listing={"name": "Ours", "supported_parameters": ["max_tokens"]},
    )
    created, visible = made.pop("created"), made.pop("visible")
    assert (created, visible) == (True, VISIBLE)
    assert {field: made[field] for field in made if not field.endswith("_at")} == {
        "id": made["id"],
        "model": model,
        "upstream_id": upstream["id"],
        "upstream_name": upstream["name"],
        "upstream_model": model,
        "pricing": PRICING,
        "context_tokens": 8192,
        "most_output": 1024,
        "priority": 7,
        "weight": 3,
        "listing": {"name": "Ours", "supported_parameters": ["max_tokens"]},
        "deprecated_on": None,
        "retires_on": None,
        "replacement": None,
        "state": "active",
    }
    assert await api.ask("GET", f"{PATH}/{made['id']}") == made
    assert (await api.ask("GET", PATH, params={"model": model}))["data"] == [made]
    assert (await api.ask("GET", f"/admin/upstreams/{upstream['id']}"))["routes"] == 1


async def test_the_same_again_changes_and_records_nothing(api: ApiClient) -> None:
    upstream, model = await api.upstream(), unique("ours/model")
    first = await api.route(upstream["id"], model, weight=3)
    again = await api.route(upstream["id"], model, 200, weight=3)
    assert again == first | {"created": False}
    changed = await api.ask("POST", PATH, 200, json={"model": model, "upstream_id": upstream["id"], "priority": 9})
    assert changed == again | {"priority": 9, "updated_at": changed["updated_at"]}
    assert [action for action, _ in await api.events(first["id"])] == ["route.created", "route.changed"]


async def test_the_same_at_once_is_made_once(api: ApiClient) -> None:
    upstream, model = await api.upstream(), unique("ours/model")
    body = {"model": model, "upstream_id": upstream["id"], "pricing": PRICING}
    headers = {"authorization": f"Bearer {api.someone.secret}"}
    answers = await asyncio.gather(*(api.http.post(PATH, json=body, headers=headers) for _ in range(5)))
    assert sorted(one.status_code for one in answers) == [200, 200, 200, 200, 201]
    assert len({one.json()["id"] for one in answers}) == 1


NONSENSE: list[tuple[dict[str, Any], str]] = [
    ({"pricing": None}, "pricing"),
    ({"pricing": {}}, "pricing.prompt"),
    ({"pricing": {"prompt": "0"}}, "pricing.completion"),
    ({"pricing": PRICING | {"prompt": 0.5}}, "pricing.prompt"),
    ({"pricing": PRICING | {"prompt": 1}}, "pricing.prompt"),
    ({"pricing": PRICING | {"prompt": "-1"}}, "pricing.prompt"),
    ({"pricing": PRICING | {"prompt": "NaN"}}, "pricing.prompt"),
    ({"pricing": PRICING | {"prompt": "1e-6"}}, "pricing.prompt"),
    ({"pricing": PRICING | {"promt": "1"}}, "pricing.promt"),
    ({"pricing": PRICING | {"overrides": [{"prompt": "1"}]}}, "pricing.overrides.0.min_prompt_tokens"),
    ({"pricing": PRICING | {"overrides": [{"min_prompt_tokens": 1.5}]}}, "pricing.overrides.0.min_prompt_tokens"),
    ({"pricing": PRICING | {"image": None}}, "pricing"),
    ({"model": "a/b/c"}, "model"),
    ({"model": "a b"}, "model"),
    ({"model": ""}, "model"),
    ({"model": "a\x00b"}, "model"),
    ({"upstream_model": None}, "upstream_model"),
    ({"context_tokens": 0}, "context_tokens"),
    ({"most_output": -1}, "most_output"),
    ({"priority": 1001}, "priority"),
    ({"weight": 0}, "weight"),
    ({"listing": {"pricing": PRICING}}, "listing.pricing"),
    ({"listing": {"description": "a\x00b"}}, "listing.description"),
    ({"state": "asleep"}, "state"),
]
STRANGE = ("id", "role", "balance", "is_admin", "org_id", "cost", "created_at", "price")


async def test_what_makes_no_sense_is_refused_by_name_and_writes_nothing(
    api: ApiClient, shared_database: str, sql: Any
) -> None:
    upstream, model = await api.upstream(), unique("ours/model")
    right = {"model": model, "upstream_id": upstream["id"], "pricing": PRICING}
    for change, param in [*NONSENSE, *(({name: 1}, name) for name in STRANGE)]:
        error = await api.refused("POST", PATH, 400, json={**right, **change})
        assert error["param"] == param, change
    count = "select count(*) from tollgate.routes where upstream_id = $1"
    assert await sql(shared_database, count, upstream["id"]) == 0


async def test_a_route_needs_a_server_and_an_id_that_is_none_is_not_found(api: ApiClient) -> None:
    body = {"model": unique("ours/model"), "upstream_id": "ups_0000", "pricing": PRICING}
    error = await api.refused("POST", PATH, 404, json=body)
    assert (error["kind"], error["id"]) == ("upstream", "ups_0000")
    for method in ("GET", "DELETE"):
        for name in ("rte_0000", "nonsense", "ups_1"):
            error = await api.refused(method, f"{PATH}/{name}", 404)
            assert (error["kind"], error["id"]) == ("route", name)


async def test_pages_are_the_whole_list_in_order(api: ApiClient) -> None:
    one, other = await api.upstream(), await api.upstream()
    model = unique("ours/model")
    made = [await api.route(upstream["id"], name) for upstream in (one, other) for name in (f"{model}-2", model)]
    for sort in ("model:asc", "model:desc", "created_at:asc", "created_at:desc"):
        field, _, direction = sort.partition(":")
        (whole,) = await api.pages(PATH, sort=sort, limit=1000)
        assert whole == sorted(whole, key=lambda route: (route[field], route["id"]), reverse=direction == "desc")
        twins = [route for route in whole if route["model"] == model]
        assert [page[0] for page in await api.pages(PATH, sort=sort, model=model, limit=1)] == twins
        assert [route for page in await api.pages(PATH, sort=sort, limit=3) for route in page] == whole
    (of_one,) = await api.pages(PATH, upstream_id=one["id"])
    assert [route["id"] for route in of_one] == [made[1]["id"], made[0]["id"]]
    assert (await api.ask("GET", PATH, params={"model": model, "limit": 1}))["total"] == 2
    await api.route(one["id"], model, 200, state="disabled")
    (disabled,) = await api.pages(PATH, upstream_id=one["id"], state="disabled")
    assert [route["model"] for route in disabled] == [model]


async def test_a_filter_that_makes_no_sense_is_refused_by_name(api: ApiClient) -> None:
    for query, param in (
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"sort": "pricing"}, "sort"),
        ({"state": "asleep"}, "state"),
        ({"cursor": "rte_unknown"}, "cursor"),
        ({"org_id": "org_1"}, "org_id"),
    ):
        assert (await api.refused("GET", PATH, 400, params=query))["param"] == param


async def test_a_member_is_refused_everywhere_and_nobody_is_asked(
    office: ApiClient, lister: Lister, person: Any
) -> None:
    upstream = await office.upstream()
    route = await office.route(upstream["id"], unique("ours/model"))
    member = office.of(await person())
    for method, path, body in (
        ("GET", PATH, None),
        ("POST", PATH, {"model": route["model"], "upstream_id": upstream["id"], "weight": 9}),
        ("GET", f"{PATH}/{route['id']}", None),
        ("DELETE", f"{PATH}/{route['id']}", None),
        ("POST", REFRESH, None),
        ("GET", STATUS, None),
    ):
        assert (await member.refused(method, path, 403, json=body))["scope"] == "admin"
    assert (await office.ask("GET", f"{PATH}/{route['id']}"))["weight"] == 1
    assert lister.lists == 0


@BOTH_DOORS
async def test_the_list_is_fetched_now_and_kept_for_all(
    office: ApiClient, lister: Lister, door: Door, sandbox: Upstream
) -> None:
    first = await office.ask("POST", REFRESH)
    assert (first["status"], first["changed"], first["shared"]["models"]) == ("refreshed", True, 2)
    assert first["took_ms"] >= 0
    again = await office.ask("POST", REFRESH)
    assert (again["changed"], lister.lists) == (False, 2)
    lister.names.append("a/new")
    assert (await office.ask("POST", REFRESH))["changed"] is True
    await office.ask("GET", "/v1/models/a/new")
    async with admin_api(door, sandbox, office.someone, OPENROUTER_BASE_URL=lister.url) as elsewhere:
        await elsewhere.ask("GET", "/v1/models/a/new")
    assert lister.lists == 3
    details = [details for action, details in await office.events(lister.url) if action == "catalog.refreshed"]
    assert details == [{"models": models, "changed": new} for models, new in ((2, True), (2, False), (3, True))]


async def test_where_no_list_can_be_had_the_old_one_stays(office: ApiClient, lister: Lister) -> None:
    await office.ask("POST", REFRESH)
    lister.status = 500
    error = await office.refused("POST", REFRESH, 503)
    assert (error["code"], error["cause"]) == ("catalog_unavailable", "HTTP 500")
    assert error["models"] >= 2
    await office.ask("GET", "/v1/models/a/b")
    now = (await office.ask("GET", STATUS))["live"]
    assert (now["instance"]["failures"], now["instance"]["last_error"]) == (1, "HTTP 500")
    assert (now["instance"]["health"], now["shared"]["models"]) == ("healthy", 2)
    lister.status = 200
    await office.ask("POST", REFRESH)
    assert (await office.ask("GET", STATUS))["live"]["instance"]["last_error"] is None


async def test_many_who_refresh_at_once_fetch_twice_at_most(
    door: Door, sandbox: Upstream, person: Any, lister: Lister
) -> None:
    """A refresh that was already running may miss the change; one more serves all callers."""
    came = 0

    def counted(function: str) -> bool:
        nonlocal came
        came += function == "snapshot"
        return False

    watched = Watched(door)
    watched.loses = counted
    async with admin_api(watched, sandbox, await person("admin"), OPENROUTER_BASE_URL=lister.url) as office:
        lister.flowing.clear()
        asked = [asyncio.create_task(office.ask("POST", REFRESH)) for _ in range(6)]
        await lister.reached.wait()
        await eventually(lambda: came == 6)
        lister.flowing.set()
        assert [one["status"] for one in await asyncio.gather(*asked)] == ["refreshed"] * 6
    assert lister.lists <= 2


async def test_the_state_of_both_catalogues_is_told(office: ApiClient, lister: Lister) -> None:
    cold = await office.ask("GET", STATUS)
    assert (cold["ttl_seconds"], cold["oldest_seconds"]) == (300, 86_400)
    assert (cold["live"]["shared"], cold["test"]["shared"]) == (None, None)
    nothing = {"models": 0, "hits": 0, "misses": 0, "refreshes": 0, "failures": 0, "skipped": 0}
    unknown = {"health": "cold", "age_seconds": None, "hit_rate": None, "last_error": None}
    assert cold["live"]["instance"] == cold["test"]["instance"] == nothing | unknown
    await office.ask("POST", REFRESH)
    for _ in range(3):
        await office.ask("GET", "/v1/models/a/b")
    warm = (await office.ask("GET", STATUS))["live"]
    assert (warm["instance"]["hits"], warm["instance"]["hit_rate"], warm["instance"]["refreshes"]) == (3, 1.0, 1)
    assert warm["instance"]["health"] == warm["shared"]["health"] == "healthy"
    assert warm["shared"]["age_seconds"] in range(60)
    assert warm["shared"]["taken_at"].endswith("Z")


async def test_without_a_sandbox_there_is_no_second_catalogue(door: Door, sandbox: Upstream, person: Any) -> None:
    async with admin_api(door, sandbox, await person("admin"), SANDBOX_BASE_URL="") as api:
        assert (await api.ask("GET", STATUS))["test"] is None


async def test_a_list_that_was_being_fetched_does_not_bring_old_routes_back(
    office: ApiClient, lister: Lister, person: Any
) -> None:
    upstream, model = await office.upstream(), unique("ours/model")
    old = await office.route(upstream["id"], unique("ours/old"))
    lister.flowing.clear()
    asking = asyncio.create_task(office.ask("GET", "/v1/models"))
    await lister.reached.wait()
    await office.route(upstream["id"], model)
    await office.ask("DELETE", f"{PATH}/{old['id']}")
    lister.flowing.set()
    await asking
    names = [one["id"] for one in (await office.ask("GET", "/v1/models"))["data"]]
    assert model in names
    assert old["model"] not in names


class LateDoor:
    """A database whose answers are delayed; each has the version of when it was asked."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[None]] = []
        self.came = asyncio.Event()

    async def call(self, function: str, **arguments: Any) -> Any:
        place = len(self.asked)
        self.asked.append(asyncio.get_running_loop().create_future())
        self.came.set()
        await self.asked[place]
        upstream = {"id": "ups_1", "dialect": "vllm", "base_url": "http://gpu/v1", "secret_name": None}
        seconds = dict.fromkeys(("connect_seconds", "first_byte_seconds", "idle_seconds"), 5)
        route = {"model": "ours", "upstream_id": "ups_1", "upstream_model": f"version-{place}", "pricing": PRICING}
        rest = {"context_tokens": None, "most_output": None, "priority": 50, "weight": 1, "created": 0, "listing": {}}
        return {
            "age_seconds": None,
            "models": None,
            "routes": [route | rest],
            "upstreams": [upstream | seconds | {"concurrency": None, "health_path": None, "takes_org_keys": False}],
            "aliases": [],
        }

    async def close(self) -> None: ...


async def test_an_older_answer_of_the_database_never_replaces_a_newer_one(lister: Lister) -> None:
    door, http = LateDoor(), Http()
    home = models.Upstream("openrouter", "openrouter", lister.url, trusted=True)
    catalog = Catalog(home, Source(http, lister.url, None), door, clock=lambda: 1000.0, now=clock.now)
    readings = []
    for _ in range(3):
        readings.append(asyncio.create_task(catalog.reread()))
        await door.came.wait()
        door.came.clear()
    for late in (2, 0, 1):
        door.asked[late].set_result(None)
        assert await readings[late] is True
    assert [one.route.model for one in catalog._hosted or ()] == ["version-2"]
    await http.close()


@BOTH_DOORS
async def test_a_cold_instance_forgets_what_it_read_of_one_model(office: ApiClient, lister: Lister) -> None:
    """While it has no whole list, it keeps models that it read one by one."""
    await office.ask("POST", REFRESH)
    upstream, model = await office.upstream(), unique("ours/model")
    route = await office.route(upstream["id"], model)
    assert (await office.ask("GET", f"/v1/models/{model}"))["pricing"] == PRICING
    await office.ask("DELETE", f"{PATH}/{route['id']}")
    await office.refused("GET", f"/v1/models/{model}", 404)


def test_every_part_of_a_price_can_be_written() -> None:
    every = {*prices.COMPONENTS, *prices.UNITS}
    assert set(RoutePrices.model_fields) == every
    assert set(RoutePricing.model_fields) == {*every, "overrides"}
    assert set(PriceOverride.model_fields) == {*every, "min_prompt_tokens"}


@given(strategies.decimals(0, 999_999, places=30) | strategies.decimals(0, 999_999, places=2))
def test_a_price_is_read_exactly_as_it_was_written(amount: Decimal) -> None:
    written = f"{abs(amount):f}"
    pricing = RoutePricing(prompt=written, completion="0").changes()
    assert pricing["prompt"] == written
    assert prices.read(pricing).prompt == prices.nanos(written)


@given(strategies.floats() | strategies.integers() | strategies.text().filter(lambda text: not text.strip().isdigit()))
def test_what_is_no_plain_amount_is_no_price(amount: object) -> None:
    if isinstance(amount, str):
        whole, _, places = amount.strip().partition(".")
        if whole.isascii() and whole.isdigit() and places.isascii() and places.isdigit():
            return
    with pytest.raises(ValidationError):
        RoutePricing.model_validate({"prompt": amount, "completion": "0"})


@pytest.mark.parametrize(
    ("age", "error", "health"),
    [
        (None, None, "cold"),
        (None, "HTTP 500", "down"),
        (10.0, None, "healthy"),
        (10.0, "HTTP 500", "healthy"),
        (300.0, None, "stale"),
        (86_400.0, "HTTP 500", "down"),
    ],
)
def test_health_is_what_can_be_served(age: float | None, error: str | None, health: str) -> None:
    fresh = age is not None and age < 300
    state = CatalogState(2, age, fresh, hits=3, misses=1, refreshes=1, failures=0, skipped=0, last_error=error)
    assert rules.health_of_instance(state) == health
    assert rules.seconds_not_refreshed(state) == (age if error and not fresh else None)
    assert rules.hit_rate(state) == 0.75
    assert rules.health_of_snapshot(age) == ("cold" if health == "down" else health)


async def listed(api: ApiClient, **query: Any) -> list[Any]:
    return [entry for page in await api.pages("/admin/catalog", **query) for entry in page]


@BOTH_DOORS
async def test_models_are_listed_with_the_price_before_and_with_a_markup(
    api: ApiClient, served: Callable[..., Any], person: Any, customer: Any
) -> None:
    model, someone = unique("ours/model"), await person()
    await api.ask("PATCH", f"/admin/orgs/{someone.org_id}", json={"markup": 0.1})
    route = await served(model, pricing={"prompt": "0.000001", "completion": "0.000002"}, weight=3, priority=7)
    (found,) = await listed(api, q=model.upper(), for_org=someone.org_id)
    assert (found["pricing"]["prompt"], found["charged_pricing"]["prompt"]) == ("0.000001", "0.0000011")
    (shown,) = found["routes"]
    expected = {
        "upstream_id": route["upstream_id"], "upstream_name": "gpu", "upstream_model": "sandbox/echo", "weight": 3,
        "priority": 7, "pricing": {"prompt": "0.000001", "completion": "0.000002"}, "health": None, "breaker": None,
    }  # fmt: skip
    assert expected.items() <= shown.items()
    await api.ask("POST", "/admin/upstreams/refresh-health", json={"ids": [route["upstream_id"]]})
    await api.of(await customer()).ask("POST", CHAT, content=json.dumps(a_chat("hello", model)))
    (plain,) = await listed(api, q=model)
    assert plain["charged_pricing"] == plain["pricing"]
    assert (plain["routes"][0]["health"], plain["routes"][0]["breaker"]) == ("up", "closed")
    await api.refused("GET", "/admin/catalog", 404, params={"for_org": "org_of_nobody"})
    await api.refused("GET", "/admin/catalog", 404, params={"for_plan": "none"})
    assert await api.ask("GET", f"/admin/catalog/{model}", params={"for_org": someone.org_id}) == {
        **plain, "charged_pricing": found["charged_pricing"],
    }  # fmt: skip
    assert (await api.refused("GET", "/admin/catalog/ours/none", 404))["kind"] == "model"
    for path in ("/admin/catalog", f"/admin/catalog/{model}"):
        await api.of(someone).refused("GET", path, 403)


async def test_models_come_in_order_page_by_page(api: ApiClient) -> None:
    whole = await listed(api)
    ids = [one["id"] for one in whole]
    assert ids == sorted(ids)
    assert len(ids) > 5
    assert await listed(api, limit=3) == whole
    assert await listed(api, sort="id:desc", limit=4) == whole[::-1]
    costs = [Decimal(one["pricing"].get("prompt", -1)) for one in await listed(api, sort="prompt:desc")]
    assert costs == sorted(costs, reverse=True)
    lengths = [one["context_length"] or 0 for one in await listed(api, sort="context_length:asc")]
    assert lengths == sorted(lengths)
    assert (await api.refused("GET", "/admin/catalog", 400, params={"cursor": "nothing"}))["param"] == "cursor"


async def test_an_alias_is_managed_and_its_cycle_refused(office: ApiClient) -> None:
    path, name, other = "/admin/models/aliases", unique("ours/alias"), unique("other")
    body = {"name": name, "targets": [{"model": "a/b"}, {"model": "a/c", "weight": 3}]}
    made = await office.ask("POST", path, 201, json=body)
    assert [target["weight"] for target in made["targets"]] == [1, 3]
    assert (made["created"], made["not_served"], made["visible"]) == (True, [], VISIBLE)  # the list is not known here
    changed = await office.ask("POST", path, 200, json={"name": name, "retires_on": "2030-12-31"})
    assert (changed["created"], changed["targets"], changed["retires_on"]) == (False, made["targets"], "2030-12-31")
    refusal = await office.refused("POST", path, 409, json={"name": other, "targets": [{"model": name}]})
    assert (refusal["code"], refusal["reason"]) == ("conflict", "alias_of_alias")
    assert (await office.refused("POST", path, 400, json={"name": other}))["param"] == "targets"
    for wrong in (1767225600, "2026-02-30", "2030-01-31T00:00:00Z", "1999-12-31"):
        assert (await office.refused("POST", path, 400, json=body | {"retires_on": wrong}))["param"] == "retires_on"
    assert (await office.refused("POST", path, 400, json={"name": other, "targets": []}))["param"] == "targets"
    shown = {field: value for field, value in changed.items() if field not in ("created", "not_served", "visible")}
    assert await office.ask("GET", f"{path}/{name}") == shown
    assert (await office.ask("GET", path, params={"model": "a/c"}))["data"] == [shown]
    assert (await office.ask("DELETE", f"{path}/{name}"))["name"] == name
    await office.refused("DELETE", f"{path}/{name}", 404)
