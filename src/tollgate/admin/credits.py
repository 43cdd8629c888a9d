"""POST /admin/credits/grant, /adjust and /refund; GET /admin/credits/transactions and /summary."""

import json
import re
from collections.abc import Callable, Coroutine
from decimal import Decimal, localcontext
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    computed_field,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from tollgate.core import errors
from tollgate.core.money import EXACT, NANOS_PER_CREDIT, to_credits
from tollgate.credits import store
from tollgate.keys.gate import Gate
from tollgate.people.rules import Line
from tollgate.runtime.database import Door
from tollgate.runtime.forms import Listed, Moment, Page, Written, refusals
from tollgate.runtime.settings import Settings

MOST_CREDITS = 100_000_000
MOST_NANOS = MOST_CREDITS * NANOS_PER_CREDIT
PLAIN_DECIMAL = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)

Kind = Literal["grant", "charge", "refund", "adjustment"]
Account = Literal["wallet", "funding", "promotion", "revenue", "writeoff"]
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


def _exact(value: object) -> Decimal:
    """Numbers come as they were written, never by way of a float."""
    if isinstance(value, str) and PLAIN_DECIMAL.fullmatch(value):
        return Decimal(value)
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return Decimal(value)
    raise PydanticCustomError("decimal", "Write a decimal number of at most nine places, such as 12.5")


def _decimal(**bounds: Any) -> Any:
    number = {"type": "number", **bounds, "maximum": MOST_CREDITS, "multipleOf": 1 / NANOS_PER_CREDIT}
    return WithJsonSchema({"anyOf": [number, {"type": "string", "pattern": f"^{PLAIN_DECIMAL.pattern}$"}]})


Reason = Annotated[str, Field(min_length=1, max_length=1000, pattern="^[^\\x00]+$")]
# What may be left out is in the document without null, so that there is one way to leave it out.
Credits = Annotated[
    Annotated[Decimal, BeforeValidator(_exact), Field(gt=0, le=MOST_CREDITS, decimal_places=9)] | None,
    _decimal(exclusiveMinimum=0),
]
Nanos = Annotated[
    Annotated[int, Field(strict=True, gt=0, le=MOST_NANOS)] | None,
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MOST_NANOS}),
]
Change = Annotated[
    Annotated[Decimal, BeforeValidator(_exact), Field(ge=-MOST_CREDITS, le=MOST_CREDITS, decimal_places=9)] | None,
    _decimal(minimum=-MOST_CREDITS),
]
ChangeNanos = Annotated[
    Annotated[int, Field(strict=True, ge=-MOST_NANOS, le=MOST_NANOS)] | None,
    WithJsonSchema({"type": "integer", "minimum": -MOST_NANOS, "maximum": MOST_NANOS}),
]
Named = Annotated[Line | None, WithJsonSchema({"type": "string", "maxLength": 200})]


def _one_of(*names: str) -> JsonDict:
    return {"oneOf": [{"required": [name]} for name in names]}


class Operation(Written):
    """What every operation says: how much, and why."""

    credits: Credits = Field(None, description="Credits; 1 is 1 US dollar.")
    credits_nanos: Nanos = Field(None, description="The same in nanos (1e-9 credit).")
    reason: Reason = Field(description="Why. The org reads it beside the transfer.")

    @property
    def amount_nanos(self) -> int | None:
        if self.credits is None:
            return self.credits_nanos
        with localcontext(EXACT):
            return int(self.credits * NANOS_PER_CREDIT)

    def asked(self, idempotency_key: str) -> dict[str, Any]:
        """For the database: the amount in nanos, however it was written."""
        said = self.model_dump(exclude={"credits", "credits_nanos"}, exclude_none=True)
        return said | {"amount_nanos": self.amount_nanos, "idempotency_key": idempotency_key}

    def _only_one(self, *names: str, needed: bool = True) -> None:
        given = sum(getattr(self, name) is not None for name in names)
        if given > 1 or (needed and given == 0):
            raise errors.BadRequest(
                f"Send {'one' if needed else 'at most one'} of {' and '.join(names)}.", param=names[0]
            )


class ToAnOrg(Operation):
    """Whose balance changes: an org's, named by itself or by one of its users."""

    org_id: Named = Field(None, description="The org whose balance changes.")
    user_id: Named = Field(None, description="Or a user: then the org of that user.")

    @model_validator(mode="after")
    def _is_clear(self) -> Self:
        self._only_one("org_id", "user_id")
        self._only_one("credits", "credits_nanos")
        return self


ONE_PAYER_ONE_AMOUNT: JsonDict = {"allOf": [_one_of("org_id", "user_id"), _one_of("credits", "credits_nanos")]}


class Grant(ToAnOrg):
    model_config = ConfigDict(
        json_schema_extra=ONE_PAYER_ONE_AMOUNT
        | {"examples": [{"org_id": "org_01a1fe3117a8a7398cfa2afabd3d", "credits": "25.00", "reason": "Invoice 1042"}]}
    )

    source: Literal["funding", "promotion"] = Field("funding", description="Paid for, or given away.")


