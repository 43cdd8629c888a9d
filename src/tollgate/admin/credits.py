"""POST /admin/credits/grant, /adjust and /refund; GET /admin/credits/transactions and /summary."""

import json
from decimal import Decimal
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, Response

from tollgate.admin.credit_forms import Adjustment, Grant, Refund
from tollgate.admin.transfers import Posted, Summary, Transfer, TransferFilters
from tollgate.core import errors
from tollgate.credits import store
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.settings import Settings
from tollgate.web.routing import Handler, LazyRoute, Routes
from tollgate.web.schemas import Page, refusals

IdempotencyKey = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=180,
        pattern="^[ -~]+$",
        description="Your own word for this operation, yours alone: sent again, it moves nothing again.",
    ),
]


class _ExactRequest(Request):
    """A JSON number such as 0.1 is a tenth. As a float it would be something beside it."""

    async def json(self) -> Any:
        return json.loads(await self.body(), parse_float=Decimal)


class _ExactRoute(LazyRoute):
    def wrapped(self, handler: Handler) -> Handler:
        async def exactly(request: Request) -> Response:
            return await handler(_ExactRequest(request.scope, request.receive))

        return exactly


WRITES: dict[str, Any] = {
    "responses": refusals(
        errors.BadRequest, errors.NotFound, errors.Conflict, errors.IdempotencyKeyReused, errors.BodyTooLarge
    ),
    "openapi_extra": {"x-stability": "stable"},
}
READS: dict[str, Any] = {"responses": refusals(errors.BadRequest), "openapi_extra": {"x-stability": "stable"}}


def router(gate: Gate, chosen: Settings) -> Routes:
    routes = Routes(prefix="/admin/credits", route_class=_ExactRoute)
    caps = {"grant_nanos": chosen.grant_cap_nanos, "day_nanos": chosen.grant_cap_per_day_nanos}

    @routes.post("/grant", summary="Give an org credits", **WRITES)
    async def grant(door: Annotated[Door, Depends(gate.open)], body: Grant, idempotency_key: IdempotencyKey) -> Posted:
        """At most `GRANT_CAP` at a time, and `GRANT_CAP_PER_DAY` a day (UTC) by one operator, adjustments included."""
        return Posted.model_validate(await store.grant_credits(door, body.asked(idempotency_key), caps))

    @routes.post("/adjust", summary="Put an org's balance right", **WRITES)
    async def adjust(
        door: Annotated[Door, Depends(gate.open)], body: Adjustment, idempotency_key: IdempotencyKey
    ) -> Posted:
        """Takes no more than is available, for what requests hold is spoken for. What it adds counts to the caps."""
        return Posted.model_validate(await store.adjust_credits(door, body.asked(idempotency_key), caps))

    @routes.post("/refund", summary="Give a charge back, whole or in part", **WRITES)
    async def refund(
        door: Annotated[Door, Depends(gate.open)], body: Refund, idempotency_key: IdempotencyKey
    ) -> Posted:
        """All refunds of a charge together never exceed it."""
        return Posted.model_validate(await store.refund_charge(door, body.asked(idempotency_key)))

    @routes.get("/transactions", summary="The ledger, newest first", **READS)
    async def transactions(
        door: Annotated[Door, Depends(gate.open)], filters: Annotated[TransferFilters, Query()]
    ) -> Page[Transfer]:
        return Page[Transfer].of(await store.transfers(door, filters.filters(), filters.limit))

    @routes.get("/summary", summary="What moved between accounts, and what is outstanding", **READS)
    async def summary(door: Annotated[Door, Depends(gate.open)]) -> Summary:
        return Summary.model_validate(await store.summary(door))

    return routes
