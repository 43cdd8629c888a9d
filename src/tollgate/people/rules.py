"""Changes of orgs, users and plans, as the database takes them."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

PPM = 1_000_000

NULL_CLEARS = ("markup", "byok_fee_nanos", "limits", "max_concurrent_requests", "allowed_models", "default_model")
"""Fields in which null removes the own value. In other fields null means the same as leaving the field out."""


def as_stored(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes without meaningless nulls, and with the markup in parts per million."""
    stored = {name: value for name, value in changes.items() if value is not None or name in NULL_CLEARS}
    if "markup" in stored:
        markup = stored.pop("markup")
        stored["markup_ppm"] = None if markup is None else int(Decimal(markup) * PPM)
    return stored
