"""A client of the admin API. Tollgate runs in this process, with a sandbox on a real socket as its upstream."""

import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx

from gateway import Upstream
from people import PEPPER, Person
from tollgate.app import create_app
from tollgate.database import Door
from tollgate.settings import read

VARIABLE = "UPSTREAM_OF_THE_TESTS_KEY"
KEY = "sk-gpu-of-the-tests-never-shown"
PRICING = {"prompt": "0.000001", "completion": "0.000002"}
Body = dict[str, Any]


class ApiClient:
    """Calls the API with a person's key, and checks that no answer contains the upstream's secret."""

    def __init__(self, http: httpx.AsyncClient, someone: Person) -> None:
        self.http = http
        self.someone = someone
        self.made: list[str] = []

    def of(self, someone: Person) -> "ApiClient":
        return ApiClient(self.http, someone)

    async def ask(self, method: str, path: str, status: int = 200, **request: Any) -> Any:
        headers = {"authorization": f"Bearer {self.someone.secret}"}
        answer = await self.http.request(method, path, headers=headers, **request)
        assert answer.status_code == status, answer.text
        assert KEY not in answer.text
        return answer.json()

    async def refused(self, method: str, path: str, status: int, **request: Any) -> Any:
        return (await self.ask(method, path, status, **request))["error"]

    async def upstream(self, **change: Any) -> Any:
        made = await self.ask("POST", "/admin/upstreams", 201, json=a_server(**change))
        self.made.append(made["id"])
        return made

    async def clear(self) -> None:
        """Deletes the upstreams made here, because other tests share the database."""
        headers = {"authorization": f"Bearer {self.someone.secret}"}
        for upstream_id in self.made:
            await self.http.delete(f"/admin/upstreams/{upstream_id}?routes=true", headers=headers)

    async def route(self, upstream_id: str, model: str, status: int = 201, **change: Any) -> Any:
        body = {"model": model, "upstream_id": upstream_id, "pricing": PRICING, **change}
        return await self.ask("POST", "/admin/models/registry", status, json=body)

    async def pages(self, path: str, **query: Any) -> list[list[Any]]:
        found = []
        while True:
            page = await self.ask("GET", path, params=query)
            found.append(page["data"])
            if page["next_cursor"] is None:
                return found
            query["cursor"] = page["next_cursor"]

    async def events(self, target_id: str) -> list[Any]:
        """The audit events about the target, oldest first."""
        found = (await self.ask("GET", "/admin/audit-logs", params={"target_id": target_id}))["data"]
        return [(event["action"], event["details"]) for event in reversed(found)]


@contextlib.asynccontextmanager
async def admin_api(door: Door, sandbox: Upstream, admin: Person, **settings: str) -> AsyncIterator[ApiClient]:
    given = {
        "KEY_PEPPER": PEPPER,
        "OPENROUTER_BASE_URL": sandbox.url,
        "OPENROUTER_API_KEY": "sk-or-v1-of-the-tests",
        "SANDBOX_BASE_URL": sandbox.url,
        "PRIVATE_UPSTREAMS": "true",
        "LOG_LEVEL": "warning",
        VARIABLE: KEY,
        **settings,
    }
    app = create_app(read(given), door=door, environ=given)
    here = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=here, base_url="http://tollgate", timeout=30) as http,
    ):
        api = ApiClient(http, admin)
        try:
            yield api
        finally:
            await api.clear()


def a_server(**change: Any) -> Body:
    return {"name": "gpu", "dialect": "vllm", "base_url": "http://127.0.0.1:9/v1", **change}


def unique(what: str) -> str:
    return f"{what}-{secrets.token_hex(8)}"
