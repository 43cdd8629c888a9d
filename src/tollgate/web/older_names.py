"""Names and forms in which clients of older gateways send fields, accepted beside ours."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, BeforeValidator, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError


class OlderNames(BaseModel):
    """A body or query that takes some fields by an older name too."""

    older_names: ClassVar[Mapping[str, str]] = {}
    """Our names by the older ones."""

    @model_validator(mode="before")
    @classmethod
    def _by_our_names(cls, given: Any) -> Any:
        return by_our_names(given, cls.older_names) if isinstance(given, dict) else given

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        told = handler.resolve_ref_schema(handler(schema))
        for older, name in cls.older_names.items():
            told["properties"][older] = told["properties"][name] | {
                "description": f"As `{name}`. Send one of them.",
                "deprecated": True,
            }
        return told


def by_our_names(given: Mapping[str, Any], older_names: Mapping[str, str]) -> dict[str, Any]:
    renamed = {older_names.get(name, name): value for name, value in given.items()}
    if len(renamed) < len(given):
        older, name = next((older, name) for older, name in older_names.items() if older in given and name in given)
        raise PydanticCustomError("older_name", f"Send {name} or {older}, not both")
    return renamed


def _entries(given: Any) -> Any:
    return [entry.strip() for entry in given.split(",")] if isinstance(given, str) else given


CommaList = BeforeValidator(_entries, json_schema_input_type=list[str] | str)
"""A list that may also be sent as one text with commas."""
