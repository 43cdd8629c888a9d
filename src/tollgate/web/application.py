"""FastAPI, except that paid endpoints bypass it and that most routers are loaded when one of their paths is requested.

FastAPI's part of a paid call would be a tenth of its cost. Importing the routers of a hundred routes would be most of a
cold start, so a serverless host imports those that are requested; a long-lived server loads all before it serves.
The OpenAPI document is large, so a thread makes it.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from tollgate.core.errors import BadRequest
from tollgate.web import aliases
from tollgate.web.routing import LazyRoute

Document = dict[str, Any]
Load = Callable[[], Iterable[APIRouter]]


class Application(FastAPI):
    def __init__(self, *, paid: Mapping[str, ASGIApp], lazy: Mapping[tuple[str, ...], Load], **options: Any) -> None:
        """`paid` are endpoints for POST by path; `lazy` has a function that makes routers, by the prefixes of their
        paths."""
        self._paid = paid
        self._lazy: dict[tuple[str, ...], Load] = {}
        self._document: Document | None = None
        self._describing = threading.Lock()
        self._page: Response | None = None
        super().__init__(
            openapi_url=None, docs_url=None, redoc_url=None, **options
        )  # reads `routes`: nothing is lazy yet
        self.add_route("/openapi.json", self._for_programs)
        self.add_route("/docs", self._for_people)
        self._lazy.update(lazy)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._paid.get(scope["path"]) if scope.get("method") == "POST" else None
        if endpoint is None and scope["type"] == "http":
            scope = aliases.resolved(scope)
            self.load(scope["path"])
        await (endpoint or super().__call__)(scope, receive, send)

    def load(self, path: str | None = None) -> None:
        """Loads the routers of a path, or all."""
        for prefixes in tuple(self._lazy):
            if path is None or path.startswith(prefixes):
                for router in self._lazy.pop(prefixes)():
                    self.router.routes += router.routes

    @property
    def routes(self) -> list[BaseRoute]:
        """All routes, loaded and prepared, for the OpenAPI document."""
        self.load()
        return [route.prepared if isinstance(route, LazyRoute) else route for route in super().routes]

    def openapi(self) -> Document:
        """The document without aliases, which would triple a generated client."""
        with self._describing:  # requests ask for it in threads
            if self._document is None:
                self._document = self.described()
            return self._document

    def described(self) -> Document:
        return self.described_from_code()

    def described_from_code(self) -> Document:
        from tollgate.web.schemas import with_our_errors  # noqa: PLC0415  # its models cost a cold start too

        return with_our_errors(super().openapi())

    def with_aliases(self) -> Document:
        document = self.openapi()
        paths = document["paths"] | aliases.documented(document["paths"])
        return {**document, "paths": paths, "tags": [*document.get("tags", []), aliases.TAG]}

    async def _for_programs(self, request: Request) -> Response:
        asked = request.query_params.get("aliases", "false")
        if asked not in ("true", "false"):
            raise BadRequest("aliases: send true or false.", param="aliases")
        self.load()  # here, since two threads must not load the same routers
        document = self.with_aliases if asked == "true" else self.openapi
        return await asyncio.to_thread(lambda: JSONResponse(document()))

    async def _for_people(self, request: Request) -> Response:
        from tollgate.web import html, reference  # noqa: PLC0415  # only this page needs them

        if self._page is None:
            self.load()
            self._page = await asyncio.to_thread(lambda: html.page(self.title, reference.render(self.with_aliases())))
        return self._page
