"""POST /admin/credits/grant, /adjust and /refund; GET /admin/credits/transactions and /summary."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, Response

from tollgate.admin.schemas.credits import Adjustment, Grant, Refund
from tollgate.admin.schemas.transfers import CreditSummary, PostedTransfer, Transfer, TransferFilters
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
        pattern="^[ -~]{1,180}$",
        description="A value of your choice, unique to this operation. A repeated request with it moves nothing.",
    ),
]


class _ExactRequest(Request):
    """Reads JSON numbers as decimals, because a float cannot hold 0.1 exactly."""

    async def json(self) -> Any:
        return json.loads(await self.body(), parse_float=Decimal)


class _ExactRoute(LazyRoute):
    def wrapped(self, handler: Handler) -> Handler:
        async def exactly(request: Request) -> Response:
            return await handler(_ExactRequest(request.scope, request.receive))

        return exactly


WRITES = refusals(errors.BadRequest, errors.NotFound, errors.Conflict, errors.IdempotencyKeyReused, errors.BodyTooLarge)
READS = refusals(errors.BadRequest)


def router(gate: Gate, chosen: Settings) -> Routes:
    routes = Routes(prefix="/admin/credits", route_class=_ExactRoute)
    caps = {"grant_nanos": chosen.grant_cap_nanos, "day_nanos": chosen.grant_cap_per_day_nanos}

    @routes.post("/grant", summary="Grant credits to an org", responses=WRITES)
    async def grant(
        door: Annotated[Door, Depends(gate.open)], body: Grant, idempotency_key: IdempotencyKey, response: Response
    ) -> PostedTransfer:
        """A grant is at most `GRANT_CAP`. An operator adds at most `GRANT_CAP_PER_DAY` a day (UTC), adjustments
        included."""
        return _posted(await store.grant_credits(door, body.as_stored(idempotency_key), caps), response)

    @routes.post("/adjust", summary="Correct the balance of an org", responses=WRITES)
    async def adjust(
        door: Annotated[Door, Depends(gate.open)], body: Adjustment, idempotency_key: IdempotencyKey, response: Response
    ) -> PostedTransfer:
        """Takes at most the available credits, because open requests hold the rest. Credits that it adds count towards
        the caps of grants."""
        return _posted(await store.adjust_credits(door, body.as_stored(idempotency_key), caps), response)

    @routes.post("/refund", summary="Refund a charge, in whole or in part", responses=WRITES)
    async def refund(
        door: Annotated[Door, Depends(gate.open)], body: Refund, idempotency_key: IdempotencyKey, response: Response
    ) -> PostedTransfer:
        """The refunds of a charge never exceed the charge."""
        return _posted(await store.refund_charge(door, body.as_stored(idempotency_key)), response)

    @routes.get("/transactions", summary="List the transfers of all orgs, newest first", responses=READS)
    async def transactions(
        door: Annotated[Door, Depends(gate.open)], filters: Annotated[TransferFilters, Query()]
    ) -> Page[Transfer]:
        return Page[Transfer].of(await store.transfers(door, filters.filters(), filters.limit))

    @routes.get("/summary", summary="Sum up the transfers between accounts, and all balances", responses=READS)
    async def summary(door: Annotated[Door, Depends(gate.open)]) -> CreditSummary:
        return CreditSummary.model_validate(await store.summary(door))

    return routes


def _posted(found: Mapping[str, Any], response: Response) -> PostedTransfer:
    if not found["created"]:
        response.headers["idempotency-replayed"] = "true"
    return PostedTransfer.model_validate(found)
