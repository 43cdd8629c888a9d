"""Routes that FastAPI prepares when the first request matches them.

Preparing a route takes FastAPI a millisecond: it inspects the arguments of the endpoint and builds validators. For a
hundred routes that would be most of a cold start.
"""

import threading
from collections.abc import Callable, Coroutine, Sequence
from functools import cached_property
from typing import Any, cast, get_args

from fastapi import APIRouter
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Cookie, Header, Path
from fastapi.routing import APIRoute
from pydantic.fields import FieldInfo
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from tollgate.core import strict_json
from tollgate.core.errors import BadRequest
from tollgate.core.strict_json import NotJson
from tollgate.process import threads

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Guard = Callable[[Request, Handler, bool], Coroutine[Any, Any, Response]]
"""Calls a route's handler, or refuses the request. The last argument says whether the route reads a body."""

CUT_SHORT = "The request ended before its body did."
MOST_VALUES = 5_000
"""The most values in a body of the account and admin API, because pydantic validates each."""
ELSEWHERE = (Path, Header, Cookie)

_preparing = threading.Lock()
"""FastAPI silences warnings while it prepares a route, which two threads must not do at once."""


async def refuse_ambiguous(body: bytes, most_values: int = MOST_VALUES) -> None:
    """Refuses a body with more values, or in which a name occurs twice: pydantic would read the last."""
    try:
        await threads.work(len(body), strict_json.refuse_ambiguous, body, most_values)
    except NotJson as error:
        raise strict_json.refusal(error) from None


async def guard_body(
    request: Request, handle: Handler, reads_body: bool, *, most_values: int = MOST_VALUES
) -> Response:
    """A guard of the body alone, for routes that need no key."""
    if reads_body:
        try:
            body = await request.body()
        except ClientDisconnect:
            raise BadRequest(CUT_SHORT) from None
        await refuse_ambiguous(body, most_values)
    return await handle(request)


class LazyRoute(BaseRoute):
    """Matches requests by path and method, and passes them to a route of FastAPI's. `include_router` would drop it:
    use `Routes.take`."""

    def __init__(self, path: str, endpoint: Callable[..., Any], *, guard: Guard | None = None, **options: Any) -> None:
        """The path may be empty until `take` adds a prefix."""
        self.path = path
        self.endpoint = endpoint
        self.guard = guard
        self.options = options
        self._matcher = Route(path or "/", endpoint)
        self._matcher.methods = self.methods = set(options["methods"] or ["GET"])

    @cached_property
    def prepared(self) -> APIRoute:
        with _preparing:
            return _PreparedRoute(self)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return self._matcher.matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self
        await self.prepared.handle(scope, receive, send)

    def names_in(self, place: str, within: Sequence[str | int] = ()) -> list[str]:
        """The names of the parameters in the query, or of the fields of the body, or of an object within it."""
        if place != "body":
            return _names_in_query(self.prepared)
        fields = _fields_of(self.prepared.body_field and self.prepared.body_field.field_info.annotation)
        for name in within:
            fields = _fields_of(fields[name].annotation) if isinstance(name, str) and name in fields else fields
        return list(fields)

    def wrapped(self, handler: Handler) -> Handler:
        """FastAPI's handler of this route. Subclasses may change the request before it."""
        return handler


class _PreparedRoute(APIRoute):
    def __init__(self, lazy: LazyRoute) -> None:
        self._lazy = lazy
        super().__init__(lazy.path, lazy.endpoint, **lazy.options)

    def get_route_handler(self) -> Handler:
        handler, guard = self._lazy.wrapped(super().get_route_handler()), self._lazy.guard
        if guard is None:
            return handler
        reads_body = self.body_field is not None
        has_model = any(hasattr(one.field_info.annotation, "model_fields") for one in self.dependant.query_params)
        strict = handler if has_model else self._strict(handler)

        async def guarded(request: Request) -> Response:
            return await guard(request, strict, reads_body)

        return guarded

    def _strict(self, handler: Handler) -> Handler:
        """Refuses parameters that the route does not know. A route whose parameters are a model leaves that to it."""
        known = _names_in_query(self)

        async def checked(request: Request) -> Response:
            for name in request.query_params:
                if name not in known:
                    raise BadRequest(f"{name}: is not known here. Known: {', '.join(known) or 'none'}.", param=name)
            return await handler(request)

        return checked


def _fields_of(annotation: Any) -> dict[str, FieldInfo]:
    """The fields of the models in a type, such as `Limits | None` or `list[Limits]`."""
    if hasattr(annotation, "model_fields"):
        return {field.alias or name: field for name, field in annotation.model_fields.items()}
    return {name: field for part in get_args(annotation) for name, field in _fields_of(part).items()}


def _names_in_query(route: APIRoute) -> list[str]:
    """Those of a model have no place of their own, so what has no other place is in the query."""
    return [one.alias for one in get_flat_params(route.dependant) if not isinstance(one.field_info, ELSEWHERE)]


class Routes(APIRouter):
    """FastAPI's router, with lazy routes."""

    def __init__(self, *, route_class: type[LazyRoute] = LazyRoute, guard: Guard | None = None, **options: Any) -> None:
        super().__init__(route_class=cast("type[APIRoute]", route_class), **options)
        self._guard = guard

    def add_api_route(self, *given: Any, **named: Any) -> None:
        super().add_api_route(*given, **named)
        cast("LazyRoute", self.routes[-1]).guard = self._guard

    def take(self, other: "Routes", prefix: str = "") -> None:
        """Like `include_router`, for prefix, tags, dependencies and guard; prepares no route."""
        for route in cast("list[LazyRoute]", other.routes):
            options = {
                **route.options,
                "tags": [*self.tags, *route.options["tags"]],
                "dependencies": [*self.dependencies, *route.options["dependencies"]],
            }
            guard = self._guard or route.guard
            self.routes.append(type(route)(self.prefix + prefix + route.path, route.endpoint, guard=guard, **options))