class Adjustment(ToAnOrg):
    model_config = ConfigDict(
        json_schema_extra=ONE_PAYER_ONE_AMOUNT
        | {
            "examples": [
                {
                    "user_id": "usr_01a1fe3117a8a7398cfa2afabd3d",
                    "credits": -2.5,
                    "reason": "Paid twice for invoice 1042",
                }
            ]
        }
    )

    credits: Change = Field(None, description="Credits to add, or below zero to take.")
    credits_nanos: ChangeNanos = Field(None, description="The same in nanos (1e-9 credit).")
    source: Literal["funding", "writeoff"] = Field(
        "funding", description="Against what was paid in, or as a loss or gain of ours."
    )

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.amount_nanos == 0:
            raise errors.BadRequest("An adjustment of zero changes nothing.", param="credits")
        return self


class Refund(Operation):
    """Without an amount, what is left of the charge."""

    model_config = ConfigDict(
        json_schema_extra={
            "not": {"required": ["credits", "credits_nanos"]},
            "examples": [{"request_id": "req_01a1fe3117a8a7398cfa2afabd3d", "reason": "The answer was cut off"}],
        }
    )

    request_id: Line = Field(description="The request whose charge is given back.")

    @model_validator(mode="after")
    def _is_clear(self) -> Self:
        self._only_one("credits", "credits_nanos", needed=False)
        return self


class Transfer(BaseModel):
    id: str
    org_id: str
    kind: Kind
    debit: Account = Field(description="The account that the amount left.")
    credit: Account = Field(description="The account that it came to.")
    amount_nanos: int
    change_nanos: int = Field(description="What it did to the org's balance.")
    balance_after_nanos: int = Field(description="The org's balance after it.")
    request_id: str | None = Field(description="Of a charge or a refund: the request it is for.")
    reference: str = Field(description="What caused it; with the kind, unique in the ledger.")
    reason: str
    created_at: Moment

    @computed_field(description="The amount in credits, for people.")  # type: ignore[prop-decorator]
    @property
    def amount_credits(self) -> float:
        return to_credits(self.amount_nanos)

    @computed_field(description="The balance after it in credits, for people.")  # type: ignore[prop-decorator]
    @property
    def balance_after_credits(self) -> float:
        return to_credits(self.balance_after_nanos)


class Posted(Transfer):
    created: bool = Field(description="false when this repeats an operation: the first transfer's answer.")


class TransferFilters(Listed):
    org_id: Line | None = Field(None, description="Only this org's.")
    kind: Kind | None = None
    debit: Account | None = Field(None, description="Only what left this account.")
    credit: Account | None = Field(None, description="Only what came to this account.")
    since: Moment | None = Field(None, alias="from", description="Not before this time.")
    until: Moment | None = Field(None, alias="to", description="Before this time.")
    min_nanos: int | None = Field(None, ge=1, le=MOST_NANOS, description="Not less than this.")
    max_nanos: int | None = Field(None, ge=1, le=MOST_NANOS, description="Not more than this.")
    sort: Literal["created_at:desc", "created_at:asc"] = "created_at:desc"


class Sums(BaseModel):
    today_nanos: int = Field(description="Since midnight UTC.")
    last_7_days_nanos: int
    last_30_days_nanos: int
    all_nanos: int

    @computed_field(description="All of it in credits, for people.")  # type: ignore[prop-decorator]
    @property
    def all_credits(self) -> float:
        return to_credits(self.all_nanos)


class Flow(Sums):
    kind: Kind
    debit: Account
    credit: Account


class AccountSums(Sums):
    account: Account = Field(description="What came to it less what left it. Over all accounts that is zero.")


class Outstanding(BaseModel):
    orgs: int
    balance_nanos: int = Field(description="All balances together: what orgs may still spend.")
    held_nanos: int = Field(description="What of it running requests have set aside.")
    overdrawn_orgs: int
    overdrawn_nanos: int

    @computed_field(description="All balances in credits, for people.")  # type: ignore[prop-decorator]
    @property
    def balance_credits(self) -> float:
        return to_credits(self.balance_nanos)


class Summary(BaseModel):
    at: Moment
    flows: list[Flow] = Field(description="What moved, by kind and by the accounts it moved between.")
    accounts: list[AccountSums]
    outstanding: Outstanding


class _ExactRequest(Request):
    """A JSON number such as 0.1 is a tenth. As a float it would be something beside it."""

    async def json(self) -> Any:
        return json.loads(await self.body(), parse_float=Decimal)


class _ExactRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def exactly(request: Request) -> Response:
            return await handle(_ExactRequest(request.scope, request.receive))

        return exactly


WRITES: dict[str, Any] = {
    "responses": refusals(
        errors.BadRequest, errors.NotFound, errors.Conflict, errors.IdempotencyKeyReused, errors.BodyTooLarge
    ),
    "openapi_extra": {"x-stability": "stable"},
}
READS: dict[str, Any] = {"responses": refusals(errors.BadRequest), "openapi_extra": {"x-stability": "stable"}}


def router(gate: Gate, chosen: Settings) -> APIRouter:
    routes = APIRouter(prefix="/admin/credits", route_class=_ExactRoute)
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
