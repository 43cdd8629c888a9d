"""GET /v1/models over HTTP: the sandbox's list, with the prices of each org."""

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import httpx
import pytest
from starlette.middleware import Middleware

from gateway import BOTH_DOORS, ONE_DOOR
from people import PEPPER, Person
from sandbox.serving import a_sandbox, serving
from tollgate.catalog import routes, rules, store
from tollgate.catalog.cache import Catalog
from tollgate.catalog.source import Source
from tollgate.core.models import Upstream
from tollgate.database import Door
from tollgate.keys.authentication import Gate, console
from tollgate.process.clock import monotonic
from tollgate.process.http_client import Http
from tollgate.sandbox.models import MODELS
from tollgate.upstreams import store as upstreams
from tollgate.web.application import Application
from tollgate.web.error_responses import HANDLERS
from tollgate.web.middleware import RequestMiddleware

pytestmark = BOTH_DOORS

SETTING_PPM = 100_000
EXPIRED = "sandbox/old"
EVERY = [model.id for model in MODELS if model.id != EXPIRED]
MADE = [model.id for model in MODELS if not {"text", "embeddings"}.intersection(model.outputs)]
"""Those that put out something else are listed on demand."""
LISTED = [name for name in EVERY if name not in MADE]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[str]:
    with serving(a_sandbox()) as url:
        yield f"{url}/api/v1"


@pytest.fixture
async def catalog(door: Door, sandbox: str) -> AsyncIterator[Catalog]:
    http = Http()
    made = Catalog(
        Upstream("openrouter", "openrouter", sandbox),
        Source(http, sandbox, "sk-or-v1-test"),
        door,
        clock=monotonic,
        now=lambda: datetime(2026, 11, 21, tzinfo=UTC),
    )
    yield made
    await made.close()
    await http.close()


