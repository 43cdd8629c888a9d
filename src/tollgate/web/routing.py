"""Routes that FastAPI reads one by one, each when it is first asked for.

Reading one takes FastAPI milliseconds: it looks at every argument of the endpoint and builds a validator for each. With
a hundred routes that is most of a cold start, and `include_router` reads all of them once more for each router around.
"""

import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, cast

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Guard = Callable[[Request, Handler, bool], Coroutine[Any, Any, Response]]
"""Runs a route's handler, or refuses the request before it. Told whether the route reads a body."""


class LateRoute(APIRoute):
    _silence = threading.Lock()
    """FastAPI silences warnings while it reads, which Python lets no two threads do at once: each may serve an app."""

    def __init__(self, path: str, endpoint: Callable[..., Any], *, guard: Guard | None = None, **told: Any) -> None:
        """Keeps what it takes to match a request, and what it was told."""
        self.guard = guard
        self.path, self.endpoint, self.methods = path, endpoint, set(told["methods"] or ["GET"])
        self.path_regex, self.path_format, self.param_convertors = compile_path(path)
        self.told = told
        self._is_read = False

    def __getattr__(self, name: str) -> Any:
        """Reads the route for whoever asks for more."""
        if self.__dict__.get("_is_read", True):
            raise AttributeError(name)
        self._is_read = True
        with self._silence:
            super().__init__(self.path, self.endpoint, **self.told)
        return getattr(self, name)

    def get_route_handler(self) -> Handler:
        if self.guard is None:
            return self.unguarded()
        return partial(_guarded, self.guard, self.unguarded(), self.body_field is not None)

    def unguarded(self) -> Handler:
        return super().get_route_handler()


class Routes(APIRouter):
    """FastAPI's router, for routes that are read late."""

    def __init__(self, *, route_class: type[LateRoute] = LateRoute, guard: Guard | None = None, **given: Any) -> None:
        super().__init__(route_class=route_class, **given)
        self._guard = guard

    def take(self, other: "Routes", prefix: str = "") -> None:
        """As `include_router`, but for prefix, tags, dependencies and guard alone, and without reading a route."""
        for route in cast("list[LateRoute]", other.routes):
            told = {
                **route.told,
                "tags": [*self.tags, *route.told["tags"]],
                "dependencies": [*self.dependencies, *route.told["dependencies"]],
            }
            guard = self._guard or route.guard
            self.routes.append(type(route)(self.prefix + prefix + route.path, route.endpoint, guard=guard, **told))


async def _guarded(guard: Guard, handler: Handler, reads_body: bool, request: Request) -> Response:
    return await guard(request, handler, reads_body)
