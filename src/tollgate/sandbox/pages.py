"""What can be looked up: models, generations, the key, the credits; and, for tests, the ledger."""

from decimal import Decimal
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from tollgate.sandbox import faults
from tollgate.sandbox.catalog import Model
from tollgate.sandbox.prices import dollars
from tollgate.sandbox.refusals import Refusal, json_response
from tollgate.sandbox.request_reading import authorise
from tollgate.sandbox.state import State

USUAL_LIMIT = 500
MOST = 1000
TOTAL_CREDITS = Decimal(1000)


class Pages:
    """The handlers of GET requests. Everything of OpenRouter's wants a key."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def models(self, request: Request) -> Response:
        authorise(request.headers)
        models = self._state.catalog.listed(request.query_params.get("output_modalities", "text"))
        return _page(request, models)

    async def embedding_models(self, request: Request) -> Response:
        authorise(request.headers)
        return _page(request, self._state.catalog.listed("embeddings"))

    async def endpoints(self, request: Request) -> Response:
        authorise(request.headers)
        return json_response({"data": self._model(request).with_endpoints()})

    async def model(self, request: Request) -> Response:
        """Aliases are resolved; a router is itself."""
        authorise(request.headers)
        found = self._model(request)
        shown = self._state.catalog.answering(found) if found.id.startswith("~") else found
        return json_response({"data": shown.shown()})

    async def generation(self, request: Request) -> Response:
        authorise(request.headers)
        wanted = request.query_params.get("id", "")
        found = self._state.ledger.find(wanted, self._state.habits.generation_delay_seconds)
        if found is None:
            raise Refusal(404, f"Generation {wanted} not found")
        return json_response({"data": found.record()})

    async def key(self, request: Request) -> Response:
        authorise(request.headers)
        used = dollars(self._state.ledger.cost_picos)
        shown = {
            "label": f"sk-or-v1-...{request.headers['authorization'][-3:]}",
            **dict.fromkeys(("limit", "limit_remaining", "limit_reset", "expires_at", "creator_user_id")),
            **dict.fromkeys(("usage", "usage_daily", "usage_weekly", "usage_monthly"), used),
            **dict.fromkeys(("byok_usage", "byok_usage_daily", "byok_usage_weekly", "byok_usage_monthly"), 0),
            **dict.fromkeys(("is_free_tier", "is_management_key", "is_provisioning_key"), False),
            "include_byok_in_limit": False,
            "rate_limit": {
                "requests": -1,
                "interval": "10s",
                "note": "This field is deprecated and safe to ignore.",
            },
        }
        return json_response({"data": shown})

    async def credits(self, request: Request) -> Response:
        authorise(request.headers)
        used = dollars(self._state.ledger.cost_picos)
        return json_response({"data": {"total_credits": TOTAL_CREDITS, "total_usage": used}})

    async def activity(self, request: Request) -> Response:
        authorise(request.headers)
        rows = self._state.ledger.daily.rows(self._state.clock(), request.query_params)
        return json_response({"data": rows})

    async def ledger(self, request: Request) -> Response:
        return json_response({"held": self._state.held, **self._state.ledger.shown()})

    async def reset(self, request: Request) -> Response:
        self._state.forget()
        return Response(status_code=204)

    def _model(self, request: Request) -> Model:
        name = "{author}/{slug}".format(**request.path_params)
        found = self._state.catalog.find(name) or self._state.catalog.find(faults.in_name(name)[0])
        if found is None:
            raise Refusal(404, f"Model {name} not found")
        return found


def _page(request: Request, models: list[Model]) -> Response:
    """All of them, unless the client asks for pages."""
    offset, limit = _number(request, "offset", 0, 10**6), _number(request, "limit", USUAL_LIMIT, MOST)
    after = offset + limit
    following = f"{request.url.path}?offset={after}&limit={limit}" if after < len(models) else None
    shown: list[dict[str, Any]] = [model.shown() for model in models[offset:after]]
    return json_response({"data": shown, "total_count": len(models), "links": {"next": following}})


def _number(request: Request, name: str, usual: int, most: int) -> int:
    given = request.query_params.get(name, str(usual))
    if not (given.isascii() and given.isdigit()) or int(given) > most:
        raise Refusal(400, f"Invalid value for '{name}'")
    return int(given)
