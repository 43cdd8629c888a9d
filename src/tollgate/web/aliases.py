"""Other paths of the same resources, under which the clients of other gateways know them.

An alias is rewritten before routing, so that a resource has one route. Errors keep the shape of the path that the
client used.
"""

from typing import Any

from starlette.types import Scope

ASKED_PATH = "tollgate.asked_path"

ALIASES = {
    "/models": "/v1/models",
    "/api/v1/models": "/v1/models",
    "/api/v1/auth/key": "/api/v1/key",
    "/v1/me/usage": "/user/key/usage",
    "/api/v1/me/usage": "/user/key/usage",
    "/user/rate-limits": "/user/limit",
    "/user/credit-transactions": "/user/transactions",
    "/admin/me/keys": "/user/api-keys",
    "/v1/admin": "/admin",
    "/v1/admin/stats": "/admin/usage/aggregate",
    "/api/v1/admin": "/admin",
    "/api/v1/admin/stats": "/admin/usage/aggregate",
    "/admin/api/api-keys": "/admin/keys",
    "/admin/api/hf-tokens": "/admin/hf-tokens",
    "/admin/add_credits": "/admin/credits/grant",
    "/admin/credit-transactions": "/admin/credits/transactions",
    "/credits": "/admin/credits",
    "/credits/add": "/admin/credits/grant",
    "/api/health": "/health",
    "/api/healthz": "/healthz",
    "/api/readyz": "/readyz",
    "/api/metrics": "/metrics",
}
"""Each covers the paths below it. Where two fit, the longer one counts."""

TAG = {"name": "aliases", "description": "Other paths of the same resources, for clients of other gateways."}
LONGEST_FIRST = sorted(ALIASES, key=len, reverse=True)


def canonical(path: str) -> str:
    for alias in LONGEST_FIRST:
        if path == alias or path.startswith(f"{alias}/"):
            return ALIASES[alias] + path[len(alias) :]
    return path


def resolved(scope: Scope) -> Scope:
    """The request with its canonical path. Remembers the path that the client used."""
    path = canonical(scope["path"])
    return scope if path == scope["path"] else {**scope, "path": path, ASKED_PATH: scope["path"]}


def asked_path(scope: Scope) -> str:
    """The path that the client used."""
    return str(scope.get(ASKED_PATH, scope["path"]))


def documented(paths: dict[str, Any]) -> dict[str, Any]:
    """The aliases of these paths, for OpenAPI: what they stand for, and no more."""
    return {
        other: {method: _reference(method, other, path, told) for method, told in operations.items()}
        for path, operations in paths.items()
        for other in _aliases_of(path)
        if other not in paths
    }


def _aliases_of(path: str) -> list[str]:
    others = [alias + path[len(target) :] for alias, target in ALIASES.items() if f"{path}/".startswith(f"{target}/")]
    return [other for other in others if canonical(other) == path]


def _reference(method: str, path: str, of: str, told: dict[str, Any]) -> dict[str, Any]:
    return {
        "tags": [TAG["name"]],
        "summary": f"Alias of {method.upper()} {of}",
        "x-alias-of": of,
        "x-stability": told["x-stability"],
        "operationId": f"alias_{method}_{path}".replace("/", "_").replace("{", "").replace("}", ""),
        "security": told.get("security", []),
        "parameters": [one for one in told.get("parameters", ()) if one["in"] == "path"],
        "responses": {"default": {"description": f"As {method.upper()} {of} answers."}},
    }