@pytest.fixture
async def client(door: Door, catalog: Catalog) -> AsyncIterator[httpx.AsyncClient]:
    gate = Gate(door, peppers=[PEPPER], trusted_proxy="none", clock=monotonic)
    around = Middleware(RequestMiddleware, production=False, max_body_bytes=1024, clock=monotonic)
    models = routes.router(gate, {"live": catalog}, SETTING_PPM)
    app = Application(
        paid={},
        lazy={("/v1/models", "/api/v1/providers"): lambda: [models]},
        exception_handlers=HANDLERS,
        middleware=[around],
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate") as made:
        yield made


@pytest.fixture
def get(client: httpx.AsyncClient) -> Callable[..., Any]:
    async def ask(someone: Person, path: str, **query: Any) -> httpx.Response:
        return await client.get(path, params=query, headers={"authorization": f"Bearer {someone.secret}"})

    return ask


async def listed(get: Any, someone: Person, **query: Any) -> dict[str, dict[str, Any]]:
    """The sandbox's models in the list, without models of other tests."""
    answer = await get(someone, "/v1/models", **query)
    assert answer.status_code == 200, answer.text
    return {model["id"]: model for model in answer.json()["data"] if "sandbox/" in model["id"]}


async def set_org(sql: Any, url: str, someone: Person, ppm: int) -> None:
    await sql(url, "update tollgate.orgs set markup_ppm = $2 where id = $1", someone.org_id, ppm)


@pytest.mark.parametrize("path", ["/v1/models", "/api/v1/models", "/models"])
async def test_the_list_has_openais_form_and_openrouters_at_once(get: Any, person: Any, path: str) -> None:
    answer = await get(await person(), path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    page = answer.json()
    assert list(page) == ["object", "data", "total_count", "links", "default_model"]
    assert (page["object"], page["links"], page["total_count"]) == ("list", {"next": None}, len(page["data"]))
    found = {model["id"]: model for model in page["data"]}
    assert [name for name in found if "sandbox/" in name] == LISTED
    for model in MODELS:
        if model.id in LISTED:
            shown, given = found[model.id], model.shown()
            assert (shown["object"], shown["owned_by"]) == ("model", "sandbox")
            assert {name: shown[name] for name in given if name != "pricing"} == {
                name: value for name, value in given.items() if name != "pricing"
            }


async def test_prices_are_what_this_org_is_charged(
    get: Any, person: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    usual, dear, free = [await person() for _ in range(3)]
    await set_org(sql, shared_database, dear, 333_333)
    await set_org(sql, shared_database, free, 0)
    for someone, ppm in ((usual, SETTING_PPM), (dear, 333_333), (free, 0), (usual, SETTING_PPM)):
        found = await listed(get, someone)
        for model in MODELS:
            if model.id in LISTED and model.id != "sandbox/router":
                given = model.pricing.shown
                shown = found[model.id]["pricing"]
                assert Fraction(shown["prompt"]) == Fraction(given["prompt"]) * (1_000_000 + ppm) / 1_000_000
                assert set(shown) == set(given)
    assert found["sandbox/router"]["pricing"] == {"prompt": "-1", "completion": "-1"}
    assert found["sandbox/long-context"]["pricing"]["overrides"][0] == {
        "min_prompt_tokens": 1000,
        "prompt": "0.0000022",
        "completion": "0.000011",
    }


@ONE_DOOR
@pytest.mark.parametrize("mount", ["/v1", "/api/v1", ""])
@pytest.mark.parametrize("name", ["sandbox/echo", "sandbox/free:free", "~sandbox/echo-latest"])
async def test_one_model_is_shown_as_it_is_listed(get: Any, person: Any, mount: str, name: str) -> None:
    someone = await person()
    answer = await get(someone, f"{mount}/models/{name}")
    assert answer.status_code == 200
    assert answer.json() == (await listed(get, someone))[name]


@pytest.mark.parametrize("path", ["sandbox/echo:nitro", "sandbox/echo-20250101", "sandbox%2Fecho"])
async def test_one_model_is_found_by_any_spelling(get: Any, person: Any, path: str) -> None:
    answer = await get(await person(), f"/v1/models/{path}")
    assert answer.json()["id"] == "sandbox/echo"


@pytest.mark.parametrize("path", ["sandbox/nothing", "nothing", "sandbox/echo:free"])
async def test_a_model_that_is_not_there_is_refused_in_our_words(get: Any, person: Any, path: str) -> None:
    answer = await get(await person(), f"/v1/models/{path}")
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert (error["code"], error["param"], error["model"]) == ("model_not_found", "model", path)


async def test_a_model_past_its_day_says_so(get: Any, person: Any) -> None:
    answer = await get(await person(), f"/v1/models/{EXPIRED}")
    assert (answer.status_code, answer.json()["error"]["expired_on"]) == (404, "2025-06-01")


async def test_a_model_of_ours_is_listed_and_shown_by_a_name_without_an_author(
    get: Any, person: Any, door: Door, catalog: Catalog
) -> None:
    operator, name = console(door, "tests"), secrets.token_hex(8)
    server = {"name": "GPU", "base_url": "http://10.0.0.1/v1", "dialect": "vllm"}
    upstream_id = (await upstreams.make(operator, server))["id"]
    pricing = {"prompt": "0.000001", "completion": "0.000002"}
    await store.put_route(operator, {"model": name, "upstream_id": upstream_id, "pricing": pricing})
    await catalog.refresh()
    someone = await person()
    found = {model["id"]: model for model in (await get(someone, "/v1/models")).json()["data"]}
    assert found[name] == (await get(someone, f"/v1/models/{name}")).json()
    assert found[name]["owned_by"] == "self-hosted"
    assert found[name]["pricing"] == {"prompt": "0.0000011", "completion": "0.0000022"}
    assert set(found[name]) >= set(found["sandbox/echo"])
    assert upstream_id not in str(found[name])


async def test_the_upstreams_of_a_model_are_shown_with_their_prices(
    get: Any, person: Any, door: Door, catalog: Catalog
) -> None:
    operator, name = console(door, "tests"), f"ours/{secrets.token_hex(8)}"
    server = {"name": "GPU", "base_url": "http://10.0.0.1/v1", "dialect": "vllm"}
    upstream_id = (await upstreams.make(operator, server))["id"]
    route = {"model": name, "upstream_id": upstream_id, "pricing": {"prompt": "0.000001", "completion": "0"}}
    await store.put_route(operator, {**route, "context_tokens": 4096, "most_output": 512})
    await catalog.refresh()
    someone = await person()
    for path, upstream, prompt, context in (
        (f"/api/v1/models/{name}/endpoints", upstream_id, "0.0000011", 4096),
        ("/v1/models/sandbox/echo/endpoints", "openrouter", "0.000000275", 131072),
    ):
        told = (await get(someone, path)).json()["data"]
        (endpoint,) = told["endpoints"]
        assert path.endswith(f"{told['id']}/endpoints")
        assert (endpoint["provider_name"], endpoint["pricing"]["prompt"]) == (upstream, prompt)
        assert endpoint["context_length"] == context
        assert set(told["architecture"]) >= {"modality", "input_modalities", "output_modalities", "tokenizer"}
    listed_ones = {one["slug"] for one in (await get(someone, "/api/v1/providers")).json()["data"]}
    assert listed_ones >= {"openrouter", upstream_id}
    missing = await get(someone, "/api/v1/models/nobody/knows/endpoints")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, 404)


async def test_only_what_the_key_may_use_is_listed_on_demand(
    get: Any, person: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await person()
    assert list(await listed(get, someone, usable="true")) == LISTED
    patterns = ["sandbox/e*", "sandbox/image"]
    allow = "update tollgate.api_keys set allowed_models = $2 where org_id = $1"
    await sql(shared_database, allow, someone.org_id, patterns)
    assert list(await listed(get, someone)) == LISTED
    assert list(await listed(get, someone, usable="true")) == ["sandbox/echo", "sandbox/image", "sandbox/embed"]
    page = (await get(someone, "/api/v1/models/user", limit=2)).json()
    assert [model["id"] for model in page["data"]] == ["sandbox/echo", "sandbox/image"]
    assert page["links"]["next"] == "/api/v1/models/user?limit=2&offset=2"
    for query in ({}, {"output_modalities": "embeddings"}):
        whole = (await get(someone, "/v1/models", **query)).json()["total_count"]
        assert (await get(someone, "/api/v1/models/count", **query)).json() == {"data": {"count": whole}}


async def test_the_database_agrees_on_what_the_key_may_use(shared_database: str, sql: Callable[..., Any]) -> None:
    for pattern in ("sandbox/e*", "*", "", "*:free", "sandbox/_cho", "s%", "*/e*o", r"sandbox\/echo", "sandbox/echo"):
        for name in LISTED:
            decided = await sql(shared_database, "select tollgate.model_allowed($1, $2)", [pattern], name)
            assert rules.allowed([pattern], name) is decided, (pattern, name)


@ONE_DOOR
@pytest.mark.parametrize(
    ("modalities", "expected"),
    [
        ("embeddings", ["sandbox/embed"]),
        ("text", [name for name in LISTED if name != "sandbox/embed"]),
        ("all", EVERY),
        ("image,speech", ["sandbox/painter", "sandbox/voice"]),
        ("video,embeddings", ["sandbox/embed"]),
        ("nothing", []),
    ],
)
async def test_models_are_listed_by_what_they_put_out(
    get: Any, person: Any, modalities: str, expected: list[str]
) -> None:
    assert list(await listed(get, await person(), output_modalities=modalities)) == expected


@pytest.mark.parametrize("size", [1, 5, 100])
async def test_pages_come_one_after_the_other_to_those_who_want_pages(
    get: Any, person: Any, client: httpx.AsyncClient, size: int
) -> None:
    someone = await person()
    whole = (await get(someone, "/api/v1/models", output_modalities="text")).json()
    following, found = f"/api/v1/models?output_modalities=text&limit={size}", []
    while following:
        answer = await client.get(following, headers={"authorization": f"Bearer {someone.secret}"})
        page = answer.json()
        assert page["total_count"] == whole["total_count"]
        found += page["data"]
        following = page["links"]["next"]
    assert found == whole["data"]
    beyond = (await get(someone, "/v1/models", offset=10_000, limit=500)).json()
    assert (beyond["data"], beyond["links"]) == ([], {"next": None})


@pytest.mark.parametrize("query", [{"limit": 0}, {"offset": -1}, {"limit": "many"}, {"output_modalities": "x" * 201}])
async def test_a_page_that_makes_no_sense_is_refused_by_name(get: Any, person: Any, query: dict[str, Any]) -> None:
    answer = await get(await person(), "/v1/models", **query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(query)))


async def test_a_filter_that_makes_no_sense_is_refused_by_name(get: Any, person: Any) -> None:
    answer = await get(await person(), "/v1/models", usable="perhaps")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "usable")


async def test_parameters_of_openrouters_own_are_no_matter(get: Any, person: Any) -> None:
    assert list(await listed(get, await person(), supported_parameters="tools", category="programming")) == LISTED


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/sandbox/echo", "/v1/models/user", "/v1/models/count"])
async def test_without_the_scope_there_is_nothing_to_see(get: Any, person: Any, path: str) -> None:
    answer = await get(await person(scopes=["chat"]), path)
    assert (answer.status_code, answer.json()["error"]["scope"]) == (403, "models")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/sandbox/echo"])
async def test_without_a_key_there_is_nothing_to_see(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 401


async def test_a_test_key_without_a_sandbox_is_told_that_there_is_no_list(
    get: Any, person: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await person()
    await sql(shared_database, "update tollgate.api_keys set environment = 'test' where org_id = $1", someone.org_id)
    answer = await get(someone, "/v1/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "catalog_unavailable")


async def test_a_list_is_encoded_once_for_each_markup(
    get: Any, person: Any, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    someone, encoded, encode = await person(), [], routes.encoded

    def counting(listing: Any) -> str:
        encoded.extend([listing["id"]] if "id" in listing else [])
        return encode(listing)

    monkeypatch.setattr(routes, "encoded", counting)
    first = await get(someone, "/v1/models")
    once = len(encoded)
    assert once >= len(LISTED)
    assert (await get(someone, "/v1/models")).content == first.content
    assert list(await listed(get, someone, usable="true", output_modalities="text")) != []
    assert len(encoded) == once
    await catalog.refresh()
    await get(someone, "/v1/models")
    assert len(encoded) >= 2 * len(LISTED)
