"""GET /user/transactions."""

from typing import Annotated

from fastapi import Depends, Query

from tollgate.account.schemas.transactions import Transaction, TransactionFilters
from tollgate.core import errors
from tollgate.credits import store
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.web.routing import Routes
from tollgate.web.schemas import Page, refusals

ERRORS = refusals(errors.BadRequest)


def router(gate: Gate) -> Routes:
    routes = Routes(prefix="/user")

    @routes.get("/transactions", summary="List the transfers of your org, newest first", responses=ERRORS)
    async def transactions(
        door: Annotated[Door, Depends(gate.open)], filters: Annotated[TransactionFilters, Query()]
    ) -> Page[Transaction]:
        """Needs the scope `usage`."""
        return Page[Transaction].of(await store.own_transfers(door, filters.filters(), filters.limit))

    return routes
