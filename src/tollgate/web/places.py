"""What is at a path, for refusals of paths and methods."""

import re
from collections.abc import Iterator

from starlette.routing import Match
from starlette.types import Scope

from tollgate.core.endpoints import ENDPOINTS
from tollgate.web.aliases import asked_path, canonical

LONGEST_SHOWN = 200
LONG_SEGMENT = re.compile(r"[^/]{20,}")
"""A key that was chosen has at least 20 characters, and may be in the path by mistake. It is not repeated."""
LONGEST_COMPARED = 60
ALIKE = 0.85
BASES = re.compile(r"^(/api)?(/v1)+|^/api")

UNSUPPORTED = re.compile(
    r"/(?:api/)?v1/(images/[^/]+|audio/[^/]+|responses/[^/]+|messages/batches|files|uploads|batches|fine_tuning|assistants"
    r"|threads|vector_stores|containers|conversations|evals|realtime|videos)(?=/|$)"
)
"""What OpenAI's and Anthropic's clients ask for."""
SUPPORTED = f"Under /v1 there are {', '.join(form.path[1:] for form in ENDPOINTS.values())} and models."


def not_found(scope: Scope) -> str:
    """The sentence for a path without a resource. Names the path that was probably meant."""
    asked = asked_path(scope)
    if unsupported := UNSUPPORTED.match(asked):
        return f"{LONG_SEGMENT.sub('…', unsupported[0])} is not supported here. {SUPPORTED}"
    meant = next((path for path in _likely(asked) if _methods(scope, path)), None) or _nearest(scope, asked)
    hint = f"Did you mean {meant}?" if meant else "GET /docs lists all paths."
    return f"Nothing is at {LONG_SEGMENT.sub('…', asked[:LONGEST_SHOWN])}. {hint}"


def allowed(scope: Scope) -> list[str]:
    """The methods that a path supports."""
    known = _methods(scope, scope["path"])
    return sorted(known | {"HEAD"} if "GET" in known else known)


def _likely(path: str) -> Iterator[str]:
    """Paths that differ in slashes, in case, or in the base URL."""
    tidy = re.sub("/+", "/", path[:LONGEST_SHOWN]).rstrip("/").lower()
    bare = BASES.sub("", tidy)
    return (candidate for candidate in (tidy, f"/v1{bare}", f"/api/v1{bare}", bare) if candidate not in ("", path))


def _nearest(scope: Scope, path: str) -> str | None:
    """The path that is spelled most like this one, of those that are loaded."""
    from difflib import get_close_matches  # noqa: PLC0415  # only unknown paths need it

    known = [route.path for route in scope["app"].router.routes if getattr(route, "path", path) != path]
    return next(iter(get_close_matches(path[:LONGEST_COMPARED], known, 1, ALIKE)), None)


def _methods(scope: Scope, path: str) -> set[str]:
    there = {**scope, "path": canonical(path)}
    app = scope["app"]
    app.load(there["path"])
    return {
        method
        for route in app.router.routes
        if route.matches(there)[0] is not Match.NONE
        for method in getattr(route, "methods", ())
    }
