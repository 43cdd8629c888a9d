"""FastAPI, but for two kinds of paths: those that go past it, and those whose rooms are opened later.

What FastAPI does around a paid call costs a tenth of the call, so those go straight to their endpoints. And to import
the rooms of a hundred routes costs more than all the rest of a cold start, so those that a first paid call does not
need are opened when one of them is asked for. A long-lived server opens them before it serves. Their routes are read
one by one even then: see routing.py.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

Document = dict[str, Any]


class Application(FastAPI):
    def __init__(
        self,
        *,
        straight: Mapping[str, ASGIApp],
        later: Mapping[tuple[str, ...], Callable[[], Iterable[APIRouter]]],
        **given: Any,
    ) -> None:
        """`straight` are endpoints for POST by path; `later` makes the routers of the paths that begin so."""
        self._straight = straight
        self._later: dict[tuple[str, ...], Callable[[], Iterable[APIRouter]]] = {}
        super().__init__(**given)  # which looks at the routes
        self._later.update(later)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        straight = self._straight.get(path) if scope.get("method") == "POST" else None
        self.furnish(path)
        await (straight or super().__call__)(scope, receive, send)

    def furnish(self, path: str | None = None) -> None:
        """Opens the rooms that the path leads to; without one, all."""
        for prefixes in tuple(self._later):
            if path is None or path.startswith(prefixes):
                for made in self._later.pop(prefixes)():
                    self.router.routes += made.routes

    @property
    def routes(self) -> list[BaseRoute]:
        self.furnish()
        return super().routes

    def openapi(self) -> Document:
        from tollgate.web.schemas import told_of_bad_input  # noqa: PLC0415  # its models cost a cold start too

        self.furnish()
        return told_of_bad_input(super().openapi())
