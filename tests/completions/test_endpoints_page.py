"""docs/reference/endpoints.md says what becomes of a request by the type of its upstream: each cell is tried."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from completions.asks import CALLS, CHAT
from completions.stage import before, staged
from gateway import Upstream
from sandbox.serving import serving
from tollgate.catalog import store as catalog
from tollgate.completions.answer_forms import ANSWER_FORMS
from tollgate.completions.openapi import SHAPES, SUMMARIES
from tollgate.core.endpoints import ENDPOINTS
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console
from tollgate.sandbox.app import create_sandbox
from tollgate.upstreams import store as upstreams

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "endpoints.md"
BODIES = {form.path: CALLS[name] for name, form in ENDPOINTS.items()}
PRICING = {"prompt": "0.000001", "completion": "0"}


def cells() -> Iterator[tuple[str, str, str]]:
    """Each cell of the first table of the page: path, type of upstream, what becomes of a request."""
    rows = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("|")]
    dialects = [cell.strip() for cell in rows[0][2:]]
    for row in rows[2 : 2 + len(ENDPOINTS)]:
        path = row[0].split("`")[1].removeprefix("POST /v1")
        yield from ((path, dialect, cell.strip()) for dialect, cell in zip(dialects, row[2:], strict=True))


class Refusing:
    """Before a sandbox: refuses what is asked of a model, and remembers where."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.asked: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            return await self._app(scope, receive, send)
        while (await receive()).get("more_body"):
            pass
        self.asked.append(scope["path"])
        return await JSONResponse({"error": {"message": "No.", "code": 400}}, 400)(scope, receive, send)


async def test_each_cell_of_the_page_is_what_becomes_of_a_request(shared_database: str) -> None:
    table, seen, token = list(cells()), {}, secrets.token_hex(4)
    server = Refusing(create_sandbox())
    with serving(server) as address:
        there = Upstream(create_sandbox(), address)
        own = {dialect: f"ours/page-{token}-{dialect}" for _, dialect, _ in table if dialect != "openrouter"}
        await made(shared_database, own, there)
        names = {**own, "openrouter": "sandbox/echo"}
        with before(there, shared_database, PRIVATE_UPSTREAMS="true", UPSTREAM_TABLE_KEY="sk-of-the-tests") as gateway:
            async with staged(gateway, shared_database) as stage:
                someone = await stage.customer(100 * NANOS_PER_CREDIT)
                for path, dialect, _ in table:
                    server.asked.clear()
                    answer = await stage.post(someone, BODIES[path] | {"model": names[dialect]}, f"/v1{path}")
                    seen[path, dialect] = way(path, dialect, answer, server.asked)
    assert seen == {(path, dialect): cell for path, dialect, cell in table}


async def made(database: str, names: dict[str, str], there: Upstream) -> None:
    """An upstream of each type with a model, all at the same address."""
    door = PostgresDoor(database, pool_size=1, deadline_seconds=30)
    operator = console(door, "tests")
    for dialect, model in names.items():
        server = {"name": model.partition("/")[2], "dialect": dialect, "secret_name": "UPSTREAM_TABLE_KEY"}
        found = await upstreams.make(operator, {**server, "base_url": there.url})
        await catalog.put_route(operator, {"model": model, "upstream_id": found["id"], "pricing": PRICING})
    await door.close()


def way(path: str, dialect: str, answer: Any, asked: list[str]) -> str:
    if not asked:
        code = None if answer.status_code == 200 else answer.json()["error"]["code"]
        return {None: "estimated", "endpoint_not_served": "–"}.get(code, answer.text)
    form = next(form for form in ENDPOINTS.values() if form.path == path)
    paths = {"passed": form.elsewhere.get(dialect, path), "translated": CHAT}  # type: ignore[call-overload]
    return next((how for how, there in paths.items() if asked == [f"/api/v1{there}"]), str(asked))


@pytest.mark.parametrize("table", [ANSWER_FORMS, SUMMARIES, SHAPES], ids=["forms", "summaries", "shapes"])
def test_an_endpoint_is_an_entry_in_each_table(table: dict[str, Any]) -> None:
    assert table.keys() == ENDPOINTS.keys()
    assert BODIES.keys() == {path for path, _, _ in cells()}
