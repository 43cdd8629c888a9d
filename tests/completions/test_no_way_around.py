"""Every paid route goes through admission: whoever adds one without it is told here."""

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Route

from completions.stage import OWN_SERVER, Stage, erring, served, staged
from gateway import Gateway
from people import PEPPER, Person
from tollgate import settings
from tollgate.app import create_app
from tollgate.core.endpoints import BATCH_PATH, ENDPOINTS, MOUNTS, Endpoint
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.database import Door, Json
from tollgate.database.postgres import PostgresDoor

PAID = {
    mount + path
    for mount in MOUNTS
    for path in (*(path for form in ENDPOINTS.values() for path in form.paths), BATCH_PATH)
}
FREE = {mount + form.path for mount in MOUNTS for form in ENDPOINTS.values() if form.is_free}

ASKING = {
    "messages": [{"role": "user", "content": "hello"}],
    "prompt": "hello",
    "input": "hello",
    "query": "hello",
    "documents": ["hello"],
    "input_audio": {"data": "UklGRiQA", "format": "wav"},
    "contents": [{"parts": [{"text": "hello"}]}],
    "max_tokens": 16,
}
"""Whatever a route calls what it is asked."""
NOT_GENERATE = {
    **dict.fromkeys(("messages", "input", "input_audio", "contents", "query", "documents", "max_tokens")),
    "max_new_tokens": 16,
}
OTHER_NAMES = {
    "/responses": {"prompt": None, "max_tokens": None, "max_output_tokens": 16},
    "/generate": NOT_GENERATE,
    "/generate/batch": {**NOT_GENERATE, "prompt": None, "prompts": ["hello"]},
}
"""Where a route gives one of these names another meaning."""
MODELS = ("sandbox/echo", "sandbox/embed", "sandbox/free:free")


class Noting:
    """A door that notes which functions were called."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self.called: list[str] = []

    async def call(self, function: str, **arguments: Json) -> Json:
        self.called.append(function)
        return await self._door.call(function, **arguments)

    async def close(self) -> None:
        await self._door.close()


class House:
    """The app in this process, so that its routes and its door can be looked at."""

    def __init__(self, stage: Stage, app: FastAPI, door: Noting, calls: dict[Endpoint, dict[str, Any]]) -> None:
        self.stage = stage
        self.app = app
        self.door = door
        self._models = {
            mount + path: [str(calls[name]["model"])]
            for name, form in ENDPOINTS.items()
            for path in (form.paths if form.units else ())
            for mount in MOUNTS
        }

    def asked(self, path: str) -> Iterable[dict[str, Any]]:
        models = self._models.get(path, MODELS)
        return [{"model": model, "stream": stream} for model in models for stream in (False, True)]

    async def post(self, path: str, someone: Person | None, **body: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {someone.secret}"} if someone else {}
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://tollgate.test", headers=headers) as http:
            other = next((names for end, names in OTHER_NAMES.items() if path.endswith(end)), {})
            return await http.post(path, json=ASKING | other | body)


@pytest.fixture(scope="module")
async def house(shared_database: str) -> AsyncIterator[House]:
    with erring([]) as sandbox:
        given = {
            "KEY_PEPPER": PEPPER,
            "OPENROUTER_BASE_URL": sandbox.url,
            "OPENROUTER_API_KEY": "sk-or-v1-of-the-tests",
            **OWN_SERVER,
        }
        door = Noting(PostgresDoor(shared_database, pool_size=2, deadline_seconds=30))
        calls = await served(door, sandbox)
        app = create_app(settings.read(given), door=door, environ=given)
        async with (
            app.router.lifespan_context(app),
            staged(Gateway("http://tollgate.test", sandbox), shared_database) as stage,
        ):
            yield House(stage, app, door, calls)


def routes(app: FastAPI) -> Iterator[tuple[str, set[str]]]:
    for route in app.routes:
        contexts = getattr(route, "effective_route_contexts", None)
        assert contexts or isinstance(route, Route), f"{route}: a mount hides its routes from this test"
        for shown in contexts() if contexts else [route]:
            yield shown.path, set(shown.methods or ())


def posts(app: FastAPI) -> list[str]:
    """Without what is in braces: no paid path has any yet."""
    found = [path for path, methods in routes(app) if "POST" in methods and path.startswith(("/v1/", "/api/v1/"))]
    return [path.replace("{", "").replace("}", "") for path in found]


async def test_no_post_is_answered_that_was_not_admitted_and_charged(house: House) -> None:
    assert set(posts(house.app)) >= PAID
    answered = set()
    for path in posts(house.app):
        for body in house.asked(path):
            someone = await house.stage.customer()
            house.door.called.clear()
            answer = await house.post(path, someone, **body)
            if answer.status_code == 200:
                answered.add(path)
                assert "tollgate_admit" in house.door.called, f"{path} answers without asking whether it may"
                assert "tollgate_settle" in house.door.called, f"{path} answers without being settled"
                row = await house.stage.row(someone)  # of speech, only OpenRouter's record states the cost
                assert row["state"] == ("unsettled" if row["endpoint"] == "speech" else "settled")
            assert house.door.called.count("tollgate_admit") <= 1
    assert answered >= PAID


async def test_nothing_is_answered_without_a_key_or_without_credits(house: House) -> None:
    poor = await house.stage.customer(nanos=1)
    owed = house.stage.gateway.upstream.owed_nanos
    for path in posts(house.app):
        for body in house.asked(path):
            assert (await house.post(path, None, **body)).status_code in (401, 404, 405), path
            if "free" not in body["model"] and path not in FREE:
                assert (await house.post(path, poor, **body)).status_code in (400, 402, 403, 404), path
    assert house.stage.gateway.upstream.owed_nanos == owed
    assert await house.stage.money(poor) == (1, 0)


async def test_no_scope_of_another_kind_opens_a_paid_path(house: House) -> None:
    reader = await house.stage.customer(scopes=["usage"])
    for path in posts(house.app):
        for body in house.asked(path):
            assert (await house.post(path, reader, **body)).status_code in (400, 403, 404), path
    assert await house.stage.money(reader) == (NANOS_PER_CREDIT, 0)
    assert await house.stage.rows(reader) == []


async def test_a_key_that_the_admission_did_not_know_is_remembered(house: House) -> None:
    stranger = Person(house.door)
    house.door.called.clear()
    for path in ("/v1/chat/completions", "/v1/embeddings", "/v1/generate/batch"):
        answer = await house.post(path, stranger, model="sandbox/echo")
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key"), path
    asked = [name for name in house.door.called if name in ("tollgate_admit", "tollgate_identify")]
    assert asked == ["tollgate_admit"]


def test_a_route_without_admission_would_be_found() -> None:
    """The finder sees routes of both kinds: plain ones, and those of FastAPI's routers."""
    app = FastAPI()
    app.add_api_route("/v1/free/lunch", lambda: "here you are", methods=["POST"])
    app.router.routes.append(Route("/api/v1/{author}/lunch", lambda request: None, methods=["POST"]))
    assert posts(app) == ["/v1/free/lunch", "/api/v1/author/lunch"]
