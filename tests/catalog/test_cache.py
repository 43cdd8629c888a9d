"""The catalog cache with its snapshot and source: which is asked when, and what is served while none answers."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import respx

from people import refused
from tollgate.catalog import store
from tollgate.catalog.cache import Catalog
from tollgate.catalog.source import Source
from tollgate.core.errors import CatalogUnavailable, DatabaseUnavailable, ModelNotFound
from tollgate.core.models import Model, Upstream
from tollgate.database import Door, Json
from tollgate.keys.authentication import console
from tollgate.process.http_client import Http
from tollgate.upstreams import store as upstreams

DAY = 86_400.0
HOUR = 3600.0
FRESH = 300.0


class Watched:
    """A door that records calls, and can fail."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self.down = False
        self.calls: list[tuple[str, Any]] = []

    async def call(self, function: str, **arguments: Json) -> Json:
        self.calls.append((function.removeprefix("tollgate_"), arguments.get("names")))
        if self.down:
            raise DatabaseUnavailable
        return await self._door.call(function, **arguments)

    async def close(self) -> None:
        """Does nothing: the test closes the door."""


class OpenRouter:
    """An OpenRouter whose list can change, fail and be delayed."""

    def __init__(self) -> None:
        self.base_url = f"https://{secrets.token_hex(8)}.example/api/v1"
        self.prices = {"a/b": "0.000001", "a/c": "0.000002"}
        self.status = 200
        self.calls = 0
        self.reached = asyncio.Event()
        self.flowing = asyncio.Event()
        self.flowing.set()

    async def models(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        self.reached.set()
        await self.flowing.wait()
        listed = [
            {"id": name, "canonical_slug": f"{name}-2025", "pricing": {"prompt": price, "completion": "0"}}
            for name, price in self.prices.items()
        ]
        return httpx.Response(self.status, json={"data": listed})


class World:
    def __init__(self, door: Door, network: respx.MockRouter) -> None:
        self.door = Watched(door)
        self.network = network
        self.openrouter = OpenRouter()
        self.http = Http()
        self.seconds = 1000.0
        self.today = datetime(2026, 11, 21, tzinfo=UTC)
        self.catalogs: list[Catalog] = []

    def serve(self) -> None:
        """Serves the list."""
        self.network.get(f"{self.openrouter.base_url}/models").mock(side_effect=self.openrouter.models)
        self.network.get(f"{self.openrouter.base_url}/embeddings/models").respond(404)

    def instance(self, *, database: bool = True) -> Catalog:
        """Another instance."""
        home = Upstream("openrouter", "openrouter", self.openrouter.base_url)
        source = Source(self.http, self.openrouter.base_url, "secret")
        door = self.door if database else None
        made = Catalog(home, source, door, clock=lambda: self.seconds, now=lambda: self.today)
        self.catalogs.append(made)
        return made

    async def host(self, model: str) -> str:
        operator = console(self.door, "tests")
        server = {"name": "GPU", "base_url": "http://10.0.0.1/v1", "dialect": "vllm"}
        upstream = await upstreams.make(operator, server)
        pricing = {"prompt": "0.000007", "completion": "0"}
        await store.put_route(operator, {"model": model, "upstream_id": upstream["id"], "pricing": pricing})
        self.door.calls.clear()
        return str(upstream["id"])

    async def keep(self, age_seconds: float, **listings: str) -> None:
        """Stores the list as another instance would have, this long ago."""
        models = [
            {"id": f"a/{name}", "also": None, "listing": f'{{"id":"a/{name}","pricing":{{"prompt":"{price}"}}}}'}
            for name, price in listings.items()
        ]
        await store.keep(self.door, self.openrouter.base_url, models, int(age_seconds * 1000))
        self.door.calls.clear()

    def asked(self, function: str) -> list[Any]:
        return [names for called, names in self.door.calls if called == function]


@pytest.fixture
async def world(door: Door) -> AsyncIterator[World]:
    with respx.mock(assert_all_called=False) as network:
        network.route(host="127.0.0.1").pass_through()
        made = World(door, network)
        made.serve()
        yield made
        made.openrouter.flowing.set()
        for catalog in made.catalogs:
            await catalog.close()
        await made.http.close()


def price(model: Model) -> int:
    found = model.routes[-1].price
    assert found is not None
    return int(found.prompt)


async def settled(catalog: Catalog) -> None:
    """Waits until no background task runs."""
    while running := [task for task in (catalog._loading, *catalog._asking.values()) if task is not None]:
        await asyncio.wait(running)
        await asyncio.sleep(0)


def at_once(catalog: Catalog, name: str) -> Model:
    """Finds the model without awaiting anything."""
    finding = catalog.find(name)
    try:
        finding.send(None)
    except StopIteration as found:
        model: Model = found.value
        return model
    finding.close()
    raise AssertionError("it waited")


async def test_what_is_fresh_in_memory_is_found_at_once_and_asks_nobody(world: World) -> None:
    catalog = world.instance()
    assert price(await catalog.find("a/b")) == 1000
    await settled(catalog)
    world.door.calls.clear()
    world.seconds += FRESH - 1
    for name in ("a/b", "a/c", "a/b-2025", "a/b:nitro"):
        at_once(catalog, name)
    assert (world.door.calls, world.openrouter.calls) == ([], 1)


async def test_a_cold_instance_reads_one_row_and_calls_no_upstream(world: World) -> None:
    await world.instance().find("a/b")
    cold = world.instance()
    world.door.calls.clear()
    assert price(await cold.find("a/c")) == 2000
    assert world.door.calls == [("catalog", ["a/c"])]
    await settled(cold)
    assert world.door.calls == [("catalog", ["a/c"]), ("catalog", None)]
    assert world.openrouter.calls == 1
    at_once(cold, "a/b")


@pytest.mark.parametrize("name", ["a/b:nitro", "a/b-2025", "a/b-2025:floor:online"])
async def test_a_cold_instance_knows_every_spelling(world: World, name: str) -> None:
    await world.instance().find("a/b")
    model = await world.instance().find(name)
    assert (price(model), model.routes[0].model) == (1000, name)
    assert world.openrouter.calls == 1


async def test_a_cold_instance_that_never_gets_to_its_background_answers_all_the_same(world: World) -> None:
    await world.instance().find("a/b")
    frozen = world.instance()
    assert price(await frozen.find("a/b")) == 1000
    await frozen.close()
    world.door.calls.clear()
    assert price(at_once(frozen, "a/b")) == 1000
    assert price(await frozen.find("a/c")) == 2000
    assert [names for names in world.asked("catalog") if names is not None] == [["a/c"]]
    assert world.openrouter.calls == 1


async def test_what_a_fresh_snapshot_does_not_have_is_not_there(world: World) -> None:
    await world.instance().find("a/b")
    world.door.calls.clear()
    error = await refused(world.instance().find("a/new"))
    assert isinstance(error, ModelNotFound)
    assert world.door.calls == [("catalog", ["a/new"])]
    assert world.openrouter.calls == 1


async def test_what_an_old_snapshot_does_not_have_is_looked_for_upstream(world: World) -> None:
    await world.keep(HOUR, b="0.000009")
    assert price(await world.instance().find("a/c")) == 2000
    assert world.openrouter.calls == 1


async def test_an_old_snapshot_serves_at_once_and_is_renewed_behind(world: World) -> None:
    await world.keep(HOUR, b="0.000009")
    world.openrouter.flowing.clear()
    catalog = world.instance()
    assert price(await catalog.find("a/b")) == 9000
    world.openrouter.flowing.set()
    await settled(catalog)
    assert price(at_once(catalog, "a/b")) == 1000
    assert price(await world.instance().find("a/b")) == 1000
    assert world.openrouter.calls == 1


async def test_a_snapshot_older_than_a_day_is_none(world: World) -> None:
    await world.keep(DAY + 1, b="0.000009")
    assert price(await world.instance().find("a/b")) == 1000
    world.openrouter.status = 500
    await world.keep(-1, b="0.000009")
    cold = world.instance()
    assert price(await cold.find("a/b")) == 9000


async def test_a_hundred_at_once_make_one_call(world: World) -> None:
    await world.keep(HOUR, b="0.000009")
    world.openrouter.flowing.clear()
    catalog = world.instance()
    models = await asyncio.gather(*(catalog.find("a/b") for _ in range(100)))
    assert {price(model) for model in models} == {9000}
    assert world.asked("catalog")[0] == ["a/b"]
    assert len(world.asked("catalog")) <= 2


async def test_a_hundred_at_once_without_a_snapshot_make_one_fetch(world: World) -> None:
    catalog = world.instance()
    names = ["a/b", "a/c", "a/b:nitro", "a/gone"] * 25
    found = await asyncio.gather(*(catalog.find(name) for name in names), return_exceptions=True)
    assert [type(one).__name__ for one in found] == ["Model", "Model", "Model", "ModelNotFound"] * 25
    assert world.openrouter.calls == 1
    assert len(world.asked("catalog")) == 5
    assert len(world.asked("keep_catalog")) == 1


async def test_who_leaves_takes_nobody_along(world: World) -> None:
    world.openrouter.flowing.clear()
    catalog = world.instance()
    leaving, staying = (asyncio.create_task(catalog.find("a/b")) for _ in range(2))
    await world.openrouter.reached.wait()
    leaving.cancel()
    await asyncio.wait([leaving])
    world.openrouter.flowing.set()
    assert price(await staying) == 1000
    assert world.openrouter.calls == 1


async def test_after_five_minutes_the_old_is_served_while_the_new_is_fetched(world: World) -> None:
    catalog = world.instance()
    await catalog.find("a/b")
    await settled(catalog)
    world.openrouter.prices["a/b"] = "0.000005"
    world.seconds += FRESH
    await world.keep(FRESH + 1, b="0")  # refused: what is there is newer by the database's clock
    world.door.down = True
    assert price(at_once(catalog, "a/b")) == 1000
    assert price(at_once(catalog, "a/b")) == 1000
    await settled(catalog)
    assert price(at_once(catalog, "a/b")) == 5000
    assert world.openrouter.calls == 2


async def test_a_model_of_today_is_waited_for_when_memory_is_old(world: World) -> None:
    catalog = world.instance(database=False)
    await catalog.find("a/b")
    world.openrouter.prices["a/new"] = "0.000003"
    assert isinstance(await refused(catalog.find("a/new")), ModelNotFound)
    world.seconds += FRESH
    assert price(await catalog.find("a/new")) == 3000
    assert world.openrouter.calls == 2


async def test_an_instance_takes_what_another_fetched(world: World) -> None:
    one, other = world.instance(), world.instance()
    await one.find("a/b")
    await other.models()
    assert world.openrouter.calls == 1
    world.openrouter.prices["a/b"] = "0.000005"
    await one.refresh()
    world.seconds += FRESH
    other_models = await other.models()
    await settled(other)
    assert world.openrouter.calls == 2
    assert price(other_models[0]) == 1000
    assert price(at_once(other, "a/b")) == 5000


async def test_the_age_of_what_another_fetched_counts(world: World) -> None:
    await world.keep(200, b="0.000009")
    catalog = world.instance()
    await catalog.models()
    assert 200 <= (catalog.state().age_seconds or 0) < 260
    world.seconds += 101
    world.openrouter.flowing.clear()
    at_once(catalog, "a/b")
    assert catalog._loading is not None


async def test_a_source_that_fails_is_asked_less_and_less_often(world: World) -> None:
    catalog = world.instance(database=False)
    await catalog.find("a/b")
    world.openrouter.status = 500
    world.seconds += FRESH
    begun = world.seconds
    asked = []
    for _ in range(300):
        calls = world.openrouter.calls
        assert price(at_once(catalog, "a/b")) == 1000
        await settled(catalog)
        if world.openrouter.calls > calls:
            asked.append(world.seconds - begun)
        world.seconds += 1
    assert asked == [0, 5, 15, 35, 75, 135, 195, 255]
    assert catalog.state().failures == len(asked)
    assert catalog.state().last_error == "HTTP 500"
    world.openrouter.status = 200
    world.seconds += 60
    at_once(catalog, "a/b")
    await settled(catalog)
    assert catalog.state().fresh
    assert catalog.state().last_error is None


async def test_what_is_older_than_a_day_is_not_served(world: World) -> None:
    catalog = world.instance(database=False)
    await catalog.find("a/b")
    world.openrouter.status = 500
    world.seconds += DAY - 1
    at_once(catalog, "a/b")
    await settled(catalog)
    world.seconds += 61
    for _ in range(3):
        assert isinstance(await refused(catalog.find("a/b")), CatalogUnavailable)
        assert isinstance(await refused(catalog.models()), CatalogUnavailable)
    assert world.openrouter.calls == 3
    assert not catalog.state().fresh
    world.openrouter.status = 200
    world.seconds += 60
    assert price(await catalog.find("a/b")) == 1000


async def test_nothing_at_all_is_unavailable_and_nobody_is_hammered(world: World) -> None:
    world.openrouter.status = 500
    catalog = world.instance()
    found = await asyncio.gather(*(catalog.find("a/b") for _ in range(50)), return_exceptions=True)
    assert {type(one) for one in found} == {CatalogUnavailable}
    assert isinstance(await refused(catalog.find("a/b")), CatalogUnavailable)
    assert world.openrouter.calls == 1
    world.openrouter.status = 200
    world.seconds += 5
    assert price(await catalog.find("a/b")) == 1000


async def test_a_source_that_fails_a_cold_instance_leaves_the_snapshot_of_today(world: World) -> None:
    world.openrouter.status = 500
    await world.keep(HOUR, b="0.000009", c="0.000008")
    catalog = world.instance()
    assert len(await catalog.models()) == 2
    assert price(at_once(catalog, "a/c")) == 8000
    assert HOUR <= (catalog.state().age_seconds or 0) < HOUR + 60
    assert not catalog.state().fresh


async def test_an_instance_that_slept_for_days_takes_what_another_kept_today(world: World) -> None:
    world.door.down = True
    catalog = world.instance()
    await catalog.find("a/b")
    world.door.down, world.openrouter.status = False, 500
    await world.keep(HOUR, b="0.000009")
    world.seconds += 3 * DAY
    assert [price(model) for model in await catalog.models() if model.id == "a/b"] == [9000]
    assert HOUR <= (catalog.state().age_seconds or 0) < HOUR + 60


@pytest.mark.parametrize("broken", [{}, {"a b": "0", "c d": "0", "a/b": "0"}])
async def test_a_list_that_is_none_never_replaces_a_good_one(world: World, broken: dict[str, str]) -> None:
    catalog = world.instance()
    await catalog.find("a/b")
    world.openrouter.prices = broken
    assert isinstance(await refused(catalog.refresh()), CatalogUnavailable)
    assert price(at_once(catalog, "a/b")) == 1000
    assert price(await world.instance().find("a/b")) == 1000


async def test_without_the_database_the_source_is_enough(world: World) -> None:
    world.door.down = True
    catalog = world.instance()
    assert price(await catalog.find("a/b")) == 1000
    assert catalog.state().fresh
    assert isinstance(await refused(catalog.find("ours/unknown")), CatalogUnavailable)
    world.door.down = False
    world.seconds += 5
    await catalog.models()
    await settled(catalog)
    assert isinstance(await refused(catalog.find("ours/unknown")), ModelNotFound)


async def test_without_either_memory_serves_for_a_day(world: World) -> None:
    name = f"ours/{secrets.token_hex(8)}"
    await world.host(name)
    catalog = world.instance()
    await catalog.find("a/b")
    world.door.down, world.openrouter.status = True, 500
    for _ in range(5):
        world.seconds += 4 * HOUR
        assert price(at_once(catalog, "a/b")) == 1000
        assert price(at_once(catalog, name)) == 7000
        await settled(catalog)


async def test_routes_stay_as_they_were_while_only_the_database_is_away(world: World) -> None:
    name = f"ours/{secrets.token_hex(8)}"
    await world.host(name)
    catalog = world.instance()
    await catalog.find(name)
    await settled(catalog)
    world.door.down = True
    world.openrouter.prices["a/b"] = "0.000005"
    await catalog.refresh()
    assert price(at_once(catalog, name)) == 7000
    assert price(at_once(catalog, "a/b")) == 5000


async def test_a_model_of_ours_needs_no_openrouter(world: World) -> None:
    name = f"ours/{secrets.token_hex(8)}"
    upstream_id = await world.host(name)
    world.openrouter.status = 500
    catalog = world.instance()
    model = await catalog.find(name)
    assert [(route.upstream.id, route.model) for route in model.routes] == [(upstream_id, name)]
    assert isinstance(await refused(catalog.find("a/b")), CatalogUnavailable)
    assert catalog.state().age_seconds is None
    assert name in [model.id for model in await catalog.models()]


async def test_a_cold_instance_finds_a_model_of_ours_in_one_call(world: World) -> None:
    name = f"ours/{secrets.token_hex(8)}"
    await world.host(name)
    await world.instance().find("a/b")
    world.door.calls.clear()
    assert price(await world.instance().find(name)) == 7000
    assert world.asked("catalog") == [[name]]


async def test_a_model_that_both_serve_has_both_routes_warm_and_cold(world: World) -> None:
    name = f"ours/{secrets.token_hex(8)}"
    upstream_id = await world.host(name)
    world.openrouter.prices[name] = "0.000001"
    warm = world.instance()
    for catalog in (warm, world.instance()):
        model = await catalog.find(name)
        assert [route.upstream.id for route in model.routes] == [upstream_id, "openrouter"]


async def test_a_new_route_is_seen_after_a_refresh(world: World) -> None:
    name = f"ours/{secrets.token_hex(8)}"
    catalog = world.instance()
    await catalog.find("a/b")
    await world.host(name)
    assert isinstance(await refused(catalog.find(name)), ModelNotFound)
    await catalog.refresh()
    assert price(at_once(catalog, name)) == 7000


async def test_a_refresh_asks_openrouter_whatever_the_age(world: World) -> None:
    catalog = world.instance()
    await catalog.find("a/b")
    world.openrouter.prices["a/b"] = "0.000005"
    await asyncio.gather(*(catalog.refresh() for _ in range(20)))
    assert world.openrouter.calls == 3  # one, and one for those who came while it ran
    assert price(at_once(catalog, "a/b")) == 5000
    assert price(await world.instance().find("a/b")) == 5000


async def test_a_refresh_does_not_trust_a_load_that_began_before_it(world: World) -> None:
    catalog = world.instance()
    world.openrouter.flowing.clear()
    finding = asyncio.create_task(catalog.find("a/b"))
    await world.openrouter.reached.wait()
    refreshing = asyncio.create_task(catalog.refresh())
    await asyncio.sleep(0)
    world.openrouter.flowing.set()
    await asyncio.gather(finding, refreshing)
    assert world.openrouter.calls == 2


async def test_another_sources_snapshot_is_never_used(world: World) -> None:
    await world.keep(0, b="0.000009")
    world.openrouter.base_url = f"https://{secrets.token_hex(8)}.example/api/v1"
    world.serve()
    assert price(await world.instance().find("a/b")) == 1000


async def test_the_list_is_the_same_object_until_something_changes(world: World) -> None:
    catalog = world.instance()
    first = await catalog.models()
    assert await catalog.models() is first
    world.today += timedelta(days=1)
    assert await catalog.models() is not first
    second = await catalog.models()
    await catalog.refresh()
    assert await catalog.models() is not second


async def test_the_counters_say_what_happened(world: World) -> None:
    catalog = world.instance(database=False)
    state = catalog.state()
    assert (state.models, state.age_seconds, state.fresh, state.last_error) == (0, None, False, None)
    world.openrouter.prices["a b"] = "0"
    await catalog.find("a/b")
    await catalog.find("a/b")
    await catalog.models()
    world.seconds += 7
    state = catalog.state()
    assert (state.models, state.age_seconds, state.fresh, state.skipped) == (2, 7, True, 1)
    assert (state.hits, state.misses, state.refreshes, state.failures) == (2, 1, 1, 0)
    world.openrouter.status = 401
    await refused(catalog.refresh())
    state = catalog.state()
    assert (state.refreshes, state.failures, state.last_error) == (2, 1, "HTTP 401")


async def test_closing_ends_what_runs_behind(world: World) -> None:
    catalog = world.instance()
    world.openrouter.flowing.clear()
    await world.keep(HOUR, b="0.000009")
    await catalog.find("a/b")
    await catalog.close()
    assert catalog._loading is None
    await world.instance().close()
