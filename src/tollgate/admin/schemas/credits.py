"""Operations that move credits: grants, adjustments and refunds."""

import re
from decimal import Decimal, localcontext
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from tollgate.core import errors
from tollgate.core.money import EXACT, NANOS_PER_CREDIT
from tollgate.web.faults import NO_NUL
from tollgate.web.schemas import ChangeBody, Line

MOST_CREDITS = 100_000_000
MOST_NANOS = MOST_CREDITS * NANOS_PER_CREDIT
PLAIN_DECIMAL = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)


def _exact(value: object) -> Decimal:
    """A decimal as the client wrote it. A float is refused, because it may not be exact."""
    if isinstance(value, str) and PLAIN_DECIMAL.fullmatch(value):
        return Decimal(value)
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return Decimal(value)
    raise PydanticCustomError("decimal", "Send a decimal number with at most nine places, such as 12.5")


def _decimal(**bounds: Any) -> Any:
    number = {"type": "number", **bounds, "maximum": MOST_CREDITS, "multipleOf": 1 / NANOS_PER_CREDIT}
    return WithJsonSchema({"anyOf": [number, {"type": "string", "pattern": f"^{PLAIN_DECIMAL.pattern}$"}]})


NOT_ZERO: dict[str, Any] = {"not": {"const": 0}}
Reason = Annotated[str, Field(min_length=1, max_length=1000, pattern=NO_NUL)]
# The JSON schemas below leave null out: a client leaves the field out instead.
PositiveCredits = Annotated[
    Annotated[Decimal, BeforeValidator(_exact), Field(gt=0, le=MOST_CREDITS, decimal_places=9)] | None,
    _decimal(exclusiveMinimum=0),
]
PositiveNanos = Annotated[
    Annotated[int, Field(strict=True, gt=0, le=MOST_NANOS)] | None,
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MOST_NANOS}),
]
SignedCredits = Annotated[
    Annotated[Decimal, BeforeValidator(_exact), Field(ge=-MOST_CREDITS, le=MOST_CREDITS, decimal_places=9)] | None,
    _decimal(minimum=-MOST_CREDITS, **NOT_ZERO),
]
SignedNanos = Annotated[
    Annotated[int, Field(strict=True, ge=-MOST_NANOS, le=MOST_NANOS)] | None,
    WithJsonSchema({"type": "integer", "minimum": -MOST_NANOS, "maximum": MOST_NANOS, **NOT_ZERO}),
]
OptionalId = Annotated[Line | None, WithJsonSchema({"type": "string", "maxLength": 200})]


def _one_of(*names: str) -> JsonDict:
    return {"oneOf": [{"required": [name]} for name in names]}


class Operation(ChangeBody):
    """The amount, in credits or in nanos, and the reason."""

    credits: PositiveCredits = Field(None, description="The amount in credits; 1 credit is 1 US dollar.")
    credits_nanos: PositiveNanos = Field(None, description="The amount in nanos (1e-9 credit).")
    reason: Reason = Field(description="Why. The org sees it with the transfer.")

    @property
    def amount_nanos(self) -> int | None:
        if self.credits is None:
            return self.credits_nanos
        with localcontext(EXACT):
            return int(self.credits * NANOS_PER_CREDIT)

    def as_stored(self, idempotency_key: str) -> dict[str, Any]:
        """The operation for the database, with the amount in nanos."""
        fields = self.model_dump(exclude={"credits", "credits_nanos"}, exclude_none=True)
        return fields | {"amount_nanos": self.amount_nanos, "idempotency_key": idempotency_key}

    def _only_one(self, *names: str, needed: bool = True) -> None:
        given = sum(getattr(self, name) is not None for name in names)
        if given > 1 or (needed and given == 0):
            raise errors.BadRequest(
                f"Send {'one' if needed else 'at most one'} of {' and '.join(names)}.", param=names[0]
            )


class OrgOperation(Operation):
    """An operation on the balance of an org, given by its id or by one of its users."""

    org_id: OptionalId = Field(None, description="The org.")
    user_id: OptionalId = Field(None, description="Or a user of the org.")

    @model_validator(mode="after")
    def _is_clear(self) -> Self:
        self._only_one("org_id", "user_id")
        self._only_one("credits", "credits_nanos")
        return self


ONE_ORG_ONE_AMOUNT: JsonDict = {"allOf": [_one_of("org_id", "user_id"), _one_of("credits", "credits_nanos")]}


class Grant(OrgOperation):
    model_config = ConfigDict(
        json_schema_extra=ONE_ORG_ONE_AMOUNT
        | {"examples": [{"org_id": "org_01a1fe3117a8a7398cfa2afabd3d", "credits": "25.00", "reason": "Invoice 1042"}]}
    )

    source: Literal["funding", "promotion"] = Field(
        "funding", description="`funding`: the org paid for the credits. `promotion`: they are free."
    )


class Adjustment(OrgOperation):
    model_config = ConfigDict(
        json_schema_extra=ONE_ORG_ONE_AMOUNT
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

    credits: SignedCredits = Field(None, description="Credits to add; below zero, credits to take.")
    credits_nanos: SignedNanos = Field(None, description="The same in nanos (1e-9 credit).")
    source: Literal["funding", "promotion", "writeoff"] = Field(
        "funding",
        description="`funding`: corrects what the org paid. `promotion`: corrects free credits. "
        "`writeoff`: our own loss or gain.",
    )

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.amount_nanos == 0:
            raise errors.BadRequest("An adjustment must not be zero.", param="credits")
        return self


class Refund(Operation):
    """Without an amount, all that is left of the charge is refunded."""

    model_config = ConfigDict(
        json_schema_extra={
            "not": {"required": ["credits", "credits_nanos"]},
            "examples": [{"request_id": "req_01a1fe3117a8a7398cfa2afabd3d", "reason": "The answer was cut off"}],
        }
    )

    request_id: Line = Field(description="The request whose charge is refunded.")

    @model_validator(mode="after")
    def _is_clear(self) -> Self:
        self._only_one("credits", "credits_nanos", needed=False)
        return self
