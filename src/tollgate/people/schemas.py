"""Types of the fields of orgs, users and plans."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from tollgate.core.money import NANOS_PER_CREDIT

MOST_MARKUP = 10
Role = Literal["member", "admin"]
Email = Annotated[
    str, StringConstraints(min_length=3, max_length=320, pattern=r"^[^\s@\x00-\x1f\x7f]+@[^\s@\x00-\x1f\x7f]+$")
]


def _no_percentage(markup: Decimal) -> Decimal:
    if markup > MOST_MARKUP:
        raise PydanticCustomError("markup", "A markup is a fraction, at most 10: 0.25 is 25 %")
    return markup


Markup = Annotated[
    Decimal,
    AfterValidator(_no_percentage),
    Field(ge=0, decimal_places=6),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": MOST_MARKUP}),
]
"""0.05 is 5 %, in steps of a millionth."""
ByokFee = Annotated[int, Field(ge=0, le=1000 * NANOS_PER_CREDIT)]
BYOK_FEE = "What a request with the org's own upstream key costs, in nanos. "
