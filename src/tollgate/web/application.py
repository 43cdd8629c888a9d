"""FastAPI, except that paid endpoints bypass it and that most routers are loaded when one of their paths is requested.

FastAPI's part of a paid call would be a tenth of its cost. Importing the routers of a hundred routes would be most of a
cold start, so a serverless host imports those that are requested; a long-lived server loads all before it serves.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

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
        self._page: Response | None = None
        super().__init__(docs_url=None, redoc_url=None, **options)  # reads `routes`, which would load all
        self.add_route("/docs", self._reference, include_in_schema=False)
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
        from tollgate.web.schemas import with_our_errors  # noqa: PLC0415  # its models cost a cold start too

        return with_our_errors(super().openapi())

    async def _reference(self, request: Request) -> Response:
        from tollgate.web import html, reference  # noqa: PLC0415  # only this page needs them

        if self._page is None:  # making it takes a second, in which a thread lets the loop go on
            self._page = await asyncio.to_thread(lambda: html.page(self.title, reference.render(self.openapi())))
        return self._page
