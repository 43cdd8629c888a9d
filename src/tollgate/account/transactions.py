"""GET /user/transactions."""

from typing import Annotated, Any, Literal

from fastapi import Depends, Query
from pydantic import BaseModel, Field

from tollgate.core import errors
from tollgate.core.money import to_credits
from tollgate.credits import store
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.web.routing import Routes
from tollgate.web.schemas import Listed, Moment, Page, computed, refusals

Kind = Literal["grant", "charge", "refund", "adjustment"]


class TransactionFilters(Listed):
    kind: Kind | None = None
    since: Moment | None = Field(None, alias="from", description="Not before this time.")
    until: Moment | None = Field(None, alias="to", description="Before this time.")
    sort: Literal["created_at:desc", "created_at:asc"] = "created_at:desc"


class Transaction(BaseModel):
    id: str
    kind: Kind
    change_nanos: int = Field(description="What it did to the balance: below zero what was paid.")
    balance_after_nanos: int
    request_id: str | None = Field(description="Of a charge or a refund: the request it is for.")
    reason: str = Field(description="Why, in the words of whoever moved it; of a charge there are none.")
    created_at: Moment

    @computed("The change in credits, for people.")
    def change_credits(self) -> float:
        return to_credits(self.change_nanos)

    @computed("The balance after it in credits, for people.")
    def balance_after_credits(self) -> float:
        return to_credits(self.balance_after_nanos)


STABLE: dict[str, Any] = {"responses": refusals(errors.BadRequest), "openapi_extra": {"x-stability": "stable"}}


def router(gate: Gate) -> Routes:
    routes = Routes(prefix="/user")

    @routes.get("/transactions", summary="What moved on the org's balance, newest first", **STABLE)
    async def transactions(
        door: Annotated[Door, Depends(gate.open)], filters: Annotated[TransactionFilters, Query()]
    ) -> Page[Transaction]:
        """Of the key's org alone. Needs the scope `usage`."""
        return Page[Transaction].of(await store.own_transfers(door, filters.filters(), filters.limit))

    return routes
