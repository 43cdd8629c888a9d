"""FastAPI, but for two kinds of paths: those that go past it, and those whose rooms are opened later.

What FastAPI does around a paid call costs a tenth of the call, so those go straight to their endpoints. And what it
does once for each route costs more than all the rest of a cold start, so the many routes that a first paid call does
not need are made when one of them is asked for. A long-lived server makes them before it serves.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from tollgate.runtime.forms import told_of_bad_input

Document = dict[str, Any]


class Application(FastAPI):
    def __init__(
        self,
        *,
        straight: Mapping[str, ASGIApp],
        later: Callable[[], Iterable[APIRouter]],
        prefixes: tuple[str, ...],
        **given: Any,
    ) -> None:
        """`straight` are endpoints for POST by path; `later` makes the routers of all paths with these prefixes."""
        self._straight = straight
        self._later = later
        self._prefixes = prefixes
        self._is_furnished = True  # FastAPI looks at its routes while it is made
        super().__init__(**given)
        self._is_furnished = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        straight = self._straight.get(path) if scope.get("method") == "POST" else None
        if path.startswith(self._prefixes):
            self.furnish()
        await (straight or super().__call__)(scope, receive, send)

    def furnish(self) -> None:
        """Not in a thread: FastAPI silences warnings while it makes a route, which two threads cannot do at once."""
        if not self._is_furnished:
            self._is_furnished = True
            for router in self._later():
                self.include_router(router)

    @property
    def routes(self) -> list[BaseRoute]:
        self.furnish()
        return super().routes

    def openapi(self) -> Document:
        self.furnish()
        return told_of_bad_input(super().openapi())
