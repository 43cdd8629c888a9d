"""Schemas that the account and admin APIs share: pages, bodies that change something, and errors in OpenAPI."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer, computed_field
from pydantic.json_schema import models_json_schema

from tollgate.core.errors import (
    BadRequest,
    BodyTooLarge,
    DatabaseUnavailable,
    Forbidden,
    InternalError,
    TollgateError,
    Unauthenticated,
)

MOST_ON_A_PAGE = 1000
REFERENCE = "#/components/schemas/{model}"
ALWAYS_POSSIBLE: tuple[type[TollgateError], ...] = (
    *Unauthenticated.__subclasses__(),
    *Forbidden.__subclasses__(),
    DatabaseUnavailable,
)


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def in_utc(moment: datetime) -> datetime:
    """The time in UTC. Postgres does not accept all offsets that Python does."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is before year 1 or after year 9999 in UTC") from None


Moment = Annotated[AwareDatetime, AfterValidator(in_utc), PlainSerializer(rfc3339, return_type=str)]
"""RFC 3339 with any offset in requests, in UTC in responses."""
Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")]
"""Postgres cannot store NUL."""
Entry = TypeVar("Entry")


def computed(description: str) -> Callable[[Callable[[Any], Any]], property]:
    """A computed field. mypy does not allow pydantic's own decorator above @property."""
    return lambda made: computed_field(description=description)(property(made))


class Written(BaseModel):
    """A body that changes something. Unknown fields are refused, so that a misspelt one is not ignored."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    def changes(self) -> dict[str, Any]:
        """The fields that the client sent, nulls included."""
        return self.model_dump(mode="json", exclude_unset=True)


class Listed(BaseModel):
    """The query parameters of every list. Subclasses add filters."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    limit: int = Field(100, ge=1, le=MOST_ON_A_PAGE, description="Most entries on a page.")
    cursor: Text | None = Field(None, description="The next_cursor of the page before.")

    def filters(self) -> dict[str, Any]:
        """All parameters but the size of the page, for the database."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"limit"})


class Page(BaseModel, Generic[Entry]):
    data: list[Entry]
    next_cursor: str | None = Field(None, description="The `cursor` of the next page; null on the last page.")
    total: int | None = Field(
        None, description="The number of entries on all pages; null where counting them would be slow."
    )

    @classmethod
    def of(cls, found: dict[str, Any]) -> Self:
        return cls.model_validate({name: found.get(name) for name in ("data", "next_cursor", "total")})


class Problem(BaseModel):
    """An error in OpenAI's shape. `code` is stable; `message` says what to do."""

    model_config = ConfigDict(extra="allow")

    message: str
    type: str
    code: str
    param: str | None


class Refused(BaseModel):
    error: Problem


def refusals(*kinds: type[TollgateError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: errors that every call with a key can get, and those given. They refer to the schema
    by name, since FastAPI would build the model's fields again for each status of each route.
    """
    told = sorted({*ALWAYS_POSSIBLE, *kinds}, key=lambda kind: (kind.status, kind.code))
    codes: dict[int | str, list[str]] = {}
    for kind in told:
        codes.setdefault(kind.status, []).append(kind.code)
    return {status: _refused(", ".join(named)) for status, named in codes.items()}


def told_of_bad_input(document: dict[str, Any]) -> dict[str, Any]:
    """FastAPI's document, with our errors of validation instead of FastAPI's."""
    for operations in document["paths"].values():
        for operation in operations.values():
            _tell(operation)
    schemas = document["components"]["schemas"]
    for theirs in ("HTTPValidationError", "ValidationError"):
        schemas.pop(theirs, None)
    _, ours = models_json_schema([(Problem, "serialization"), (Refused, "serialization")], ref_template=REFERENCE)
    schemas |= ours["$defs"]
    return document


def _tell(operation: dict[str, Any]) -> None:
    operation.setdefault("x-stability", "stable")
    told = operation["responses"]
    kinds: list[type[TollgateError]] = [InternalError]
    if told.get("422", {}).get("description") == "Validation Error":
        del told["422"]
        kinds.append(BadRequest)
    if "requestBody" in operation:
        kinds.append(BodyTooLarge)
    for kind in kinds:
        told.setdefault(str(kind.status), _refused(kind.code))


def _refused(codes: str) -> dict[str, Any]:
    schema = {"$ref": REFERENCE.format(model=Refused.__name__)}
    return {"description": codes, "content": {"application/json": {"schema": schema}}}
