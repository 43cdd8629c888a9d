"""Lazy routes answer, and appear in the document, as FastAPI's own do."""

from collections.abc import Iterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, Header, Path
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from tollgate.web.application import Application
from tollgate.web.routing import Handler, LazyRoute, Routes
from tollgate.web.schemas import with_our_errors

calls: list[str] = []


class Thing(BaseModel):
    name: str


class Counted(LazyRoute):
    reads = 0

    def wrapped(self, handler: Handler) -> Handler:
        type(self).reads += 1
        return super().wrapped(handler)


@pytest.fixture(autouse=True)
def nothing_read() -> Iterator[None]:
    Counted.reads = 0
    yield
    calls.clear()


def passed(who: str) -> Any:
    return Depends(lambda: calls.append(who))


def signed(signature: Annotated[str, Header()] = "") -> str:
    return signature


def told(routes: Any) -> Any:
    @routes.get("/{thing_id}", summary="One", responses={418: {"description": "A teapot"}})
    async def thing(thing_id: Annotated[int, Path(ge=1)], signature: Annotated[str, Depends(signed)]) -> Thing:
        return Thing(name=f"{thing_id}{signature}")

    @routes.post("", status_code=201, tags=["writes"], dependencies=[passed("route")])
    async def make(thing: Annotated[Thing, Body()]) -> Thing:
        return thing

    return routes


def late() -> Application:
    inner = told(Routes(prefix="/things", tags=["things"], route_class=Counted, responses={404: {"description": "No"}}))
    middle, outer = Routes(prefix="/house", tags=["house"]), Routes(tags=["all"], dependencies=[passed("outer")])
    middle.take(inner, "/first")
    middle.take(inner, "/second")
    outer.take(middle)
    return Application(paid={}, lazy={("/house",): lambda: [outer]})


def early() -> FastAPI:
    inner = told(APIRouter(prefix="/things", tags=["things"], responses={404: {"description": "No"}}))
    middle, outer = APIRouter(prefix="/house", tags=["house"]), APIRouter(tags=["all"])
    middle.include_router(inner, prefix="/first")
    middle.include_router(inner, prefix="/second")
    outer.include_router(middle, dependencies=[passed("outer")])
    app = FastAPI()
    app.include_router(outer)
    return app


def asking(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate.test")


def test_the_document_is_fastapi_s_own() -> None:
    made = late().openapi()
    assert made == with_our_errors(early().openapi())
    assert [*made["paths"]] == [
        f"/house/{which}/things{rest}" for which in ("first", "second") for rest in ("/{thing_id}", "")
    ]
    assert made["paths"]["/house/first/things"]["post"]["tags"] == ["all", "house", "things", "writes"]


async def test_a_route_is_read_when_it_is_first_asked_for_and_never_again() -> None:
    app = late()
    assert Counted.reads == 0
    async with asking(app) as http:
        assert (await http.get("/house/third/things/7")).status_code == 404
        assert Counted.reads == 0
        for _ in range(2):
            answer = await http.get("/house/second/things/7", headers={"signature": "!"})
            assert (answer.status_code, answer.json()) == (200, {"name": "7!"})
            assert Counted.reads == 1
        assert (await http.get("/house/second/things/0")).status_code == 422
        assert (await http.put("/house/second/things/7")).status_code == 405
        assert Counted.reads == 1


async def test_the_dependencies_of_the_routers_around_come_first() -> None:
    async with asking(late()) as http:
        assert (await http.post("/house/first/things", json={"name": "a"})).status_code == 201
    assert calls == ["outer", "route"]


async def test_a_router_that_is_included_without_its_guard_is_not_served() -> None:
    app = FastAPI()
    app.include_router(told(Routes(prefix="/things")))
    async with asking(app) as http:
        assert (await http.get("/things/3")).status_code == 404


async def test_a_router_s_guard_stands_before_its_own_routes_and_one_around_it_replaces_it() -> None:
    async def inner(request: Request, handle: Handler, reads_body: bool) -> Response:
        return Response(f"inner {reads_body}", 403)

    async def outer(request: Request, handle: Handler, reads_body: bool) -> Response:
        return Response(f"outer {reads_body}", 403)

    around = Routes(guard=outer)
    around.take(told(Routes(prefix="/second", guard=inner)))
    app = Application(paid={}, lazy={("/",): lambda: [told(Routes(prefix="/first", guard=inner)), around]})
    async with asking(app) as http:
        assert (await http.get("/first/3")).text == "inner False"
        assert (await http.post("/first", content=b"{")).text == "inner True"
        assert (await http.post("/second", content=b"{")).text == "outer True"
