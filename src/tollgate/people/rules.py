"""What may be said of people and plans, and how the database is told."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

from pydantic import Field, StringConstraints, WithJsonSchema

PPM = 1_000_000

ONE_LINE = r"^[^\x00-\x1f\x7f]*$"
Line = Annotated[str, StringConstraints(max_length=200, pattern=ONE_LINE)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=ONE_LINE)]
Words = Annotated[str, StringConstraints(max_length=2000, pattern=r"^[^\x00]*$")]
Email = Annotated[
    str, StringConstraints(min_length=3, max_length=320, pattern=r"^[^\s@\x00-\x1f\x7f]+@[^\s@\x00-\x1f\x7f]+$")
]
Markup = Annotated[
    Decimal,
    Field(ge=0, le=100, decimal_places=6),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 100}),
]
"""0.05 is 5 %, in steps of a millionth."""

MEANT_AS_NULL = ("markup", "limits", "max_concurrent_requests")
"""Where a null says something: that nothing of one's own is wanted. Elsewhere it says as much as leaving it out."""


def told(changes: Mapping[str, Any]) -> dict[str, Any]:
    """What a client said, for the database: the markup as a whole number of parts per million."""
    said = {name: value for name, value in changes.items() if value is not None or name in MEANT_AS_NULL}
    if "markup" in said:
        markup = said.pop("markup")
        said["markup_ppm"] = None if markup is None else int(Decimal(markup) * PPM)
    return said
