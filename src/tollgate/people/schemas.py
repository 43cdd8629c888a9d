"""Types of the fields of orgs, users and plans."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, WithJsonSchema

Role = Literal["member", "admin"]
Email = Annotated[
    str, StringConstraints(min_length=3, max_length=320, pattern=r"^[^\s@\x00-\x1f\x7f]+@[^\s@\x00-\x1f\x7f]+$")
]
Markup = Annotated[
    Decimal,
    Field(ge=0, le=100, decimal_places=6),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 100}),
]
"""0.05 is 5 %, in steps of a millionth."""
