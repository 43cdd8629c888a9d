"""Fetching the list, and everything else that a server may send."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import respx

from sandbox.serving import a_sandbox, serving
from tollgate.app import compose
from tollgate.catalog import source
from tollgate.catalog.source import Fetched, Source, SourceFailed
from tollgate.core.errors import ModelNotFound
from tollgate.database import Door
from tollgate.process.http_client import Http
from tollgate.sandbox.models import MODELS
from tollgate.settings import read

BASE = "https://openrouter.example/api/v1"
KEY = "sk-or-v1-secret"
PRICING = {"prompt": "0.000001", "completion": "0.000002"}


def entry(name: str, /, **more: Any) -> dict[str, Any]:
    return {"id": name, "pricing": PRICING, **more}


@pytest.fixture
async def fetch() -> AsyncIterator[Callable[[], Any]]:
    http = Http()
    yield Source(http, BASE, KEY).fetch
    await http.close()


@pytest.fixture
def upstream() -> Any:
    with respx.mock(base_url=BASE, assert_all_called=False) as made:
        made.get("/embeddings/models", name="embeddings").respond(404)
        yield made


def ids(fetched: Fetched) -> list[str]:
    return [one.id for one in fetched.entries]


async def test_the_sandboxs_list_is_read_whole_over_a_real_connection() -> None:
    http = Http()
    with serving(a_sandbox()) as url:
        fetched = await Source(http, f"{url}/api/v1", KEY).fetch()
    await http.close()
    assert sorted(ids(fetched)) == sorted(model.id for model in MODELS)
    assert fetched.skipped == 0


async def test_everything_is_asked_for_with_our_key_and_embeddings_besides(upstream: Any, fetch: Any) -> None:
    everything = upstream.get("/models", params={"output_modalities": "all"}).respond(
        json={"data": [entry("a/b"), entry("a/embed", name="first")]}
    )
    upstream["embeddings"].respond(json={"data": [entry("a/embed"), entry("a/embed-2")]})
    fetched = await fetch()
    assert ids(fetched) == ["a/b", "a/embed", "a/embed-2"]
    assert fetched.entries[1].listing["name"] == "first"
    assert everything.calls.last.request.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("following", ["/api/v1/models?offset=1", f"{BASE}/models?offset=1", "?offset=1"])
async def test_pages_are_followed(upstream: Any, fetch: Any, following: str) -> None:
    upstream.get("/models", params={"offset": "1"}).respond(json={"data": [entry("a/c")], "links": {"next": None}})
    upstream.get("/models", params={"output_modalities": "all"}).respond(
        json={"data": [entry("a/b")], "links": {"next": following}}
    )
    assert ids(await fetch()) == ["a/b", "a/c"]


@pytest.mark.parametrize(
    "following",
    ["https://elsewhere.example/models", "http://openrouter.example/models", "https://openrouter.example:444/", "//x/"],
)
async def test_our_key_follows_no_page_elsewhere(upstream: Any, fetch: Any, following: str) -> None:
    upstream.get("/models").respond(json={"data": [entry("a/b")], "links": {"next": following}})
    with pytest.raises(SourceFailed, match="another server"):
        await fetch()
    assert {call.request.url.host for call in upstream.calls} == {"openrouter.example"}


@pytest.mark.parametrize("following", ["http://[", "https://openrouter.example:port/"])
async def test_a_next_page_that_is_no_address_is_none(upstream: Any, fetch: Any, following: str) -> None:
    upstream.get("/models").respond(json={"data": [entry("a/b")], "links": {"next": following}})
    with pytest.raises(SourceFailed, match="a next page"):
        await fetch()


async def test_pages_come_to_an_end(upstream: Any, fetch: Any) -> None:
    route = upstream.get("/models").respond(json={"data": [entry("a/b")], "links": {"next": "/api/v1/models"}})
    with pytest.raises(SourceFailed, match="more than 50 pages"):
        await fetch()
    assert route.call_count == source.MOST_PAGES


async def test_a_redirect_is_not_followed(upstream: Any, fetch: Any) -> None:
    upstream.get("/models").respond(302, headers={"location": f"{BASE}/other"})
    other = upstream.get("/other").respond(json={"data": [entry("a/b")]})
    with pytest.raises(SourceFailed, match="HTTP 302"):
        await fetch()
    assert not other.called


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (httpx.Response(401, json={"data": [entry("a/b")]}), "HTTP 401"),
        (httpx.Response(404), "HTTP 404"),
        (httpx.Response(500), "HTTP 500"),
        (httpx.Response(200), "not JSON"),
        (httpx.Response(200, text="<html>"), "not JSON"),
        (httpx.Response(200, content=b'{"data": [{"id": "a/b", "pricing": {"prompt": NaN}}]}'), "not JSON"),
        (httpx.Response(200, content=b'{"data": [{"id": "a/b", "created": 1e400}]}'), "not JSON"),
        (httpx.Response(200, content=b'{"data": ' + b"[" * 200 + b"]" * 200 + b"}"), "not JSON"),
        (httpx.Response(200, content=b'{"data": [{"id": "a/b"}'), "not JSON"),
        (httpx.Response(200, json=[entry("a/b")]), "not JSON"),
        (httpx.Response(200, json={"data": {"a/b": {}}}), "no list"),
        (httpx.Response(200, json={"error": {"message": KEY}}), "no list"),
        (httpx.Response(200, json={"data": []}), "an empty list"),
        (httpx.Response(200, json={"data": [5, {}]}), "2 of 2 entries broken"),
        (httpx.Response(200, json={"data": [5, {}, entry("a/b")]}), "2 of 3 entries broken"),
    ],
)
async def test_what_is_no_list_is_told_in_few_words(upstream: Any, fetch: Any, answer: Any, why: str) -> None:
    upstream.get("/models").mock(return_value=answer)
    with pytest.raises(SourceFailed) as caught:
        await fetch()
    assert str(caught.value) == why


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ReadTimeout, httpx.RemoteProtocolError])
async def test_a_connection_that_fails_is_told_by_its_kind(upstream: Any, fetch: Any, error: type[Exception]) -> None:
    upstream.get("/models").mock(side_effect=error(KEY))
    with pytest.raises(SourceFailed) as caught:
        await fetch()
    assert str(caught.value) == error.__name__


async def test_one_broken_entry_does_not_spoil_the_list(upstream: Any, fetch: Any) -> None:
    upstream.get("/models").respond(json={"data": [entry("a/b"), {"id": None}, entry("a/c")]})
    fetched = await fetch()
    assert (ids(fetched), fetched.skipped) == (["a/b", "a/c"], 1)


async def test_a_failing_list_of_embeddings_spoils_the_whole(upstream: Any, fetch: Any) -> None:
    """Otherwise embedding models would disappear from the list."""
    upstream.get("/models").respond(json={"data": [entry("a/b")]})
    upstream["embeddings"].respond(503)
    with pytest.raises(SourceFailed, match="HTTP 503"):
        await fetch()


@pytest.mark.parametrize("packed", [False, True])
async def test_a_list_without_end_is_given_up(
    upstream: Any, fetch: Any, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MOST_BYTES", 100_000)
    body = json.dumps({"data": [entry("a/b", description="x" * 100_000)]}).encode()
    answer = httpx.Response(200, content=gzip.compress(body), headers={"content-encoding": "gzip"})
    upstream.get("/models").mock(return_value=answer if packed else httpx.Response(200, content=body))
    with pytest.raises(SourceFailed, match="more than 100000 bytes"):
        await fetch()


async def test_a_source_that_stands_still_is_given_up(
    upstream: Any, fetch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(source, "PAGE_SECONDS", 0.05)
    upstream.get("/models").mock(side_effect=never)
    with pytest.raises(SourceFailed, match="TimeoutError"):
        await fetch()


async def test_without_a_key_none_is_sent(upstream: Any) -> None:
    route = upstream.get("/models").respond(json={"data": [entry("a/b")]})
    http = Http()
    await Source(http, BASE, None).fetch()
    await http.close()
    assert "authorization" not in route.calls.last.request.headers


async def test_without_an_openrouter_key_in_production_there_are_only_our_own_models(door: Door) -> None:
    rooms = compose(read({"TOLLGATE_ENV": "production", "KEY_PEPPER": "p" * 32, "TOLLGATE_DATA_DIR": "unused"}), door)
    live = rooms.catalogs["live"]
    try:
        with pytest.raises(ModelNotFound):
            await live.find("maker/of-no-route")
        await live.refresh()
        assert live.state().failures == 0
    finally:
        await live.close()
        await rooms.http.close()
