"""Reads members of parsed JSON objects.

Of a client's object, null counts as absent, and a wrong type raises BadRequest. `param` is the name that the error
reports, where it is not the member's own. In an upstream's object, a wrong type counts as absent: see `as_mapping`.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NoReturn

from tollgate.core.errors import BadRequest

_WHOLE_IN_A_TEXT = re.compile(r"[0-9]{1,12}(?:\.0{1,12})?")


def whole(given: Mapping[str, Any], name: str, most: int, param: str | None = None) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        _refuse(name, param, f"a whole number from 1 to {most}")
    return value


def as_whole(value: object) -> object:
    """The whole number that some servers read in `"5"`, `"5.0"` and `5.0`. Any other value stays as it is."""
    if isinstance(value, str) and _WHOLE_IN_A_TEXT.fullmatch(value):
        return int(value.partition(".")[0])
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return int(value)
    return value


def respelled(given: Mapping[str, Any], name: str, most: int) -> int | None:
    """As `whole`, for a number that may be written in one of these ways."""
    value = given.get(name)
    return whole(given if type(value) is int else {name: as_whole(value)}, name, most)


def flag(given: Mapping[str, Any], name: str, param: str | None = None) -> bool:
    value = given.get(name)
    if value is not None and not isinstance(value, bool):
        _refuse(name, param, "true or false")
    return bool(value)


def mapping(given: Mapping[str, Any], name: str, param: str | None = None) -> Mapping[str, Any]:
    value = given.get(name)
    if value is not None and not isinstance(value, dict):
        _refuse(name, param, "an object")
    return value or {}


def listed(given: Mapping[str, Any], name: str) -> list[Any]:
    value = given.get(name)
    if value is not None and not isinstance(value, list):
        _refuse(name, None, "a list")
    return value or []


def mappings(given: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = listed(given, name)
    if not all(isinstance(one, dict) for one in value):
        _refuse(name, None, "a list of objects")
    return value


def as_mapping(given: object) -> Mapping[str, Any]:
    return given if isinstance(given, dict) else {}


def as_mappings(given: object) -> list[Mapping[str, Any]]:
    return [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []


def _refuse(name: str, param: str | None, expected: str) -> NoReturn:
    shown = param or name
    suffix = "" if shown.endswith(name) else f" for {name}"
    raise BadRequest(f"{shown}: send {expected}{suffix}.", param=shown)
