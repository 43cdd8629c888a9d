"""Routes that FastAPI reads one by one, each when it is first asked for.

Reading one takes FastAPI milliseconds: it looks at every argument of the endpoint and builds a validator for each. With
a hundred routes that is most of a cold start, and `include_router` reads all of them once more for each router around.
"""

import threading
from collections.abc import Callable
from typing import Any, cast

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import compile_path


class LateRoute(APIRoute):
    _silence = threading.Lock()
    """FastAPI silences warnings while it reads, which Python lets no two threads do at once: each may serve an app."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **told: Any) -> None:
        """Keeps what it takes to match a request, and what it was told."""
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


class Routes(APIRouter):
    """FastAPI's router, for routes that are read late."""

    def __init__(self, *, route_class: type[LateRoute] = LateRoute, **given: Any) -> None:
        super().__init__(route_class=route_class, **given)

    def take(self, other: "Routes", prefix: str = "") -> None:
        """As `include_router`, but for prefix, tags and dependencies alone, and without reading a route."""
        for route in cast("list[LateRoute]", other.routes):
            told = {
                **route.told,
                "tags": [*self.tags, *route.told["tags"]],
                "dependencies": [*self.dependencies, *route.told["dependencies"]],
            }
            self.routes.append(type(route)(self.prefix + prefix + route.path, route.endpoint, **told))
